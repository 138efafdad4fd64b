"""What `infer probe` does in its worker process: a process for each mode, then tables and verdicts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from infer_cli.child_process import environment, python_module
from infer_cli.cli.explain import explained
from infer_cli.cli.loaded import find_model
from infer_cli.cli.terminal import Notices
from infer_cli.errors import ExitStatus, InferError, NativeCrash, UnexpectedFailure, UsageError
from infer_cli.given import Given
from infer_cli.types import Mode

if TYPE_CHECKING:
    from infer_cli.probing import Answer
    from infer_cli.supervisor import Worker

MODES: tuple[Mode, ...] = ("fast", "canonical", "invariant")
_SPEEDS = {"prefill_tps": "prefill", "decode_tps": "decode", "batch_tps": "batch of 16"}


def probe_modes(given: Mapping[str, Given], worker: Worker, *, n_requests: int, n_tokens: int) -> int:
    """Probe all modes; returns the exit code. Raises InferError."""
    quiet = _is_set(given, "quiet")
    notices = Notices(quiet=quiet, stats=False)
    with explained(worker):
        name = str(given["model"].value) if "model" in given else None
        model = find_model(name, offline=_is_set(given, "offline"), quiet=quiet)
        if model is None:
            raise UsageError("the fake model computes nothing that could be probed", "name a real one")
        order = {
            "path": str(model.path),
            "given": {name: list(value) for name, value in given.items() if name in _OF_THE_ENGINE},
            "n_requests": n_requests,
            "n_tokens": n_tokens,
            "priced": True,
        }
        found = []
        try:
            for mode in MODES:
                found.append(probe_one(mode, order, notices))
        finally:
            notices.clear()
        _keep(model.path, found, notices)
    if _is_set(given, "json"):
        print(json.dumps({"model": model.name, "modes": found}))
    else:
        for result in found:
            print(_table(result, found[0]))
    broken = [r for r in found if r["promise"] == r["mode"] and not r["holds"]]
    return ExitStatus.CHECK_FAILED if broken else ExitStatus.OK


_OF_THE_ENGINE = ("threads", "gpu_layers", "device")


def _is_set(given: Mapping[str, Given], name: str) -> bool:
    return name in given and bool(given[name].value)


def probe_one(mode: Mode, order: dict[str, Any], notices: Notices) -> dict[str, Any]:
    """One mode, in a process of its own; in another, its replies as a job that goes on would give them.

    Raises InferError.
    """
    from infer_cli.probing import RESUMED, compare

    result = _in_process({**order, "mode": mode, "resumes": False}, notices)
    reference = _answers(result.pop("reference"))
    if mode != "fast":
        again = _in_process({**order, "mode": mode, "resumes": True}, notices)["replies"]
        tally = compare(RESUMED.name, reference, _answers(again))
        result["ways"].append(tally._asdict())
        result["holds"] = result["holds"] and tally.holds
    return result


def _answers(replies: Mapping[str, list[Any]]) -> dict[int, Answer]:
    from infer_cli.probing import Answer

    return {int(i): Answer(tuple(tokens), logits) for i, (tokens, logits) in replies.items()}


def _in_process(order: dict[str, Any], notices: Notices) -> dict[str, Any]:
    """What `probe_mode` says to an order. Raises InferError."""
    command = python_module("infer_cli.cli.probe_mode")
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


def _keep(path: Path, found: list[dict[str, Any]], notices: Notices) -> None:
    from infer_cli.digests import file_sha256
    from infer_cli.verdicts import keep_verdict

    for result in found:
        if result["promise"] == result["mode"]:
            try:
                keep_verdict(file_sha256(path), result["facts"], result)
            except OSError as e:
                notices.warn(f"the verdict on {result['mode']} was not kept: {e.strerror}")


def _table(result: dict[str, Any], fast: dict[str, Any]) -> str:
    n_good = sum(way["n"] == way["same_tokens"] == way["same_logits"] for way in result["ways"])
    of_all = f"{n_good} of {len(result['ways'])} ways the same to the byte"
    if result["mode"] == "fast":
        title = f"fast: promises nothing but the seed ({of_all})"
    elif result["weaker_because"]:
        title = f"{result['mode']}: not promised here: {result['weaker_because']} ({of_all})"
    else:
        title = f"{result['mode']}: {'holds' if result['holds'] else 'DOES NOT HOLD'} ({of_all})"
    rows = [
        f"  {way['way']:<16} tokens {way['same_tokens']:>3} of {way['n']}"
        f"   logits {way['same_logits']:>3} of {way['n']}"
        for way in result["ways"]
    ]
    speeds = []
    for name, what in _SPEEDS.items():
        tps, ratio = result["speed"][name], result["speed"][name] / fast["speed"][name]
        speeds.append(f"{what} {tps:.0f} tok/s" + ("" if result is fast else f" ({ratio:.2f} of fast)"))
    return "\n".join([title, *rows, "  " + ", ".join(speeds)])
