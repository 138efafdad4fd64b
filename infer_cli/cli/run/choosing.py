"""`infer run --choices`: which of the allowed answers is the likeliest, and how likely each is."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from infer_cli.answering.choosing import check_fits, question_of, room_for
from infer_cli.cli.run.asking import finish_load, plan_of
from infer_cli.cli.run.showing import show_choice, status_of
from infer_cli.cli.screen.terminal import settings_table
from infer_cli.engine import history
from infer_cli.errors import ExitStatus
from infer_cli.prompt.encode import EncodedPrompt
from infer_cli.prompt.pairs import encode_after, encode_pair
from infer_cli.prompt.plan import check_not_empty
from infer_cli.settings.origins import Setting
from infer_cli.system.ids import new_id
from infer_cli.text.sanitize import single_line
from infer_cli.types import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_cli.answering.choosing import Question
    from infer_cli.backend.base import Vocab
    from infer_cli.cli.run.options import RunOptions
    from infer_cli.cli.screen.terminal import Notices
    from infer_cli.conversation.next_turn import NextTurn
    from infer_cli.prompt.input import PromptInput
    from infer_cli.prompt.pairs import Pair
    from infer_cli.prompt.plan import PromptPlan
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.runtime.session import Session
    from infer_cli.text.reasoning import TagPair
    from infer_cli.types import ChoiceScore, Reply

_SHOWN = 40  # characters of a choice
_UNUSED = frozenset({"max_tokens", "samples", "stop"})  # nothing is sampled


def answer_choice(options: RunOptions, session: Session, given: PromptInput, notices: Notices) -> int:
    """The likeliest answer to one prompt; returns the exit code. Raises InferError."""
    finish_load(session, notices, recording=not options.no_record, caching=False)
    vocab = session.loaded.vocab
    prompt = plan_of(replace(options, max_tokens=room_for(options.choices, vocab)), session, given, notices)
    check_not_empty(prompt.ids)
    question = _question(options, _pairs(options, vocab, prompt), prompt.fitted.report())
    _warn_of_reasoning(prompt.encoded.open_reasoning, notices)
    settings = _settings(options, notices)
    running, replies, is_interrupted = _ask(question, session, options, notices)
    if not options.no_record:
        from infer_cli.records.answers import keep_answers

        if options.private:
            notices.note("private: the record holds hashes only, so it cannot be replayed")
        keep_answers(
            replies,
            question.prompt_ids,
            prompt,
            session,
            running,
            n_window=question.window,
            settings=settings,
            private=options.private,
            warn=notices.warn,
        )
    return _outcome(replies, is_interrupted, session, notices)


def answer_turn(options: RunOptions, session: Session, turn: NextTurn, notices: Notices) -> int:
    """As `answer_choice`, to the next message of a conversation, which the answer becomes part of."""
    plan, codec = turn.plan, turn.conversation.codec
    ids = history.flat((*plan.past, Segment("prompt", plan.prompt_ids)))
    encoded = EncodedPrompt(ids, codec.prompt_text(ids), plan.open_reasoning)
    pairs = [encode_after(codec.vocab, encoded, choice) for choice in options.choices]
    question = _question(options, pairs, plan.report)
    _warn_of_reasoning(plan.open_reasoning, notices)
    settings = _settings(options, notices)
    running, replies, is_interrupted = _ask(question, session, options, notices)
    (reply,) = replies
    if not options.no_record and reply.choices is not None:
        turn.keep(reply, session, running, stop=options.stop, settings=settings, warn=notices.warn)
    return _outcome(replies, is_interrupted, session, notices)


def _warn_of_reasoning(opened: TagPair | None, notices: Notices) -> None:
    if opened is not None:
        notices.warn(
            f"the chat template begins each reply with {opened.opening}: the choices are scored as reasoning"
        )


def _pairs(options: RunOptions, vocab: Vocab, prompt: PromptPlan) -> list[Pair]:
    encoded = prompt.encoded
    if options.raw and not options.parse_special:
        return [encode_pair(vocab, encoded.text, choice) for choice in options.choices]
    return [encode_after(vocab, encoded, choice) for choice in options.choices]


def _question(options: RunOptions, pairs: Sequence[Pair], truncation: dict[str, object] | None) -> Question:
    return question_of(
        options.choices,
        pairs,
        question_id=new_id(),
        deadline_s=options.deadline_s,
        truncation=truncation,
    )


def _settings(options: RunOptions, notices: Notices) -> tuple[Setting, ...]:
    """Every setting of the reply; shown where that is wanted. Those that say how a reply is sampled are kept
    among them, for the next one of a conversation that was told."""
    told = [Setting(name, *given) for name, given in options.sampling.items()]
    if options.seed is not None:
        told.append(Setting("seed", *options.seed))
    if options.show_params:
        used = [setting for setting in options.settings if setting.name not in _UNUSED]
        notices.clear()
        print(settings_table(used), file=sys.stderr)
    return (*options.settings, *told)


def _ask(
    question: Question, session: Session, options: RunOptions, notices: Notices
) -> tuple[RunningEngine, list[Reply], bool]:
    check_fits(question, session.loaded.window)
    running = session.start_scoring(question.window)
    return running, *show_choice(question, running, session.loaded.vocab, options, notices)


def _outcome(replies: Sequence[Reply], is_interrupted: bool, session: Session, notices: Notices) -> int:
    if is_interrupted:
        return ExitStatus.INTERRUPTED
    for reply in replies:
        for line in _table(reply.choices or ()):
            notices.note(line)
    return status_of(replies, session.model.name, notices)


def _table(choices: Sequence[ChoiceScore]) -> list[str]:
    """A line for each choice, in their order."""
    texts = [single_line(choice.text)[:_SHOWN] for choice in choices]
    width = max((len(text) for text in texts), default=0)
    return [
        f"{text:<{width}}  probability {choice.probability:.4f}"
        f"  log-probability per token {choice.logprob_per_token:.4f}"
        for text, choice in zip(texts, choices, strict=True)
    ]
