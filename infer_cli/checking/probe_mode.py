"""A process that probes one mode. Reads a `ProbeOrder` as a JSON line on stdin. Writes JSON lines to stdout:
{"way": …} before each way, then {"result": …} or {"error": …}. Ends when its stdin does."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from infer_cli.checking.probe_process import ProbeOrder
from infer_cli.errors import InferError


def main() -> None:
    order = ProbeOrder.from_line(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_stdin, daemon=True).start()
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # native code may print

    def say(line: dict[str, object]) -> None:
        os.write(out, json.dumps(line).encode() + b"\n")

    try:
        say({"result": probe(order, lambda way: say({"way": way}))})
    except InferError as e:
        say({"error": {"message": e.message, "hint": e.hint, "code": int(e.exit_status)}})
    os._exit(0)


def probe(order: ProbeOrder, on_way: Callable[[str], None]) -> dict[str, object]:
    """Carry out an order. Raises InferError."""
    from infer_cli.checking.probe import WIDTH, Probe
    from infer_cli.runtime.llama_loading import LlamaLoader
    from infer_cli.runtime.options import EngineOptions

    options = EngineOptions(order.threads, order.mode, gpu_layers=order.gpu_layers, devices=order.devices)
    null = os.open(os.devnull, os.O_WRONLY)
    loader = LlamaLoader(Path(order.path), options, WIDTH, null)
    on_way("load")
    probe = Probe(loader.loaded(), order.threads, order.n_requests, order.n_tokens)
    if order.resumes:
        return {"replies": probe.resumed(on_way)}
    return probe.run(on_way, priced=order.priced)


def _leave_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
