"""Runs a target in child processes, and notes which input each of them died of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.child import BLOATED, COUNTER, DONE, Work
from fuzz.target import input_name, target_class

REPO = Path(__file__).parents[1]
SLOWNESS = 8  # how many times longer than its processor time an input may take
N_SHOWN = 20  # findings that are told in full
MOST_DEATHS = 50  # of children in one run: a target that dies so often needs no more


@dataclass
class Outcome:
    """What one target came to. `kinds` counts findings by cause; `first` has the first of each cause."""

    target: str
    runs: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    first: list[dict[str, str]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)

    def add(self, finding: dict[str, str]) -> None:
        self.kinds[finding["kind"]] += 1
        self.inputs.append(finding["input"])
        if self.kinds[finding["kind"]] == 1 and len(self.first) < N_SHOWN:
            self.first.append(finding)

    def as_json(self) -> dict[str, object]:
        return {
            "target": self.target,
            "runs": self.runs,
            "seconds": round(self.seconds, 1),
            "findings": self.kinds.total(),
            "kinds": dict(self.kinds.most_common()),
            "first": self.first,
        }


def run(
    name: str, place: str, *, seed: int = 0, runs: int | None = None, seconds: float | None = None
) -> Outcome:
    """The corpus, then `runs` generated inputs or as many as `seconds` allow (None: no limit)."""
    outcome = Outcome(name)
    began = time.monotonic()
    kind = target_class(place)
    with tempfile.TemporaryDirectory(prefix="infer-fuzz-", dir=memory_folder()) as folder:
        root = Path(folder)
        names = list(kind.corpus())
        last = None if runs is None else len(names) + runs
        counter = root / "counter"
        number, deaths = 0, 0
        while True:
            counter.write_bytes(COUNTER.pack(number))
            left = None if seconds is None else max(0.0, seconds - (time.monotonic() - began))
            scratch = _empty(root / f"scratch-{deaths}")
            work = Work(place, seed, number, last, left, str(counter), str(scratch))
            status, found, words = _child(work, kind.most_seconds * SLOWNESS)
            for finding in found:
                outcome.add(finding)
            (number,) = COUNTER.unpack(counter.read_bytes())
            if status == DONE:
                break
            if status > 0 and status != BLOATED:
                raise RuntimeError(f"the target {name} itself fails: {words}")
            deaths += 1
            if status != BLOATED:
                outcome.add({"input": input_name(names, seed, number), **_death(status, words)})
                number += 1
            if deaths >= MOST_DEATHS:
                outcome.add(
                    {
                        "input": input_name(names, seed, number),
                        "kind": "given up",
                        "what": f"{deaths} children died",
                    }
                )
                break
    outcome.runs = number
    outcome.seconds = time.monotonic() - began
    return outcome


def memory_folder() -> str | None:
    """Where files are in memory, if there is such a place: most targets write a file an input."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _empty(path: Path) -> Path:
    path.mkdir()
    return path


def environment(scratch: str) -> dict[str, str]:
    """No settings, models or proxies of the user's."""
    outside = ("INFER_", "HF_", "OLLAMA_", "http_", "https_", "HTTP_", "HTTPS_", "ALL_PROXY", "all_proxy")
    mine = {k: v for k, v in os.environ.items() if not k.startswith(outside) or k.startswith("INFER_TEST_")}
    home = str(Path(scratch) / "home")
    extra = {
        "INFER_HOME": home,
        "HOME": scratch,
        "USERPROFILE": scratch,
        "PYTHONHASHSEED": "0",
        "COLUMNS": "80",
    }
    return {**mine, **extra, "PYTHONPATH": str(REPO), "TMPDIR": scratch}


def _child(work: Work, most_wall: float) -> tuple[int, list[dict[str, str]], str]:
    """(exit status, findings, the end of stderr). A child whose counter stands still is ended."""
    counter, scratch = Path(work.counter), Path(work.scratch)
    out, err = scratch.with_suffix(".out"), scratch.with_suffix(".err")
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.child", json.dumps(work._asdict())],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment(work.scratch),
            cwd=scratch,
        )
        seen, since = b"", time.monotonic()
        try:
            while process.poll() is None:
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    now = counter.read_bytes()
                    if now != seen:
                        seen, since = now, time.monotonic()
                    elif time.monotonic() - since > most_wall:
                        process.send_signal(signal.SIGABRT if sys.platform != "win32" else signal.SIGTERM)
                        process.wait(10)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    found = [json.loads(line) for line in out.read_text().splitlines() if line.startswith("{")]
    return process.returncode, found, err.read_text("utf-8", "replace")[-1500:]


def _death(status: int, words: str) -> dict[str, str]:
    name = signal.Signals(-status).name
    why = {"SIGPROF": "hang", "SIGABRT": "hang or abort", "SIGKILL": "killed (memory?)"}.get(
        name, f"crash ({name})"
    )
    return {"kind": f"{why} in {_place(words)}", "what": ascii(words)}


def _place(words: str) -> str:
    """The innermost function of ours in a faulthandler traceback."""
    for line in words.splitlines():
        if "infer_cli/" in line or "infer_cli\\" in line:
            file, _, function = line.strip().removeprefix("File ").partition(", line ")
            return f"{Path(file.strip(chr(34))).name}:{function.rpartition(' in ')[2]}"
    return "code that is not ours"
