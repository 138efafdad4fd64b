"""What a run comes to: `results.json`. A function of the folder's other files, without a clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.system.files import MOST_INPUT, read_regular

RESULTS_VERSION = 1
RATES = ("error", "cut", "not_extracted", "scorer_failed")


class Estimated(NamedTuple):
    """A value of `n` items with what is known of its spread. `value` None: it can't be said, see `note`."""

    value: float | None
    stderr: float | None
    ci: tuple[float, float] | None
    method: str | None
    n: int
    clusters: int | None
    note: str | None

    def as_json(self) -> dict[str, object]:
        return {**self._asdict(), "ci": None if self.ci is None else list(self.ci)}


@dataclass(frozen=True)
class MetricResult:
    """A metric of a run. `groups` and `macro` are there where the task names groups; `seeds` are the values
    that the seeds have, `between_seeds` their standard deviation."""

    metric: str
    score: Estimated
    higher_is_better: bool
    groups: Mapping[str, Estimated] | None = None
    macro: Estimated | None = None
    seeds: tuple[float, ...] | None = None
    between_seeds: float | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "metric": self.metric,
            **self.score.as_json(),
            "higher_is_better": self.higher_is_better,
            "groups": None
            if self.groups is None
            else {name: group.as_json() for name, group in self.groups.items()},
            "macro": None if self.macro is None else self.macro.as_json(),
            "seeds": None
            if self.seeds is None
            else {"values": list(self.seeds), "between": self.between_seeds},
        }


class Identity(NamedTuple):
    """A task's or a model's: what it is called, and what tells it from others of that name."""

    name: str
    sha256: str | None


@dataclass(frozen=True)
class Results:
    """`n` items were scored of the `n_asked` that the data have; `config` is all that was chosen. `rates` are
    shares of the samples, `tokens` their sums. `warnings` are what a reader of the scores must know."""

    task: Mapping[str, object]
    model: Identity
    engine: Mapping[str, object]
    mode: str
    promise: str
    config: Mapping[str, object]
    hashes: Mapping[str, str | None]
    n: int
    n_asked: int
    limit: int | None
    rates: Mapping[str, float]
    scores: tuple[MetricResult, ...]
    tokens: Mapping[str, int]
    command: tuple[str, ...]
    infer: str
    libraries: Mapping[str, str]
    hardware: Mapping[str, object]
    began_at: str
    warnings: tuple[str, ...] = ()
    code_scorers: tuple[str, ...] = ()
    verified: Mapping[str, object] | None = field(default=None, compare=False)

    def as_json(self) -> dict[str, object]:
        """The object of the file, in its fixed order of keys."""
        value: dict[str, object] = {of.name: getattr(self, of.name) for of in fields(self)}
        value["model"] = self.model._asdict()
        value["scores"] = [score.as_json() for score in self.scores]
        return {"version": RESULTS_VERSION, **value}

    def as_bytes(self) -> bytes:
        text = json.dumps(self.as_json(), indent=1, ensure_ascii=True, allow_nan=False, default=list)
        return text.encode() + b"\n"

    def is_same(self, other: Results) -> bool:
        """Whether all that the file says is the same, but what a check has found."""
        mine, its = (json.loads(replace(each, verified=None).as_bytes()) for each in (self, other))
        return bool(mine == its)

    def score(self, metric: str) -> MetricResult | None:
        return next((score for score in self.scores if score.metric == metric), None)

    @property
    def task_name(self) -> str:
        return str(self.task.get("name"))

    @property
    def exclude_errors(self) -> bool:
        return self.config.get("exclude_errors") is True


def read_results(path: Path) -> Results:
    """Raises UsageError for a file that is none of ours."""
    try:
        value = json.loads(read_regular(path, MOST_INPUT))
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent} has no {path.name}", "let `infer eval` end, or `infer rescore` write it"
        ) from None
    except OSError as e:
        raise UsageError(f"{path} can't be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise UsageError(f"{path} can't be read: {e}") from None
    if not isinstance(value, dict) or value.pop("version", None) != RESULTS_VERSION:
        raise UsageError(f"{path} was not written by this version of infer")
    try:
        return _results(value)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise UsageError(
            f"{path} is not what `infer eval` wrote: {e}", "`infer rescore` writes it again"
        ) from None


def _results(value: dict[str, object]) -> Results:
    known = {of.name for of in fields(Results)}
    if unknown := [name for name in value if name not in known]:
        raise ValueError(f"it has a key {unknown[0]!r}")
    scores = tuple(_metric(score) for score in _list(value["scores"]))
    return Results(
        task=_object(value["task"]),
        model=Identity(
            _text(_object(value["model"])["name"]), _text_or_none(_object(value["model"])["sha256"])
        ),
        engine=_object(value["engine"]),
        mode=_text(value["mode"]),
        promise=_text(value["promise"]),
        config=_object(value["config"]),
        hashes={name: _text_or_none(each) for name, each in _object(value["hashes"]).items()},
        n=_whole(value["n"]),
        n_asked=_whole(value["n_asked"]),
        limit=None if value["limit"] is None else _whole(value["limit"]),
        rates={name: _number(each) for name, each in _object(value["rates"]).items()},
        scores=scores,
        tokens={name: _whole(each) for name, each in _object(value["tokens"]).items()},
        command=_texts(value["command"]),
        infer=_text(value["infer"]),
        libraries={name: _text(each) for name, each in _object(value["libraries"]).items()},
        hardware=_object(value["hardware"]),
        began_at=_text(value["began_at"]),
        warnings=_texts(value["warnings"]),
        code_scorers=_texts(value["code_scorers"]),
        verified=None if value["verified"] is None else _object(value["verified"]),
    )


def _metric(score: object) -> MetricResult:
    value = _object(score)
    groups, macro, seeds = value["groups"], value["macro"], value["seeds"]
    spread = None if seeds is None else _object(seeds)
    return MetricResult(
        _text(value["metric"]),
        _estimated(value),
        _bool(value["higher_is_better"]),
        None if groups is None else {name: _estimated(each) for name, each in _object(groups).items()},
        None if macro is None else _estimated(macro),
        None if spread is None else tuple(_number(each) for each in _list(spread["values"])),
        None if spread is None else _number_or_none(spread["between"]),
    )


def _estimated(found: object) -> Estimated:
    value = _object(found)
    ci = None if value["ci"] is None else [_number(end) for end in _list(value["ci"])]
    return Estimated(
        _number_or_none(value["value"]),
        _number_or_none(value["stderr"]),
        None if ci is None else (ci[0], ci[1]),
        _text_or_none(value["method"]),
        _whole(value["n"]),
        None if value["clusters"] is None else _whole(value["clusters"]),
        _text_or_none(value["note"]),
    )


# Each takes a value of a file that may be anyone's, and raises ValueError for one that it should not be.


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{str(value)[:40]!r} is no object")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:40]!r} is no list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is no text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(each) for each in _list(value))


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{str(value)[:40]!r} is neither true nor false")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{str(value)[:40]!r} is no count")
    return value


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return float(value)


def _number_or_none(value: object) -> float | None:
    return None if value is None else _number(value)
