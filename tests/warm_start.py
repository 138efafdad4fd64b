"""Starts `infer` without the start of a Python: as a fork of a process that has imported all modules already.

Modules are what most of a command's processor time goes to, and tests run thousands. Each command still has
a process of its own, with the pipes, variables and signals that it would have, and begins with `__main__`.
What an import does or costs is not tested so: sessions of the docs start each command as a user does, and so
do the tests with a `Popen` or a terminal. Where the environment differs in something that Python or a library
reads when it starts, and elsewhere than on Linux, there is no such fork: `run` says None.

`python -m tests.warm_start FD` is the process that forks, asked through the socket FD until that is closed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import os
import pickle
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

# What most commands import inside functions. Not huggingface_hub, which reads variables when it is imported.
_LIBRARIES = [
    "_bz2", "ctypes", "dataclasses", "hashlib", "inspect", "json", "locale", "lzma", "platform", "sqlite3",
    "statistics", "tempfile", "textwrap", "traceback", "urllib.parse", "urllib.request", "uuid",
    "filelock", "jinja2.sandbox", "markdown_it", "numpy", "platformdirs", "rich.console", "rich.progress",
    "tiktoken", "typer.main", "wcwidth",
]  # fmt: skip
# Variables that are read when something is done, not when a process or a library starts.
_READ_LATER = ("INFER_", "HF_", "OLLAMA_", "PYTEST_")
_READ_LATER_TOO = {"HOME", "USERPROFILE", "COLUMNS"}
# Those that a process begins with, those of optional extras, and one whose libraries few commands need.
_LEFT_OUT = {"__init__", "__main__", "starter", "integrations", "picture", "http_session"}
_REPO = Path(__file__).parents[1]
_LENGTH = struct.Struct("!Q")
_PID = struct.Struct("!q")


class WarmStarts:
    """What forks for the tests of one process: two processes in turn, begun when the first test asks.

    Each has hashes of its own, so no command finds its sets in the order that those of the last one had.
    """

    def __init__(self) -> None:
        self._all: list[_WarmStart] = []
        self._turns = itertools.count()

    def run(
        self, arguments: Sequence[str], stdin: bytes | None, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[bytes] | None:
        """`infer ARGUMENTS`, in the folder of this repository, as `subprocess.run` would have it run.

        None where a fork would not do. Raises TimeoutExpired, once it has killed the process.
        """
        if sys.platform != "linux":
            return None
        if not self._all:
            self._all = [_WarmStart(), _WarmStart()]
        which = self._all[next(self._turns) % len(self._all)]
        return which.run(arguments, stdin, environment, timeout)

    def close(self) -> None:
        for each in self._all:
            each.close()


class _WarmStart:
    """The other end of the socket of one such process."""

    def __init__(self) -> None:
        self._environment = _read_at_start(os.environ)
        self._socket, theirs = socket.socketpair()
        self._asking = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_start", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=_REPO,
                env=self._environment,
                stdin=subprocess.DEVNULL,
            )

    def close(self) -> None:
        self._socket.close()
        self._process.wait(60)

    def run(
        self, arguments: Sequence[str], stdin: bytes | None, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[bytes] | None:
        if _read_at_start(environment) != self._environment:
            return None
        told_end, told = os.pipe()
        reading, stdin_end = (os.open(os.devnull, os.O_RDONLY), None) if stdin is None else os.pipe()
        (stdout_end, stdout), (stderr_end, stderr) = os.pipe(), os.pipe()
        order = pickle.dumps((list(arguments), dict(environment), _umask()))
        with self._asking:
            theirs = [reading, stdout, stderr, told]
            socket.send_fds(self._socket, [_LENGTH.pack(len(order))], theirs)
            self._socket.sendall(order)
        for fd in theirs:
            os.close(fd)
        with open(told_end, "rb", buffering=0) as answers:
            (pid,) = _PID.unpack(answers.read(_PID.size))
            out, err = _Reader(stdout_end), _Reader(stderr_end)
            if stdin_end is not None:
                assert stdin is not None
                threading.Thread(target=_write_all, args=(stdin_end, stdin), daemon=True).start()
            if not select.select([answers], [], [], timeout)[0]:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), timeout)
            (code,) = _PID.unpack(answers.read(_PID.size))
        return subprocess.CompletedProcess(arguments, code, out.all(timeout), err.all(timeout))


class _Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self._data = b""
        self.start()

    def run(self) -> None:
        with open(self._fd, "rb") as pipe:
            self._data = pipe.read()

    def all(self, timeout: float) -> bytes:
        self.join(timeout)
        assert not self.is_alive(), "something holds a pipe of a process that has ended"
        return self._data


def _write_all(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(fd, "wb") as pipe:
        pipe.write(data)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_READ_LATER) and name not in _READ_LATER_TOO
    }


def _umask() -> int:
    """This process's own, which a test may have changed; without a moment in which it is another."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("Umask:")), 8)


# --- the process that forks -----------------------------------------------------------------------


def _ours() -> list[str]:
    paths = (path.relative_to(_REPO).with_suffix("") for path in (_REPO / "infer_cli").rglob("*.py"))
    return [".".join(path.parts) for path in sorted(paths) if not _LEFT_OUT.intersection(path.parts)]


def _serve(fd: int) -> None:
    for name in [*_LIBRARIES, *_ours()]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is shared stays shared
    asked = socket.socket(fileno=fd)
    living: dict[int, tuple[int, int]] = {}  # a pidfd -> the process, and where its end is told
    while True:
        ready, _, _ = select.select([fd, *living], [], [])
        for pidfd in living.keys() & set(ready):
            pid, told = living.pop(pidfd)
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(BrokenPipeError):
                os.write(told, _PID.pack(os.waitstatus_to_exitcode(status)))
            os.close(told)
            os.close(pidfd)
        if fd in ready:
            head, fds, _, _ = socket.recv_fds(asked, _LENGTH.size, 4)
            if not head:
                return
            *streams, told = fds
            arguments, environment, umask = pickle.loads(_read(asked, *_LENGTH.unpack(head)))
            pid = os.fork()
            if pid == 0:
                asked.detach()
                os.umask(umask)
                _become_infer(arguments, environment, streams)
            for stream in streams:
                os.close(stream)
            living[os.pidfd_open(pid)] = (pid, told)
            os.write(told, _PID.pack(pid))


def _read(asked: socket.socket, n_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < n_bytes:
        data += asked.recv(n_bytes - len(data))
    return bytes(data)


def _become_infer(arguments: list[str], environment: dict[str, str], streams: list[int]) -> NoReturn:
    for standard, fd in enumerate(streams):
        os.dup2(fd, standard)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(environment)
    for name, fd in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)  # has looked at another file
        mode, buffering = ("r" if fd == 0 else "w"), (1 if fd == 2 else -1)
        new = open(fd, mode, buffering, old.encoding, old.errors, closefd=False)  # noqa: SIM115 - as long as it
        setattr(sys, name, new)
    sys.orig_argv = [sys.executable, "-m", "infer_cli", *arguments]
    sys.argv = ["", *arguments]
    try:
        runpy.run_module("infer_cli", run_name="__main__", alter_sys=True)
    finally:
        os._exit(1)  # it leaves the process itself


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
