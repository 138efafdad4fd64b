"""What Python programs use: a model that answers requests in the program's own process.

It prints nothing, sets no signal handler and does not fork. The one process that it starts renders chat
templates. A crash of llama.cpp ends the program; `infer` is a program of its own, which survives it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from types import TracebackType
from typing import get_args

from infer_cli.answering import likelihood, reply
from infer_cli.answering.likelihood import ScoredPair
from infer_cli.batch.job import MAX_WIDTH
from infer_cli.errors import InferError, UsageError
from infer_cli.models.installed import InstalledModel, fake_model, is_fake
from infer_cli.models.store import resolve
from infer_cli.program.open_model import OpenModel
from infer_cli.program.prompts import Ids, Messages, Prompt, PromptReader
from infer_cli.program.replies import Replies
from infer_cli.program.reply_stream import ReplyStream
from infer_cli.program.request import Request
from infer_cli.program.scores import Continuation, Scores
from infer_cli.prompt.encode import encode_raw
from infer_cli.prompt.messages import check_unicode
from infer_cli.prompt.pairs import prefix_token
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from infer_cli.scoring.measurement import Measurement
from infer_cli.scoring.windows import DEFAULT_WINDOW, Windowing
from infer_cli.settings.defaults import MAX_TOKENS, MOST_TOKENS
from infer_cli.system.processors import MAX_THREADS, default_threads
from infer_cli.types import Delta, Message, Mode, Promise, Reply, SamplingParams

__all__ = [
    "Continuation",
    "Delta",
    "InferError",
    "Measurement",
    "Message",
    "Model",
    "Reply",
    "ReplyStream",
    "Request",
    "SamplingParams",
    "ScoredPair",
    "as_json",
]

WINDOW = 4096  # tokens of each slot, where nothing else is asked for


class Model:
    """A loaded model. Its methods may be called from several threads. Close it, or use it in a `with`.

    What is wrong with a request is the `error` of what comes of it. Raised are UsageError where the model is
    closed or belongs to the process that this one is a fork of, OutOfMemory where the engine for likelihoods,
    which is made when it is first needed, does not fit, and UnexpectedFailure where an engine has stopped.
    """

    def __init__(self, session: Session, window: int = WINDOW, chat_template: str | None = None) -> None:
        """Waits for the session's load and starts its engine; `Model.open` makes the session too."""
        given = None if chat_template is None else session.chat_template(chat_template)
        self._open = OpenModel(session, window)
        self._reader = PromptReader(session, lambda: given or session.chat_template(None))
        self._replies = Replies(self._open, self._reader)
        self._scores = Scores(self._open, self._reader)

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        mode: Mode = "canonical",
        width: int = 1,
        window: int = WINDOW,
        threads: int | None = None,
        gpu_layers: int | str = "auto",
        chat_template: str | os.PathLike[str] | None = None,
        download: bool = False,
    ) -> Model:
        """Load a model by name, path or source; None is the default one. It is fetched only with `download`.

        `width` replies are computed side by side, each with room for `window` tokens of prompt and reply.
        `threads` None: one for each physical core. `gpu_layers`: auto, all or a number. `chat_template` is
        a file that takes the place of the model's own.

        Raises InferError: ModelNotFound, ModelInvalid, OutOfMemory, SourceUnreachable, UsageError.
        """
        if mode not in get_args(Mode):
            raise UsageError(f"mode {mode!r} is not one of {', '.join(get_args(Mode))}")
        _check("width", width, MAX_WIDTH)
        _check("window", window, MOST_TOKENS)
        n_threads = default_threads() if threads is None else threads
        _check("threads", n_threads, MAX_THREADS)
        options = EngineOptions(threads=n_threads, mode=mode, gpu_layers=str(gpu_layers))
        options.check()
        found = _find(None if model is None else os.fspath(model), download=download)
        session = Session(found, options, width, _null_device())
        session.wait()
        try:
            return cls(session, window, None if chat_template is None else os.fspath(chat_template))
        except BaseException:
            session.close()
            raise

    # --- what it is ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._open.session.model.name

    @property
    def mode(self) -> Mode:
        return self._open.running.policy.mode

    @property
    def promise(self) -> Promise:
        """What is kept of the mode's promise with this model on this machine."""
        return self._open.running.policy.promise

    @property
    def width(self) -> int:
        """Replies that are computed side by side. `canonical` takes the next width that keeps its promise."""
        return self._open.running.policy.width

    @property
    def window(self) -> int:
        """Tokens that a prompt and its reply may fill together."""
        return self._open.window

    # --- asking --------------------------------------------------------------------------------

    def reply(
        self,
        messages: Messages = (),
        *,
        prompt: Prompt | None = None,
        max_tokens: int = MAX_TOKENS,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        logprobs: int | None = None,
        deadline_s: float | None = None,
        think: bool | None = None,
        reasoning_budget: int | None = None,
        **sampling: float | str,
    ) -> Reply:
        """The reply to one request, whose fields these are. `sampling`: its sampling parameters, by name."""
        request = Request(
            messages,
            prompt,
            sampling,
            max_tokens,
            stop,
            seed,
            logprobs,
            deadline_s,
            think=think,
            reasoning_budget=reasoning_budget,
        )
        return self.submit(request).reply()

    def submit(self, request: Request) -> ReplyStream:
        """Ask, and go on: the stream has the text as it comes."""
        return self._replies.submit(request)

    def answer(self, requests: Iterable[Request], *, run_seed: int | None = None) -> Iterator[Reply]:
        """A reply to each request, as they end: `reply.id` says to which. Requests are read as there is room
        for them. Leaving early cancels the rest.

        With `run_seed`, a sampled request without a seed gets that of the row of a batch with this seed whose
        `custom_id` is the request's id.
        """
        return self._replies.answer(requests, run_seed)

    def choose(
        self,
        messages: Messages = (),
        choices: Sequence[str] = (),
        *,
        prompt: Prompt | None = None,
        deadline_s: float | None = None,
    ) -> Reply:
        """The likeliest of the texts that are allowed as the reply to `messages`, or after `prompt`, a text.

        `reply.choices` has the likelihood of each. It is the reply of `infer run --choices`.
        """
        return self._scores.choose(messages, prompt, choices, deadline_s)

    # --- likelihoods ---------------------------------------------------------------------------

    def score(self, pairs: Iterable[Continuation | tuple[str, str]]) -> Iterator[ScoredPair]:
        """How likely each continuation is after its context, in the order of the pairs. A pair is a tuple
        (context, continuation), or a `Continuation`.

        Some thousand pairs are read at a time; those that begin alike share what they begin with. Leaving
        early cancels the rest. The results have the digests of `infer score`.
        """
        return self._scores.score(pairs)

    def score_ids(self, pairs: Iterable[tuple[Ids, Ids]]) -> Iterator[ScoredPair]:
        """As `score`, of ids (context, continuation): nothing is added to them. Neither is empty."""
        return self._scores.score_ids(pairs)

    def perplexity(
        self,
        text: str,
        *,
        window: int | None = None,
        stride: int | None = None,
        rolling: bool = False,
        limit: int | None = None,
    ) -> Measurement:
        """The perplexity of a text, as `infer perplexity` has it: in windows of so many tokens (512), the
        second half of each scored; or with a `stride`, or `rolling`, where they are as large as the model's.
        `limit`: most windows.

        Raises UsageError for a text that is too short, or windows that can't be; ContextOverflow for windows
        larger than the model's; ModelInvalid where its numbers are not finite.
        """
        if window is None:
            window = self.window if rolling else DEFAULT_WINDOW
        return self._scores.perplexity(text, Windowing(window, stride, rolling, limit))

    # --- text and ids --------------------------------------------------------------------------

    @property
    def bos(self) -> int | None:
        """The token that a text begins with. None: the vocabulary has none."""
        return self._open.session.loaded.vocab.bos

    @property
    def eos(self) -> int | None:
        """The token that a text ends with. None: the vocabulary has none."""
        return self._open.session.loaded.vocab.eos

    @property
    def prefix_token(self) -> int:
        """What a continuation without a context comes after: BOS, else EOS. Raises UsageError for neither."""
        return prefix_token(self._open.session.loaded.vocab)

    @property
    def chat_template(self) -> str:
        """The source of the chat template. Raises UsageError where the model has none."""
        with self._open.in_use():
            return self._reader.template.source

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """Ids of a text. `add_special` adds BOS and EOS as the vocabulary wants them, `parse_special` lets
        the text hold control tokens. Raises UsageError for lone surrogates."""
        with self._open.in_use() as session:
            vocab = session.loaded.vocab
            if add_special:
                return list(encode_raw(text, vocab, parse_special=parse_special))
            check_unicode(text, "the text")
            data = text.encode()
            return vocab.tokenize_special(data) if parse_special else vocab.tokenize(data)

    def detokenize(self, ids: Ids) -> str:
        """The text of ids, without control tokens. Bytes that are no whole character are U+FFFD."""
        with self._open.in_use() as session:
            return b"".join(map(session.loaded.vocab.piece, ids)).decode("utf-8", "replace")

    def token_text(self, token: int) -> bytes:
        """The bytes that a token stands for; of a control token its name."""
        with self._open.in_use() as session:
            return session.loaded.vocab.token_text(token)

    def render(self, messages: Messages, *, add_generation_prompt: bool = True) -> str:
        """What the chat template makes of messages, without a BOS that is added. Its ids, with
        `parse_special`, can be a `prompt`. Raises UsageError for messages that can't be used, ModelInvalid
        for a template that fails."""
        with self._open.in_use():
            return self._reader.render(messages, add_generation_prompt=add_generation_prompt)

    # --- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """End what is under way, without replies, and give the memory back. A second time does nothing."""
        self._open.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_json(result: Reply | ScoredPair | Measurement, model: Model | None = None) -> dict[str, object]:
    """The object that the commands write: of a reply as with `--json`, of a likelihood as `infer score`, of a
    measurement as `infer perplexity --json`. With its `model`, a reply's log-probabilities have the texts of
    their tokens, as there."""
    if isinstance(result, Measurement):
        return result.as_json()
    if isinstance(result, ScoredPair):
        return likelihood.as_json(result)
    return reply.as_json(result, None if model is None else model.token_text)


def _find(name: str | None, *, download: bool) -> InstalledModel:
    if name is not None and is_fake(name):
        return fake_model(name)
    return resolve(name, offline=not download)


def _check(name: str, value: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise UsageError(f"{name} must be a whole number between 1 and {most}, not {value!r}")


@cache
def _null_device() -> int:
    """Where llama.cpp's log goes. Never closed: llama.cpp writes to it as long as the process lives."""
    return os.open(os.devnull, os.O_WRONLY)
