"""Probes a mode in a process of its own: llama.cpp reads its kernel settings once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus, InferError, NativeCrash, UnexpectedFailure
from infer_cli.process.child_process import environment, python_module
from infer_cli.types import Mode

if TYPE_CHECKING:
    from infer_cli.checking.probe import Answer


MODES: tuple[Mode, ...] = ("fast", "canonical", "invariant")


def probe_one(mode: Mode, order: dict[str, Any], notices: Notices) -> dict[str, Any]:
    """One mode, in a process of its own; in another, its replies as a job that goes on would give them.

    Raises InferError.
    """
    from infer_cli.checking.probe import RESUMED, compare

    result = _in_process({**order, "mode": mode, "resumes": False}, notices)
    reference = _answers(result.pop("reference"))
    if mode != "fast":
        again = _in_process({**order, "mode": mode, "resumes": True}, notices)["replies"]
        tally = compare(RESUMED.name, reference, _answers(again))
        result["ways"].append(tally._asdict())
        result["holds"] = result["holds"] and tally.holds
    return result


def _answers(replies: Mapping[str, list[Any]]) -> dict[int, Answer]:
    from infer_cli.checking.probe import Answer

    return {int(i): Answer(tuple(tokens), logits) for i, (tokens, logits) in replies.items()}


def _in_process(order: dict[str, Any], notices: Notices) -> dict[str, Any]:
    """What `probe_mode` says to an order. Raises InferError."""
    command = python_module("infer_cli.checking.probe_mode")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        try:
            # Left open: at its end the other process leaves, so it does not outlive this one.
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            for line in _lines(process.stdout):
                if "result" in line:
                    result: dict[str, Any] = line["result"]
                    return result
                if "error" in line:
                    raise _failure(line["error"])
                notices.status(f"{order['mode']}: {line['way']}")
            code = process.wait()
        finally:
            process.kill()
    if code < 0:
        raise NativeCrash(f"llama.cpp crashed while {order['mode']} was probed (signal {-code})")
    raise UnexpectedFailure(f"the process that probed {order['mode']} ended with exit code {code}")


def _failure(error: dict[str, Any]) -> InferError:
    failure = InferError(error["message"], error["hint"])
    failure.exit_status = ExitStatus(error["code"])
    return failure


def _lines(stream: IO[bytes] | None) -> Iterator[dict[str, Any]]:
    assert stream is not None
    for line in stream:
        yield json.loads(line)
