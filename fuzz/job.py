"""What lies beside a batch: job.json, the output, the journal of rows in work, the lines that wait.

A sound job is made with the fake model; an input takes the place of one of its files, by kind: `job`,
`output`, `openai` (an output in OpenAI's form), `flight`, `waiting`. `job.patch`, `output.patch` and
`openai.patch` are a JSON object of places (`engine.width`) and the values that are put there: in the job,
or in each line of the output.

Everything that reads the files is asked: to go on with the job, to merge it, to verify it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.commands import infer, run_in_process
from fuzz.mutate import changed_bytes, changed_lines, changed_value, json_bytes
from fuzz.target import Broken, Input, Target
from infer_cli.batch import in_flight as flight
from infer_cli.batch.job_reading import read_job
from infer_cli.errors import ExitStatus, InferError

_FILES = {
    "job": "out.jsonl.job/job.json",
    "output": "out.jsonl",
    "flight": "out.jsonl.job/flight",
    "waiting": "out.jsonl.job/waiting",
}
_FLIGHT = b"=1 1\nx\n+0\n-0\n+1\n!\n+2\n"
_OF_CHANCE = (
    (rb"(?<![0-9a-f])[0-9a-f]{16}(?=-\d|\",\n \"created)", b"0123456789abcdef"),
    (rb'"created_at": "[^"]*"', b'"created_at": "2026-07-26T12:30:00+00:00"'),
    (rb'"created": \d+', b'"created": 1700000000'),
    (rb'"(queue_s|ttft_s|total_s|load_s|prefill_tps|decode_tps)": [-+.e\d]+', rb'"\1": 0.5'),
)
_MAY_END = frozenset({ExitStatus.OK, ExitStatus.SOME_ROWS_FAILED, ExitStatus.CHECK_FAILED})


class JobTarget(Target):
    name = "job"
    statuses = frozenset({ExitStatus.USAGE, ExitStatus.MODEL_NOT_FOUND})

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        (scratch / "in.jsonl").write_text(
            '{"prompt": "Why?"}\n{"prompt": "x"}\n'
            '{"prompt": "Why not?", "custom_id": "a", "temperature": 0.7}\n'
        )
        (scratch / "chat.jsonl").write_text(
            '{"custom_id": "r", "url": "/v1/chat/completions",'
            ' "body": {"messages": [{"role": "user", "content": "Why?"}]}}\n'
        )
        self._own = self._made("own", "in.jsonl", "--seed", "3")
        self._openai = self._made("openai", "chat.jsonl", "--output-format", "openai")
        self._run = scratch / "run"
        run_in_process()

    def _made(self, name: str, rows: str, *more: str) -> dict[str, bytes]:
        """The files of a whole job, by kind."""
        folder = self.scratch / name
        folder.mkdir()
        command = [
            "batch",
            "-m",
            "fake",
            f"../{rows}",
            "-o",
            "out.jsonl",
            "-n",
            "4",
            "--threads",
            "1",
            "--quiet",
        ]
        subprocess.run([sys.executable, "-m", "infer_cli", *command, *more], cwd=folder, check=True)
        found = {kind: folder / path for kind, path in _FILES.items()}
        files = {kind: _timeless(path.read_bytes()) for kind, path in found.items() if path.exists()}
        line = files["output"].splitlines(keepends=True)[0]
        entry = json.dumps({"row": 0, "sample": 0, "size": len(line)}).encode() + b"\n" + line
        return {"flight": _FLIGHT, "waiting": entry, **files}

    def generate(self, rng: random.Random) -> Input:
        kind = rng.choice(("job", "job", "output", "output", "openai", "flight", "waiting"))
        data = self._openai["output"] if kind == "openai" else self._own[kind]
        if kind in ("job", "output", "openai") and rng.random() < 0.7:
            lines = [data] if kind == "job" else data.splitlines()
            at = rng.randrange(len(lines))
            value = json.loads(lines[at])
            lines[at] = json_bytes(rng, changed_value(rng, value, tuple(value)))
            return Input(kind, b"\n".join(lines) + b"\n")
        if rng.random() < 0.3:
            return Input(kind, changed_lines(rng, data))
        return Input(
            kind, changed_bytes(rng, data, (b"+1\n", b"!\n", b'"size": 99999999999', b"null", b"{}\n"))
        )

    def check(self, given: Input) -> None:
        shutil.rmtree(self._run, ignore_errors=True)
        (self._run / "out.jsonl.job").mkdir(parents=True)
        os.chdir(self._run)
        kind, _, patch = given.kind.partition(".")
        base = self._openai if kind == "openai" else self._own
        at = "output" if kind == "openai" else kind
        data = _patched(base[at], given.data, whole=kind == "job") if patch else given.data
        for name in ("job", "output", at):
            (self._run / _FILES[name]).write_bytes(data if name == at else base[name])
        rows = f"../{'chat' if kind == 'openai' else 'in'}.jsonl"
        out = Path("out.jsonl")
        failure: InferError | None = None
        works: tuple[Callable[[], None], ...] = (
            lambda: _check_flight(Path(_FILES["flight"])),
            lambda: _check_job(out),
            lambda: _ended("merge", "out.jsonl", "-o", "all.jsonl", "--quiet"),
            lambda: _ended(
                "verify", "out.jsonl", "--input", rows, "--fraction", "1", "--quiet", "-m", "fake"
            ),
            lambda: _ended(
                "batch", "-m", "fake", rows, "-o", "out.jsonl", "-n", "4", "--threads", "1", "--quiet"
            ),
        )
        for work in works:
            try:
                work()
            except InferError as error:
                failure = failure or error
        if failure is not None:
            raise failure


def _timeless(data: bytes) -> bytes:
    """A job or an output without what clock and chance put in: a seed gives the same inputs each time."""
    for pattern, text in _OF_CHANCE:
        data = re.sub(pattern, text, data)
    return b"".join(sorted(data.splitlines(keepends=True))) if data.startswith(b'{"id"') else data


def _ended(*command: str) -> None:
    status, _ = infer(*command)
    if status not in _MAY_END:
        raise Broken(f"{command[0]} ends with {status}")


def _check_flight(path: Path) -> None:
    if not path.exists():
        return
    shutil.copy(path, "flight.copy")
    copy = Path("flight.copy")
    flight.after_crash(copy)
    suspects = flight.note_crash(copy)
    json.dumps([suspects.to_try, suspects.given_up])
    with contextlib.closing(flight.Flight(copy)) as opened:
        opened.begin(1)


def _check_job(out: Path) -> None:
    job = read_job(out)
    if job is None:
        raise Broken("there is a job file, and no job")
    if "".join(job.differences(job)):
        raise Broken("a job differs from itself")
    job.write(Path("written.json"))


def _patched(data: bytes, patch: bytes, *, whole: bool) -> bytes:
    changes: dict[str, Any] = json.loads(patch)
    lines = [data] if whole else data.splitlines()
    out = []
    for line in lines:
        value = json.loads(line)
        for place, new in changes.items():
            *path, last = place.split(".")
            inner = value
            for name in path:
                inner = inner[int(name) if isinstance(inner, list) else name]
            inner[last] = new
        out.append(json.dumps(value).encode() + b"\n")
    return b"".join(out)
