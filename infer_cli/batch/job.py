"""What makes two runs of a command line the same job, kept beside the output: `OUT.job/job.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from infer_cli.batch.output import write_atomically
from infer_cli.errors import UsageError
from infer_cli.files import read_regular
from infer_cli.types import Mode

OutputFormat = Literal["infer", "openai"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = ("infer", "openai")
DEFAULT_WIDTH = 16
MAX_WIDTH = 256  # LLAMA_MAX_SEQ
LEAST_WINDOW = 256  # tokens, where no row is left to be answered
_VERSION = 1
# What a shard has of its own, and what does not decide a reply.
_NOT_COMPARED = frozenset({"id", "created_at", "shard", "input", "n_rows", "rows_sha256"})


@dataclass(frozen=True)
class Shard:
    """The i-th of n parts of the rows, from 1: row r belongs to part r mod n + 1."""

    part: int = 1
    of: int = 1

    def __str__(self) -> str:
        return f"{self.part}/{self.of}"

    def has(self, row: int) -> bool:
        return row % self.of == self.part - 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8`. Raises UsageError."""
        part, slash, of = text.partition("/")
        if slash and part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of):
            return cls(int(part), int(of))
        raise UsageError(f"--shard {text!r} is not a part such as 2/8")


@dataclass(frozen=True)
class JobFile:
    """A job as its first run had it. `n_rows` counts the whole input, all shards; `rows_sha256` is of what
    its rows say."""

    id: str
    created_at: str
    model: Mapping[str, object]
    fingerprint: str
    engine: Mapping[str, object]  # the facts behind the fingerprint
    width: int
    window: int
    run_seed: int | None  # None: nothing was sampled so far
    params: Mapping[str, object]  # all that decides a reply beside the rows
    output_format: str
    ordered: bool
    input: str
    n_rows: int
    rows_sha256: str
    shard: Shard = field(default_factory=Shard)

    @property
    def mode(self) -> Mode:
        """Raises UsageError for a file that names none."""
        mode = self.engine.get("mode")
        if mode not in get_args(Mode):
            raise UsageError(f"the job's file names no mode of the engine: {_shown(mode)}")
        return cast(Mode, mode)

    def write(self, path: Path) -> None:
        value = {"version": _VERSION, **asdict(self)}
        write_atomically(path, [json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"])

    def differences(self, other: JobFile) -> list[str]:
        """What is another job's in `other`, in words: `width was 16, is 8`."""
        found = []
        mine, others = asdict(self), asdict(other)
        for name, value in mine.items():
            if name in _NOT_COMPARED or name in ("fingerprint", "width"):
                continue  # fingerprint and width: the facts say more
            if name == "run_seed" and None in (value, others[name]):
                continue
            if isinstance(value, Mapping):
                there = others[name]
                keys = [*value, *(key for key in there if key not in value)]
                found += [
                    f"{key} was {_shown(value.get(key))}, is {_shown(there.get(key))}"
                    for key in keys
                    if value.get(key) != there.get(key) and not (key == "name" and value.get("sha256"))
                ]
            elif value != others[name]:
                found.append(f"{name} was {_shown(value)}, is {_shown(others[name])}")
        return found


def job_dir(output: Path) -> Path:
    """Where all that belongs to an output is."""
    return output.with_name(output.name + ".job")


def job_path(output: Path) -> Path:
    return job_dir(output) / "job.json"


def flight_path(output: Path) -> Path:
    """Which rows are under way: see `flight`."""
    return job_dir(output) / "flight"


def journal_path(output: Path) -> Path:
    """What waits for its turn: see `ordered`."""
    return job_dir(output) / "waiting"


def lock_path(output: Path) -> Path:
    return job_dir(output) / "lock"


def read_job(output: Path) -> JobFile | None:
    """The job of an output; None where none was begun. Raises UsageError for a file that is none of ours."""
    path = job_path(output)
    try:
        value = json.loads(read_regular(path))
    except FileNotFoundError:
        return None
    except OSError as e:
        raise UsageError(f"{path} can't be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise UsageError(f"{path} can't be read: {e}") from None
    try:
        if value.pop("version") != _VERSION:
            raise UsageError(f"{path} was written by another version of infer")
        value["shard"] = Shard(**value["shard"])
        return JobFile(**value)
    except (TypeError, KeyError, AttributeError):
        raise UsageError(f"{path} is not a batch's job file") from None


def counted_rows(rows: Sequence[int]) -> str:
    """`row 3`, `rows 3, 5`, or the first few of many."""
    shown = ", ".join(map(str, rows[:8])) + (", …" if len(rows) > 8 else "")
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
