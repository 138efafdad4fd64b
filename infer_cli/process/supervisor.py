"""Runs a command's work in a worker process, and outlives whatever the work dies of.

The supervisor is this process before anything heavy was imported. It waits; a crash of native code
becomes one line, an exit code and the last native log lines. The worker's exit code is the supervisor's.

Neither survives the other: the worker holds the read end of a pipe (the lifeline) whose only write
end is the supervisor's, and dies at its end of file.

Interrupts: a terminal signals both processes, `kill` only one. The supervisor can't tell which it was
and passes every SIGINT, SIGTERM and SIGHUP on; the worker takes signals within `SAME_PRESS_S` as one.
A worker that is still there `GRACE_S` later, or at the third interrupt, is killed, unless it said that
it has dealt with the interrupt (`Worker.carry_on`).

A command whose start must be quick begins its worker ahead (`begin_ahead`): while this process reads the
command line, the worker imports what it will need, and none of what the command line needs.

Knows nothing of what the work is.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from infer_cli.errors import ExitStatus, InferError, NativeCrash, OutOfMemory, UnexpectedFailure
from infer_cli.process.child_process import environment, same_command
from infer_cli.process.report import report
from infer_cli.process.stream_filter import styled
from infer_cli.process.streams import (
    capture_tail,
    new_capture,
    open_standard_fds,
    trim_capture,
)
from infer_cli.process.worker import (
    CHANNEL_VARIABLE,
    INTERRUPTS,
    LOG_TAIL_LINES,
    WATCHED,
    Channel,
    Presses,
    Task,
    Worker,
    adopt_channel,
    carry_out,
    run_worker,
    settle,
    signals_named,
)

# CoreFoundation and Metal may not be used after a fork without exec.
FORKS = hasattr(os, "fork") and sys.platform != "darwin"
GRACE_S = 2.0
TRIM_INTERVAL_S = 1.0

_MAX_INTERRUPTS = 3


_CRASHES = signals_named("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
_CRASH_HINT = "run again with --verbose for all of llama.cpp's log"
_CRASH_HINTS = {
    "SIGILL": "this llama.cpp was built for another processor: reinstall llama-cpp-python on this machine",
    "SIGBUS": "was the model file cut short or replaced while in use? `infer models verify` checks it",
}
# How Windows ends a process, as the signal that it corresponds to.
_NTSTATUS = {
    0xC0000005: "SIGSEGV",  # STATUS_ACCESS_VIOLATION
    0xC00000FD: "SIGSEGV",  # STATUS_STACK_OVERFLOW
    0xC000001D: "SIGILL",  # STATUS_ILLEGAL_INSTRUCTION
    0xC0000094: "SIGFPE",  # STATUS_INTEGER_DIVIDE_BY_ZERO
    0xC0000409: "SIGABRT",  # STATUS_STACK_BUFFER_OVERRUN, which abort() ends with
    0xC000013A: "SIGINT",  # STATUS_CONTROL_C_EXIT
}


def supervise(
    work: Callable[[Worker], int],
    *,
    verbose: bool,
    on_crash: Callable[[NativeCrash | OutOfMemory], bool] | None = None,
) -> int:
    """Run `work` in a worker process and return its exit code.

    `on_crash` is told first of a crash of native code, and of a SIGKILL that was not sent here; where it says
    True that is dealt with and not reported, and `supervise` may be called again.
    Call it otherwise once, with the command line parsed, stdin unread, one thread and nothing heavy
    imported, and leave the process with what it returns. After `begin_ahead`, `work` is a `Task`. Where
    forking is not safe the worker is the same command line run again; in that process the call does not
    return. The worker ends without interpreter teardown: `work` closes what must be closed.
    """
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # ggml_abort would start a debugger
    handed_down = os.environ.pop(CHANNEL_VARIABLE, None)
    if handed_down is not None:
        run_worker(work, adopt_channel(handed_down), verbose)

    oom_kills = _oom_kills()
    if sys.platform == "win32":
        open_standard_fds()
        capture = None if verbose else new_capture()
        end, interrupted = _run_on_windows(capture), False
    else:
        restore = _terminal_settings()  # before there is a worker that changes them
        if _ahead is not None and isinstance(work, Task):
            started = _ahead.tell(work, verbose)
        else:
            open_standard_fds()
            started = _start(work, None if verbose else new_capture(), verbose)
        capture = started.capture
        end, interrupted = _watch(started)
        restore()
    if end >= 0:
        return end
    if interrupted or -end in INTERRUPTS:
        return ExitStatus.INTERRUPTED
    if -end in signals_named("SIGPIPE"):
        return ExitStatus.READER_GONE
    error = _death(-end, oom_killed=oom_kills is not None and _oom_kills() != oom_kills)
    if sys.stderr is not None and sys.stderr.isatty():
        # The worker may have left a hidden cursor, marks around what is pasted, and an unfinished line.
        with contextlib.suppress(OSError):
            styled(sys.stderr).write("\x1b[?25h\x1b[?2004l\n")
    if isinstance(error, (NativeCrash, OutOfMemory)) and on_crash is not None and on_crash(error):
        return error.exit_status
    report(error, sys.stderr, [] if capture is None else capture_tail(capture, LOG_TAIL_LINES))
    return error.exit_status


# --- the worker -----------------------------------------------------------------------------------


# --- the supervisor -------------------------------------------------------------------------------


def _describe(*shared: int | None) -> dict[str, str]:
    """The environment in which the same command line becomes a worker. `shared`: as in `Channel`."""
    return {**environment(), CHANNEL_VARIABLE: ",".join(str(-1 if n is None else n) for n in shared)}


class _LogView:
    """Shows the native log that comes through a pipe: on this process's stderr, and so through its filter."""

    def __init__(self, log_end: int) -> None:
        self.log_end = log_end
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def pump(self) -> bool:
        """Show what has come; False where that is nothing, or the log has ended."""
        try:
            data = os.read(self.log_end, 1 << 16)
        except BlockingIOError:
            return False
        if data and sys.stderr is not None:
            with contextlib.suppress(OSError):
                sys.stderr.write(self._decoder.decode(data))
                sys.stderr.flush()
        return bool(data)

    def pump_all(self) -> None:
        while self.pump():
            pass


