"""What is kept when a command is killed, interrupted, or meets a full disk.

    python3 -m fuzz.faults kills [--n 1000] [--seed S]
    python3 -m fuzz.faults signals [--n 200] [--seed S]
    python3 -m fuzz.faults full [--every 1]

`kills` sends SIGKILL to the supervisor, to the worker or to both; `signals` sends SIGINT, SIGTERM or SIGHUP;
both at random moments. `full` lets the first write of a command to its files fail as on a full disk, then the
second, and so on, until none fails; all writes after one that failed fail too. After each of them the command
is run again, and has to end as if nothing had happened: all replies there, none twice, the same digests,
every store readable.

Ends in one line of JSON. The exit code is 1 where something was lost. Linux only; `full` needs a C compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.runner import REPO, environment
from infer_cli.errors import ExitStatus

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CODES = {*ExitStatus, -signal.SIGKILL, *(-signum for signum in _INTERRUPTS)}
_MOST_S = 60.0  # for one command, however slow the machine is
_N_ROWS = 30

# Counts the calls that take room under a folder, over all processes, and refuses all after the N-th.
_FULL_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct shared { atomic_uint calls; unsigned allowed; };
static struct shared *state;
static const char *folder;

__attribute__((constructor)) static void begin(void) {
    folder = getenv("FAULTS_FOLDER");
    int fd = open(getenv("FAULTS_STATE"), O_RDWR);
    state = mmap(0, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
}
static int is_full(void) {
    if (state == 0 || atomic_fetch_add(&state->calls, 1) < state->allowed) return 0;
    errno = ENOSPC;
    return 1;
}
static int is_inside(const char *path) {
    return folder != 0 && path != 0 && strncmp(path, folder, strlen(folder)) == 0;
}
static int holds(int fd) {
    char link[64], path[4096];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (n < 0) return 0;
    path[n] = 0;
    return is_inside(path);
}
#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = dlsym(RTLD_NEXT, name)
ssize_t write(int fd, const void *data, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return holds(fd) && is_full() ? -1 : real(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return holds(fd) && is_full() ? -1 : real(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return holds(fd) && is_full() ? -1 : real(fd, data, n, at);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return holds(fd) && is_full() ? -1 : real(fd, parts, n);
}
int fsync(int fd) {
    REAL(int, "fsync", int);
    return holds(fd) && is_full() ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return holds(fd) && is_full() ? -1 : real(fd);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return is_inside(path) && is_full() ? -1 : real(path, mode);
}
#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        va_list more;                                                               \
        va_start(more, flags);                                                      \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;     \
        va_end(more);                                                               \
        REAL(int, #name, const char *, int, ...);                                   \
        int creates = (flags & O_CREAT) && is_inside(path) && access(path, F_OK);   \
        return creates && is_full() ? -1 : real(path, flags, mode);                 \
    }
OPEN(open)
OPEN(open64)
"""


class Lost(Exception):
    """Something did not hold."""


@dataclass(frozen=True)
class Job:
    """A command, and what has to hold of a place where it has ended. `kept` raises Lost."""

    name: str
    arguments: Sequence[str]
    kept: Callable[[Place], object]


