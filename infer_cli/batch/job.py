"""What makes two runs of a command line the same job, kept beside the output: `OUT.job/job.json`."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

from infer_cli.batch.rows import FORMATS
from infer_cli.errors import UsageError
from infer_cli.prompt.fitting import POLICIES
from infer_cli.settings.defaults import MAX_LOGPROBS, MAX_SAMPLES
from infer_cli.settings.quantities import MOST_SECONDS
from infer_cli.settings.sampling import checked
from infer_cli.system.files import check_regular, read_regular, write_atomically
from infer_cli.types import MAX_SEED, Mode, ModelIdentity, SamplingParams

OutputFormat = Literal["infer", "openai"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = ("infer", "openai")
DEFAULT_WIDTH = 16
MAX_WIDTH = 256  # LLAMA_MAX_SEQ
LEAST_WINDOW = 256  # tokens, where no row is left to be answered
N_SHOWN = 8  # rows that are named
_VERSION = 1
# What a shard has of its own, and what does not decide a reply.
_NOT_COMPARED = frozenset(
    {"id", "created_at", "shard", "input", "n_rows", "rows_sha256", "given", "deadline_s"}
)
_MOST_BYTES = 64 << 20  # of a job file: a system prompt may be long
_MAX_INT = 2**31 - 1
_MODES: tuple[Mode, ...] = get_args(Mode)

T = TypeVar("T")
_Parse = Callable[[object], T]


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
    `deadline_s` is the longest that a run of it had. An older job's file has neither."""

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

    def as_json(self) -> dict[str, object]:
        """The object of the file, but for its version."""
        return {
            **{of.name: getattr(self, of.name) for of in fields(self)},
            "model": self.model._asdict(),
            "engine": dict(self.engine.facts),
            "shard": asdict(self.shard),
        }

    def write(self, path: Path) -> None:
        value = {"version": _VERSION, **self.as_json()}
        write_atomically(path, [json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"])

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


def read_job(output: Path) -> JobFile | None:
    """The job of an output; None where none was begun. Raises UsageError for a file that is none of ours,
    naming the value that is wrong."""
    path = job_path(output)
    check_beside(output)
    try:
        value = json.loads(read_regular(path, _MOST_BYTES), parse_constant=_refuse_constant)
    except FileNotFoundError:
        return None
    except RecursionError:
        raise UsageError(f"{path} can't be read: it is JSON nested too deeply") from None
    except OSError as e:
        raise UsageError(f"{path} can't be read: {e.strerror}") from None
    except ValueError as e:
        raise UsageError(f"{path} can't be read: {e}") from None
    if not isinstance(value, dict) or "version" not in value:
        raise UsageError(f"{path} is not a batch's job file")
    if value.pop("version") != _VERSION:
        raise UsageError(f"{path} was written by another version of infer")
    return _JobReader(path, value).job()


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


class _JobReader:
    """A job's file as a job. Raises UsageError for the first value that is missing or wrong, naming it."""

    def __init__(self, path: Path, values: Mapping[str, object]) -> None:
        self._path, self._values = path, values

    def job(self) -> JobFile:
        for name in self._values:
            if name not in _FIELDS:
                raise self._wrong(name, self._values[name])
        job = JobFile(
            id=self._value("id", _text),
            created_at=self._value("created_at", _text),
            model=self._value("model", _model),
            fingerprint=self._value("fingerprint", _text),
            engine=self._value("engine", _engine),
            width=self._value("width", _whole(1, MAX_WIDTH)),
            window=self._value("window", _whole(1, _MAX_INT)),
            run_seed=self._value("run_seed", _or_none(_whole(0, MAX_SEED))),
            params=self._value("params", _object),
            output_format=self._value("output_format", _one_of(OUTPUT_FORMATS)),
            ordered=self._value("ordered", _bool),
            input=self._value("input", _text),
            n_rows=self._value("n_rows", _whole(0, 2**63 - 1)),
            rows_sha256=self._value("rows_sha256", _text),
            shard=self._value("shard", _shard, Shard()),
            given=self._value("given", _or_none(_given), None),
            deadline_s=self._value("deadline_s", _or_none(_deadline), None),
        )
        for name, parse in _PARAMS.items():
            if name in job.params:
                self._parsed(f"params.{name}", job.params[name], parse)
        return job

    def _value(self, name: str, parse: _Parse[T], *default: T) -> T:
        if name in self._values:
            return self._parsed(name, self._values[name], parse)
        for value in default:
            return value
        raise UsageError(f"{self._path} is not a batch's job file: it has no {name}")

    def _parsed(self, name: str, value: object, parse: _Parse[T]) -> T:
        try:
            return parse(value)
        except (ValueError, UsageError, OverflowError):
            raise self._wrong(name, value) from None

    def _wrong(self, name: str, value: object) -> UsageError:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "…"
        return UsageError(
            f"{self._path} is not a batch's job file: {name} is {shown}",
            "put back the file that the batch wrote, or name another output",
        )


# Each takes a value of a JSON file, and raises ValueError for one that it should not be.


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _whole(least: int, most: int) -> _Parse[int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError("no whole number within its bounds")
        return value

    return parse


def _or_none(parse: _Parse[T]) -> _Parse[T | None]:
    return lambda value: None if value is None else parse(value)


def _one_of(known: Sequence[T]) -> _Parse[T]:
    def parse(value: object) -> T:
        found = [word for word in known if word == value]
        if not found:
            raise ValueError("an unknown word")
        return found[0]

    return parse


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(value):
        raise ValueError("no list of texts that say something")
    return [_text(text) for text in value]


def _table(value: object) -> dict[str, str]:
    return {name: _text(text) for name, text in _object(value).items()}


def _sampling(name: str) -> _Parse[float]:
    def parse(value: object) -> float:
        checked(name, value, name)
        if not isinstance(value, (int, float)):
            raise ValueError("no number")
        return value

    return parse


def _model(value: object) -> ModelIdentity:
    parts = _object(value)
    if set(parts) != set(ModelIdentity._fields):
        raise ValueError("no name and hash of a model")
    return ModelIdentity(**{name: _or_none(_text)(part) for name, part in parts.items()})


def _engine(value: object) -> JobEngine:
    facts = _object(value)
    if "width" in facts:
        _whole(1, MAX_WIDTH)(facts["width"])
    return JobEngine.of(facts)


def _shard(value: object) -> Shard:
    parts = _object(value)
    if set(parts) != {"part", "of"}:
        raise ValueError("no part of a whole")
    of = _whole(1, _MAX_INT)(parts["of"])
    return Shard(_whole(1, of)(parts["part"]), of)


def _given(value: object) -> dict[str, object]:
    """Numbers are told as they were typed, and checked as a row's are, where they are used."""
    found = _object(value)
    for name, given in found.items():
        if name not in _SAMPLING or not isinstance(given, (str, int, float)):
            raise ValueError("no sampling parameter")
    return found


def _deadline(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= MOST_SECONDS:
        raise ValueError("no length of time")
    return value


_FIELDS = frozenset(of.name for of in fields(JobFile))
_SAMPLING = [of.name for of in fields(SamplingParams)]
_PARAMS: dict[str, _Parse[object]] = {
    **{name: _sampling(name) for name in _SAMPLING},
    "max_tokens": _whole(1, _MAX_INT),
    "stop": _texts,
    "system": _or_none(_text),
    "samples": _whole(1, MAX_SAMPLES),
    "logprobs": _or_none(_whole(0, MAX_LOGPROBS)),
    "raw": _bool,
    "format": _one_of(FORMATS),
    "row_template": _or_none(_text),
    "chat_template": _or_none(_text),
    "variables": _table,
    "overflow": _one_of(POLICIES),
}


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def counted_rows(rows: Sequence[int]) -> str:
    """`row 3`, `rows 3, 5`, or the first few of many."""
    shown = ", ".join(map(str, rows[:N_SHOWN])) + (", …" if len(rows) > N_SHOWN else "")
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
