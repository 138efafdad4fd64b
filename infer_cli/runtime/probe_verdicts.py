"""What probes have found, by model hash and engine: one small file each, so that no process needs a lock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from infer_cli.runtime.engine_facts import EngineFacts
from infer_cli.system.files import read_regular, write_atomic
from infer_cli.system.paths import data_dir


def keep_verdict(model_sha256: str, facts: EngineFacts, verdict: Mapping[str, object]) -> Path:
    """Write what a probe of a mode found; returns where. Raises OSError."""
    path = _path(model_sha256, facts)
    write_atomic(path, [json.dumps(verdict, indent=1).encode()])
    return path


def was_probed(model_sha256: str | None, facts: EngineFacts) -> bool:
    """Whether a probe has found that the mode keeps its promise with this model and engine."""
    if model_sha256 is None:
        return False
    try:
        verdict = json.loads(read_regular(_path(model_sha256, facts)))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(verdict, dict) and verdict.get("holds") is True


def _path(model_sha256: str, facts: EngineFacts) -> Path:
    # A probe runs at several widths and thread counts, and finds for all of them.
    engine = facts._replace(width=None, chunk=None, threads=None)
    return data_dir() / "probes" / f"{model_sha256[:16]}-{engine.fingerprint}.json"
