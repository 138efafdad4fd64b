"""Probes a mode in a process of its own: llama.cpp reads its kernel settings once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING, Any

from infer_cli.errors import ExitStatus, InferError, NativeCrash, UnexpectedFailure
from infer_cli.process.child_process import environment, python_module
from infer_cli.types import Mode

if TYPE_CHECKING:
    from infer_cli.checking.probe import Answer


MODES: tuple[Mode, ...] = ("fast", "canonical", "invariant")


@dataclass(frozen=True)
class ProbeOrder:
    """What one process is to probe. `resumes`: only the replies of a job that goes on are wanted."""

    path: str
    mode: Mode
    threads: int
    gpu_layers: str
    devices: tuple[str, ...]
    n_requests: int
    n_tokens: int
    priced: bool = True
    resumes: bool = False

    def as_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> ProbeOrder:
        values = json.loads(line)
        return cls(**{**values, "devices": tuple(values["devices"])})


def probe_one(order: ProbeOrder, on_way: Callable[[str], None]) -> dict[str, Any]:
    """One mode, in a process of its own; in another, its replies as a job that goes on would give them.

    `on_way` is called with the name of each way of answering. Raises InferError.
    """
    from infer_cli.checking.probe import RESUMED, compare

    result = _in_process(order, on_way)
    reference = _answers(result.pop("reference"))
    if order.mode != "fast":
        again = _in_process(replace(order, resumes=True), on_way)["replies"]
        tally = compare(RESUMED.name, reference, _answers(again))
        result["ways"].append(tally._asdict())
        result["holds"] = result["holds"] and tally.holds
    return result


def _answers(replies: Mapping[str, list[Any]]) -> dict[int, Answer]:
    from infer_cli.checking.probe import Answer

    return {int(i): Answer(tuple(tokens), logits) for i, (tokens, logits) in replies.items()}


def _in_process(order: ProbeOrder, on_way: Callable[[str], None]) -> dict[str, Any]:
    """What `probe_mode` says to an order. Raises InferError."""
    command = python_module("infer_cli.checking.probe_mode")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        try:
            # Left open: at its end the other process leaves, so it does not outlive this one.
            process.stdin.write(order.as_line())
            process.stdin.flush()
            for line in _lines(process.stdout):
                if "result" in line:
                    result: dict[str, Any] = line["result"]
                    return result
                if "error" in line:
                    raise _failure(line["error"])
                on_way(line["way"])
            code = process.wait()
        finally:
            process.kill()
    if code < 0:
        raise NativeCrash(f"llama.cpp crashed while {order.mode} was probed (signal {-code})")
    raise UnexpectedFailure(f"the process that probed {order.mode} ended with exit code {code}")


def _failure(error: dict[str, Any]) -> InferError:
    failure = InferError(error["message"], error["hint"])
    failure.exit_status = ExitStatus(error["code"])
    return failure


def _lines(stream: IO[bytes] | None) -> Iterator[dict[str, Any]]:
    assert stream is not None
    for line in stream:
        yield json.loads(line)
