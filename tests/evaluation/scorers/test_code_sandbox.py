"""What a hostile program can do in the sandbox. Each attack would come to its end where it worked."""

from __future__ import annotations

import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.scorers import code_sandbox
from infer_cli.evaluation.scorers.code_sandbox import (
    PROGRAMS,
    CodeLimits,
    CodeSandbox,
    Ran,
    SandboxFailed,
    find_sandbox,
)
from infer_cli.process.child_process import find_program
from tests.cli_helpers import REPO

MIB = 1 << 20
FEW = CodeLimits(seconds=5, memory=256 * MIB, files=8 * MIB, threads=16)


def _working() -> list[str]:
    """Programs that make a sandbox on this system. A container may allow none."""
    found = [program for name in PROGRAMS if sys.platform == "linux" and (program := find_program(name))]
    return [program for program in found if not CodeSandbox(program).try_out()]


WORKING = _working()


@pytest.fixture(params=WORKING, ids=lambda program: Path(program).name)
def sandbox(request: pytest.FixtureRequest) -> CodeSandbox:
    return CodeSandbox(request.param)


def run(sandbox: CodeSandbox, program: str, limits: CodeLimits = FEW) -> Ran:
    return sandbox.run(program, limits)


@pytest.mark.skipif(bool(WORKING), reason="this system has a sandbox: the attacks are run")
def test_this_system_has_no_sandbox_so_code_is_refused() -> None:
    with pytest.raises(UsageError, match="code can't be run here") as caught:
        find_sandbox.__wrapped__()
    assert caught.value.hint and "\n" not in caught.value.in_full


def test_without_the_programs_code_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_sandbox, "find_program", lambda name: None)
    with pytest.raises(UsageError) as caught:
        find_sandbox.__wrapped__()
    if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64"):
        assert "bwrap is not installed; unshare is not installed" in caught.value.message
    assert "bubblewrap" in caught.value.hint or "leave out" in caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
def test_a_program_that_makes_no_sandbox_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'No permissions to create a new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(code_sandbox, "find_program", lambda name: str(fake) if name == "bwrap" else None)
    with pytest.raises(UsageError, match="bwrap: No permissions to create a new namespace"):
        find_sandbox.__wrapped__()


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
def test_a_sandbox_that_closes_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that says it works and only runs the program."""
    fake = tmp_path / "bwrap"
    fake.write_text(
        '#!/bin/sh\nwhile [ "$1" != "--" ]; do shift; done\nshift\n'
        f'exec "$1" "$2" "$3" "$4" {code_sandbox._RUNNER}\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(code_sandbox, "find_program", lambda name: str(fake) if name == "bwrap" else None)
    with pytest.raises(UsageError, match=r"bwrap: .*AssertionError|bwrap: .*Error"):
        find_sandbox.__wrapped__()


def test_a_program_that_comes_to_its_end_passes(sandbox: CodeSandbox) -> None:
    assert run(sandbox, "import json, math\nassert math.prod(json.loads('[2, 3]')) == 6") == Ran(True)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("x = 1\nassert x == 2", "AssertionError (line 2)"),
        ("def f(:", "SyntaxError: invalid syntax (line 1)"),
        ("import os; os._exit(0)", "it ended before the program's end"),
        ("import sys; sys.exit(0)", "SystemExit before the program's end"),
        ("input()", "EOFError: EOF when reading a line (line 1)"),
        ("import ctypes; ctypes.string_at(0)", "it ended before the program's end (SIGSEGV)"),
        ("raise ValueError('\\x1b[31m\\x07red\\nsecond')", "ValueError: �[31m�red (line 1)"),
        ("raise ValueError('\\ud800')", "ValueError: ? (line 1)"),
        ("def f(): return f()\nf()", "RecursionError: maximum recursion depth exceeded (line 1)"),
        (
            "class E(Exception):\n  def __str__(self): raise self\nraise E",
            "an error that can't be told",
        ),
    ],
)
def test_what_went_wrong_is_one_line(sandbox: CodeSandbox, program: str, why: str) -> None:
    assert run(sandbox, program) == Ran(False, why)


def test_a_message_without_end_is_cut(sandbox: CodeSandbox) -> None:
    assert len(run(sandbox, "raise ValueError('x' * 10_000_000)").why) == 300


# What of this list a program can do: `try_each` goes into its text, and it raises what worked.
TRY_EACH = """
def try_each(attempts):
    worked = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except {refused}:
            continue
        worked.append(name)
    assert not worked, worked
