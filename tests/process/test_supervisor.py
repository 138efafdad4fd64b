"""The supervisor, its stream guard and its reports, on real processes."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.errors import ModelInvalid, UsageError
from infer_cli.process import streams, supervisor
from infer_cli.process.report import report, run_guarded
from infer_cli.process.worker import Worker
from infer_cli.text.sanitize import single_line
from tests.cli_helpers import REPO

ROOT = REPO
# Enough for a slow, busy machine where only the end counts; what must be prompt has its own bound.
PATIENCE_S = 20.0
PROMPT_S = 1.0

PRELUDE = """
import os, signal, sys, time
from infer_cli.process import supervisor
from infer_cli.process.worker import Task, on_interrupt
from infer_cli.errors import ModelInvalid
"""


class Scripts:
    """Writes scripts that run `work` under the supervisor, one way or the other."""

    def __init__(self, folder: Path, forks: bool = supervisor.FORKS) -> None:
        self.folder = folder
        self.forks = forks

    def command(self, work: str, *, verbose: bool = False, before: str = "") -> list[str]:
        """Command line of a script whose `work(worker)` has the body `work`."""
        path = self.folder / "script.py"
        path.write_text(
            PRELUDE
            + f"supervisor.FORKS = {self.forks}\n"
            + textwrap.dedent(before)
            + "\ndef work(worker):\n"
            + textwrap.indent(textwrap.dedent(work), "    ")
            + f"\nsys.exit(supervisor.supervise(work, verbose={verbose}))\n"
        )
        return [sys.executable, str(path)]

    def start(
        self, work: str, *, verbose: bool = False, before: str = "", stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(work, verbose=verbose, before=before),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(),
        )

    def run(
        self, work: str, *, verbose: bool = False, before: str = "", stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(work, verbose=verbose, before=before)
        out, err = process.communicate(stdin, timeout=PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}


@pytest.fixture(params=[True, False], ids=["fork", "spawn"])
def scripts(request: pytest.FixtureRequest, tmp_path: Path) -> Scripts:
    return Scripts(tmp_path, request.param)


@pytest.fixture
def script(tmp_path: Path) -> Scripts:
    """For what does not depend on how the worker is started: this platform's own way."""
    return Scripts(tmp_path)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def finish(process: subprocess.Popen[str]) -> tuple[float, str, str]:
    """Seconds until both processes are gone (nobody holds the pipes any more), and what they still wrote."""
    start = time.monotonic()
    out, err = process.communicate(timeout=PATIENCE_S)
    return time.monotonic() - start, out, err


# --- the ordinary course --------------------------------------------------------------------------


