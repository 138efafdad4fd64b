"""What `infer probe` does in its worker process: a process for each mode, then tables and verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_cli.checking.probe_process import MODES, ProbeOrder, probe_one
from infer_cli.cli.flags.engine import engine_options
from infer_cli.cli.flags.values import Values
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus, UsageError
from infer_cli.process.explain import explained

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker

_SPEEDS = {"prefill_tps": "prefill", "decode_tps": "decode", "batch_tps": "batch of 16"}


def probe_modes(values: Values, worker: Worker, *, n_requests: int, n_tokens: int) -> int:
    """Probe all modes; returns the exit code. Raises InferError."""
    quiet = values.is_set("quiet")
    notices = Notices(quiet=quiet, stats=False)
    with explained(worker):
        model = find_model(values.text("model"), offline=values.is_set("offline"), quiet=quiet)
        if model.is_fake:
            raise UsageError("the fake model computes nothing that could be probed", "name a real one")
        engine, _ = engine_options(values)
        found = []
        try:
            for mode in MODES:
                order = ProbeOrder(
                    path=str(model.path),
                    mode=mode,
                    threads=engine.threads,
                    gpu_layers=engine.gpu_layers,
                    devices=engine.devices,
                    n_requests=n_requests,
                    n_tokens=n_tokens,
                )
                found.append(probe_one(order, lambda way, mode=mode: notices.status(f"{mode}: {way}")))  # type: ignore[misc]
        finally:
            notices.clear()
        _keep(model.path, found, notices)
    if values.is_set("json"):
        print(json.dumps({"model": model.name, "modes": found}))
    else:
        for result in found:
            print(_table(result, found[0]))
    broken = [r for r in found if r["promise"] == r["mode"] and not r["holds"]]
    return ExitStatus.CHECK_FAILED if broken else ExitStatus.OK


def _keep(path: Path, found: list[dict[str, Any]], notices: Notices) -> None:
    from infer_cli.models.hashes import file_sha256
    from infer_cli.runtime.engine_facts import EngineFacts
    from infer_cli.runtime.probe_verdicts import keep_verdict

    for result in found:
        if result["promise"] == result["mode"]:
            try:
                keep_verdict(file_sha256(path), EngineFacts.read(result["facts"]), result)
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
