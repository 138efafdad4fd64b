"""Starts the process that renders templates, talks with it, and ends it. Knows nothing of what is said."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from infer_cli.errors import UnexpectedFailure

if sys.platform == "win32":
    _OWN_GROUP = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    _OWN_GROUP = 0
_SLICE_S = 0.1  # a wait is cut into these: signals are seen between them on every platform
_LEAVE_S = 1.0  # for the process to end by itself
# A template's dates depend on the zone; without the others some interpreters do not start.
_ENVIRONMENT = (
    "TZ", "LANG", "LC_ALL", "LC_CTYPE", "LC_TIME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT",
)  # fmt: skip
_START = (
    "import sys; seconds, memory, *folders = sys.argv[1:]; sys.path += folders; "
    "from infer_cli.prompt.renderer_process import main; main(float(seconds), int(memory))"
)


class Link:
    """The process, and a thread that talks with it: not every platform limits the wait for a pipe."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._owner = os.getpid()
        self._most_reply = memory
        self.was_killed = False
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Isolated: no module of the working directory, no PYTHON… variable. No `site`: none of its hooks.
        command = [sys.executable, "-I", "-S", "-c", _START, str(seconds), str(memory), *_folders()]
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                cwd=os.sep,
                # Signals of the terminal are for those who use it.
                start_new_session=True,
                creationflags=_OWN_GROUP,
            )
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # no matter of this process
            raise UnexpectedFailure(
                f"the process that renders templates does not start: {error.strerror or error}"
            ) from error
        self._thread = threading.Thread(target=self._talk, name="renderer", daemon=True)
        self._thread.start()

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that started it, not a fork of that."""
        return self._owner == os.getpid()

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def exchange(self, request: bytes, seconds: float) -> bytes | None:
        """The answer; None where the process ended instead. Raises TimeoutError after `seconds`.

        Time that this process was stopped for (Ctrl-Z, a closed lid) does not count.
        """
        self._requests.put(request)
        while True:
            try:
                return self._replies.get(timeout=max(0.0, min(seconds, _SLICE_S)))
            except queue.Empty:
                seconds -= _SLICE_S
                if seconds <= 0:
                    raise TimeoutError from None

    def kill(self) -> None:
        self.was_killed = True
        self._popen.kill()

    def end(self, wait_s: float = _LEAVE_S) -> int:
        """End it, by force where it does not go within `wait_s`; the exit code, or a signal's, negative."""
        self._requests.put(None)  # the thread closes its input, when it is not waiting for an answer
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(wait_s)
        self._popen.kill()
        code = self._popen.wait()
        self._thread.join(_LEAVE_S)
        return code

    def _talk(self) -> None:
        stdin, stdout = self._popen.stdin, self._popen.stdout
        assert stdin is not None and stdout is not None
        with stdout, contextlib.suppress(OSError), stdin:  # closing writes what is left
            while self._pass_on(stdin, stdout):
                pass

    def _pass_on(self, stdin: IO[bytes], stdout: IO[bytes]) -> bool:
        """One request, and its answer; whether there may be another. Keeps neither: they may be large."""
        request = self._requests.get()
        if request is None:
            return False
        reply = None
        with contextlib.suppress(OSError, MemoryError):  # who asked hears that there is no answer
            stdin.write(len(request).to_bytes(8, "little"))
            stdin.write(request)
            stdin.flush()
            reply = self._read(stdout)
        self._replies.put(reply)
        return reply is not None

    def _read(self, stdout: IO[bytes]) -> bytes | None:
        size = int.from_bytes(stdout.read(8), "little")
        if not 9 <= size <= self._most_reply:
            return None
        reply = stdout.read(size)
        return reply if len(reply) == size else None


def _folders() -> list[str]:
    """Where the process finds what it imports beside the standard library."""
    found: dict[str, None] = {}
    for name in ("jinja2", "markupsafe"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            found[str(Path(spec.origin).absolute().parents[1])] = None
    found[str(Path(__file__).absolute().parents[2])] = None
    return list(found)
