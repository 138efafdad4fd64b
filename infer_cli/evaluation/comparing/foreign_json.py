"""JSON of files that may be anyone's: bounded in size and depth, with numbers that can be computed with."""

from __future__ import annotations

import json
from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.evaluation.strict_numbers import number_of

MOST_BYTES = 64 * 10**6  # of one value
MOST_ITEMS = 2 * 10**6  # of one run
_MOST_DEPTH = 64
_MOST_DIGITS = 4000  # of a whole number: Python refuses a few more, from some version on
_HINT = "make the file again with the program that wrote it"


def refused(path: Path, why: str, hint: str = _HINT) -> UsageError:
    return UsageError(f"{path}: {why}", hint)


def object_of(data: bytes, path: Path, where: str) -> dict[str, object]:
    """`where` in the file `data` are. Raises UsageError for what is no JSON object within bounds."""
    if len(data) > MOST_BYTES:
        raise refused(path, f"{where} has more than {MOST_BYTES // 10**6} MB")
    try:
        value = json.loads(data, parse_int=_whole)
    except (ValueError, RecursionError):
        raise refused(path, f"{where} is not JSON") from None
    if not isinstance(value, dict):
        raise refused(path, f"{where} is no JSON object")
    if _is_deep(value):
        raise refused(path, f"{where} is nested too deeply: more than {_MOST_DEPTH} levels")
    return value


def score_of(value: object) -> float | None:
    """A number, or true and false as 1 and 0; None for all else."""
    return float(value) if isinstance(value, bool) else number_of(value)


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


def _is_deep(value: object) -> bool:
    pending = [(value, 1)]
    while pending:
        each, depth = pending.pop()
        if isinstance(each, (dict, list)):
            if depth > _MOST_DEPTH:
                return True
            inner = each.values() if isinstance(each, dict) else each
            pending += [(one, depth + 1) for one in inner if isinstance(one, (dict, list))]
    return False
