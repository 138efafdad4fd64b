"""What a run was made with, beside the model and the engine: libraries, machine, date."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from infer_cli.system.processors import default_threads

# That prompts, answers or scores go through.
_LIBRARIES = (
    "llama-cpp-python", "numpy", "jinja2", "tiktoken", "google-re2", "jsonschema-rs", "jsonpath-rfc9535",
)  # fmt: skip


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def libraries() -> Mapping[str, str]:
    """Versions by name, Python's own among them. What is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> Mapping[str, object]:
    """`cpu` and `system` in words, `cores` that may be used, `memory` in bytes; None for what is not told."""
    return {
        "cpu": _cpu(),
        "cores": default_threads(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _cpu() -> str | None:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return None
