"""What makes two runs of a command line the same job, kept beside the output: `OUT.job/job.json`."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, cast, get_args

from infer_cli.batch.rows import FORMATS
from infer_cli.errors import UsageError
from infer_cli.prompt.fitting import POLICIES
from infer_cli.settings.defaults import MAX_LOGPROBS, MAX_SAMPLES
from infer_cli.settings.durations import MOST_SECONDS
from infer_cli.settings.sampling import checked
from infer_cli.system.files import check_regular, read_regular, write_atomic
from infer_cli.types import MAX_SEED, Mode, SamplingParams

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
    its rows say. `given` are sampling parameters as they were given, not recommended by the model;
    `deadline_s` is the longest that a run of it had. An older job's file has neither."""

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
    given: Mapping[str, object] | None = None
    deadline_s: float | None = None

    @property
    def mode(self) -> Mode:
        """Raises UsageError for a file that names none."""
        mode = self.engine.get("mode")
        if mode not in get_args(Mode):
            raise UsageError(f"the job's file names no mode of the engine: {_shown(mode)}")
        return cast(Mode, mode)

    def write(self, path: Path) -> None:
        value = {"version": _VERSION, **asdict(self)}
        write_atomic(path, [json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"], durable=True)

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
    return _checked_job(path, value)


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


def _checked_job(path: Path, value: dict[str, object]) -> JobFile:
    def wrong(name: str) -> UsageError:
        shown = repr(_within(value, name))
        shown = shown if len(shown) <= 60 else shown[:57] + "…"
        return UsageError(
            f"{path} is not a batch's job file: {name} is {shown}",
            "put back the file that the batch wrote, or name another output",
        )

    for name in value:
        if name not in _CHECKS:
            raise wrong(name)
    for of in fields(JobFile):
        if of.name not in value:
            if of.default is MISSING and of.default_factory is MISSING:
                raise UsageError(f"{path} is not a batch's job file: it has no {of.name}")
        elif not _CHECKS[of.name](value[of.name]):
            raise wrong(of.name)
    for name, check in _PARAM_CHECKS.items():
        params = value["params"]
        assert isinstance(params, dict)
        if name in params and not check(params[name]):
            raise wrong(f"params.{name}")
    if "shard" in value:
        shard = value["shard"]
        assert isinstance(shard, dict)
        value["shard"] = Shard(**shard)
    return JobFile(**value)  # type: ignore[arg-type]  # as `_CHECKS` says


def _within(value: object, name: str) -> object:
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


Check = Callable[[object], bool]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_whole(least: int, most: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _one_of(known: Sequence[object]) -> Check:
    return lambda value: isinstance(value, str) and value in known


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and text for text in value)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_sampling(name: str) -> Check:
    def check(value: object) -> bool:
        try:
            checked(name, value, name)
        except (UsageError, OverflowError):
            return False
        return isinstance(value, (int, float))

    return check


def _is_model(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != {"name", "sha256"}:
        return False
    return all(_or_none(_is_text)(part) for part in value.values())


def _is_engine(value: object) -> bool:
    if not isinstance(value, dict) or value.get("mode") not in get_args(Mode):
        return False
    return "width" not in value or _is_whole(1, MAX_WIDTH)(value["width"])


def _is_shard(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != {"part", "of"}:
        return False
    is_part = _is_whole(1, _MAX_INT)
    return is_part(value["part"]) and is_part(value["of"]) and value["part"] <= value["of"]


def _is_given(value: object) -> bool:
    """Numbers are told as they were typed, and checked as a row's are, where they are used."""
    return isinstance(value, dict) and all(
        name in _SAMPLING and isinstance(given, (str, int, float)) for name, given in value.items()
    )


def _is_deadline(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MOST_SECONDS


_SAMPLING = [field.name for field in fields(SamplingParams)]
_CHECKS: dict[str, Check] = {
    "id": _is_text,
    "created_at": _is_text,
    "model": _is_model,
    "fingerprint": _is_text,
    "engine": _is_engine,
    "width": _is_whole(1, MAX_WIDTH),
    "window": _is_whole(1, _MAX_INT),
    "run_seed": _or_none(_is_whole(0, MAX_SEED)),
    "params": lambda value: isinstance(value, dict),
    "output_format": _one_of(OUTPUT_FORMATS),
    "ordered": _is_bool,
    "input": _is_text,
    "n_rows": _is_whole(0, 2**63 - 1),
    "rows_sha256": _is_text,
    "shard": _is_shard,
    "given": _or_none(_is_given),
    "deadline_s": _or_none(_is_deadline),
}
_PARAM_CHECKS: dict[str, Check] = {
    **{name: _is_sampling(name) for name in _SAMPLING},
    "max_tokens": _is_whole(1, _MAX_INT),
    "stop": _is_texts,
    "system": _or_none(_is_text),
    "samples": _is_whole(1, MAX_SAMPLES),
    "logprobs": _or_none(_is_whole(0, MAX_LOGPROBS)),
    "raw": _is_bool,
    "format": _one_of(FORMATS),
    "row_template": _or_none(_is_text),
    "chat_template": _or_none(_is_text),
    "variables": _is_table,
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
