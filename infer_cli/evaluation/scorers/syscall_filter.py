"""Which system calls a program in the sandbox may not make, as a filter that the kernel takes (seccomp).

What it may do is make threads, files and memory of its own. It may not make processes or run other programs,
open sockets, mount, look into other processes, or get memory that no limit counts (System V segments, memory
files, message queues). Source: Linux's `seccomp(2)` and its tables of system calls.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

# Linux's classic BPF: load a word of the call's description, compare, jump, return.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _FLAGS_AT = 0, 4, 16
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD = 0x10000
_X32 = 0x40000000  # from here on, x86-64 has the same calls again, for programs of 32 bits

# The same on all machines.
_NEWER = {
    "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fspick": 433,
    "pidfd_open": 434, "pidfd_getfd": 438, "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip


class _Machine(NamedTuple):
    """`code` is the kernel's name of it, `refused` its numbers of calls that fail."""

    code: int
    clone: int
    refused: Mapping[str, int]
    clone3: int = 435
    has_x32: bool = False


_MACHINES = {
    "x86_64": _Machine(
        code=0xC000003E,
        clone=56,
        refused={
            "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "socket": 41, "unshare": 272,
            "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "ptrace": 101,
            "kcmp": 312, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321,
            "perf_event_open": 298,
            "keyctl": 250, "add_key": 248, "request_key": 249, "userfaultfd": 323, "memfd_create": 319,
            "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "syslog": 103, "personality": 135,
            "fanotify_init": 300,
        },
        has_x32=True,
    ),
    "aarch64": _Machine(
        code=0xC00000B7,
        clone=220,
        refused={
            "execve": 221, "execveat": 281, "socket": 198, "unshare": 97, "setns": 268, "mount": 40,
            "umount2": 39, "pivot_root": 41, "chroot": 51, "ptrace": 117, "kcmp": 272,
            "process_vm_readv": 270, "process_vm_writev": 271, "bpf": 280, "perf_event_open": 241,
            "keyctl": 219, "add_key": 217, "request_key": 218, "userfaultfd": 282, "memfd_create": 279,
            "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "syslog": 116, "personality": 92,
            "fanotify_init": 262,
        },
    ),
}  # fmt: skip


def syscall_filter(machine: str) -> bytes | None:
    """The filter's instructions for a machine, by its name of `platform.machine`; None for one that is
    unknown."""
    known = _MACHINES.get(machine)
    if known is None:
        return None
    code = [
        _step(_LOAD, _MACHINE_AT),
        _step(_IF_EQUAL, known.code, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
    ]
    if known.has_x32:
        code += [_step(_IF_AT_LEAST, _X32, 0, 1), _step(_RETURN, _REFUSE | _EPERM)]
    for number in (*known.refused.values(), *_NEWER.values()):
        code += [_step(_IF_EQUAL, number, 0, 1), _step(_RETURN, _REFUSE | _EPERM)]
    # Its flags are in memory, where a filter can't look. The C library then calls `clone`.
    code += [_step(_IF_EQUAL, known.clone3, 0, 1), _step(_RETURN, _REFUSE | _ENOSYS)]
    code += [
        _step(_IF_EQUAL, known.clone, 0, 3),
        _step(_LOAD, _FLAGS_AT),
        _step(_IF_BITS, _CLONE_THREAD, 1, 0),
        _step(_RETURN, _REFUSE | _EPERM),
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(code)


def syscall_number(machine: str, name: str) -> int:
    """Of a call that is refused. Raises KeyError."""
    return _MACHINES[machine].refused[name]


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction. The jumps say how many of those after it are left out."""
    return struct.pack("<HBBI", operation, if_true, if_false, value)
