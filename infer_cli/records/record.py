"""What is kept of one answer: enough to show it, to compare it and to compute it again.

Knows no database and no command line.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple

from infer_cli.answering.reply import choice_json, timings_json
from infer_cli.backend.spec import LoraSpec
from infer_cli.errors import UsageError
from infer_cli.models.hashes import parts_of
from infer_cli.settings.origins import Setting
from infer_cli.system.hashing import sha256_hex
from infer_cli.text.reasoning import TagPair
from infer_cli.types import (
    ChoiceScore,
    EngineIdentity,
    FinishReason,
    Message,
    Mode,
    ModelIdentity,
    Promise,
    Reply,
    Segment,
    Timings,
    Usage,
)

Kind = Literal["run", "chat", "batch", "score", "eval"]


class ModelFile(NamedTuple):
    """A model file as it was when it answered."""

    path: str
    size: int
    mtime_ns: int


class Adapter(NamedTuple):
    """A LoRA adapter; its sha256 is among the engine facts."""

    path: str
    scale: float


class Evaluated(NamedTuple):
    """The next `n_tokens` of the prompt ids came in as a prompt, its chunks counted from here, or were
    decoded one by one."""

    how: Literal["prefill", "decode"]
    n_tokens: int


class Place(NamedTuple):
    """Where a reply stands in its conversation: its thread, the record before it (None: it is the first),
    its turn (from 1; a continued reply's is that of what it continues), how many turns before it were no
    longer in the window, and `shortened`: which they were and what stood in their place, None where they
    were the oldest and nothing did."""

    thread: str
    parent: str | None
    turn: int
    dropped_turns: int
    shortened: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Record:
    """One answer; with `kind` batch, score or eval, a whole job whose answers are in the file `output`.

    A private record has hashes where the prompt and the reply were, and cannot be replayed.
    """

    id: str
    kind: Kind
    created_at: float  # Unix seconds
    thread: str | None = None
    parent: str | None = None  # of a turn: the record that it follows
    turn: int | None = None
    dropped_turns: int = 0
    shortened: Mapping[str, object] | None = None
    custom_id: str | None = None
    sample: int = 0
    model: str | None = None
    model_sha256: str | None = None
    model_files: tuple[ModelFile, ...] = ()  # all parts, in order
    adapters: tuple[Adapter, ...] = ()
    template_sha256: str | None = None
    fingerprint: str | None = None
    engine: Mapping[str, object] = field(default_factory=dict)  # the facts that the fingerprint is taken of
    mode: Mode | None = None
    promise: Promise | None = None
    probed: bool = False
    width: int | None = None  # rows of a decode step
    n_ctx: int | None = None  # the window asked of the engine, tokens
    params: Mapping[str, object] = field(default_factory=dict)  # as the digest has them
    settings: tuple[Setting, ...] = ()  # every effective value and its origin
    run_seed: int | None = None
    seed: int | None = None
    prompt: str | None = None  # the rendered text; of a turn, what of it was new
    messages: tuple[Message, ...] | None = None  # None for raw text; of a turn, its own
    prompt_ids: tuple[int, ...] | None = None
    history: tuple[Evaluated, ...] = ()  # how the prompt ids were evaluated
    reasoning_pairs: tuple[TagPair, ...] = ()
    open_reasoning: TagPair | None = None
    text: str | None = None
    reasoning: str | None = None
    tokens: tuple[int, ...] | None = None
    finish_reason: FinishReason | None = None
    truncation: Mapping[str, object] | None = None
    choices: tuple[ChoiceScore, ...] | None = None
    usage: Mapping[str, object] | None = None
    timings: Mapping[str, object] | None = None
    digest: str | None = None
    error: Mapping[str, object] | None = None
    output: str | None = None
    private: bool = False
    prompt_sha256: str | None = None  # of `pack_ids(prompt_ids)`
    text_sha256: str | None = None  # of the text's UTF-8


def record_of(
    reply: Reply,
    *,
    kind: Kind = "run",
    prompt_ids: tuple[int, ...],
    prompt_text: str,
    messages: Sequence[Message] | None,
    model_path: Path | None,
    template_sha256: str | None,
    settings: Sequence[Setting],
    width: int,
    n_ctx: int,
    adapters: Sequence[Adapter] = (),
    reasoning_pairs: Sequence[TagPair] = (),
    open_reasoning: TagPair | None = None,
    history: Sequence[Evaluated] | None = None,
    place: Place | None = None,
    private: bool = False,
) -> Record:
    """The record of a reply that has just ended.

    `history` None: the prompt was evaluated in one go. `model_path` None: the fake model. Raises OSError
    where the model's files are gone.
    """
    record = Record(
        id=reply.id,
        kind=kind,
        created_at=time.time(),
        thread=None if place is None else place.thread,
        parent=None if place is None else place.parent,
        turn=None if place is None else place.turn,
        dropped_turns=0 if place is None else place.dropped_turns,
        shortened=None if place is None else place.shortened,
        custom_id=reply.custom_id,
        sample=reply.sample,
        model=reply.model.name,
        model_sha256=reply.model.sha256,
        model_files=() if model_path is None else model_files(model_path),
        adapters=tuple(adapters),
        template_sha256=template_sha256,
        fingerprint=reply.engine.fingerprint,
        engine=dict(reply.engine.facts),
        mode=reply.mode,
        promise=reply.promise,
        probed=reply.probed,
        width=width,
        n_ctx=n_ctx,
        params=reply.params,
        settings=tuple(settings),
        run_seed=reply.run_seed,
        seed=reply.seed,
        prompt=prompt_text,
        messages=None if messages is None else tuple(messages),
        prompt_ids=prompt_ids,
        history=(Evaluated("prefill", len(prompt_ids)),) if history is None else tuple(history),
        reasoning_pairs=tuple(reasoning_pairs),
        open_reasoning=open_reasoning,
        text=reply.text,
        reasoning=reply.reasoning,
        tokens=reply.tokens,
        finish_reason=reply.finish_reason,
        truncation=reply.truncation,
        choices=reply.choices,
        usage=reply.usage._asdict(),
        timings=timings_json(reply.timings),
        digest=reply.digest,
        error=reply.error,
        prompt_sha256=sha256_hex(pack_ids(prompt_ids)),
        text_sha256=None if reply.text is None else sha256_hex(reply.text.encode("utf-8", "surrogatepass")),
    )
    return _without_content(record) if private else record


def is_whole_reply(record: Record) -> bool:
    """Whether a record has all that `reply_of` makes a reply of."""
    needed = (record.tokens, record.finish_reason, record.digest, record.mode, record.promise)
    return (
        None not in needed
        and set(record.usage or ()) == set(Usage._fields)
        and set(record.timings or ()) == set(Timings._fields)
    )


def reply_of(record: Record) -> Reply:
    """The reply that a record was made of, without its log-probabilities: `is_whole_reply` is to hold."""
    assert is_whole_reply(record)
    assert record.tokens is not None and record.finish_reason is not None and record.digest is not None
    assert record.mode is not None and record.promise is not None
    return Reply(
        id=record.id,
        custom_id=record.custom_id,
        sample=record.sample,
        text=record.text,
        reasoning=record.reasoning,
        tokens=record.tokens,
        logprobs=None,
        finish_reason=record.finish_reason,
        digest=record.digest,
        usage=Usage(**record.usage),  # type: ignore[arg-type]  # as `asdict` wrote it
        timings=Timings(**record.timings),  # type: ignore[arg-type]
        run_seed=record.run_seed,
        seed=record.seed,
        mode=record.mode,
        promise=record.promise,
        probed=record.probed,
        params=dict(record.params),
        model=ModelIdentity(record.model, record.model_sha256),
        engine=EngineIdentity(
            _text_or_none(record.engine.get("infer")),
            _text_or_none(record.engine.get("llama_cpp")),
            record.fingerprint,
            record.engine,
        ),
        truncation=None if record.truncation is None else dict(record.truncation),
        choices=record.choices,
    )


@contextlib.contextmanager
def making_sense(record: Record) -> Iterator[None]:
    """Around what takes a record's open-ended parts (settings, parameters, facts) at their word.

    Raises UsageError where those are none that this program writes.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as e:
        raise UsageError(
            f"record {record.id} can't be used again: {type(e).__name__}: {e}",
            "it is damaged, or of another version of infer",
        ) from e


def evaluated(segments: Sequence[Segment]) -> tuple[Evaluated, ...]:
    """How an evaluation's tokens came in, without the tokens."""
    return tuple(Evaluated("prefill" if s.kind == "prompt" else "decode", len(s.ids)) for s in segments)


def segments_of(record: Record) -> tuple[Segment, ...]:
    """What was evaluated before the reply. Of a record that is not private."""
    assert record.prompt_ids is not None
    segments, start = [], 0
    for how, n_tokens in record.history:
        ids = record.prompt_ids[start : start + n_tokens]
        segments.append(Segment("prompt" if how == "prefill" else "decoded", ids))
        start += n_tokens
    return tuple(segments)


def was_choice(record: Record) -> bool:
    """Whether the answer was to be one of several texts."""
    return "choices" in record.params


def continues(record: Record) -> bool:
    """Whether the reply went on after sampled tokens: it has no prompt of its own."""
    return bool(record.history) and record.history[-1].how == "decode"


def adapters_of(loras: Iterable[LoraSpec]) -> tuple[Adapter, ...]:
    return tuple(Adapter(str(lora.path.absolute()), lora.scale) for lora in loras)


def model_files(path: Path) -> tuple[ModelFile, ...]:
    """Identity of a model's files. Raises OSError."""
    stats = [(part.absolute(), part.stat()) for part in parts_of(path)]
    return tuple(ModelFile(str(part), stat.st_size, stat.st_mtime_ns) for part, stat in stats)


def _without_content(record: Record) -> Record:
    """Hashes for what the user and the model wrote; the user's are stop strings, choices, variables too."""
    return replace(
        record,
        prompt=None,
        messages=None,
        prompt_ids=None,
        text=None,
        reasoning=None,
        tokens=None,
        shortened=None,
        choices=None,
        params={name: _hashed_texts(name, value) for name, value in record.params.items()},
        settings=tuple(s._replace(value=_hashed_texts(s.name, s.value)) for s in record.settings),
        private=True,
    )


def _hashed_texts(name: str, value: object) -> object:
    if name not in ("stop", "var", "choices") or not isinstance(value, (list, tuple)):
        return value
    return [f"sha256:{sha256_hex(str(text).encode('utf-8', 'surrogatepass'))}" for text in value]


def as_json(record: Record) -> dict[str, object]:
    """A record's public form. What a reply's JSON has too is spelled as there."""
    return {
        "id": record.id,
        "kind": record.kind,
        "created_at": timestamp(record.created_at),
        "thread": record.thread,
        "parent": record.parent,
        "turn": record.turn,
        "custom_id": record.custom_id,
        "sample": record.sample,
        "text": record.text,
        "reasoning": record.reasoning,
        "tokens": _list(record.tokens),
        **({} if record.choices is None else {"choices": [choice_json(item) for item in record.choices]}),
        "finish_reason": record.finish_reason,
        "digest": record.digest,
        "usage": record.usage,
        "timings": record.timings,
        "run_seed": record.run_seed,
        "seed": record.seed,
        "mode": record.mode,
        "promise": record.promise,
        "probed": record.probed,
        "params": dict(record.params),
        "model": {
            "name": record.model,
            "sha256": record.model_sha256,
            "files": [file._asdict() for file in record.model_files],
            "adapters": [adapter._asdict() for adapter in record.adapters],
            "template_sha256": record.template_sha256,
        },
        "engine": {
            "infer": record.engine.get("infer"),
            "llama_cpp": record.engine.get("llama_cpp"),
            "fingerprint": record.fingerprint,
            "width": record.width,
            "n_ctx": record.n_ctx,
            "facts": dict(record.engine),
        },
        "settings": [setting._asdict() for setting in record.settings],
        "prompt": {
            "text": record.prompt,
            "messages": None if record.messages is None else [message_json(m) for m in record.messages],
            "ids": _list(record.prompt_ids),
            "history": [part._asdict() for part in record.history],
            "dropped_turns": record.dropped_turns,
            "shortened": record.shortened,
            "sha256": record.prompt_sha256,
            "reasoning_pairs": [list(pair) for pair in record.reasoning_pairs],
            "open_reasoning": _list(record.open_reasoning),
        },
        "text_sha256": record.text_sha256,
        "truncation": record.truncation,
        "error": record.error,
        "output": record.output,
        "private": record.private,
    }


def message_json(message: Message) -> dict[str, object]:
    """`{"role", "content", …}`, as in a file of messages."""
    return {"role": message.role, "content": message.content, **message.extra}


def timestamp(seconds: float) -> str:
    """UTC, ISO 8601: `2026-01-31T12:00:00.123Z`."""
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids as little-endian int32."""
    return struct.pack(f"<{len(ids)}i", *ids)


def unpack_ids(blob: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(blob) // 4}i", blob)


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _list(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)
