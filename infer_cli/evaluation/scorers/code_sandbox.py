"""Runs a program that nobody vouches for: in namespaces of its own, without a network, with limits.

The program sees the standard library of this interpreter, read-only, and an empty /tmp of its own in memory.
It is one process, without privileges, that can start no other (`syscall_filter`), and it is killed when its
time is over. `bwrap` makes the namespaces where it is there and works, else `unshare` of util-linux. Whether
one works is found out by a run of it: what a system allows can't be told otherwise.

Knows nothing of tasks and models.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.scorers.syscall_filter import syscall_filter, syscall_number
from infer_cli.process.child_process import find_program
from infer_cli.text.sanitize import single_line

PROGRAMS = ("bwrap", "unshare")  # that make a sandbox, the better one first
_RUNNER = Path(__file__).with_name("code_runner.py")
_INSIDE = "/run.py"  # where bwrap puts it
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}  # the same order of sets each time
_ALL_IDS = ["0", "0", "4294967295"]  # no user namespace around this process
_FIRST_UID = 1_900_000_000  # nobody's: what runs for root runs as a user of its own
_START_SECONDS = 30.0  # of a busy machine
_MOST_REPORT = 16_384  # bytes
_MOST_WHY = 300  # characters
_MIB = 1 << 20


class CodeLimits(NamedTuple):
    """Of one program. `seconds` of wall clock and of processor time, `memory` bytes of address space, `files`
    bytes of all its files together, `threads`."""

    seconds: float = 10.0
    memory: int = 512 * _MIB
    files: int = 32 * _MIB
    threads: int = 32


class Ran(NamedTuple):
    """How a program ended. `why` is empty where it came to its end, else one line, safe to show."""

    passed: bool
    why: str = ""


class SandboxFailed(Exception):
    """The sandbox did not get to the point of running the program."""


class _View(NamedTuple):
    """What is seen of the file system. `links`: paths and their targets."""

    binds: tuple[str, ...]
    links: Mapping[str, str]

    @property
    def folders(self) -> list[str]:
        """All that what is seen lies in, the outer before the inner."""
        found = {
            str(folder) for path in (*self.binds, *self.links, *_DEVICES) for folder in Path(path).parents
        }
        return sorted(found - {"/"})


class _Report(NamedTuple):
    """What came of a process. `text` is what it reported, `errors` what was said before it was ready. `code`
    is None where it was killed: its time was over, or it wrote too much."""

    text: bytes
    errors: bytes
    code: int | None
    was_slow: bool


class CodeSandbox:
    """A sandbox that `program` makes, the full path of `bwrap` or `unshare`. Safe to use from several
    threads."""

    def __init__(self, program: str) -> None:
        self.program = program
        self._is_bwrap = os.path.basename(program) == "bwrap"
        self._python = os.path.realpath(sys.executable)
        self._view = _view_of(self._python)
        self._filter = syscall_filter(platform.machine()) or b""
        self._changes_user = os.geteuid() == 0 and _ids_of_namespace() == _ALL_IDS

    def try_out(self) -> str:
        """What is wrong with it on this system; empty where it works."""
        try:
            return self.run(_TRIAL, CodeLimits()).why
        except SandboxFailed as e:
            return str(e)

    def run(self, program: str, limits: CodeLimits) -> Ran:
        """Raises SandboxFailed."""
        token = secrets.token_hex(16)
        order = {
            "program": program,
            "token": token,
            "uid": _FIRST_UID + threading.get_native_id() if self._changes_user else None,
            "limits": _resource_limits(limits),
            "filter": self._filter.hex(),
            "view": None if self._is_bwrap else self._told_view(limits),
        }
        try:
            process = self._start(json.dumps(order).encode(), limits)
        except OSError as e:
            raise SandboxFailed(f"{e.filename or self.program}: {e.strerror}") from None
        with _killed_at_end(process):
            report = _watch(process, limits.seconds)
        return _judged(report, token, limits)

    def _start(self, order: bytes, limits: CodeLimits) -> subprocess.Popen[bytes]:
        """Raises OSError."""
        with tempfile.TemporaryFile() as file:
            file.write(order)
            file.seek(0)
            return subprocess.Popen(
                self._command(limits),
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
            )

    def _command(self, limits: CodeLimits) -> list[str]:
        python = [self._python, "-s", "-S", "-B"]
        if not self._is_bwrap:
            spaces = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
            user = [] if self._changes_user else ["--user", "--map-root-user"]
            command = [*_dies_with_parent(self.program), self.program, *user, *spaces]
            return [*command, "--propagation", "private", "--", *python, str(_RUNNER)]
        user = ["--unshare-user"]
        if self._changes_user:
            user = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        command = [self.program, *user, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
        command += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--hostname", "sandbox"]
        for path in self._view.folders:
            command += ["--perms", "0755", "--dir", path]
        for path in self._view.binds:
            command += ["--ro-bind", path, path]
        for path, target in self._view.links.items():
            command += ["--symlink", target, path]
        command += ["--ro-bind", str(_RUNNER), _INSIDE]
        for path in _DEVICES:
            command += ["--dev-bind", path, path]
        command += ["--size", str(limits.files), "--perms", "1777", "--tmpfs", "/tmp", "--chdir", "/tmp"]
        return [*command, "--remount-ro", "/", "--", *python, _INSIDE]

    def _told_view(self, limits: CodeLimits) -> dict[str, object]:
        return {
            "binds": self._view.binds,
            "devices": _DEVICES,
            "links": list(self._view.links),
            "targets": list(self._view.links.values()),
            "files": limits.files,
            "pivot_root": syscall_number(platform.machine(), "pivot_root"),
        }


# The first program: it raises where the sandbox is none.
_TRIAL = """
import decimal, os, socket, threading

