"""What makes two runs of a command line the same job, kept beside the output: `OUT.job/job.json`."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from infer_cli.errors import UsageError
from infer_cli.system.files import check_regular, write_atomic
from infer_cli.types import Mode, ModelIdentity

Kind = Literal["replies", "likelihoods"]
KINDS: tuple[Kind, ...] = ("replies", "likelihoods")
OutputFormat = Literal["infer", "openai"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = ("infer", "openai")
DEFAULT_WIDTH = 16
MAX_WIDTH = 256  # LLAMA_MAX_SEQ
LEAST_WINDOW = 256  # tokens, where no row is left to be answered
N_SHOWN = 8  # rows that are named
JOB_VERSION = 1
# What a shard has of its own, and what does not decide a reply.
_NOT_COMPARED = frozenset(
    {"id", "created_at", "shard", "input", "n_rows", "rows_sha256", "given", "deadline_s"}
)
_MODES: tuple[Mode, ...] = get_args(Mode)


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


class JobEngine(NamedTuple):
    """The engine that a job was begun with. `facts` are what its fingerprint is taken of, all of them."""

    facts: Mapping[str, object]
    mode: Mode
    has_f16_weights: bool
    kv_unified: bool

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> JobEngine:
        """Raises ValueError for facts that name no mode of ours."""
        mode = next((mode for mode in _MODES if mode == facts.get("mode")), None)
        if mode is None:
            raise ValueError("no mode")
        return cls(facts, mode, facts.get("weights") == "f16", "kv_unified" in facts)


@dataclass(frozen=True)
class JobFile:
    """A job as its first run had it. `n_rows` counts the whole input, all shards; `rows_sha256` is of what
    its rows say. `given` are sampling parameters as they were given, not recommended by the model;
    `deadline_s` is the longest that a run of it had. An older job's file has neither, and no `kind`."""

    id: str
    created_at: str
    model: ModelIdentity
    fingerprint: str
    engine: JobEngine
    width: int
    window: int
    run_seed: int | None  # None: nothing was sampled so far
    params: Mapping[str, object]  # all that decides a reply beside the rows
    output_format: OutputFormat
    ordered: bool
    input: str
    n_rows: int
    rows_sha256: str
    shard: Shard = field(default_factory=Shard)
    given: Mapping[str, object] | None = None
    deadline_s: float | None = None
    kind: Kind = KINDS[0]

    def as_json(self) -> dict[str, object]:
        """The object of the file, but for its version."""
        return {
            **{of.name: getattr(self, of.name) for of in fields(self)},
            "model": self.model._asdict(),
            "engine": dict(self.engine.facts),
            "shard": asdict(self.shard),
        }

    def write(self, path: Path) -> None:
        value = {"version": JOB_VERSION, **self.as_json()}
        write_atomic(path, [json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"], durable=True)

    def differences(self, other: JobFile) -> list[str]:
        """What is another job's in `other`, in words: `width was 16, is 8`."""
        found = []
        mine, others = self.as_json(), other.as_json()
        for name, value in mine.items():
            there = others[name]
            if name in _NOT_COMPARED or name in ("fingerprint", "width"):
                continue  # fingerprint and width: the facts say more
            if name == "run_seed" and None in (value, there):
                continue
            if isinstance(value, Mapping) and isinstance(there, Mapping):
                keys = [*value, *(key for key in there if key not in value)]
                found += [
                    f"{key} was {_shown(value.get(key))}, is {_shown(there.get(key))}"
                    for key in keys
                    if value.get(key) != there.get(key) and not (key == "name" and value.get("sha256"))
                ]
            elif value != there:
                found.append(f"{name} was {_shown(value)}, is {_shown(there)}")
        return found


def job_dir(output: Path) -> Path:
    """Where all that belongs to an output is."""
    return output.with_name(output.name + ".job")


def job_path(output: Path) -> Path:
    return job_dir(output) / "job.json"


def flight_path(output: Path) -> Path:
    """Which rows are under way: see `in_flight`."""
    return job_dir(output) / "flight"


def journal_path(output: Path) -> Path:
    """What waits for its turn: see `ordered`."""
    return job_dir(output) / "waiting"


def lock_path(output: Path) -> Path:
    return job_dir(output) / "lock"


def check_beside(output: Path) -> None:
    """Raises UsageError where something else is in the place of what belongs to an output: a link could lead
    anywhere, and a pipe has no end."""
    for path in (job_path(output), flight_path(output), journal_path(output), lock_path(output)):
        try:
            mode = path.lstat().st_mode
        except OSError:
            continue
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path}: {_kind_of(path)}", "remove it, or name another file with -o")


def _kind_of(path: Path) -> str:
    try:
        check_regular(path)
    except OSError as e:
        return e.strerror or str(e)
    return "it is a link, not a file"


def counted_rows(rows: Sequence[int]) -> str:
    """`row 3`, `rows 3, 5`, or the first few of many."""
    shown = ", ".join(map(str, rows[:N_SHOWN])) + (", …" if len(rows) > N_SHOWN else "")
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
