"""Does a mode keep its promise for this model, on this build and machine? The same requests are answered in
several ways, in one process and one mode, and compared byte by byte, logits too.

Knows no command line. One mode a process: llama.cpp reads its kernel settings once.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from infer_cli.engine.engine import Engine
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.types import EngineRequest, Finished, SamplingParams

if TYPE_CHECKING:
    from infer_cli.backend.base import Backend, Floats, Vocab
    from infer_cli.backend.spec import ContextSpec
    from infer_cli.engine.active_request import ActiveRequest
    from infer_cli.runtime.model_protocols import LoadedModel

WIDTH = 16  # of a job; also the most at once
ODD = 7  # replies side by side that are no whole groups of rows
WINDOW = 512
SAMPLED = SamplingParams(temperature=0.8)  # every other request; the rest is greedy
PRICE_PROMPT = 256  # tokens
PRICE_STEPS = 16
PRICE_ROUNDS = 3

_TEXTS = (
    "The capital of France is",
    "Once upon a time there was a small model that",
    "def fibonacci(n):\n    ",
    "In the beginning " * 20,
    "List of planets: Mercury, Venus,",
    "مرحبا كيف حالك اليوم",
    "The quick brown fox jumps over the lazy dog. " * 9,
    "今天天气很好，我们去",
    # One beginning of more than two chunks: copied from slot to slot where it is in memory.
    *("A cat sat on a mat and saw a rat. " * 14 + end for end in ("Then", "But the dog", "Then the", "")),
    "1 2 3 4 5 6 7",
    "Q: What is the boiling point of water?\nA:",
    "🙂 means",
    "a",
)


class Way(NamedTuple):
    """How the requests are answered. `width`: as it would be asked for; `live`: at once; `chunk`: another
    than the policy's; `guesses`: where the policy speculates."""

    name: str
    width: int
    live: int
    against: str = ""  # the way whose replies it is held to; empty: the first
    shuffled: bool = False
    twice: bool = False  # the second time, prompts begin with what is in memory
    chunk: int | None = None
    guesses: bool = True
    threads: int | None = None
    cut: int = 0  # the requests from this one on first, then, in a new context, those before it
    shards: int = 1  # each n-th request in a context of its own


RESUMED = Way("after resume", WIDTH, WIDTH, cut=5)  # of a process that has answered nothing before


class Answer(NamedTuple):
    tokens: tuple[int, ...]
    logits: str  # sha256 over every row that a token was chosen from


class Tally(NamedTuple):
    """Replies that are equal to those of the way that this one is held to."""

    way: str
    n: int
    same_tokens: int
    same_logits: int

    @property
    def holds(self) -> bool:
        return self.n == self.same_tokens == self.same_logits


def ways_of(policy: ModePolicy, threads: int) -> list[Way]:
    """The ways in which a mode's replies have to be the same; the first is what the others are held to.

    Canonical shapes have a fixed width and thread count; invariant ones are free in both, and in the chunks.
    The last canonical ways are of another width and held to each other: requests come to lie in other slots.
    """
    if policy.mode == "canonical":
        odd = f"{ODD} wide"
        return [
            Way("16 at once", WIDTH, WIDTH),
            Way("alone", WIDTH, 1),
            Way("2 at once", WIDTH, 2),
            Way("7 at once", WIDTH, 7),
            Way("shuffled", WIDTH, WIDTH, shuffled=True),
            Way("from cache", WIDTH, WIDTH, twice=True),
            Way(odd, ODD, ODD, against=odd),
            Way(f"{odd}, alone", ODD, 1, against=odd),
            Way(f"{odd}, shards", ODD, ODD, against=odd, shards=3),
        ]
    other = 1 if threads > 1 else 2
    return [
        Way("16 at once", WIDTH, WIDTH),
        Way("alone", 1, 1),
        Way("batch of 2", 2, 2),
        Way("batch of 7", 7, 7),
        Way("shuffled", WIDTH, WIDTH, shuffled=True),
        Way("chunks of 64", 1, 1, chunk=64),
        Way("chunks of 5", 7, 7, chunk=5),
        Way("from cache", WIDTH, WIDTH, twice=True),
        Way("no guessing", 1, 1, guesses=False),
        Way(f"{other} thread{'s' if other > 1 else ''}", WIDTH, WIDTH, threads=other),
    ]