def is_open(what):
    try:
        what()
    except OSError:
        return False
    return True

assert not any(map(is_open, (
    os.fork, socket.socket, lambda: os.execv("/lib", ["x"]), lambda: open("/x", "w"),
    lambda: os.listdir("/home"), lambda: os.stat("/etc/passwd"), lambda: os.listdir("/proc/self"),
))) and not os.environ
thread = threading.Thread(target=lambda: open("/tmp/x", "w").close())
thread.start()
thread.join()
assert os.listdir(".") == ["x"]
"""


@cache
def find_sandbox() -> CodeSandbox:
    """The sandbox of this system, found out once. Raises UsageError, in one line, where none works."""
    if sys.platform != "linux" or syscall_filter(platform.machine()) is None:
        raise UsageError(
            f"code can't be run here: the sandbox needs Linux on x86-64 or arm64, not {sys.platform} on "
            f"{platform.machine()}",
            "leave out the task's scorers of kind code",
        )
    wrong = []
    for name in PROGRAMS:
        program = find_program(name)
        if program is None:
            wrong.append(f"{name} is not installed")
            continue
        sandbox = CodeSandbox(program)
        why = sandbox.try_out()
        if not why:
            return sandbox
        wrong.append(f"{name}: {why.removeprefix(f'{name}: ')}")
    raise UsageError(
        f"code can't be run here, there is no sandbox: {'; '.join(wrong)}",
        "let it make user namespaces (a container needs a permission for that)"
        if find_program(PROGRAMS[0])
        else "install bubblewrap",
    )


def _view_of(python: str) -> _View:
    """The libraries of the system and of an interpreter."""
    wanted = [*_LIBRARIES, *(os.path.join(sys.base_prefix, name) for name in ("lib", "lib64")), python]
    binds: list[str] = []
    links: dict[str, str] = {}
    for path in dict.fromkeys(wanted):
        if os.path.islink(path) and path in _LIBRARIES:
            links[path] = os.readlink(path)
        elif os.path.exists(path) and not any(path.startswith(there + "/") for there in binds):
            binds.append(path)
    return _View(tuple(binds), links)


def _dies_with_parent(unshare: str) -> list[str]:
    """What `bwrap` can do itself: `setpriv` is beside `unshare`."""
    return [os.path.join(os.path.dirname(unshare), "setpriv"), "--pdeathsig", "KILL"]


def _ids_of_namespace() -> list[str]:
    with contextlib.suppress(OSError):
        return Path("/proc/self/uid_map").read_text().split()
    return []


def _resource_limits(limits: CodeLimits) -> dict[str, tuple[int, int]]:
    """Soft and hard ones, by the names of Python's `resource`."""
    seconds = max(1, math.ceil(limits.seconds))
    return {
        "RLIMIT_CPU": (seconds, seconds + 1),
        "RLIMIT_AS": (limits.memory, limits.memory),
        "RLIMIT_FSIZE": (limits.files, limits.files),
        "RLIMIT_NPROC": (limits.threads, limits.threads),
        "RLIMIT_NOFILE": (64, 64),
        "RLIMIT_MEMLOCK": (0, 0),
        "RLIMIT_CORE": (0, 0),
    }