if sys.platform == "win32":

    def begin_ahead(steps: Sequence[Callable[[], object]]) -> None:
        """Nothing: a worker here is the command line run again."""

    def _run_on_windows(capture: int | None) -> int:
        """Run a worker; how it ended, as `_wait` has it. The console's Ctrl-C reaches it by itself."""
        import msvcrt
        import subprocess
        import threading

        lifeline, _lifeline_end = os.pipe()
        log_end, log = os.pipe()
        view = threading.Thread(target=_LogView(log_end).pump_all, daemon=True)
        handles = [None if fd is None else msvcrt.get_osfhandle(fd) for fd in (capture, lifeline, None, log)]
        for handle in handles:
            if handle is not None:
                os.set_handle_inheritable(handle, True)
        process = subprocess.Popen(same_command(), env=_describe(*handles), close_fds=False)
        os.close(log)
        view.start()
        for signum in (signal.SIGINT, signal.SIGBREAK):
            signal.signal(signum, signal.SIG_IGN)
        while True:
            try:
                code = process.wait(timeout=TRIM_INTERVAL_S)
            except subprocess.TimeoutExpired:
                if capture is not None:
                    trim_capture(capture)
            else:
                view.join(1.0)
                return -signal.Signals[_NTSTATUS[code]] if code in _NTSTATUS else code

