"""How likely texts are, for a program: of continuations one by one, and of the choices of a question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.answering.choosing import Question, check_choices, question_of
from infer_cli.answering.feed import Feed
from infer_cli.answering.likelihood import ScoredPair, scored_pair_of
from infer_cli.answering.one_question import OneQuestion
from infer_cli.answering.silent import SilentSink
from infer_cli.errors import InferError, UsageError
from infer_cli.program.open_model import ModelGone, OpenModel
from infer_cli.program.prompts import Ids, Messages, Prompt, PromptReader, checked_ids
from infer_cli.program.replies import end_of, refused
from infer_cli.program.request import checked_deadline
from infer_cli.prompt.pairs import Pair, encode_after, encode_pair
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.scoring.measurement import Measurement, measure_with
from infer_cli.scoring.windowed_text import cut_text
from infer_cli.scoring.windows import Windowing
from infer_cli.system.ids import new_id
from infer_cli.types import Finished, Reply, ScoreRequest

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab

N_AT_ONCE = 2048  # pairs that wait together: those that begin alike share what they begin with


@dataclass(frozen=True)
class Continuation:
    """A text whose likelihood is asked for: after `context`, or as the reply to `messages`.

    `messages` as a string is one message of the user. The row of `infer score` with these fields is the same.
    """

    text: str
    context: str = ""
    messages: Messages = ()
    id: str = field(default_factory=new_id)


class _Asked(NamedTuple):
    """A continuation as ids and its text, or why it can't be asked for. `n_bytes` is the text's length, where
    its tokens are not whole characters."""

    pair_id: str
    pair: Pair | None
    text: str = ""
    n_bytes: int | None = None
    error: InferError | None = None


class Scores:
    """Asks one model how likely texts are. Raises ModelGone, OutOfMemory where its engine for likelihoods
    does not fit, UnexpectedFailure where that has stopped. What is wrong with a text is its result's."""

    def __init__(self, model: OpenModel, reader: PromptReader) -> None:
        self._model, self._reader = model, reader

    # --- many continuations --------------------------------------------------------------------

    def score(self, items: Iterable[Continuation | tuple[str, str]]) -> Iterator[ScoredPair]:
        """Results in the order of the items, which are read as they are needed."""
        return self._in_order(map(self._asked, items), self._model.scoring)

    def score_ids(self, items: Iterable[tuple[Ids, Ids]]) -> Iterator[ScoredPair]:
        """As `score`, of ids."""
        return self._in_order(map(self._asked_ids, items), self._model.scoring)

    def _in_order(self, asked: Iterator[_Asked], running: RunningEngine) -> Iterator[ScoredPair]:
        while block := list(islice(asked, N_AT_ONCE)):
            # Neighbours begin alike.
            order = sorted(range(len(block)), key=lambda n: _sorting_key(block[n]))
            results: list[ScoredPair | None] = [None] * len(block)
            for n, end in Feed(running.service, self._work(block, order)):
                results[n] = _scored(block[n], end, running)
            yield from (result for result in results if result is not None)

    def _work(
        self, block: Sequence[_Asked], order: Iterable[int]
    ) -> Iterator[tuple[int, ScoreRequest | Finished]]:
        for n in order:
            pair, error = block[n].pair, block[n].error
            if pair is not None:
                yield n, pair.request(self._model.new_id())
            elif error is not None:
                yield n, end_of(error)

    def _asked(self, item: Continuation | tuple[str, str]) -> _Asked:
        wanted = item if isinstance(item, Continuation) else Continuation(text=item[1], context=item[0])
        asked = self._encoded(wanted.id, lambda: self._pair(wanted))
        return asked if asked.pair is None else asked._replace(text=wanted.text)

    def _pair(self, wanted: Continuation) -> Pair:
        vocab = self._model.session.loaded.vocab
        for name, text in (("text", wanted.text), ("context", wanted.context)):
            if not isinstance(text, str):
                raise UsageError(f"the {name} is a {type(text).__name__}, not a str")
        if not wanted.messages:
            return encode_pair(vocab, wanted.context, wanted.text)
        if wanted.context:
            raise UsageError("messages and context exclude each other")
        return encode_after(vocab, self._reader.read(wanted.messages, None).encoded, wanted.text)

    def _asked_ids(self, item: tuple[Ids, Ids]) -> _Asked:
        vocab = self._model.session.loaded.vocab
        asked = self._encoded(
            new_id(), lambda: Pair(_ids("context", item[0], vocab), _ids("continuation", item[1], vocab))
        )
        if asked.pair is None:
            return asked
        data = b"".join(map(vocab.piece, asked.pair.continuation))
        return asked._replace(text=data.decode("utf-8", "replace"), n_bytes=len(data))

    def _encoded(self, pair_id: str, encode: Callable[[], Pair]) -> _Asked:
        try:
            with self._model.in_use():
                pair = encode()
            n_window = len(pair.context) + len(pair.continuation) - 1
            self._model.check_fits(n_window, "context and continuation take")
        except ModelGone:
            raise
        except InferError as e:
            return _Asked(pair_id, None, error=e)
        return _Asked(pair_id, pair)

    # --- a whole text --------------------------------------------------------------------------

    def perplexity(self, text: str, windowing: Windowing) -> Measurement:
        """Raises UsageError for a text or windows that can't be, ContextOverflow for windows larger than the
        model's, ModelInvalid where its numbers are not finite."""
        running = self._model.scoring
        with self._model.in_use() as session:
            cut = cut_text(text, windowing, session.loaded.vocab, session.loaded.n_ctx_train)
        self._model.check_fits(cut.n_read, "a window takes")
        prefix = f"{self._model.new_id()}/"
        return measure_with(running, session.model.name, cut, request_prefix=prefix)

    # --- one question --------------------------------------------------------------------------

    def choose(
        self, messages: Messages, prompt: Prompt | None, choices: Sequence[str], deadline_s: float | None
    ) -> Reply:
        """The likeliest of the choices, as a reply."""
        running = self._model.scoring
        try:
            question = self._question(messages, prompt, choices, checked_deadline(deadline_s))
        except ModelGone:
            raise
        except InferError as e:
            return refused(new_id(), end_of(e), running)
        (reply,) = OneQuestion(question, running, SilentSink()).run()
        return reply

    def _question(
        self, messages: Messages, prompt: Prompt | None, choices: Sequence[str], deadline_s: float | None
    ) -> Question:
        check_choices(choices, "choices")
        with self._model.in_use() as session:
            vocab = session.loaded.vocab
            encoded = self._reader.read(messages, prompt, deadline_s).encoded
            if isinstance(prompt, str):
                pairs = [encode_pair(vocab, prompt, choice) for choice in choices]
            else:
                pairs = [encode_after(vocab, encoded, choice) for choice in choices]
        question = question_of(choices, pairs, question_id=new_id(), deadline_s=deadline_s)
        self._model.check_fits(question.window, "prompt and longest choice take")
        return question


def _ids(name: str, given: Ids, vocab: Vocab) -> tuple[int, ...]:
    ids = checked_ids(name, given, vocab)
    if not ids:
        raise UsageError(f"the {name} has no ids")
    return ids


def _sorting_key(asked: _Asked) -> tuple[int, ...]:
    return () if asked.pair is None else asked.pair.context + asked.pair.continuation


def _scored(asked: _Asked, end: Finished, running: RunningEngine) -> ScoredPair:
    context, continuation = ((), ()) if asked.pair is None else (asked.pair.context, asked.pair.continuation)
    found = scored_pair_of(
        end,
        running.provenance(),
        pair_id=asked.pair_id,
        context=context,
        continuation=continuation,
        text=asked.text,
        mode=running.policy.mode,
        promise=running.policy.promise,
    )
    return found if asked.n_bytes is None else replace(found, n_bytes=asked.n_bytes)
