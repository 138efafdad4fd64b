"""A record and a conversation as rows of SQLite: each field's column, and what may stand in it.

What is read is checked: a row that a disk, or another program, has changed is a `DamagedRow` and never a
record with values of other types.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, NamedTuple, TypeVar, get_args

from infer_cli.records.record import (
    Adapter,
    Evaluated,
    Kind,
    ModelFile,
    Record,
    pack_ids,
    unpack_ids,
)
from infer_cli.records.thread import Thread, Told
from infer_cli.settings.origins import Setting
from infer_cli.text.reasoning import TagPair
from infer_cli.types import ChoiceScore, FinishReason, Message, Mode, Promise, SamplingParams, Usage

_LAST_MOMENT = 253402300799.0  # the end of the year 9999, which is as far as dates go
_SAMPLING = {field.name for field in fields(SamplingParams)}

T = TypeVar("T")


class DamagedRow(ValueError):
    """A row that holds what was never written to it. `str` says in which column, and what."""


def row_of(record: Record) -> list[Any]:
    """Values of the columns `NAMES`."""
    return [column.encode(getattr(record, column.name)) for column in COLUMNS]


def record_of_row(row: Sequence[Any]) -> Record:
    """The record of a row of the columns `NAMES`. Raises DamagedRow."""
    values = {column.name: _decoded(column, value) for column, value in zip(COLUMNS, row, strict=True)}
    ids, history = values["prompt_ids"], values["history"]
    if ids is not None and history and sum(part.n_tokens for part in history) != len(ids):
        raise DamagedRow("history: it is not of as many tokens as prompt_ids")
    return Record(**values)


def thread_of_row(row: Sequence[Any]) -> Thread:
    """The conversation of a row of the columns `THREAD_NAMES`. Raises DamagedRow."""
    return Thread(**{c.name: _decoded(c, value) for c, value in zip(_THREAD_COLUMNS, row, strict=True)})


def thread_values(thread: Thread) -> dict[str, Any]:
    """Values of the columns `THREAD_NAMES`, by name."""
    return {column.name: column.encode(getattr(thread, column.name)) for column in _THREAD_COLUMNS}


def text_value(value: str) -> str:
    """SQLite's text is UTF-8, which has no lone surrogates: bytes of a file name that were none."""
    return value.encode("utf-8", "backslashreplace").decode()


class _Column(NamedTuple):
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _decoded(column: _Column, value: Any) -> Any:
    try:
        return column.decode(value)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as e:
        raise DamagedRow(f"{column.name}: {e}") from None


def _same(value: Any) -> Any:
    return value


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"it is not {what}")


# --- plain columns --------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    _need(isinstance(value, str), "text")
    _need(value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value), "UTF-8")
    return str(value)


def _whole(value: Any) -> int:
    _need(type(value) is int, "a whole number")
    return int(value)


def _count(value: Any) -> int:
    _need(_whole(value) >= 0, "a count")
    return int(value)


def _moment(value: Any) -> float:
    _need(_is_number(value) and 0 <= value <= _LAST_MOMENT, "a time")
    return float(value)


def _flag(value: Any) -> bool:
    _need(value in (0, 1), "0 or 1")
    return bool(value)


def _ids(value: Any) -> tuple[int, ...]:
    _need(isinstance(value, bytes) and len(value) % 4 == 0, "a list of tokens")
    ids = unpack_ids(value)
    _need(not ids or min(ids) >= 0, "a list of tokens")
    return ids


def _one_of(choices: object) -> Callable[[Any], Any]:
    known = get_args(choices)

    def decode(value: Any) -> Any:
        _need(value in known, f"one of {', '.join(known)}")
        return value

    return decode