else:

    class _Started(NamedTuple):
        """A worker and the supervisor's ends of what they share. `orders`: where an early one is told."""

        pid: int
        capture: int | None
        lifeline_end: int
        acks_end: int
        log_end: int
        orders: int | None = None

        def tell(self, task: Task, verbose: bool) -> _Started:
            """Hand over the task. With `verbose` the capture stays empty and is not ours to show."""
            assert self.orders is not None
            # A worker that has died already cannot be told: its end will tell.
            with contextlib.suppress(BrokenPipeError), open(self.orders, "wb") as orders:
                orders.write(bytes([verbose]) + task.as_bytes())
            return self._replace(capture=None) if verbose else self

    _ahead: _Started | None = None

    def begin_ahead(steps: Sequence[Callable[[], object]]) -> None:
        """Start the worker of a later `supervise(Task)` now, first thing in the process.

        It takes the steps, one after another, until it is told what to do: they import. What fails in one
        is left for the task to meet again. Does nothing where a worker cannot be forked.
        """
        global _ahead
        if not FORKS or CHANNEL_VARIABLE in os.environ:
            return
        os.environ.setdefault("GGML_NO_BACKTRACE", "1")
        open_standard_fds()
        orders_end, orders = os.pipe()

        def be_told(channel: Channel) -> NoReturn:
            os.close(orders)
            status: int = ExitStatus.INTERRUPTED
            try:
                settle(channel)
                for step in steps:
                    if _is_readable(orders_end):
                        break
                    with contextlib.suppress(Exception):
                        step()
                with open(orders_end, "rb") as orders_file:
                    told = orders_file.read()
                if told:  # else there is nothing to do: the command line was wrong
                    verbose = bool(told[0])
                    mine = channel._replace(capture=None) if verbose else channel
                    carry_out(Task.from_bytes(told[1:]), mine, verbose)
            finally:
                os._exit(status)

        _ahead = _fork(be_told, new_capture())._replace(orders=orders)
        os.close(orders_end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)

    def _is_readable(fd: int) -> bool:
        import select

        return bool(select.select([fd], [], [], 0)[0])

    def _start(work: Callable[[Worker], int], capture: int | None, verbose: bool) -> _Started:
        if FORKS:
            return _fork(lambda channel: run_worker(work, channel, verbose), capture)
        lifeline, lifeline_end = os.pipe()
        acks_end, acks = os.pipe()
        log_end, log = os.pipe()
        for shared in (capture, lifeline, acks, log):
            if shared is not None:
                os.set_inheritable(shared, True)
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)  # a worker inherits this, and unblocks
        pid = os.posix_spawn(sys.executable, same_command(), _describe(capture, lifeline, acks, log))
        for shared in (lifeline, acks, log):
            os.close(shared)
        return _Started(pid, capture, lifeline_end, acks_end, log_end)

    def _fork(be_worker: Callable[[Channel], NoReturn], capture: int | None) -> _Started:
        lifeline, lifeline_end = os.pipe()
        acks_end, acks = os.pipe()
        log_end, log = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        # A signal waits until each of the two processes has its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        pid = os.fork()
        if pid == 0:
            for shared in (lifeline_end, acks_end, log_end):
                os.close(shared)
            be_worker(Channel(capture, lifeline, acks, log))
        for shared in (lifeline, acks, log):
            os.close(shared)
        return _Started(pid, capture, lifeline_end, acks_end, log_end)

    def _watch(started: _Started) -> tuple[int, bool]:
        """See a worker to its end: what `_wait` returns."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        wake_end, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for signum in WATCHED:
            if signum == signal.SIGCHLD or signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, _only_wake)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        os.set_blocking(started.log_end, False)
        return _wait(started.pid, wake_end, started.acks_end, _LogView(started.log_end), started.capture)

    def _terminal_settings() -> Callable[[], None]:
        """What sets the terminal right again after a worker that left while it had changed it."""
        if sys.stdin is None or not sys.stdin.isatty():
            return lambda: None
        import termios

        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)

        def restore() -> None:
            with contextlib.suppress(OSError, termios.error):
                # A job in the background would be stopped for changing it.
                if os.tcgetpgrp(terminal) == os.getpgrp() and termios.tcgetattr(terminal) != before:
                    termios.tcsetattr(terminal, termios.TCSANOW, before)

        return restore

    def _only_wake(signum: int, frame: object) -> None:
        """The signal's number is already in the wake-up pipe."""

    def _wait(pid: int, wake: int, acks: int, log: _LogView, capture: int | None) -> tuple[int, bool]:
        """Pass interrupts on, and show the log, until the worker has ended.

        Returns its exit code, or the negative number of the signal that ended it, and whether that
        signal was sent here because of an interrupt.
        """
        import select

        sources = [wake, acks, log.log_end]
        presses = Presses()
        n_presses, deadline, killed = 0, float("inf"), False
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                log.pump_all()
                os.close(log.log_end)
                return os.waitstatus_to_exitcode(status), killed
            now = time.monotonic()
            if not killed and (n_presses >= _MAX_INTERRUPTS or now >= deadline):
                os.kill(pid, signal.SIGKILL)
                killed, deadline = True, float("inf")
            ready, _, _ = select.select(sources, [], [], max(0.0, min(deadline - now, TRIM_INTERVAL_S)))
            if capture is not None:
                trim_capture(capture)
            if log.log_end in ready and not log.pump():
                sources.remove(log.log_end)
            if acks in ready:
                if os.read(acks, 64):
                    n_presses, deadline = 0, float("inf")
                else:
                    sources.remove(acks)
            for signum in os.read(wake, 64) if wake in ready else b"":
                if signum in INTERRUPTS:
                    os.kill(pid, signum)
                    n_presses += presses.is_new()
                    deadline = min(deadline, time.monotonic() + GRACE_S)


def _death(signum: int, *, oom_killed: bool) -> InferError:
    name = next((s.name for s in signal.Signals if s == signum), f"signal {signum}")
    if signum in _CRASHES:
        return NativeCrash(f"llama.cpp crashed ({name})", _CRASH_HINTS.get(name, _CRASH_HINT))
    if name != "SIGKILL":
        return UnexpectedFailure(f"the worker process was ended by {name}")
    hint = "a smaller model, a smaller --ctx or a lower --parallel needs less"
    if oom_killed:
        return OutOfMemory("the worker process was killed (SIGKILL): out of memory", hint)
    return OutOfMemory("the worker process was killed (SIGKILL)", f"most often memory ran out: {hint}")


def _oom_kills() -> int | None:
    """How many processes of this control group the OOM killer has ended; None where that can't be read
    (not Linux, cgroup v1)."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as groups:
            group = next(line[3:].strip() for line in groups if line.startswith("0::"))
        with open(f"/sys/fs/cgroup{group}/memory.events", encoding="utf-8") as events:
            return next(int(line.split()[1]) for line in events if line.startswith("oom_kill "))
    except (OSError, StopIteration):
        return None
