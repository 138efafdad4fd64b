"""How quickly a loaded model computes on this machine, measured in a moment: what a batch plans with.

Decode calls are made without an engine, so no reply ends and every step has all its rows. Guessing ahead is
not measured, nor are long conversations, where a step takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.backend.base import DecodeStatus
from infer_cli.errors import UnexpectedFailure

if TYPE_CHECKING:
    from infer_cli.backend.base import Backend
    from infer_cli.engine.mode_policy import ModePolicy
    from infer_cli.runtime.model_protocols import LoadedModel

WIDTHS = (1, 4, 8, 16, 32)
LEAST_REPLIES = 8  # for fewer, a search for the best width costs more than it saves
WINDOW = 512  # tokens a slot
CLOSE = 0.95  # a width is good enough from this part of the best rate on
_PREFILL_S, _STEPS_S = 1.0, 0.8  # what a measurement takes at most, if a single call does not take longer
_EACH_WIDTH_S, _ALL_WIDTHS_S = 0.25, 10.0
_LEAST_STEPS, _MOST_STEPS = 1, 16
_LEAST_CHUNK = 64  # tokens
_READ, _READ_TRIES = 128, 3

_TEXT = b"In the beginning there was a word. " * 100

Clock = Callable[[], float]


class Pace(NamedTuple):
    """`step_s`: seconds of a decode step, which adds a token to each of `n_rows` replies."""

    prefill_tps: float
    n_rows: int
    step_s: float

    @property
    def decode_tps(self) -> float:
        return self.n_rows / self.step_s

    def seconds(self, n_prompt: int, n_reply: int, longest: int) -> float:
        """For prompts and replies of so many tokens in all, the longest reply included."""
        n_steps = max(-(-n_reply // self.n_rows), longest)
        return n_prompt / self.prefill_tps + n_steps * self.step_s


def pace(
    loaded: LoadedModel,
    policy: ModePolicy,
    n_replies: int,
    n_prompt: int,
    clock: Clock = time.perf_counter,
) -> Pace:
    """Of a job with so many replies, at least one, to prompts of about `n_prompt` tokens.

    Raises OutOfMemory.
    """
    backend = loaded.open(loaded.context(policy, WINDOW))
    try:
        n_rows = min(policy.width, n_replies)
        ids = loaded.vocab.tokenize(_TEXT)[: min(n_prompt, policy.chunk, backend.n_ctx_seq)]
        prefill_tps = _prefill_tps(backend, ids, clock)
        steps = _steps(backend, _n_computed(policy, n_rows), _STEPS_S, clock)
        return Pace(prefill_tps, n_rows, median(steps))
    finally:
        backend.close()


def quickest_pace(
    loaded: LoadedModel, policy: ModePolicy, n_replies: int, clock: Clock = time.perf_counter
) -> Pace:
    """As `pace`, of what is to be compared: the quickest of a few tries, since what else the machine does
    must not decide, with the same short prompt for all. Raises OutOfMemory."""
    backend = loaded.open(loaded.context(policy, WINDOW))
    try:
        n_rows = min(policy.width, n_replies)
        prefill_tps = _reading_tps(backend, loaded, clock)
        steps = _steps(backend, _n_computed(policy, n_rows), _EACH_WIDTH_S, clock)
        return Pace(prefill_tps, n_rows, min(steps))
    finally:
        backend.close()


def rates_by_width(
    loaded: LoadedModel, n_window: int, n_replies: int, clock: Clock = time.perf_counter
) -> dict[int, float]:
    """Tokens a second of the widths that fit into memory and that so many replies can fill.

    `n_window`: tokens that each slot will hold. Raises OutOfMemory.
    """
    widths = [
        width
        for narrower, width in zip((0, *WIDTHS), WIDTHS, strict=False)
        if width == 1 or (narrower < n_replies and loaded.fits(loaded.choose_policy(width), n_window))
    ]
    backend = loaded.open(loaded.context(loaded.choose_policy(widths[-1]), WINDOW))
    began = clock()
    rates: dict[int, float] = {}
    try:
        for width in widths:
            n_computed = max(width, loaded.choose_policy(width).min_rows)
            # The quickest: what else the machine does must not decide.
            rates[width] = width / min(_steps(backend, n_computed, _EACH_WIDTH_S, clock))
            if clock() - began > _ALL_WIDTHS_S:
                break
    finally:
        backend.close()
    return rates


def reading_tps(loaded: LoadedModel, clock: Clock = time.perf_counter) -> float:
    """Tokens a second of a short prompt. Raises OutOfMemory."""
    backend = loaded.open(loaded.context(loaded.policy, WINDOW))
    try:
        return _reading_tps(backend, loaded, clock)
    finally:
        backend.close()


def best_width(rates: Mapping[int, float]) -> int:
    """The smallest that is about as quick as the quickest."""
    return min(width for width, rate in rates.items() if rate >= CLOSE * max(rates.values()))


def _n_computed(policy: ModePolicy, n_rows: int) -> int:
    """Rows of a decode step for so many replies."""
    return policy.width if policy.fixed_width else max(n_rows, policy.min_rows)


def _reading_tps(backend: Backend, loaded: LoadedModel, clock: Clock) -> float:
    """Of a short prompt, the quickest of a few calls."""
    ids = loaded.vocab.tokenize(_TEXT)[:_READ]
    began, taken = clock(), list[float]()
    while not taken or (len(taken) < _READ_TRIES and clock() - began < _PREFILL_S):
        start = clock()
        _evaluate(backend, ids, list(range(len(ids))), [0] * len(ids))
        taken.append(clock() - start)
        backend.seq_rm(0, 0)
    return len(ids) / min(taken)


def _prefill_tps(backend: Backend, ids: list[int], clock: Clock) -> float:
    """Tokens a second of a call with `ids`, or with as many of them as are quick enough."""
    n, began = min(_LEAST_CHUNK, len(ids)), clock()
    _evaluate(backend, ids[:1], [0], [0])  # a model's first call reads its file
    backend.seq_rm(0, 0)
    tries = 0
    while True:
        start = clock()
        _evaluate(backend, ids[:n], list(range(n)), [0] * n)
        rate = n / (clock() - start)
        backend.seq_rm(0, 0)
        tries += 1
        n = min(2 * n, len(ids))
        if tries == 4 or clock() - began + n / rate > _PREFILL_S:
            return rate


def _steps(backend: Backend, n_rows: int, most_s: float, clock: Clock) -> list[float]:
    """Seconds of some decode steps."""
    slots = list(range(n_rows))
    _evaluate(backend, [0] * n_rows, [0] * n_rows, slots)  # the first call of a shape is slower
    began, taken = clock(), list[float]()
    while len(taken) < _MOST_STEPS and (len(taken) < _LEAST_STEPS or clock() - began < most_s):
        start = clock()
        _evaluate(backend, [0] * n_rows, [len(taken) + 1] * n_rows, slots, all_logits=True)
        taken.append(clock() - start)
    for slot in slots:
        backend.seq_rm(slot, 0)
    return taken


def _evaluate(
    backend: Backend, tokens: list[int], positions: list[int], slots: list[int], *, all_logits: bool = False
) -> None:
    """One call as the engine makes it, until its result is there."""
    outputs = [all_logits] * (len(tokens) - 1) + [True]
    if backend.decode(tokens, positions, slots, outputs) is not DecodeStatus.OK:
        raise UnexpectedFailure("llama.cpp could not compute what was to be measured")
    backend.logits(sum(outputs)).argmax(axis=1)
