"""Whole commands in this process: what a supervised worker would do is done here, on captured streams."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fuzz.target import Broken
from infer_cli.cli.app import call
from infer_cli.process import supervisor
from infer_cli.process.streams import new_capture
from infer_cli.process.worker import Worker


def run_in_process() -> None:
    """From now on work that would have a process of its own is done in this one."""
    supervisor.supervise = _work_here


def infer(*arguments: str) -> tuple[int, bytes]:
    """The exit code and standard output of a command. Raises what the command raises, InferError included.

    Raises Broken where an engine is left over: its thread and its memory would stay as long as the process.
    """
    with _captured() as out:
        try:
            status = call(list(arguments))
        finally:
            if any(thread.name == "infer-engine" for thread in threading.enumerate()):
                raise Broken(f"an engine is left over: {' '.join(arguments[:1])}")
        sys.stdout.flush()
        return status, out.getvalue()


@contextlib.contextmanager
def _captured() -> Iterator[io.BytesIO]:
    out = io.BytesIO()
    stdout, stderr = io.TextIOWrapper(out, "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield out
    stdout.detach()


def _work_here(work: Callable[[Worker], int], **how: Any) -> int:
    capture = new_capture()
    try:
        return work(Worker(capture, capture, None))
    finally:
        os.close(capture)
