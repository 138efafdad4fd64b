"""Reads a job's file. It may be anyone's: each value is checked, and the first that is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from infer_cli.batch.job import (
    JOB_VERSION,
    KINDS,
    MAX_WIDTH,
    OUTPUT_FORMATS,
    JobEngine,
    JobFile,
    Shard,
    check_beside,
    job_path,
)
from infer_cli.batch.pairs import POLICIES as PAIR_POLICIES
from infer_cli.batch.rows import FORMATS
from infer_cli.errors import UsageError
from infer_cli.prompt.fitting import POLICIES
from infer_cli.settings.defaults import MAX_LOGPROBS, MAX_SAMPLES, MOST_TOKENS
from infer_cli.settings.durations import MOST_SECONDS
from infer_cli.settings.sampling import checked
from infer_cli.system.files import read_regular
from infer_cli.types import MAX_SEED, ModelIdentity, SamplingParams

_MOST_BYTES = 64 << 20  # of a job file: a system prompt may be long
_MAX_INT = 2**31 - 1

T = TypeVar("T")
_Parse = Callable[[object], T]


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
    if value.pop("version") != JOB_VERSION:
        raise UsageError(f"{path} was written by another version of infer")
    return _JobReader(path, value).job()


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
            kind=self._value("kind", _one_of(KINDS), KINDS[0]),
        )
        policies: Sequence[str] = POLICIES if job.kind == "replies" else PAIR_POLICIES
        for name, parse in {**_PARAMS, "overflow": _one_of(policies)}.items():
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
    "choices": _texts,
    "system": _or_none(_text),
    "samples": _whole(1, MAX_SAMPLES),
    "logprobs": _or_none(_whole(0, MAX_LOGPROBS)),
    "raw": _bool,
    "format": _one_of(FORMATS),
    "row_template": _or_none(_text),
    "chat_template": _or_none(_text),
    "variables": _table,
    "think": _bool,
    "reasoning_budget": _whole(0, MOST_TOKENS),
}


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
