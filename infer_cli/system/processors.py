"""How many threads this process may use well: physical cores, within affinity and container limits."""

from __future__ import annotations

import os
from pathlib import Path

MAX_THREADS = 512  # GGML_MAX_N_THREADS


def default_threads() -> int:
    """Physical cores that this process may run on, at most its CPU quota, at least 1.

    Hyper-threads of one core share the vector units that a matrix product keeps busy.
    """
    allowed = _allowed_cpus()
    cores = _physical_cores(allowed) or len(allowed)
    quota = _cpu_quota()
    if quota is not None:
        cores = min(cores, max(1, round(quota)))
    return max(1, cores)


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(cpus: set[int]) -> int | None:
    """Distinct sets of sibling threads among `cpus`; None where the system does not tell (not Linux)."""
    siblings = set()
    for cpu in cpus:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(path.read_text().strip())
        except OSError:
            return None
    return len(siblings)


def _cpu_quota() -> float | None:
    """CPUs that the control group allows (v2 `cpu.max`, v1 `cpu.cfs_quota_us`), None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        base = Path("/sys/fs/cgroup/cpu")
        quota_us = int((base / "cpu.cfs_quota_us").read_text())
        return quota_us / int((base / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
