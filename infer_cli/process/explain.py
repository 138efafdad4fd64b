"""Puts llama.cpp's own last log lines behind a failure that it caused."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from infer_cli.errors import InferError
from infer_cli.process.report import report

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker

NATIVE_LOG_LINES = 5


@contextlib.contextmanager
def explained(worker: Worker) -> Iterator[None]:
    """Put llama.cpp's own last words behind a failure that it caused."""
    try:
        yield
    except InferError as e:
        if not e.native:
            raise
        sys.stdout.flush()
        report(e, sys.stderr, worker.log_tail(NATIVE_LOG_LINES))
        raise SystemExit(int(e.exit_status)) from None