class Probe:
    """Answers requests over one loaded model. `alter` changes each context, to break what a policy keeps."""

    def __init__(
        self,
        loaded: LoadedModel,
        threads: int,
        n_requests: int,
        n_tokens: int,
        alter: Callable[[ContextSpec], ContextSpec] = lambda context: context,
    ) -> None:
        self._loaded, self._threads, self._alter = loaded, threads, alter
        vocab = loaded.vocab
        self._requests = list(_requests(vocab, n_requests, n_tokens))
        self._filler = vocab.tokenize(("In the beginning there was a word. " * 100).encode())

    def run(self, on_way: Callable[[str], None], *, priced: bool = True) -> dict[str, object]:
        """All ways of the mode that one process can answer in, and, if `priced`, what it costs.

        `on_way` is told what is done next. JSON values; `reference` are the first way's replies.
        """
        policy = self._loaded.policy
        first, *rest = ways_of(policy, self._threads)
        on_way(first.name)
        reference = self.answers(first)
        references = {"": reference}
        tallies = []
        for way in rest:
            on_way(way.name)
            answers = self.answers(way)
            if way.against == way.name:
                references[way.name] = answers
            else:
                tallies.append(compare(way.name, references[way.against], answers))
        facts = self._loaded.facts(policy, self._loaded.context(policy, WINDOW))
        found: dict[str, object] = {
            "mode": policy.mode,
            "promise": policy.promise,
            "weaker_because": policy.weaker_because,
            "holds": all(tally.holds for tally in tallies),
            "ways": [tally._asdict() for tally in tallies],
            "reference": _as_json(reference),
            "facts": facts.as_json(),
            "fingerprint": facts.fingerprint,
        }
        if priced:
            on_way("speed")
            found["speed"] = self._speed()
        return found

    def resumed(self, on_way: Callable[[str], None]) -> dict[str, list[object]]:
        """The replies of a job that goes on in this process: to be compared with another's `reference`."""
        on_way(RESUMED.name)
        return _as_json(self.answers(RESUMED))

    def answers(self, way: Way) -> dict[int, Answer]:
        """Replies by number of the request."""
        policy = self._loaded.choose_policy(way.width)
        if way.chunk is not None:
            policy = policy._replace(chunk=way.chunk)
        if not way.guesses:
            policy = policy._replace(speculates=False)
        context = self._loaded.context(policy, WINDOW)
        if way.threads is not None:
            context = context._replace(n_threads=way.threads)
        order = list(range(len(self._requests)))
        if way.shuffled:
            random.Random(1).shuffle(order)
        found: dict[int, Answer] = {}
        shards = [order[i :: way.shards] for i in range(way.shards)]
        for part in filter(None, (part for s in shards for part in (s[way.cut :], s[: way.cut]))):
            backend = self._loaded.open(self._alter(context))
            try:
                recorder = AnswerRecorder(backend, policy)
                requests = [self._requests[i] for i in part]
                if way.twice:
                    recorder.answer(requests, way.live)
                found |= recorder.answer(requests, way.live)
            finally:
                backend.close()
        return found

    def _speed(self) -> dict[str, float]:
        """Tokens a second, medians: reading a prompt, writing alone, writing `WIDTH` replies at once."""
        prefill, decode, batch = [], [], []
        for _ in range(PRICE_ROUNDS):
            one = self._timed(1)
            prefill.append(PRICE_PROMPT / one[0])
            decode.append(PRICE_STEPS / one[1])
            batch.append(PRICE_STEPS * WIDTH / self._timed(WIDTH)[1])
        return {"prefill_tps": median(prefill), "decode_tps": median(decode), "batch_tps": median(batch)}

    def _timed(self, width: int) -> tuple[float, float]:
        """Seconds of `width` prompts, and of the steps after them."""
        policy = self._loaded.choose_policy(width)
        backend = self._loaded.open(self._loaded.context(policy, WINDOW))
        try:
            engine = Engine(backend, policy, time.perf_counter, WINDOW)
            n_prompt = PRICE_PROMPT if width == 1 else 4
            for i in range(width):
                ids = tuple(self._filler[i : i + n_prompt])
                engine.submit(EngineRequest(str(i), ids, SamplingParams(), PRICE_STEPS + 1), 0.0)
            start = time.perf_counter()
            engine.step()
            while engine.prefilling:
                engine.step()
            middle = time.perf_counter()
            while not engine.idle:
                engine.step()
            return middle - start, time.perf_counter() - middle
        finally:
            backend.close()


def compare(way: str, reference: Mapping[int, Answer], answers: Mapping[int, Answer]) -> Tally:
    pairs = [(reference[i], answers[i]) for i in reference]
    return Tally(
        way,
        len(pairs),
        sum(one.tokens == other.tokens for one, other in pairs),
        sum(one.logits == other.logits for one, other in pairs),
    )


def _as_json(answers: Mapping[int, Answer]) -> dict[str, list[object]]:
    return {str(i): list(answer) for i, answer in answers.items()}


def _requests(vocab: Vocab, n: int, n_tokens: int) -> Iterator[EngineRequest]:
    for i in range(n):
        text = _TEXTS[i % len(_TEXTS)]
        if i >= len(_TEXTS):
            text += f" {i}"
        ids = tuple(vocab.tokenize(text.encode()))
        if vocab.add_bos and vocab.bos is not None:
            ids = (vocab.bos, *ids)
        yield EngineRequest(
            str(i), ids, SAMPLED if i % 2 else SamplingParams(), n_tokens, seed=i if i % 2 else None
        )


class AnswerRecorder:
    """Answers requests over one backend, and hashes each row of logits that a token is chosen from."""

    def __init__(self, backend: Backend, policy: ModePolicy) -> None:
        self._engine = Engine(backend, policy, time.perf_counter, WINDOW, on_logits=self._hash)
        self._hashes: dict[str, Any] = {}  # of the requests under way

    def answer(self, requests: Sequence[EngineRequest], live: int) -> dict[int, Answer]:
        """Answer requests in this order, `live` at once. Replies by number of the request."""
        waiting = list(reversed(requests))
        found: dict[int, Answer] = {}
        n_live = 0
        while waiting or n_live:
            while waiting and n_live < live:
                self._engine.submit(waiting.pop(), 0.0)
                n_live += 1
            for event in self._engine.step():
                if isinstance(event, Finished):
                    n_live -= 1
                    digest = self._hashes.pop(event.request_id).hexdigest()
                    found[int(event.request_id)] = Answer(event.tokens, digest)
        return found

    def _hash(self, active: ActiveRequest, logits: Floats) -> None:
        self._hashes.setdefault(active.request.id, hashlib.sha256()).update(logits.tobytes())