def _or_none(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else change(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


# --- columns of JSON ------------------------------------------------------------------------------


def json_text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _from_json(check: Callable[[Any], T]) -> Callable[[Any], T]:
    def decode(value: Any) -> T:
        _need(isinstance(value, str), "JSON")
        try:
            found = json.loads(value)
        except ValueError:
            raise ValueError("it is not JSON") from None
        return check(found)

    return decode


def _object(value: Any) -> dict[str, Any]:
    _need(isinstance(value, dict), "a JSON object")
    return dict(value)


def _array(value: Any) -> list[Any]:
    _need(isinstance(value, list), "a JSON array")
    return list(value)


def _string(value: Any) -> str:
    _need(isinstance(value, str), "a JSON string")
    return str(value)


def _counts(value: Any) -> dict[str, Any]:
    _need(all(type(n) is int and n >= 0 for n in _object(value).values()), "an object of counts")
    _need(set(value) == set(Usage._fields), f"an object of {', '.join(Usage._fields)}")
    return dict(value)


def _seconds(value: Any) -> dict[str, Any]:
    numbers = _object(value).values()
    _need(all(n is None or isinstance(n, (int, float)) for n in numbers), "an object of numbers")
    return dict(value)


def _params(value: Any) -> dict[str, Any]:
    for name, item in _object(value).items():
        if name in _SAMPLING:
            _need(_is_number(item), f"a set of parameters: {name}")
    _need(type(value.get("max_tokens", 1)) is int, "a set of parameters: max_tokens")
    _need(isinstance(value.get("think", True), bool), "a set of parameters: think")
    _need(type(value.get("reasoning_budget", 0)) is int, "a set of parameters: reasoning_budget")
    for name in ("stop", "choices"):
        texts = _array(value.get(name, []))
        _need(all(isinstance(s, str) for s in texts), f"a set of parameters: {name}")
    return dict(value)


def _failure(value: Any) -> dict[str, Any]:
    _string(_object(value).get("message", ""))
    return dict(value)


def _shortened(value: Any) -> dict[str, Any]:
    """As `continuing` writes it."""
    said = _object(value)

    def turns(numbers: Any) -> None:
        _need(all(type(n) is int and n > 0 for n in _array(numbers)), "a list of turns")

    turns(said["dropped"])
    if (summary := said["summary"]) is not None:
        _string(_object(summary)["text"])
        turns(summary["turns"])
    for cut in _array(said["cuts"]):
        turns([_object(cut)["turn"]])
        for part in ("user", "reply"):
            _need(part in cut, "a list of cuts")
    return said


def _choice(value: Any) -> ChoiceScore:
    text, tokens, logprob, probability = _array(value)
    _need(bool(_string(text)), "a choice's text")
    _need(bool(tokens) and all(type(n) is int and n >= 0 for n in _array(tokens)), "a list of tokens")
    _need(_is_number(logprob) and logprob <= 0, "the logarithm of a probability")
    _need(_is_number(probability) and 0 <= probability <= 1, "a probability")
    return ChoiceScore(text, tuple(tokens), float(logprob), float(probability))


def _pair(value: Any) -> TagPair:
    opening, closing = map(_string, _array(value))
    return TagPair(opening, closing)


def _setting(value: Any) -> Setting:
    name, given, origin = _array(value)
    return Setting(_string(name), given, _string(origin))


def _model_file(value: Any) -> ModelFile:
    path, size, mtime_ns = _array(value)
    return ModelFile(_string(path), _count(size), _whole(mtime_ns))


def _adapter(value: Any) -> Adapter:
    path, scale = _array(value)
    _need(_is_number(scale) and math.isfinite(scale), "a scale")
    return Adapter(_string(path), scale)


def _evaluated(value: Any) -> Evaluated:
    how, n_tokens = _array(value)
    _need(how in ("prefill", "decode"), "prefill or decode")
    return Evaluated(how, _count(n_tokens))


def _message(value: Any) -> Message:
    message = Message(**_object(value))
    _string(message.role)
    _need(message.content is None or isinstance(message.content, str), "a message's content")
    _object(message.extra)
    return message


def _each(make: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    return lambda value: tuple(map(make, _array(value)))


def _messages_json(value: Sequence[Message] | None) -> str:
    return json_text(None if value is None else [asdict(message) for message in value])


def _settings_json(value: Sequence[Setting]) -> str:
    return json_text([[setting.name, setting.value, setting.origin] for setting in value])


def _heads(value: Any) -> dict[str, Any]:
    _need(all(head is None or isinstance(head, str) for head in _object(value).values()), "a set of branches")
    return dict(value)


def _told_json(value: Told | None) -> str:
    return json_text(
        None if value is None else [value.model, value.system, [list(s) for s in value.settings]]
    )


def _told(value: Any) -> Told:
    model, system, settings = _array(value)
    for text in (model, system):
        _need(text is None or isinstance(text, str), "text or null")
    return Told(model, system, _each(_setting)(settings))


_TEXT = (text_value, text_of)
_TEXT_OR_NONE = (_or_none(text_value), _or_none(text_of))
_PLAIN = (_same, _or_none(text_of))  # text that is ours: ASCII
CODECS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "id": _TEXT,
    **dict.fromkeys(
        ("thread", "parent", "custom_id", "model", "prompt", "text", "reasoning", "model_sha256", "digest"),
        _TEXT_OR_NONE,
    ),
    **dict.fromkeys(("template_sha256", "fingerprint", "prompt_sha256", "text_sha256"), _PLAIN),
    "kind": (_same, _one_of(Kind)),
    "created_at": (_same, _moment),
    "mode": (_same, _or_none(_one_of(Mode))),
    "promise": (_same, _or_none(_one_of(Promise))),
    "finish_reason": (_same, _or_none(_one_of(FinishReason))),
    **dict.fromkeys(("sample", "dropped_turns"), (_same, _count)),
    **dict.fromkeys(("turn", "width", "n_ctx", "run_seed", "seed"), (_same, _or_none(_count))),
    **dict.fromkeys(("prompt_ids", "tokens"), (_or_none(pack_ids), _or_none(_ids))),
    **dict.fromkeys(("probed", "private"), (int, _flag)),
    "engine": (json_text, _from_json(_object)),
    "params": (json_text, _from_json(_params)),
    "truncation": (json_text, _from_json(_or_none(_object))),
    "usage": (json_text, _from_json(_or_none(_counts))),
    "timings": (json_text, _from_json(_or_none(_seconds))),
    "error": (json_text, _from_json(_or_none(_failure))),
    "output": (json_text, _from_json(_or_none(_string))),
    "choices": (json_text, _from_json(_or_none(_each(_choice)))),
    "shortened": (json_text, _from_json(_or_none(_shortened))),
    "model_files": (json_text, _from_json(_each(_model_file))),
    "adapters": (json_text, _from_json(_each(_adapter))),
    "history": (json_text, _from_json(_each(_evaluated))),
    "reasoning_pairs": (json_text, _from_json(_each(_pair))),
    "open_reasoning": (json_text, _from_json(_or_none(_pair))),
    "messages": (_messages_json, _from_json(_or_none(_each(_message)))),
    "settings": (_settings_json, _from_json(_each(_setting))),
}
COLUMNS = [_Column(field.name, *CODECS[field.name]) for field in fields(Record)]
NAMES = tuple(column.name for column in COLUMNS)

_THREAD_CODECS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "id": _TEXT,
    "branch": _TEXT,
    "heads": (json_text, _from_json(_heads)),
    "name": _TEXT_OR_NONE,
    "told": (_told_json, _from_json(_or_none(_told))),
}
_THREAD_COLUMNS = [_Column(field.name, *_THREAD_CODECS[field.name]) for field in fields(Thread)]
THREAD_NAMES = tuple(column.name for column in _THREAD_COLUMNS)
