"""Seeds of replies: drawn once, recorded, derived for every further sample."""

from __future__ import annotations

import os

from infer_cli.errors import UsageError
from infer_cli.system.hashing import sha256
from infer_cli.types import MAX_SEED


def check_seed(seed: int, origin: str) -> int:
    """Raises UsageError for a seed that llama.cpp would not take as it is."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"{origin} {seed} is outside 0..{MAX_SEED}")
    return seed


def draw_seed() -> int:
    """A seed from the operating system."""
    return int.from_bytes(os.urandom(16), "little") % (MAX_SEED + 1)


def sample_seed(run_seed: int, sample: int) -> int:
    """The reply seed of a run's n-th sample: the run's own for the first, a hash of both for the others."""
    if sample == 0:
        return run_seed
    return _hashed(f"infer sample {run_seed} {sample}")


def row_seed(run_seed: int, key: str, sample: int) -> int:
    """The reply seed of a job's row: a hash of the run seed, of what names the row, and of the sample."""
    return _hashed(f"infer row {run_seed} {sample} {key}")


def _hashed(text: str) -> int:
    digest = sha256(text.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest[:8], "big") % (MAX_SEED + 1)
