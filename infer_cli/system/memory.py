"""Memory that is free on this machine, container limits included."""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath
from typing import NamedTuple


def available_memory() -> int | None:
    """Memory that can be taken without swapping: the least that the system and our cgroups allow.

    None where the platform does not say (Windows, or a system that hides it).
    """
    if sys.platform == "linux":
        return _linux_available(Path("/"))
    if sys.platform == "darwin":
        return _macos_available()
    return None


class _CgroupFiles(NamedTuple):
    limit: str
    usage: str
    stat: str  # prefix of the counters that include child groups, in memory.stat


_CGROUP_V1 = _CgroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")

_CGROUP_V2 = _CgroupFiles("memory.max", "memory.current", "")


def _linux_available(root: Path) -> int | None:
    """MemAvailable, lowered to what is left in each cgroup (v1 or v2) that holds this process."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    amounts = [int(found[1]) * 1024] if found else []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts, files = ["", "unified"], _CGROUP_V2
        elif "memory" in controllers.split(","):
            mounts, files = ["memory"], _CGROUP_V1
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        # In a container our path may name nothing below the mount; the mount itself is our group then.
        for folder in (root / "sys/fs/cgroup" / m / g for m in mounts for g in (group, *group.parents)):
            left = _left_in_cgroup(folder, files)
            if left is not None:
                amounts.append(left)
    return min(amounts, default=None)


def _left_in_cgroup(folder: Path, files: _CgroupFiles) -> int | None:
    """Limit minus use, file pages (which can be dropped) not counted as used. None without a limit."""
    most, used = _read(folder / files.limit).strip(), _read(folder / files.usage).strip()
    if not most.isdigit() or not used.isdigit():  # no such group, or "max"
        return None
    counters = _read(folder / "memory.stat")
    pages = re.findall(rf"^{files.stat}(?:in)?active_file (\d+)$", counters, re.MULTILINE)
    return max(int(most) - int(used) + sum(map(int, pages)), 0)


def _read(path: Path) -> str:
    """A file of the kernel's, empty where this system does not have it."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _macos_available() -> int | None:
    import subprocess

    try:
        done = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return _vm_stat_available(done.stdout)


def _vm_stat_available(text: str) -> int | None:
    """Free, inactive, speculative and purgeable pages of macOS's `vm_stat`, in bytes."""
    page = re.search(r"page size of (\d+) bytes", text)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)\.", text, re.MULTILINE)
    return int(page[1]) * sum(map(int, pages)) if page and pages else None
