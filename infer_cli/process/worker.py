"""The worker process from inside: its task, its signals, its log, its end. `supervisor` starts it."""

from __future__ import annotations

import contextlib
import importlib
import marshal
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from infer_cli.errors import ExitStatus
from infer_cli.process.report import run_guarded
from infer_cli.process.streams import (
    capture_tail,
    take_over_streams,
)

SAME_PRESS_S = 0.1

LOG_TAIL_LINES = 20

SWITCH_INTERVAL_S = (
    0.0005  # a thread back from native code waits this long for one that imports; 5 ms by default
)

CHANNEL_VARIABLE = "_INFER_WORKER_CHANNEL"


def signals_named(*names: str) -> tuple[signal.Signals, ...]:
    return tuple(signal.Signals[name] for name in names if hasattr(signal, name))


INTERRUPTS = signals_named("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
WATCHED = (*INTERRUPTS, *signals_named("SIGCHLD"))  # by the supervisor


class Worker:
    """What the work may ask of the process it runs in.

    `native_fd` takes native log lines: the capture, or with --verbose what is shown on stderr.
    """

    def __init__(self, native_fd: int, capture: int | None, acks: int | None) -> None:
        self.native_fd = native_fd
        self._capture = capture
        self._acks = acks

    def log_tail(self, n_lines: int = LOG_TAIL_LINES) -> list[str]:
        """The last native log lines, safe to show. Empty with --verbose: they were shown."""
        return [] if self._capture is None else capture_tail(self._capture, n_lines)

    def carry_on(self) -> None:
        """Tell the supervisor that an interrupt is dealt with and the work goes on."""
        if self._acks is not None:
            os.write(self._acks, b"\0")


def raise_keyboard_interrupt(signal_name: str) -> None:
    raise KeyboardInterrupt(signal_name)


def on_interrupt(callback: Callable[[str], None] = raise_keyboard_interrupt) -> None:
    """Call `callback(signal_name)` on the main thread at SIGINT, SIGTERM and SIGHUP.

    Signals within `SAME_PRESS_S` are one: the terminal's and the supervisor's copy of it. A signal that
    was ignored when the process started (`nohup`, a background job) stays ignored.
    Python runs a handler only once a native call of the main thread has returned or called back.
    """
    presses = Presses()

    def handle(signum: int, frame: object) -> None:
        if presses.is_new():
            callback(signal.Signals(signum).name)

    for signum in INTERRUPTS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, handle)


class Presses:
    """Tells a new interrupt from a copy of the last one."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def is_new(self) -> bool:
        now = time.monotonic()
        if now - self._last < SAME_PRESS_S:
            return False
        self._last = now
        return True


class Channel(NamedTuple):
    """The worker's ends of what it shares with its supervisor: file descriptors.

    Native log lines go to `capture`, which keeps the last of them, or without one to `log`, a pipe: the
    supervisor shows what comes through it. Not the worker, which may crash with the lines that say why.
    """

    capture: int | None
    lifeline: int
    acks: int | None
    log: int


class Task:
    """Work that can be told to a process that has begun already: a function of a module, called with
    `arguments`, which are what `marshal` writes (plain values, lists, tuples, dicts), and the worker."""

    def __init__(self, module: str, function: str, arguments: object) -> None:
        self._told = (module, function, arguments)

    def __call__(self, worker: Worker) -> int:
        module, function, arguments = self._told
        status: int = getattr(importlib.import_module(module), function)(arguments, worker)
        return status

    def as_bytes(self) -> bytes:
        return marshal.dumps(self._told)  # type: ignore[arg-type]  # as the class says

    @classmethod
    def from_bytes(cls, data: bytes) -> Task:
        return cls(*marshal.loads(data))


def run_worker(work: Callable[[Worker], int], channel: Channel, verbose: bool) -> NoReturn:
    try:
        settle(channel)
        carry_out(work, channel, verbose)
    finally:
        os._exit(ExitStatus.INTERRUPTED)  # a Ctrl-C between the two


def carry_out(work: Callable[[Worker], int], channel: Channel, verbose: bool) -> NoReturn:
    status: int = ExitStatus.INTERRUPTED  # only a late Ctrl-C gets past what follows
    try:
        take_over_streams(channel.log if channel.capture is None else channel.capture)
        os.close(channel.log)  # 1 and 2 are it, or it is not needed
        status = run_guarded(lambda: work(Worker(2, channel.capture, channel.acks)), verbose=verbose)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else ExitStatus.UNEXPECTED
    finally:
        os._exit(status)


def settle(channel: Channel) -> None:
    """Be a worker: answer signals, and not outlive the supervisor."""
    # Nothing here multiplies matrices in numpy, which comes later: its threads and buffers would be waste.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    on_interrupt()
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
    _die_at_end_of(channel.lifeline)


def _die_at_end_of(lifeline: int) -> None:
    """End this process at once when the supervisor's end of the pipe closes."""
    if sys.platform == "linux":
        import fcntl

        # The kernel does it, whatever holds the GIL. Where it won't, or already was too late: the thread.
        with contextlib.suppress(OSError):
            fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)

    import threading

    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(ExitStatus.UNEXPECTED)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def adopt_channel(handed_down: str) -> Channel:
    """The channel that `_spawn` or `_run_on_windows` of the parent process described."""
    numbers = [int(number) for number in handed_down.split(",")]
    if sys.platform == "win32":
        import msvcrt

        numbers = [n if n < 0 else msvcrt.open_osfhandle(n, os.O_APPEND) for n in numbers]
    for fd in numbers:
        if fd >= 0:
            os.set_inheritable(fd, False)
    capture, lifeline, acks, log = numbers
    return Channel(None if capture < 0 else capture, lifeline, None if acks < 0 else acks, log)
