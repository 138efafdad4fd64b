"""The process in the sandbox: it binds itself, runs one program and says how that ended. Not for import.

`infer_cli.evaluation.scorers.code_sandbox` starts it, as a file of its own, with an order in JSON on
standard input. On standard output: R when it is ready to run the program; then D and the order's token where
the program came to its end, or E and a line that says what it raised. What the program prints goes nowhere.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import resource
import signal
import sys
import types

_PROGRAM = "<program>"
_MOST_LINE = 2000  # characters

# Of Linux's headers.
_SET_DEATH_SIGNAL = 1
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_CAPABILITIES_VERSION = 0x20080522
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_DETACH = 2
# The flags of a mount that a user namespace may not take away: as statvfs has them, as mount has them.
_LOCKED = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}

_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = (("n", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def main() -> None:
    report = os.dup(1)
    order = json.loads(sys.stdin.buffer.read())
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, report)
    os.closerange(report + 1, 256)
    if order["view"] is not None:
        _enter(order["view"])
    _bind(order)
    program, token = order["program"], order["token"].encode()
    del sys.path[0], order  # the folder of this file
    os.environ.clear()
    os.write(report, b"R")
    what = _run(program)
    os.write(report, b"D" + token if what is None else b"E" + what)
    os._exit(0)


def _enter(view: dict[str, object]) -> None:
    """Leave the file system for a small one, in memory, of namespaces that are this process's own. `binds`:
    paths that are seen read-only; `links`: target and path; `devices`; `files`: bytes of /tmp. Raises
    OSError."""
    root = "/proc"  # is everywhere, and holds nothing that is needed
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for path in _listed(view["binds"]):
        _bind_path(path, root + path, _RDONLY | _NODEV)
    for path in _listed(view["devices"]):
        _bind_path(path, root + path, _NOEXEC)
    for target, path in dict(zip(_listed(view["targets"]), _listed(view["links"]), strict=True)).items():
        os.symlink(target, root + path)
    os.mkdir(root + "/tmp")
    _mount("tmpfs", root + "/tmp", "tmpfs", _NOSUID | _NODEV, f"size={view['files']},mode=1777")
    os.chdir(root)
    _check(_libc.syscall(view["pivot_root"], b".", b"."))
    _check(_libc.umount2(b".", _DETACH))
    os.chdir("/")
    _mount(None, "/", None, _REMOUNT | _RDONLY | _NOSUID | _NODEV, None)
    os.chdir("/tmp")


def _bind_path(source: str, target: str, flags: int) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT, 0o600))
    _mount(source, target, None, _BIND, None)
    there = os.statvfs(target).f_flag
    kept = sum(mounted for held, mounted in _LOCKED.items() if there & held)
    _mount(None, target, None, kept | flags | _REMOUNT | _BIND | _NOSUID, None)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    def told(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    done = _libc.mount(told(source), told(target), told(kind), ctypes.c_ulong(flags), told(options))
    _check(done, target)


def _bind(order: dict[str, object]) -> None:
    """Give up what a program must not have, for good. Raises OSError."""
    uid = order["uid"]
    if isinstance(uid, int):
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _check(_libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0))  # a change of user forgets it
    limits = order["limits"]
    assert isinstance(limits, dict)
    for name, (soft, hard) in limits.items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    whose = _CAPABILITIES_VERSION.to_bytes(4, sys.byteorder) + bytes(4)
    _check(_libc.capset(whose, bytes(24)))
    _check(_libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    steps = bytes.fromhex(str(order["filter"]))
    loaded = _Filter(len(steps) // 8, steps)
    _check(_libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(loaded), 0, 0))


def _check(done: int, path: str | None = None) -> None:
    if done != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def _listed(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def _run(program: str) -> bytes | None:
    """None where it came to its end, else what it raised."""
    module = types.ModuleType("program")
    module.__dict__["__builtins__"] = builtins
    sys.modules["program"] = module
    try:
        exec(compile(program, _PROGRAM, "exec", dont_inherit=True), module.__dict__)
        return None
    except MemoryError:  # there may be none left for more words
        return b"MemoryError"
    except BaseException as error:  # an exit is not the program's end either
        try:
            return _told(error).encode("utf-8", "replace")
        except BaseException:
            return b"an error that can't be told"


def _told(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "SystemExit before the program's end"
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == _PROGRAM else None
    said = error.msg if line is not None and isinstance(error, SyntaxError) else str(error)
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == _PROGRAM:
            line = frame.tb_lineno
        frame = frame.tb_next
    first = said.strip().partition("\n")[0][:_MOST_LINE]
    place = "" if line is None else f" (line {line})"
    return type(error).__name__ + (f": {first}" if first else "") + place


if __name__ == "__main__":
    main()