"""


def attempts(sandbox: CodeSandbox, refused: str, head: str, tries: Mapping[str, str]) -> None:
    """Each of `tries` raises one of `refused`."""
    listed = ", ".join(f"{name!r}: lambda: {text}" for name, text in tries.items())
    ran = run(sandbox, TRY_EACH.format(refused=refused) + head + f"\ntry_each({{{listed}}})")
    assert ran == Ran(True)


PATHS = ["/etc/passwd", "/home", "/proc/self/environ", "/proc/1/cmdline", "/sys", "/dev/shm", "/var",
         "/dev/kmsg", "/dev/tty", str(Path.home() / ".ssh"), str(Path(__file__)), "/tmp/../etc/hosts",
]  # fmt: skip


def test_files_of_the_system_are_not_there(sandbox: CodeSandbox) -> None:
    tries = {path: f"os.stat({path!r})" for path in PATHS}
    attempts(sandbox, "FileNotFoundError", "import os", tries)


def test_what_is_seen_is_the_standard_library_alone(sandbox: CodeSandbox) -> None:
    ran = run(sandbox, "import os\nraise Exception(sorted(os.listdir('/')))")
    first = Path(sys.base_prefix).parts[1]
    allowed = {"dev", "etc", "lib", "lib64", "proc", "run.py", "tmp", "usr", first}
    assert set(eval(ran.why.removeprefix("Exception: ").removesuffix(" (line 2)"))) <= allowed
    assert run(sandbox, "import os\nassert os.listdir('/etc') in ([], ['ld.so.cache'])").passed


def test_links_lead_nowhere(sandbox: CodeSandbox) -> None:
    head = "import os\ndef follow(target):\n  os.symlink(target, 'x')\n"
    head += "  try: open('x')\n  finally: os.remove('x')"
    targets = ("/etc/passwd", "/../../../etc/passwd", "/proc/1/root/etc/passwd", "/dev/fd/0")
    attempts(sandbox, "FileNotFoundError", head, {target: f"follow({target!r})" for target in targets})


def test_nothing_but_tmp_can_be_written(sandbox: CodeSandbox) -> None:
    paths = ("/x", "/usr/x", "/usr/lib/x", "/dev/x", "/lib/x", f"{sys.base_prefix}/lib/x")
    attempts(sandbox, "OSError", "", {path: f"open({path!r}, 'w')" for path in paths})


def test_what_was_written_is_gone(sandbox: CodeSandbox) -> None:
    name = f"infer-{secrets.token_hex(8)}"
    assert run(sandbox, f"open('/tmp/{name}', 'w').write('x')").passed
    assert not (Path(tempfile.gettempdir()) / name).exists()
    assert run(sandbox, "import os\nassert os.listdir('/tmp') == []").passed


def test_the_environment_is_empty(sandbox: CodeSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "12345")
    assert run(sandbox, "import os\nassert not os.environ").passed
    # The C library's own, which the program can't empty.
    ran = run(sandbox, "import ctypes\nassert ctypes.CDLL(None).getenv(b'SECRET_TOKEN') == 0")
    assert ran.passed, ran.why


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def test_there_are_no_sockets(sandbox: CodeSandbox) -> None:
    families = ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_VSOCK", "AF_PACKET")
    tries = {name: f"socket.socket(socket.{name})" for name in families}
    attempts(sandbox, "PermissionError", "import socket", tries)


def test_nothing_is_connected(sandbox: CodeSandbox, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    ran = run(sandbox, f"import socket\nsocket.create_connection(('127.0.0.1', {port}))")
    assert ran.why.startswith("PermissionError")
    with pytest.raises(TimeoutError):
        listener.accept()


def test_no_process_is_made(sandbox: CodeSandbox) -> None:
    tries = {
        "fork": "os.fork()",
        "subprocess": "subprocess.run(['/bin/true'])",
        "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
        "exec": "os.execv(sys.executable, ['python'])",
        "multiprocessing": "m.get_context('fork').Process(target=print).start()",
    }
    attempts(sandbox, "OSError", "import multiprocessing as m, os, subprocess, sys", tries)


def test_a_fork_bomb_makes_nothing(sandbox: CodeSandbox) -> None:
    program = "import os\nfor _ in range(10_000):\n  try: os.fork()\n  except PermissionError: pass"
    assert run(sandbox, program) == Ran(True)


# Past Python, by number: x86-64's, then arm64's.
_CALLS = {
    "fork": (57, 220), "clone": (56, 220), "clone3": (435, 435), "unshare": (272, 97), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "mount": (165, 40), "setns": (308, 268), "shmget": (29, 194),
    "memfd_create": (319, 279), "io_uring_setup": (425, 425), "bpf": (321, 280), "keyctl": (250, 219),
}  # fmt: skip


def test_system_calls_are_refused(sandbox: CodeSandbox) -> None:
    head = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(n):\n"
        "  done = libc.syscall(n, 0x10000000, 0, 0, 0, 0, 0)\n"
        "  if done == -1 and ctypes.get_errno() in (1, 38): raise OSError"
    )
    tries = {name: f"call({numbers[platform.machine() != 'x86_64']})" for name, numbers in _CALLS.items()}
    attempts(sandbox, "OSError", head, tries)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a calling convention of x86-64")
def test_the_calls_of_32_bits_are_refused(sandbox: CodeSandbox) -> None:
    program = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    program += "assert libc.syscall(0x40000000 + 39) == -1 and ctypes.get_errno() in (1, 38)"
    assert run(sandbox, program).passed


def test_threads_are_few(sandbox: CodeSandbox) -> None:
    program = (
        "import threading, time\n"
        "threading.stack_size(65536)\n"
        "n = 0\n"
        "try:\n"
        "  while True:\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "    n += 1\n"
        "except RuntimeError:\n"
        "  assert 4 <= n <= 16, n\n"
    )
    ran = run(sandbox, program)
    assert ran.passed, ran.why


def test_memory_is_bounded(sandbox: CodeSandbox) -> None:
    assert run(sandbox, "bytearray(300 * 2**20)").why == "MemoryError"
    assert run(sandbox, "x = []\nwhile True: x.append(bytes(2**20))").why == "MemoryError"
    assert run(sandbox, "x = []\nwhile True: x = [x]").why == "MemoryError"
    assert run(sandbox, "bytearray(100 * 2**20)").passed


def test_files_are_bounded_each_and_together(sandbox: CodeSandbox) -> None:
    one = "with open('x', 'wb') as f:\n  for _ in range(1000): f.write(bytes(2**20))"
    assert run(sandbox, one).why.startswith("OSError: [Errno ")
    sparse = "import os\nos.truncate(os.open('x', os.O_CREAT | os.O_RDWR), 2**30)"
    assert run(sandbox, sparse).why.startswith("OSError: [Errno 27]")
    many = "for i in range(1000):\n  with open(f'{i}', 'wb') as f: f.write(bytes(2**20))"
    assert run(sandbox, many).why.startswith("OSError: [Errno 28]")
    handles = "x = [open('/dev/null') for _ in range(1000)]"
    assert run(sandbox, handles).why.startswith("OSError: [Errno 24]")


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import signal as s\nfor n in (s.SIGXCPU, s.SIGTERM): s.signal(n, s.SIG_IGN)\nwhile True: pass",
        "import time\ntime.sleep(1000)",
        "import os\nos.closerange(0, 256)\nwhile True: pass",
        "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E",
    ],
)
def test_a_program_without_end_is_killed(sandbox: CodeSandbox, program: str) -> None:
    marked = FEW._replace(seconds=1, memory=300 * MIB + 4096 * secrets.randbelow(10_000))
    began = time.monotonic()
    ran = run(sandbox, program, marked)
    assert not ran.passed
    assert ran.why == "it was not done in 1 s"
    assert time.monotonic() - began < 10
    assert not _left(marked)


def _left(limits: CodeLimits, wait_s: float = 3.0) -> list[str]:
    """Processes with these limits. The kernel takes a moment to end a namespace."""
    deadline = time.monotonic() + wait_s
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*/limits"):
            try:
                is_alive = ") Z " not in path.with_name("stat").read_text()
                if is_alive and f" {limits.memory} " in path.read_text():
                    found.append(path.parent.name)
            except OSError:
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_a_program_does_not_outlive_us(sandbox: CodeSandbox) -> None:
    """Not even where this process has no time to end it."""
    marked = FEW._replace(memory=300 * MIB + 4096 * secrets.randbelow(10_000), seconds=60)
    code = (
        "from infer_cli.evaluation.scorers.code_sandbox import CodeLimits, CodeSandbox\n"
        f"CodeSandbox({sandbox.program!r}).run('import time; time.sleep(60)', CodeLimits(*{tuple(marked)}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPO) as process:
        deadline = time.monotonic() + 20
        while not _left(marked, wait_s=0) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _left(marked, wait_s=0)
        process.kill()
    assert not _left(marked)


def test_threads_do_not_outlive_their_program(sandbox: CodeSandbox) -> None:
    marked = FEW._replace(memory=300 * MIB + 4096 * secrets.randbelow(10_000))
    program = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"
    began = time.monotonic()
    assert run(sandbox, program, marked).passed
    assert time.monotonic() - began < 10
    assert not _left(marked)


def test_killing_others_ends_nobody_else(sandbox: CodeSandbox) -> None:
    program = "import os\nfor pid in (os.getppid(), 1, 2, -1, 0):\n"
    program += "  try: os.kill(pid, 9)\n  except OSError: pass\nassert False"
    ran = run(sandbox, program)  # this process is still here
    assert not ran.passed and ran.why.startswith(("AssertionError", "it ended before the program's end"))


def test_what_is_printed_goes_nowhere(sandbox: CodeSandbox) -> None:
    program = "import os, sys\nfor _ in range(100): print('x' * 10**6)\nsys.stderr.write('x' * 10**6)\n"
    assert run(sandbox, program + "os.write(1, b'x' * 10**7)") == Ran(True)


@pytest.mark.parametrize("text", ["b'x' * 10**6", "b'D' + b'0' * 32", "b'RD'", "b'E'"])
def test_nobody_writes_the_report_but_the_runner(sandbox: CodeSandbox, text: str) -> None:
    program = f"import os\nfor fd in range(256):\n  try: os.write(fd, {text})\n  except OSError: pass\n"
    for end in ("", "os._exit(0)"):
        ran = run(sandbox, program + end)
        assert not ran.passed and ran.why


def test_programs_do_not_meet(sandbox: CodeSandbox) -> None:
    """Expected values of another item are nowhere: not in this one's files, arguments or modules."""
    secret = secrets.token_hex(16)
    assert run(sandbox, f"expected = {secret!r}").passed
    ran = run(
        sandbox,
        "import sys, os\n"
        f"assert {secret[:16]!r} + {secret[16:]!r} not in repr(sys.argv) + repr(sys.orig_argv)\n"
        "assert sys.argv == ['/run.py'] or sys.argv[0].endswith('code_runner.py')\n"
        "assert not any(p.endswith('.pyc') for p in os.listdir('.'))",
    )
    assert ran.passed, ran.why


def test_sets_have_the_same_order_each_time(sandbox: CodeSandbox) -> None:
    program = "raise Exception(list({'one', 'two', 'three', 'four', 'five'}))"
    assert len({run(sandbox, program).why for _ in range(3)}) == 1


def test_a_module_knows_its_classes(sandbox: CodeSandbox) -> None:
    """What dataclasses and pickles look up; the answer's own demonstration is not run."""
    program = (
        "from dataclasses import dataclass\nimport pickle\n"
        "@dataclass\nclass A:\n  x: int = 1\n"
        "assert pickle.loads(pickle.dumps(A())) == A()\n"
        "if __name__ == '__main__': raise Exception"
    )
    assert run(sandbox, program) == Ran(True)


@pytest.mark.skipif(not WORKING, reason="this system has no sandbox")
def test_a_sandbox_that_fails_is_no_wrong_answer() -> None:
    with pytest.raises(SandboxFailed):
        CodeSandbox("/bin/false").run("x = 1", FEW)
    with pytest.raises(SandboxFailed):
        CodeSandbox("/nowhere/bwrap").run("x = 1", FEW)
