"""A recorded request as a job again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.answering.choosing import Choice, Question
from infer_cli.answering.job import Job
from infer_cli.backend.spec import LoraSpec
from infer_cli.errors import UsageError
from infer_cli.prompt.encode import tag_tokens
from infer_cli.prompt.thinking import budget_of, thinking_of
from infer_cli.records.record import Record, continues, making_sense, segments_of
from infer_cli.runtime.engine_facts import EngineFacts
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.defaults import MOST_TOKENS
from infer_cli.settings.sampling import checked
from infer_cli.system.processors import MAX_THREADS
from infer_cli.types import SamplingParams, Segment

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab

N_CANDIDATES = 20  # likeliest tokens kept at each step, to find the recorded one among


def engine_options(record: Record) -> EngineOptions:
    """The engine as the record has it. Raises UsageError for a record that holds too little."""
    is_reply = record.kind in ("run", "chat")
    if not is_reply or record.prompt_ids is None or record.tokens is None or record.mode is None:
        reason = "it was kept private" if record.private else f"it is a {record.kind} without its tokens"
        raise UsageError(f"record {record.id} can't be replayed: {reason}")
    origins = {setting.name: setting.value for setting in record.settings}
    with making_sense(record):
        facts = EngineFacts.read(record.engine)
        return EngineOptions.of_facts(
            facts,
            threads=facts.threads or _whole("threads", origins["threads"], MAX_THREADS),
            ctx=record.n_ctx,  # a reply that filled it ends there again
            loras=tuple(LoraSpec(Path(adapter.path), adapter.scale) for adapter in record.adapters),
        )


def job_of(record: Record, vocab: Vocab, session: str | None = None) -> Job:
    """The record's request. Its reply seed stands for the run seed: one reply is asked for.

    A reply that was cut from outside is asked for as far as it came. Raises UsageError for a record that
    makes no sense.
    """
    with making_sense(record):
        return _job_of(record, vocab, session)


def _job_of(record: Record, vocab: Vocab, session: str | None) -> Job:
    past: tuple[Segment, ...] = segments_of(record)
    prompt_ids: tuple[int, ...] = ()
    if not continues(record):
        past, prompt_ids = past[:-1], past[-1].ids
    n_tokens = len(record.tokens or ())
    if n_tokens and was_cut(record):
        max_tokens = n_tokens
    else:
        max_tokens = _whole("max_tokens", record.params["max_tokens"], MOST_TOKENS)
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    given = {k: checked(k, v, f"record {record.id}") for k, v in record.params.items() if k in fields}
    pairs = () if continues(record) else record.reasoning_pairs
    n_reasoning = thinking_of(None, record.params.get("reasoning_budget")).budget
    sampling = SamplingParams(**given)  # type: ignore[arg-type]  # `checked` gives the fields' types
    return Job(
        id=record.id,
        prompt_ids=prompt_ids,
        sampling=sampling,
        params=record.params,
        max_tokens=max_tokens,
        run_seed=record.seed,
        stop=_texts("stop", record.params["stop"]),
        n_logprobs=N_CANDIDATES,
        reasoning_pairs=pairs,
        open_reasoning=record.open_reasoning,
        tag_tokens=tag_tokens(vocab, record.reasoning_pairs),
        budget=budget_of(n_reasoning, pairs, record.open_reasoning, vocab),
        history=past,
        session=session,
    )


def question_of(record: Record) -> Question:
    """The record's question, where the answer was to be one of several texts. Raises UsageError where they
    were not scored."""
    if not record.choices:
        raise UsageError(f"record {record.id} can't be replayed: it ended before its choices were scored")
    assert record.prompt_ids is not None
    return Question(
        record.id,
        record.prompt_ids,
        tuple(Choice(choice.text, choice.tokens) for choice in record.choices),
    )


def _whole(name: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name} is {value!r}")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{name} is {value!r}")
    return tuple(value)


def was_cut(record: Record) -> bool:
    """Whether the reply was ended from outside, at a moment that no replay meets again."""
    return record.finish_reason in ("deadline", "cancelled")
