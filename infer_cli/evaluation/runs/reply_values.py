"""What graders read of a line of replies or likelihoods. The file may be anyone's: no value is trusted."""

from __future__ import annotations

from collections.abc import Mapping

from infer_cli.errors import ExitStatus
from infer_cli.evaluation.strict_numbers import count_of, number_of

Line = Mapping[str, object]
NOT_ANSWERED: Line = {"code": int(ExitStatus.UNEXPECTED), "message": "it is not answered"}


def likelihood_error(line: Line | None) -> Line | None:
    """Why a row has no likelihood; None: it has one."""
    if line is None:
        return NOT_ANSWERED
    error = line.get("error")
    if isinstance(error, dict):
        return error
    logprob = line.get("logprob")
    if logprob is None or logprob_of(line) is not None:
        return None
    message = f"its logprob {logprob!r:.40} is no logarithm of a probability"
    return {"code": int(ExitStatus.UNEXPECTED), "message": message}


def logprob_of(line: Line) -> float | None:
    """None: there is none, as of what can't come."""
    value = number_of(line.get("logprob"))
    return None if value is None or value > 0 else value


def count_in(line: Line, name: str) -> int:
    """0 where there is none."""
    return count_of(line.get(name)) or 0


def usage_of(line: Line, name: str) -> int:
    usage = line.get("usage")
    return count_in(usage, name) if isinstance(usage, dict) else 0