def test_worker_shares_stdin_and_writes_the_answer(scripts: Scripts) -> None:
    done = scripts.run(
        "print(sys.stdin.read().upper(), end=''); print('note', file=sys.stderr); return 8", stdin="héllo\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (8, "HÉLLO\n", "note\n")


def test_work_runs_in_another_process_with_the_same_arguments(scripts: Scripts, tmp_path: Path) -> None:
    command = scripts.command("print(os.getpid() != int(os.getppid()), os.getppid(), sys.argv[1:]); return 0")
    process = subprocess.Popen([*command, "a b", "--x"], stdout=subprocess.PIPE, text=True, env=environment())
    assert process.communicate(timeout=PATIENCE_S)[0] == f"True {process.pid} ['a b', '--x']\n"


def test_output_still_buffered_at_the_fork_appears_once(tmp_path: Path) -> None:
    done = Scripts(tmp_path, forks=True).run("print('answer'); return 0", before="print('once')")
    assert done.stdout == "once\nanswer\n"


def test_worker_environment(scripts: Scripts) -> None:
    done = scripts.run(
        "print(os.environ['GGML_NO_BACKTRACE'], [n for n in os.environ if n.startswith('_INFER')]); return 0"
    )
    assert done.stdout == "1 []\n"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_streams_keep_encoding_and_buffering(scripts: Scripts, encoding: str, unbuffered: str) -> None:
    facts = "(s.encoding, s.errors, s.line_buffering, s.write_through, type(s.buffer))"
    show = f"print([{facts} for s in (sys.stdout, sys.stderr)], 'é')"
    command = scripts.command(f"{show}\nreturn 0")
    env = {**environment(), "PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": unbuffered}
    plain = subprocess.run([sys.executable, "-c", f"import sys; {show}"], env=env, capture_output=True)
    supervised = subprocess.run(command, env=env, capture_output=True, timeout=PATIENCE_S)
    assert supervised.stdout == plain.stdout
    assert "é".encode(encoding) in supervised.stdout


@pytest.mark.parametrize("fds", ["1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_streams(scripts: Scripts, fds: str, tmp_path: Path) -> None:
    """A file opened by the work must never become stdout for native code. What can't be written is told."""
    target = tmp_path / "kept"
    command = scripts.command(
        f"f = open({str(target)!r}, 'w'); os.write(1, b'native'); os.write(2, b'native')\n"
        "print('answer'); print('note', file=sys.stderr); f.write('kept'); f.close(); return 9"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$@" {fds}', "sh", *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    is_lost = "1>" in fds
    assert done.returncode == (1 if is_lost else 9)
    if not is_lost:
        assert (target.read_text(), done.stdout) == ("kept", "answer\n")
    else:
        assert target.read_text() in ("", "kept") and done.stdout == ""
    if "2>" in fds:
        assert done.stderr == ""
    elif is_lost:
        assert "error: standard output is closed\n" in done.stderr
    else:
        assert done.stderr == "note\n"


# --- native output --------------------------------------------------------------------------------

NATIVE_PRINTS = """
os.write(1, b"native on 1\\n"); os.write(2, b"native on 2\\n"); os.write(worker.native_fd, b"native log\\n")
print("answer")
"""


def test_native_output_is_captured(scripts: Scripts) -> None:
    done = scripts.run(NATIVE_PRINTS + "print(worker.log_tail(2), file=sys.stderr); return 0")
    assert done.stdout == "answer\n"
    assert done.stderr == "['native on 2', 'native log']\n"


def test_native_output_is_shown_on_stderr_with_verbose(scripts: Scripts) -> None:
    done = scripts.run(NATIVE_PRINTS + "print(worker.log_tail()); return 0", verbose=True)
    assert done.stdout == "answer\n[]\n"
    assert done.stderr == "native on 1\nnative on 2\nnative log\n"


def test_output_of_a_program_started_by_the_work_is_native_too(script: Scripts) -> None:
    done = script.run("os.system('echo from a child'); print(worker.log_tail()); return 0")
    assert (done.stdout, done.stderr) == ("['from a child']\n", "")


def test_capture_is_bounded(script: Scripts) -> None:
    done = script.run(
        """
        for i in range(300):
            os.write(1, b"%d " % i + b"x" * 9000 + b"\\n")
        deadline = time.monotonic() + 10
        while os.fstat(1).st_size > 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.write(1, b"last\\n")  # a line written while the capture is cut may get lost
        print(os.fstat(1).st_size <= 1 << 20, worker.log_tail(1))
        return 0
        """,
        before="supervisor.TRIM_INTERVAL_S = 0.05",
    )
    assert done.stdout == "True ['last']\n"


def test_trim_keeps_the_end_and_leaves_a_short_capture_alone() -> None:
    capture = streams.new_capture()
    os.write(capture, b"short\n")
    streams.trim_capture(capture)
    assert streams.capture_tail(capture, 5) == ["short"]
    os.write(capture, b"\n".join(b"line %d" % i for i in range(200_000)) + b"\n")
    streams.trim_capture(capture)
    assert os.fstat(capture).st_size < streams.CAPTURE_LIMIT // 2
    os.write(capture, b"after\n")
    assert streams.capture_tail(capture, 2) == ["line 199999", "after"]
    os.close(capture)


def test_log_tail_is_safe_to_show() -> None:
    capture = streams.new_capture()
    worker = Worker(capture, capture, None)
    os.write(capture, b"a\x1b[31mred\x07\r\n\n\xff\xfe\ttab\n" + b"y" * 5000 + b"\n")
    assert worker.log_tail(2) == ["\ufffd\ufffd tab", "y" * 500]
    assert worker.log_tail()[0] == "a\ufffd[31mred\ufffd"
    worker.carry_on()
    os.close(capture)


# --- how the worker ends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "death"),
    [
        ("SIGSEGV", "os.kill(os.getpid(), signal.SIGSEGV)"),
        ("SIGSEGV", "import ctypes; ctypes.string_at(0)"),
        ("SIGABRT", "os.abort()"),
        ("SIGBUS", "os.kill(os.getpid(), signal.SIGBUS)"),
        ("SIGILL", "os.kill(os.getpid(), signal.SIGILL)"),
        ("SIGFPE", "os.kill(os.getpid(), signal.SIGFPE)"),
    ],
)
def test_crash_is_one_line_with_the_last_native_lines(scripts: Scripts, name: str, death: str) -> None:
    done = scripts.run(f"""
        print("part", flush=True)
        for i in range(50):
            os.write(worker.native_fd, b"\\x1b[1mnative %d\\n" % i)
        {death}
        time.sleep(10)
        """)
    assert done.returncode == 11
    assert done.stdout == "part\n"
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: llama.cpp crashed ({name})"
    assert lines[1].startswith("hint: ")
    assert lines[2:] == [f"  \ufffd[1mnative {i}" for i in range(30, 50)]


def test_crash_with_verbose_does_not_repeat_the_log(script: Scripts) -> None:
    done = script.run("os.write(worker.native_fd, b'native\\n'); os.abort()", verbose=True)
    assert done.returncode == 11
    lines = done.stderr.splitlines()
    assert lines[0] == "native"
    assert lines[1] == "error: llama.cpp crashed (SIGABRT)"
    assert len(lines) == 3


def test_worker_killed_by_someone_else(scripts: Scripts) -> None:
    process = scripts.start("print(os.getpid(), flush=True); time.sleep(30)")
    os.kill(int(read_line(process)), signal.SIGKILL)
    took, out, err = finish(process)
    assert process.returncode == 6
    assert (out, err.splitlines()[0]) == ("", "error: the worker process was killed (SIGKILL)")
    assert "most often memory ran out" in err
    assert took < PROMPT_S


def test_worker_killed_by_the_oom_killer(script: Scripts) -> None:
    done = script.run(
        "os.kill(os.getpid(), signal.SIGKILL)",
        before="counts = iter([3, 4]); supervisor._oom_kills = lambda: next(counts)",
    )
    assert done.returncode == 6
    assert done.stderr.startswith("error: the worker process was killed (SIGKILL): out of memory\nhint: ")


@pytest.mark.parametrize(("name", "status"), [("SIGPIPE", 141), ("SIGTERM", 130), ("SIGINT", 130)])
def test_worker_ended_by_a_quiet_signal(script: Scripts, name: str, status: int) -> None:
    done = script.run(
        f"signal.signal(signal.{name}, signal.SIG_DFL); os.kill(os.getpid(), signal.{name}); time.sleep(30)"
    )
    assert (done.returncode, done.stderr) == (status, "")


def test_worker_ended_by_another_signal(script: Scripts) -> None:
    done = script.run("os.kill(os.getpid(), signal.SIGUSR1); time.sleep(30)")
    assert (done.returncode, done.stderr) == (1, "error: the worker process was ended by SIGUSR1\n")


@pytest.mark.parametrize(
    ("raised", "status", "stderr"),
    [
        (
            "ModelInvalid('bad\\nmodel\\x1b[2J', 'get\\tanother')",
            4,
            "error: bad model\ufffd[2J\nhint: get another\n",
        ),
        ("KeyboardInterrupt", 130, ""),
        ("MemoryError", 6, "error: out of memory\nhint: use a smaller model or a smaller --ctx\n"),
        ("BrokenPipeError", 141, ""),
        (
            "ValueError('odd')",
            1,
            "error: unexpected failure: ValueError: odd\nhint: run again with --verbose for the traceback\n",
        ),
        (
            "AssertionError",
            1,
            "error: unexpected failure: AssertionError, and no more is said\n"
            "hint: run again with --verbose for the traceback\n",
        ),
        ("OSError(30, 'Read-only file system', 'a\\x1bb')", 1, "error: a\ufffdb: Read-only file system\n"),
        ("SystemExit(7)", 7, ""),
    ],
)
def test_what_the_work_raises(script: Scripts, raised: str, status: int, stderr: str) -> None:
    done = script.run(f"raise {raised}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", stderr)


def test_verbose_shows_the_traceback(script: Scripts) -> None:
    done = script.run("raise ValueError('odd\\x1b[2J')", verbose=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n  File ")
    assert done.stderr.endswith("\nerror: unexpected failure: ValueError: odd\ufffd[2J\n")
    assert "\x1b" not in done.stderr


def test_output_precedes_the_error(script: Scripts) -> None:
    process = script.start("print('answer'); raise ModelInvalid('bad')", stderr=subprocess.STDOUT)
    assert finish(process)[1] == "answer\nerror: bad\n"


def test_full_disk_is_an_error(script: Scripts) -> None:
    command = script.command("print('answer'); return 0")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), timeout=PATIENCE_S
        )
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\nhint: make room, then run the command again\n"


# --- death pact -----------------------------------------------------------------------------------

BUSY = {
    "call without the GIL": "time.sleep(60)",
    "writing": "while True: print('x', flush=True); time.sleep(0.001)",
}
if sys.platform == "linux":  # elsewhere a thread ends the worker, which needs the GIL
    BUSY["call with the GIL"] = "sum(range(10**12))"


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY.keys())
def test_supervisor_killed(scripts: Scripts, busy: str) -> None:
    process = scripts.start(f"print('busy', flush=True)\n{busy}")
    assert read_line(process) == "busy\n"
    time.sleep(0.05)
    process.kill()
    took, _, err = finish(process)  # ends when the worker, too, has left stdout
    assert took < PROMPT_S
    assert (process.returncode, err) == (-signal.SIGKILL, "")


def test_no_output_after_the_supervisor_was_killed(script: Scripts) -> None:
    """The worker writes on a regular file every millisecond: nothing may be added once it's over."""
    target = script.folder / "out"
    process = script.start(f"""
        print("busy", flush=True)
        with open({str(target)!r}, "a", buffering=1) as file:
            while True:
                file.write("x\\n")
                time.sleep(0.001)
        """)
    read_line(process)
    process.kill()
    assert finish(process)[0] < PROMPT_S
    size = target.stat().st_size if target.exists() else 0
    time.sleep(0.1)
    assert (target.stat().st_size if target.exists() else 0) == size


def test_reader_goes_away(scripts: Scripts) -> None:
    process = scripts.start("while True: print('line', flush=True); time.sleep(0.001)")
    assert read_line(process) == "line\n"
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    start = time.monotonic()
    assert process.wait(timeout=PATIENCE_S) == 141
    assert time.monotonic() - start < PROMPT_S
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()


# --- interrupts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_to_the_supervisor_reaches_the_worker(scripts: Scripts, name: str) -> None:
    process = scripts.start(
        """
        try:
            print("ready", flush=True)
            time.sleep(30)
        except KeyboardInterrupt as error:
            print(error, flush=True)
            raise
        """
    )
    read_line(process)
    process.send_signal(getattr(signal, name))
    took, out, err = finish(process)
    assert (process.returncode, out, err) == (130, f"{name}\n", "")
    assert took < PROMPT_S


def test_callback_hears_of_each_interrupt_once(script: Scripts) -> None:
    process = script.start(
        """
        seen = []
        on_interrupt(seen.append)
        print(os.getpid(), flush=True)
        while len(seen) < 2: time.sleep(0.01)
        time.sleep(0.2)
        print(seen)
        return 130
        """
    )
    worker = int(read_line(process))
    for press in range(2):
        # What a terminal does: a signal to each of the two.
        process.send_signal(signal.SIGINT)
        os.kill(worker, signal.SIGINT)
        time.sleep(0.3 * (press == 0))
    _, out, _ = finish(process)
    assert (process.returncode, out) == (130, "['SIGINT', 'SIGINT']\n")


STUBBORN = "on_interrupt(lambda name: print(name, flush=True))\n"
STUBBORN += "print('ready', flush=True)\nend = time.monotonic() + 30\n"
STUBBORN += "while time.monotonic() < end: time.sleep(0.05)"


def test_stubborn_worker_is_killed_after_the_grace(script: Scripts) -> None:
    process = script.start(STUBBORN, before="supervisor.GRACE_S = 0.4")
    read_line(process)
    process.send_signal(signal.SIGINT)
    took, out, err = finish(process)
    assert (process.returncode, out, err) == (130, "SIGINT\n", "")
    assert 0.3 < took < 0.4 + PROMPT_S


def test_third_interrupt_kills(script: Scripts) -> None:
    process = script.start(STUBBORN, before="supervisor.GRACE_S = 30")
    read_line(process)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.15)
    took, _, err = finish(process)
    assert (process.returncode, err) == (130, "")
    assert took < PROMPT_S


