"""A model of lm-evaluation-harness that computes in the harness's own process."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from infer_cli.api import Message, Model, Reply, Request, ScoredPair
from infer_cli.errors import UnexpectedFailure, UsageError
from infer_cli.integrations.lm_eval.generation import MAX_GEN_TOKS, read_generation

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from infer_cli.types import Mode

_log = logging.getLogger(__name__)

WINDOW = 4096
WIDTH = 16
# Likelihoods that are asked for together. Then they are in the harness's cache: a run that is killed goes on
# from there.
_BLOCK_REQUESTS = 512
_BLOCK_TOKENS = 32_768


class _Wanted(NamedTuple):
    """One likelihood. `key` is the harness's own of it, None for a part of a text."""

    place: int
    key: tuple[str, str] | None
    context: list[int]
    continuation: list[int]


class _Generation(NamedTuple):
    """One reply. `key` is the harness's own of it, `n_window` the tokens that prompt and reply may fill."""

    key: tuple[Any, ...]
    request: Request
    n_window: int


class InferLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """The harness's `infer`. Its arguments are those of `Model.open`, with defaults for evaluation.

    `window` is the harness's `max_length`: longer contexts lose their beginning, as in its own models. Text
    is tokenized as there too: control tokens in it are control tokens, as a chat template's are in it.

    The model is opened with room for one text, and again with room for `width` prompts and replies where
    texts are generated. Raises InferError as `Model.open` does, and for a request that can't be answered.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        mode: Mode = "invariant",
        width: int | None = None,
        window: int = WINDOW,
        threads: int | None = None,
        gpu_layers: int | str = "auto",
        chat_template: str | None = None,
        download: bool = False,
        seed: int | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        """`seed`: those of sampled replies come from it; None: one is drawn, and in the results.

        The harness gives the last three. `batch_size` stands for `width` where that is not given, but for 1,
        which is the harness's default. The others say nothing here: see `gpu_layers`.
        """
        super().__init__()
        self._width = width or _width_of(batch_size)
        self._seed = secrets.randbelow(2**32 - 1) if seed is None else seed
        self._arguments: dict[str, Any] = {
            "model": model,
            "mode": mode,
            "threads": threads,
            "gpu_layers": gpu_layers,
            "chat_template": chat_template,
            "download": download,
        }
        self._model = Model.open(**self._arguments, window=window)
        self._window = self._model.window
        frame = self._model.tokenize("", add_special=True)
        self._begin = frame[:1] if frame[:1] == [self._model.bos] else []
        self._latest: Reply | ScoredPair | None = None
        if self._model.promise != mode != "fast":
            _log.warning("infer promises %r, not %r, with this model here", self._model.promise, mode)

    def close(self) -> None:
        """Give the memory back."""
        self._model.close()

    # --- what it is ----------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """Raises UsageError where the vocabulary has none."""
        if self._model.eos is None:
            raise UsageError("this model's vocabulary has no EOS")
        return self._model.eos

    @property
    def prefix_token_id(self) -> int:
        return self._model.prefix_token

    @property
    def max_length(self) -> int:
        return self._window

    @property
    def max_gen_toks(self) -> int:
        return MAX_GEN_TOKS

    @property
    def batch_size(self) -> int:
        return self._width

    @property
    def tokenizer_name(self) -> str:
        """The harness keeps requests under it, with what a chat template has made of them."""
        return self._model.name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's source, for the results; a model has one only, so its name does not matter."""
        return self._model.chat_template if chat_template else None

    def get_model_info(self) -> dict[str, object]:
        """What the harness's results say of the model: its file, the engine, and what it promises."""
        info: dict[str, object] = {
            "mode": self._model.mode,
            "promise": self._model.promise,
            "width": self._width,
            "max_length": self._window,
            "seed": self._seed,
        }
        if self._latest is not None:
            info["model_sha256"] = self._latest.model.sha256
            info["engine"] = {
                "infer": self._latest.engine.infer,
                "llama_cpp": self._latest.engine.llama_cpp,
                "fingerprint": self._latest.engine.fingerprint,
            }
        return info

    # --- text and ids --------------------------------------------------------------------------

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids, with BOS where the vocabulary wants it and the text does not begin with it."""
        ids = self._model.tokenize(string, parse_special=True)
        if add_special_tokens is False or ids[: len(self._begin)] == self._begin:
            return ids
        return self._begin + ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """What the model's template makes of messages. Without a generation prompt, the last message is a
        reply's beginning: nothing comes after its text."""
        messages = [Message(turn["role"], turn["content"]) for turn in chat_history]
        text = self._model.render(messages, add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return text
        begun = messages[-1].text.strip()  # templates may take white space away
        place = text.rfind(begun)
        if place < 0:
            raise UsageError(f"the chat template leaves out what the reply begins with: {begun!r}")
        return text[: place + len(begun)]

    # --- likelihoods ---------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        wanted = [
            _Wanted(place, key, context or [self.prefix_token_id], continuation)
            for place, (key, context, continuation) in enumerate(requests)
        ]
        # Neighbours begin alike: what they share is computed once.
        wanted.sort(key=lambda one: (one.context, one.continuation))
        answers = {}
        for one, answer in self._scored(wanted, disable_tqdm):
            answers[one.place] = answer
            self.cache_hook.add_partial("loglikelihood", one.key, answer)
        return [answers[place] for place in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """A BOS is not scored: it stands before each text."""
        texts = [request.args[0] for request in requests]
        wanted: list[_Wanted] = []
        n_open = []
        for place, text in enumerate(texts):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            before = len(wanted)
            wanted += [_Wanted(place, None, *make_disjoint_window(window)) for window in windows]
            n_open.append(len(wanted) - before)
        totals = [0.0] * len(texts)
        for one, (logprob, _) in self._scored(wanted, disable_tqdm):
            totals[one.place] += logprob
            n_open[one.place] -= 1
            if not n_open[one.place]:
                key = (texts[one.place],)
                self.cache_hook.add_partial("loglikelihood_rolling", key, totals[one.place])
        return totals

    def _scored(
        self, wanted: Sequence[_Wanted], disable_tqdm: bool
    ) -> Iterator[tuple[_Wanted, tuple[float, bool]]]:
        self._make_room(1, self._window)
        fitting = [self._fitted(one) for one in wanted]
        if n_cut := sum(len(one.context) for one in wanted) - sum(len(one.context) for one in fitting):
            _log.warning("%d tokens of contexts left out to fit max_length %d", n_cut, self._window)
        with tqdm(total=len(wanted), desc="Running loglikelihood requests", disable=disable_tqdm) as bar:
            for block in _blocks(fitting):
                results = self._model.score_ids((one.context, one.continuation) for one in block)
                for one, result in zip(block, results, strict=True):
                    bar.update()
                    yield one, self._answer(result)

    def _fitted(self, one: _Wanted) -> _Wanted:
        """Without what the window does not hold of the context's beginning."""
        if not one.continuation:
            raise UsageError(f"the continuation {one.key and one.key[1]!r} has no tokens after its context")
        n_over = len(one.context) + len(one.continuation) - (self._window + 1)
        return one._replace(context=one.context[n_over:]) if 0 < n_over < len(one.context) else one

    def _answer(self, result: ScoredPair) -> tuple[float, bool]:
        if result.logprob is None or result.greedy is None:
            raise _failure(result)
        self._latest = result
        return result.logprob, result.greedy

    # --- generated text ------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        wanted = self._prepared(requests)
        if not wanted:
            return []
        self._make_room(self._width, max(one.n_window for one in wanted.values()))
        texts: dict[str, str] = {}
        asked = (one.request for one in wanted.values())
        with tqdm(total=len(wanted), desc="Running generate_until requests", disable=disable_tqdm) as bar:
            for reply in self._model.answer(asked, run_seed=self._seed):
                bar.update()
                if reply.text is None:
                    raise _failure(reply)
                self._latest = reply
                texts[reply.id] = reply.text
                self.cache_hook.add_partial("generate_until", wanted[reply.id].key, reply.text)
        return [texts[request_id] for request_id in wanted]

    def _prepared(self, instances: Sequence[Instance]) -> dict[str, _Generation]:
        """By the ids of the requests. Seeds come from them, so they say nothing of their neighbours."""
        n_same: Counter[tuple[object, ...]] = Counter()
        prepared = {}
        n_cut = 0
        for instance in instances:
            context, given = instance.args
            asked = read_generation(given)
            if asked.max_tokens >= self._window:
                raise UsageError(
                    f"max_gen_toks {asked.max_tokens} leaves no room in a window of {self._window} tokens",
                    "give the model a larger window",
                )
            ids = self.tok_encode(context)
            n_over = max(0, len(ids) + asked.max_tokens - self._window)
            n_cut += n_over
            place = (instance.task_name, instance.doc_id, instance.idx)
            request = Request(
                prompt=ids[n_over:],
                sampling=asked.sampling,
                max_tokens=asked.max_tokens,
                stop=asked.until,
                seed=asked.seed,
                id="/".join(map(str, (*place, n_same[place]))),
            )
            n_same[place] += 1
            n_window = len(ids) - n_over + asked.max_tokens
            prepared[request.id] = _Generation(instance.args, request, n_window)
        if n_cut:
            _log.warning("%d tokens of contexts left out to fit max_length %d", n_cut, self._window)
        return prepared

    def _make_room(self, width: int, window: int) -> None:
        """Have the model open for so many texts of so many tokens."""
        if self._model.width < width or self._model.window < window:
            self._model.close()
            self._model = Model.open(**self._arguments, width=width, window=window)


def _width_of(batch_size: int | str | None) -> int:
    """1 is what the harness says where nothing is said."""
    if batch_size is None or str(batch_size).startswith("auto") or str(batch_size) == "1":
        return WIDTH
    try:
        return int(batch_size)
    except ValueError:
        raise UsageError(f"batch_size must be a whole number or auto, not {batch_size!r}") from None


def _blocks(wanted: Iterable[_Wanted]) -> Iterator[list[_Wanted]]:
    block: list[_Wanted] = []
    n_tokens = 0
    for one in wanted:
        block.append(one)
        n_tokens += len(one.context) + len(one.continuation)
        if len(block) >= _BLOCK_REQUESTS or n_tokens >= _BLOCK_TOKENS:
            yield block
            block, n_tokens = [], 0
    if block:
        yield block


def _failure(result: Reply | ScoredPair) -> UnexpectedFailure:
    message = "it ended without a result" if result.error is None else result.error["message"]
    return UnexpectedFailure(f"request {result.id}: {message}")
