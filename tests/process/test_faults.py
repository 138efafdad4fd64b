"""What surrounds a command is broken: closed streams, few descriptors, no home, signals at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli_helpers import INFER, REPO, Outcome, infer, one_error_line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell is needed")


def _in_shell(line: str, timeout: float = 30) -> Outcome:
    """A line of shell in which `infer` is the command."""
    done = subprocess.run(
        ["bash", "-c", f'infer() {{ "{sys.executable}" -m infer_cli "$@"; }}\n{line}'],
        stdin=subprocess.DEVNULL, capture_output=True, cwd=REPO, timeout=timeout,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize(
    "command",
    ["run -m fake hi", "run -m fake hi --json", "chat -m fake <<< hi", "tokens -m fake hi", "records list",
     "models list", "--help", "--version", "config path", "batch -m fake ROWS -o - --quiet"],
)  # fmt: skip
def test_a_closed_stdout_is_one_line_and_no_success(tmp_path: Path, command: str) -> None:
    (tmp_path / "rows.txt").write_text("a\n")
    done = _in_shell(f"infer {command} >&-".replace("ROWS", str(tmp_path / "rows.txt")))
    one_error_line(done, 1, "standard output is closed")
    without_stderr = _in_shell(f"infer {command} >&- 2>&-".replace("ROWS", str(tmp_path / "rows.txt")))
    assert without_stderr == Outcome(1, b"", "")


def test_other_closed_streams_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a\n")
    for closed in ("2>&-", "<&-", "<&- 2>&-"):
        assert _in_shell(f"infer run -m fake hi {closed}") == Outcome(0, b"You said: hi\n", ""), closed
    out = tmp_path / "out.jsonl"
    done = _in_shell(f"infer batch -m fake {tmp_path}/rows.txt -o {out} --quiet <&- >&- 2>&-")
    assert (done.code, out.read_text().count("\n")) == (0, 1)
    one_error_line(_in_shell("infer batch -m fake - -o - <&-"), 2, "there is no stdin")
    one_error_line(_in_shell("infer run -m fake --messages - <&-"), 2, "there is no stdin")


def test_what_is_said_to_a_closed_stderr_does_not_go_to_stdout() -> None:
    assert _in_shell("infer records rm --all 2>&-") == Outcome(0, b"", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["run -m fake hi", "tokens -m fake hi", "--help", "models list"])
def test_a_full_stdout_is_one_line(command: str) -> None:
    one_error_line(_in_shell(f"infer {command} > /dev/full"), 1, "No space left")


def test_few_descriptors_are_one_line() -> None:
    """From too few to begin with to enough. With the fewest, Python itself may not get to a line of ours."""
    codes = []
    for limit in (4, 5, 6, 7, 8, 9, 10, 12, 16):
        done = _in_shell(f"ulimit -n {limit}; infer run -m fake hi")
        codes.append(done.code)
        if "Traceback" in done.err:
            assert limit < 8 and "infer_cli" not in done.err, done
        elif done.code:
            one_error_line(done, 1, "too many open files", "ulimit -n")
        else:
            assert done.text == "You said: hi\n"
    assert codes == sorted(codes, reverse=True)
    assert {0, 1} == set(codes)


@pytest.mark.parametrize(
    ("home", "code", "words"),
    [
        ("~nouser", 2, "INFER_HOME '~nouser': there is no such user's home directory"),
        ("~nouser/x", 2, "there is no such user's home directory"),
        ("FILE", 2, "set INFER_HOME to a directory"),
        ("/dev/null", 2, "set INFER_HOME to a directory"),
    ],
)
@pytest.mark.parametrize(
    "command", ["run -m fake hi", "records list", "models list", "cache list", "tokens -m fake a"]
)
def test_a_home_that_is_none_is_one_line(
    tmp_path: Path, command: str, home: str, code: int, words: str
) -> None:
    (tmp_path / "file").write_text("")
    env = {"INFER_HOME": home.replace("FILE", str(tmp_path / "file"))}
    one_error_line(infer(*command.split(), env=env), code, words)


def test_homes_that_will_do(tmp_path: Path) -> None:
    for env in ({"INFER_HOME": ""}, {"INFER_HOME": "~"}, {"INFER_HOME": str(tmp_path / "new")}):
        assert infer("run", "-m", "fake", "hi", env=env) == Outcome(0, b"You said: hi\n", "")


def _is_gone(group: int) -> bool:
    """Whether a process group has ended, soon."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", [["run", "-m", "fake", "hi"], ["tokens", "-m", "fake", "hi"]])
def test_a_signal_at_any_moment_leaves_no_traceback_and_no_process(command: list[str], name: str) -> None:
    """Python's own start, before it runs a line of ours, is not in our hands."""
    for delay_ms in range(0, 200, 10 if name == "SIGINT" else 40):
        process = subprocess.Popen(
            [*INFER, *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=REPO, start_new_session=True,
        )  # fmt: skip
        time.sleep(delay_ms / 1000)
        process.send_signal(signal.Signals[name])
        _out, err = process.communicate(timeout=20)
        if "Traceback" in err:
            assert "infer_cli" not in err.replace("-m infer_cli", ""), (delay_ms, err)
            assert name == "SIGINT"
        else:
            assert err == "", (delay_ms, err)
            assert process.returncode in (0, 130, -signal.Signals[name]), (delay_ms, process.returncode)
        assert _is_gone(process.pid), delay_ms


def test_an_interrupt_is_met_from_the_first_line_on() -> None:
    """While the first module is imported, and where the interpreter can't raise it."""
    for where in ("import infer_cli.process.report", "weakref"):
        code = (
            "import os, signal, sys, weakref\n"
            "class Meta:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'infer_cli.process.report':\n"
            f"            if {where!r} != 'weakref': signal.raise_signal(signal.SIGINT)\n"
            "            class Thing: pass\n"
            "            thing = Thing()\n"
            "            ref = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))\n"
            "            del thing\n"
            "sys.meta_path.insert(0, Meta())\n"
            "sys.argv = ['infer', '--version']\n"
            "from infer_cli.__main__ import main\n"
            "main()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", ""), where


@pytest.mark.parametrize("verbose", [False, True])
def test_a_thread_that_fails_is_one_line(verbose: bool) -> None:
    code = (
        "import sys, threading\n"
        "import infer_cli.cli.app as app\n"
        "def fail(): raise ValueError('bad\\n\\x1b]0;title\\x07')\n"
        "def call(arguments):\n"
        "    thread = threading.Thread(target=fail)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    print('answer')\n"
        "    return 0\n"
        "app.call = call\n"
        f"sys.argv = {['infer', *(['--verbose'] if verbose else [])]}\n"
        "from infer_cli.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert (done.returncode, done.stdout) == (0, "answer\n")
    *before, last = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
    assert last.startswith("error: unexpected failure: ValueError: bad ")
    assert bool(before) == verbose
    assert "\x1b" not in done.stderr