@contextlib.contextmanager
def _killed_at_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Its group is killed; the namespace, and all that is in it, ends with it."""
    assert process.stdout is not None and process.stderr is not None
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _watch(process: subprocess.Popen[bytes], seconds: float) -> _Report:
    """Read what it reports until it has ended, its time is over, or it is too much."""
    assert process.stdout is not None and process.stderr is not None
    pipes = {process.stdout: bytearray(), process.stderr: bytearray()}
    report, errors = pipes.values()
    deadline = time.monotonic() + _START_SECONDS
    is_ready = was_slow = False
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and len(report) + len(errors) <= _MOST_REPORT and not was_slow:
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                piece = os.read(key.fd, _MOST_REPORT)
                pipes[key.fileobj] += piece  # type: ignore[index]  # one of the two
                if not piece:
                    selector.unregister(key.fileobj)
            if report and not is_ready:
                is_ready, deadline = True, time.monotonic() + seconds
            was_slow = time.monotonic() >= deadline
    code = None
    if not was_slow and len(report) + len(errors) <= _MOST_REPORT:
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            was_slow = True
    return _Report(bytes(report), bytes(errors), code, was_slow)


def _judged(report: _Report, token: str, limits: CodeLimits) -> Ran:
    """Raises SandboxFailed where the program was not begun."""
    text = report.text
    # Of wall clock or of processor time: which of them is over first is chance.
    late = f"it was not done in {limits.seconds:.3g} s"
    if not text.startswith(b"R"):
        raise SandboxFailed(_why_not_begun(report))
    if text == b"RD" + token.encode():
        return Ran(True)
    if text.startswith(b"RE"):
        return Ran(False, _shown(text[2:]) or "an error")
    if report.was_slow:
        return Ran(False, late)
    if report.code is None or len(text) > 1:
        return Ran(False, "it wrote where only the sandbox writes")
    if report.code == 0:
        return Ran(False, "it ended before the program's end")
    number = report.code - 128 if report.code > 128 else -report.code
    if number == signal.SIGXCPU:
        return Ran(False, late)
    name = next((s.name for s in signal.Signals if s == number), f"exit code {report.code}")
    return Ran(False, f"it ended before the program's end ({name})")


def _why_not_begun(report: _Report) -> str:
    if report.was_slow:
        return f"it did not start in {_START_SECONDS:.0f} s"
    lines = report.errors.decode("utf-8", "replace").strip().splitlines()
    # Of a traceback the last line says what was wrong, of other programs the first.
    line = lines[-1 if lines[0].startswith("Traceback") else 0] if lines else f"exit code {report.code}"
    return single_line(line)[:_MOST_WHY]


def _shown(text: bytes) -> str:
    return single_line(text.decode("utf-8", "replace")[: 2 * _MOST_WHY])[:_MOST_WHY]
