"""A llama-server of its own for a benchmark: started on a free port, killed at the end."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks import common

N_CTX_SLOT = 2048
START_S = 60


@contextmanager
def running(
    peers: common.Peers, model: str, n_slots: int, threads: int, env: Mapping[str, str], *flags: str
) -> Iterator[str]:
    """The address of a llama-server that is up, with a window of `N_CTX_SLOT` tokens a slot.

    Raises BenchmarkError where it does not come up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        peers.tool("llama-server"), "-m", model, "-np", str(n_slots), "-c", str(N_CTX_SLOT * n_slots),
        "-t", str(threads), "-tb", str(threads), "-ngl", "0", "--port", str(port), "--no-webui", *flags,
    ]  # fmt: skip
    with subprocess.Popen(
        command, env=dict(env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            _until_ready(f"http://127.0.0.1:{port}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def ask(url: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """What the server answers to a JSON body."""
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def tokenize(url: str, texts: Sequence[str]) -> list[list[int]]:
    """Ids as a prompt has them, BOS where the model asks for it. Control-token text is text."""
    body = {"add_special": True, "parse_special": False}
    return [ask(url, "/tokenize", {**body, "content": text})["tokens"] for text in texts]


def _until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url + "/health", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise common.BenchmarkError("llama-server did not come up")