class Place:
    """A folder with a home, rows, a text and a script for the fake model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out.jsonl"
        self._environment = {**environment(str(root)), "INFER_HOME": str(root / "home")}
        root.mkdir()
        rows = [{"custom_id": f"r{i}", "prompt": f"question number {i}"} for i in range(_N_ROWS)]
        (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (root / "text").write_text("The cat sat on the mat. " * 40)
        (root / "script.json").write_text('{"step_s": 0.003}')

    def start(self, arguments: Sequence[str], **more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "infer_cli", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=self.root, env={**self._environment, "PYTHONPATH": str(REPO), **more}, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> bytes:
        """The output of a command that has to succeed."""
        process = self.start(arguments)
        out, err = process.communicate(timeout=_MOST_S)
        if process.returncode or b"Traceback" in err:
            raise Lost(f"{' '.join(arguments)}: {process.returncode} {err.decode(errors='replace')}")
        return out


def _replies(place: Place) -> dict[tuple[int, int], str]:
    """Digests of all replies of the batch."""
    found: dict[tuple[int, int], str] = {}
    for line in place.out.read_bytes().splitlines():
        reply = json.loads(line)
        unit = (reply["row"], reply["sample"])
        if unit in found:
            raise Lost(f"{unit} is there twice")
        found[unit] = reply["digest"]
    if len(found) != 2 * _N_ROWS:
        raise Lost(f"{len(found)} replies of {2 * _N_ROWS}")
    return found


def _newest(place: Place) -> object:
    """The last reply that was recorded, and that the store can be read."""
    for line in place.run("records", "export").splitlines():
        json.loads(line)
    records = json.loads(place.run("records", "list", "--json"))
    return records[0]["digest"] if records else None


def _warmed(place: Place) -> object:
    """What is said with the cache, and that it can be read."""
    place.run("cache", "list", "--json")
    answer = place.run("run", "-m", "fake", "-f", "text", "why?", "--json", "--no-record")
    return json.loads(answer)["digest"]


_BATCH = (
    "batch", "-m", "fake:script.json", "rows.jsonl", "-o", "out.jsonl",
    "-t", "1", "--seed", "3", "--samples", "2", "-n", "20", "--parallel", "4", "--quiet",
)  # fmt: skip
JOBS = (
    Job("batch", _BATCH, _replies),
    Job("batch --ordered", (*_BATCH, "--ordered"), _replies),
    Job("run", ("run", "-m", "fake:script.json", "hello there", "--quiet"), _newest),
    Job("cache warm", ("cache", "warm", "-m", "fake", "-f", "text"), _warmed),
)


class Trial:
    """One kind of fault, as often as is asked for. `expected` has what each job comes to undisturbed."""

    def __init__(self, root: Path, jobs: Sequence[Job] = JOBS) -> None:
        self.jobs = jobs
        self.root = root
        self._number = 0
        self.done: Counter[str] = Counter()
        self.lost: list[str] = []
        self.expected: dict[str, object] = {}
        self.seconds: dict[str, float] = {}
        for job in jobs:
            with self.place() as place:
                began = time.monotonic()
                place.run(*job.arguments)
                self.seconds[job.name] = time.monotonic() - began
                self.expected[job.name] = job.kept(place)

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        self._number += 1
        with tempfile.TemporaryDirectory(prefix=f"{self._number}-", dir=self.root) as folder:
            yield Place(Path(folder) / "place")

    def end(self, job: Job, place: Place, process: subprocess.Popen[bytes], what: str) -> None:
        """See a disturbed command to its end, run it again, and note what was lost."""
        self.done[job.name] += 1
        try:
            self._look_at(process)
            place.run(*job.arguments)
            if (found := job.kept(place)) != self.expected[job.name]:
                raise Lost(f"{found} is not {self.expected[job.name]}")
        except (Lost, ValueError, KeyError, subprocess.TimeoutExpired) as e:
            self.lost.append(f"{job.name}, {what}: {e}")
            print(self.lost[-1], file=sys.stderr)

    def _look_at(self, process: subprocess.Popen[bytes]) -> None:
        out, err = process.communicate(timeout=_MOST_S)
        said, code = err.decode(errors="replace"), process.returncode
        # Python's own start, before it runs a line of ours, is not in our hands.
        if "Traceback" in said and "infer_cli" in re.sub(r"-m infer_cli|runpy.*", "", said):
            raise Lost(f"a traceback: {said}")
        if code not in _CODES:
            raise Lost(f"exit code {code}: {said}")
        if code == 0 and process.args[3] == "run" and out != b"You said: hello there\n":  # type: ignore[index]
            raise Lost(f"exit code 0, and the answer is {out!r}")
        failed = code > 0 and code != ExitStatus.INTERRUPTED and "Traceback" not in said
        if failed and sum(line.startswith("error: ") for line in said.splitlines()) != 1:
            raise Lost(f"exit code {code}, and it said: {said}")
        _wait_until_gone(process.pid)


def _wait_until_gone(group: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise Lost("a process was left over")


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def disturb(trial: Trial, n: int, seed: int, *, kill: bool) -> None:
    """`n` signals at random moments, in turn to each job."""
    moments = random.Random(seed)
    for i in range(n):
        job = trial.jobs[i % len(trial.jobs)]
        with trial.place() as place:
            process = place.start(job.arguments)
            after = moments.uniform(0, 1.1 * trial.seconds[job.name])
            time.sleep(after)
            signum = signal.SIGKILL if kill else moments.choice(_INTERRUPTS)
            whom = moments.choice(("supervisor", "worker", "both"))
            with contextlib.suppress(ProcessLookupError):
                if whom == "both":
                    os.killpg(process.pid, signum)
                for pid in _children(process.pid) if whom == "worker" else [process.pid]:
                    os.kill(pid, signum)
            trial.end(job, place, process, f"{signum.name} to {whom} after {after:.3f} s (seed {seed}, {i})")


def fill(trial: Trial, every: int) -> None:
    """Each job with a disk that is full from its first write on, from the next, and so on."""
    library = _compiled(trial.root)
    for job in trial.jobs:
        allowed = 0
        while True:
            with trial.place() as place:
                state = place.root.parent / "state"
                state.write_bytes(struct.pack("II", 0, allowed))
                more = {
                    "LD_PRELOAD": str(library),
                    "FAULTS_FOLDER": f"{place.root}/",
                    "FAULTS_STATE": str(state),
                }
                process = place.start(job.arguments, **more)
                process.wait(_MOST_S)
                (calls,) = struct.unpack_from("I", _mapped(state))
                trial.end(job, place, process, f"full after {allowed} writes")
            if calls <= allowed:
                break
            allowed += every


def _mapped(path: Path) -> bytes:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return bytes(mapped)


def _compiled(folder: Path) -> Path:
    source, library = folder / "full_disk.c", folder / "full_disk.so"
    source.write_text(_FULL_DISK)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m fuzz.faults", description="Disturb commands.")
    parser.add_argument("fault", choices=["kills", "signals", "full"])
    parser.add_argument("--n", type=int, help="kills (1000) or signals (200)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments")
    parser.add_argument("--every", type=int, default=1, help="full: only every N-th write")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="infer-faults-") as folder:
        trial = Trial(Path(folder))
        if given.fault == "full":
            fill(trial, given.every)
        else:
            kill = given.fault == "kills"
            disturb(trial, given.n or (1000 if kill else 200), seed, kill=kill)
    seconds = round(time.monotonic() - began, 1)
    line = {"fault": given.fault, "n": trial.done.total(), "by_command": dict(trial.done), "lost": trial.lost}
    print(json.dumps({**line, "seconds": seconds, "seed": seed}))
    return int(bool(trial.lost))


if __name__ == "__main__":
    raise SystemExit(main())
