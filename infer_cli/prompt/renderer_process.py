"""The process that renders untrusted templates: `infer_cli.prompt.renderer` starts it. Not for import.

On standard input, any number of requests: the length in 8 bytes, and what `marshal` makes of what to do, the
template and the variables. On standard output, an answer each: the length, a byte that says what it is (T
text, F the template failed, R it raised, M memory ran out, X this process can't work), the template's line in
8 bytes, text. Numbers are little-endian.

A thread reads, so that the end of the input ends the process whatever a template is doing.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from infer_cli.prompt.renderer import OUT_OF_MEMORY

if TYPE_CHECKING:
    from infer_cli.prompt.sandbox import BoundedTemplate

# Longer date formats have no use, and strftime's cost is the platform's own business.
MAX_DATE_FORMAT_CHARS = 200
_WATCH_S = 0.02


def main(seconds: float, memory: int) -> None:
    """Answer requests until the input ends; each may take `seconds`, all of them have `memory` bytes."""
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_all, args=(requests,), daemon=True).start()
    try:
        bound_memory(memory)
        import infer_cli.prompt.sandbox
    except Exception as error:
        requests.get()
        _answer(b"X", f"{type(error).__name__}: {error}")
        os._exit(1)
    del infer_cli
    try:
        while True:
            _serve(requests, seconds)
    except BaseException:
        os._exit(OUT_OF_MEMORY)


def _serve(requests: queue.SimpleQueue[bytes], seconds: float) -> None:
    """Answer one request. A function, so that nothing of it is kept."""
    what, told, variables = marshal.loads(requests.get())
    _bound_time(seconds)
    try:
        _answer(*_answer_to(what, told, variables))
    except MemoryError:
        _answer(b"M", "")


_Told: TypeAlias = tuple[str, bool, tuple[str, tuple[float, str] | None] | None]


def _answer_to(what: str, told: _Told, variables: dict[str, object]) -> tuple[bytes, str, int | None]:
    """Kind, text, line. Raises MemoryError."""
    from infer_cli.prompt.sandbox import free_variables
    from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised

    try:
        if what == "free_variables":
            return b"T", "\n".join(free_variables(told[0])), None
        template = _compiled(told)
        return b"T", template.render(variables) if what == "render" else "", None
    except TemplateFailed as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        return b"F", error.reason, error.line
    except TemplateRaised as error:
        return b"R", str(error), None


def _answer(kind: bytes, text: str, line: int | None = None) -> None:
    data = text.encode("utf-8", "surrogatepass")
    head = (9 + len(data)).to_bytes(8, "little") + kind
    sys.stdout.buffer.write(head + (-1 if line is None else line).to_bytes(8, "little", signed=True))
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@lru_cache(maxsize=32)  # a conversation has one or two, a task some ten; compiling costs more than rendering
def _compiled(told: _Told) -> BoundedTemplate:
    from jinja2 import StrictUndefined, Undefined

    from infer_cli.prompt.sandbox import BoundedTemplate

    text, strict, clock = told
    functions: dict[str, Callable[..., object]] = {}
    if clock is not None:
        written, zone = clock
        now = datetime.fromisoformat(written)
        if zone is not None:
            now = now.replace(tzinfo=timezone(timedelta(seconds=zone[0]), zone[1]))
        functions["strftime_now"] = lambda date_format: _strftime(now, date_format)
    return BoundedTemplate(text, functions=functions, undefined=StrictUndefined if strict else Undefined)


def _strftime(now: datetime, date_format: str) -> str:
    if len(date_format) > MAX_DATE_FORMAT_CHARS:
        raise ValueError(f"a date format of {len(date_format)} characters")
    return now.strftime(date_format)


def _read_all(requests: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            size = int.from_bytes(sys.stdin.buffer.read(8), "little")
            request = sys.stdin.buffer.read(size)
            if not request or len(request) < size:
                os._exit(0)  # nobody is there any more
            requests.put(request)
    except BaseException:
        os._exit(OUT_OF_MEMORY)


# --- ceilings -------------------------------------------------------------------------------------

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        )

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("BasicLimitInformation", _BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        )

    _JOB_OBJECT_LIMIT_PROCESS_MEMORY = 0x100
    _EXTENDED_LIMIT_INFORMATION = 9

    def bound_memory(n_bytes: int) -> None:
        """Put this process into a job that has so much memory. Raises OSError."""
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = wintypes.HANDLE
        kernel.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
        kernel.GetCurrentProcess.restype = wintypes.HANDLE
        kernel.SetInformationJobObject.argtypes = (
            wintypes.HANDLE,
            ctypes.c_int,
            ctypes.c_void_p,
            wintypes.DWORD,
        )
        kernel.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _JOB_OBJECT_LIMIT_PROCESS_MEMORY
        limits.ProcessMemoryLimit = n_bytes
        job = kernel.CreateJobObjectW(None, None)  # never closed: the job lives as long as this process
        if not (
            job
            and kernel.SetInformationJobObject(
                job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
            )
            and kernel.AssignProcessToJobObject(job, kernel.GetCurrentProcess())
        ):
            raise ctypes.WinError(ctypes.get_last_error())

    def _bound_time(seconds: float) -> None:
        """Nothing: the other process watches the clock."""

else:
    import resource

    def bound_memory(n_bytes: int) -> None:
        """Let this process have so much address space; where the system does not see to it, a thread does."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the prompt
        if sys.platform == "darwin":
            threading.Thread(target=_watch_memory, args=(n_bytes,), daemon=True).start()
        else:
            resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))

    def _watch_memory(n_bytes: int) -> None:
        while resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < n_bytes:  # bytes, on macOS
            time.sleep(_WATCH_S)
        os._exit(OUT_OF_MEMORY)

    def _bound_time(seconds: float) -> None:
        """The other process watches the clock; where that is gone, and one long call keeps the thread that
        reads from seeing it, the system ends this process."""
        limit = int(time.process_time() + seconds) + 2
        with contextlib.suppress(ValueError):  # a lower limit that this process was born with stays
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