def test_worker_that_carries_on_is_left_alone(scripts: Scripts) -> None:
    """A chat drops the reply at Ctrl-C and goes on."""
    process = scripts.start(
        """
        seen = []
        def drop(name):
            seen.append(name)
            worker.carry_on()
        on_interrupt(drop)
        print("ready", flush=True)
        while len(seen) < 4: time.sleep(0.01)
        time.sleep(0.5)
        print("done", len(seen))
        return 0
        """,
        before="supervisor.GRACE_S = 0.4",
    )
    read_line(process)
    for _ in range(4):
        process.send_signal(signal.SIGINT)
        time.sleep(0.15)
    _, out, _ = finish(process)
    assert (process.returncode, out) == (0, "done 4\n")


def test_ignored_signals_stay_ignored(scripts: Scripts) -> None:
    """nohup, and background jobs of a script."""
    command = scripts.command("print('ready', flush=True); time.sleep(0.4); print('whole'); return 0")
    process = subprocess.Popen(
        ["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    read_line(process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    _, out, err = finish(process)
    assert (process.returncode, out, err) == (0, "whole\n", "")


# --- on a terminal --------------------------------------------------------------------------------


@pytest.fixture
def lifetime(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A FIFO and its read end, at end of file once every process that opened the FIFO for writing is gone."""
    fifo = tmp_path / "lifetime"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    yield str(fifo), fd
    os.close(fd)


def wait_for_end(fd: int, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not os.read(fd, 100):
            return True
    return False


class OnTerminal:
    """A command as the session leader of a new terminal."""

    def __init__(self, command: list[str]) -> None:
        self.screen, terminal = os.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment(),
            start_new_session=True,
            # A session leader's first terminal becomes the session's own.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(terminal)

    def press(self, key: bytes) -> None:
        os.write(self.screen, key)

    def read_until(self, text: str) -> str:
        """What the screen shows until `text`, or the end of the session."""
        shown = b""
        while text.encode() not in shown and select.select([self.screen], [], [], PATIENCE_S)[0]:
            try:
                shown += os.read(self.screen, 1000)
            except OSError:  # EIO: nobody holds the terminal any more
                break
        return shown.decode()

    def wait(self) -> int:
        return self.process.wait(timeout=PATIENCE_S)


def test_ctrl_c_on_a_terminal(scripts: Scripts) -> None:
    on_terminal = OnTerminal(
        scripts.command(
            """
            print([s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr)])
            while True: time.sleep(10)
            """
        )
    )
    on_terminal.read_until("[True, True, True]\r\n")
    start = time.monotonic()
    on_terminal.press(b"\x03")
    assert on_terminal.read_until("never shown") in ("", "^C")
    assert on_terminal.wait() == 130
    assert time.monotonic() - start < PROMPT_S
    os.close(on_terminal.screen)


def test_crash_on_a_terminal_starts_a_new_line(script: Scripts) -> None:
    on_terminal = OnTerminal(script.command("print('half a li', end='', flush=True); os.abort()"))
    shown = on_terminal.read_until("never shown")
    assert shown.startswith("half a li\x1b[?25h\x1b[?2004l\r\nerror: llama.cpp crashed (SIGABRT)\r\n")
    assert on_terminal.wait() == 11
    os.close(on_terminal.screen)


@pytest.mark.parametrize("doing", ["time.sleep(60)", "while True: print('x', flush=True); time.sleep(0.01)"])
def test_terminal_goes_away(scripts: Scripts, lifetime: tuple[str, int], doing: str) -> None:
    fifo, fd = lifetime
    on_terminal = OnTerminal(
        scripts.command(f"print('ready', flush=True)\n{doing}", before=f"held = open({fifo!r}, 'w')")
    )
    shown = on_terminal.read_until("ready")
    assert "ready" in shown, shown
    os.close(on_terminal.screen)
    assert wait_for_end(fd, PROMPT_S)
    # Whichever the worker notices first: SIGHUP, or that it can't write (EIO).
    assert on_terminal.wait() in (130, 1)


def test_stopped_and_continued(script: Scripts) -> None:
    """Ctrl-Z stops both processes, as one job; they go on together."""
    on_terminal = OnTerminal(
        script.command("print('ready', flush=True); time.sleep(0.5); print('whole'); return 0")
    )
    on_terminal.read_until("ready")
    # The kernel drops a terminal's SIGTSTP for an orphaned process group, which this one is.
    os.killpg(on_terminal.process.pid, signal.SIGSTOP)
    time.sleep(0.1)
    _, status = os.waitpid(on_terminal.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.killpg(on_terminal.process.pid, signal.SIGCONT)
    assert "whole" in on_terminal.read_until("whole")
    assert on_terminal.wait() == 0
    os.close(on_terminal.screen)


# --- reports --------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.text())
def test_single_line_is_printable_and_stable(text: str) -> None:
    line = single_line(text)
    assert line.isprintable()
    assert single_line(line) == line


def test_report_puts_log_lines_below() -> None:
    stream = io.StringIO()
    report(UsageError("a\nb", "c"), stream, ["x\x1b", "y"])
    assert stream.getvalue() == "error: a b\nhint: c\n  x\ufffd\n  y\n"


def test_report_to_nobody() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    report(UsageError("a"), Gone())
    report(UsageError("a"), None)


def test_guard_in_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        print("answer")
        raise ModelInvalid("bad", "look")

    assert run_guarded(lambda: 3) == 3
    assert run_guarded(fail) == 4
    assert capsys.readouterr() == ("answer\n", "error: bad\nhint: look\n")


def test_unsupervised_reader_goes_away_quietly(tmp_path: Path) -> None:
    """No complaint of the interpreter on its way out, no exit code 120."""
    script = (
        "import sys; from infer_cli.process.report import run_guarded\n"
        "def work():\n    for i in range(100000): print('line', i)\n    return 0\n"
        "sys.exit(run_guarded(work))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert read_line(process) == "line 0\n"
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=PATIENCE_S) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


# --- a worker that begins ahead -------------------------------------------------------------------


class Ahead:
    """Writes and starts scripts that begin a worker ahead, then read a command line, then hand over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self, task: str, *, steps: str = "", meanwhile: str = "", verbose: bool = False
    ) -> subprocess.Popen[str]:
        (self.folder / "task.py").write_text(
            "import os, sys, time\ndef work(arguments, worker):\n"
            + textwrap.indent(textwrap.dedent(task), "    ")
        )
        script = self.folder / "ahead.py"
        script.write_text(
            PRELUDE
            + "def step():\n"
            + textwrap.indent(textwrap.dedent(steps) or "pass", "    ")
            + "\nsupervisor.begin_ahead([step, lambda: __import__('wave')])\n"
            + textwrap.dedent(meanwhile)
            + "\ntask = Task('task', 'work', {'a': (1, 'é\\udcff', [None, 2.5])})"
            + f"\nsys.exit(supervisor.supervise(task, verbose={verbose}))\n"
        )
        return subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def run(
        self, task: str, *, steps: str = "", meanwhile: str = "", verbose: bool = False
    ) -> tuple[int, str, str]:
        process = self.start(task, steps=steps, meanwhile=meanwhile, verbose=verbose)
        out, err = process.communicate("in", timeout=PATIENCE_S)
        return process.returncode, out, err


@pytest.fixture
def ahead(tmp_path: Path) -> Ahead:
    if not supervisor.FORKS:
        pytest.skip("a worker is not forked here")
    return Ahead(tmp_path)


def test_an_early_worker_imports_meanwhile_and_then_does_the_task(ahead: Ahead) -> None:
    code, out, err = ahead.run(
        "names = ('colorsys', 'sched')\n"
        "print(arguments, [n in sys.modules for n in names], sys.stdin.read())\n"
        "return 8",
        steps="import colorsys",
        meanwhile="import sched; time.sleep(0.3)",
    )
    assert (code, err) == (8, "")
    assert out == "{'a': (1, 'é\\udcff', [None, 2.5])} [True, False] in\n"


def test_a_step_that_fails_is_left_to_the_task(ahead: Ahead) -> None:
    code, out, err = ahead.run("print('done'); return 0", steps="import no_such_module_anywhere")
    assert (code, out, err) == (0, "done\n", "")


def test_steps_end_when_the_task_comes(ahead: Ahead) -> None:
    code, out, _ = ahead.run("print('wave' in sys.modules); return 0", steps="time.sleep(1)")
    assert (code, out) == (0, "False\n")


def test_without_a_task_the_early_worker_leaves_quietly(ahead: Ahead) -> None:
    process = ahead.start("return 0", meanwhile="print('usage'); sys.exit(2)")
    elapsed, out, err = finish(process)  # nobody holds the pipes any more
    assert (process.returncode, out, err) == (2, "usage\n", "")
    assert elapsed < PATIENCE_S / 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_the_command_line_is_read_ends_both(ahead: Ahead, number: signal.Signals) -> None:
    process = ahead.start(
        "return 0", steps="time.sleep(20)", meanwhile="print('up', flush=True); time.sleep(20)"
    )
    assert read_line(process) == "up\n"
    process.send_signal(number)
    elapsed, _, _ = finish(process)
    assert elapsed < PROMPT_S + 1


@pytest.mark.parametrize("when", ["steps", "task"])
def test_an_early_worker_that_crashes_is_one_line(ahead: Ahead, when: str) -> None:
    crash = "os.kill(os.getpid(), signal.SIGSEGV)"
    code, out, err = ahead.run(
        "import signal\n" + (crash if when == "task" else "return 0"),
        steps=crash if when == "steps" else "",
        meanwhile="time.sleep(0.3)",
    )
    assert (code, out) == (11, "")
    assert err.startswith("error: llama.cpp crashed (SIGSEGV)\n")


@pytest.mark.parametrize("verbose", [False, True])
def test_an_early_worker_keeps_native_output_off_stdout(ahead: Ahead, verbose: bool) -> None:
    code, out, err = ahead.run(
        "os.write(1, b'native\\n'); print('answer'); print(worker.log_tail()); return 0", verbose=verbose
    )
    assert code == 0
    assert (out, err) == (("answer\n[]\n", "native\n") if verbose else ("answer\n['native']\n", ""))
