"""A budget of reasoning: when it is spent the closing tag comes next, whoever stands beside the request."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.backend.fake import FakeScript
from infer_cli.engine.reasoning_limit import ReasoningLimit
from infer_cli.text.reasoning import ReasoningMeter, ReasoningSplitter, TagPair
from infer_cli.types import EngineRequest, Finished, Mode, ReasoningBudget, SamplingParams
from tests.engine_helpers import fake_engine, request, run_all

THINK = TagPair("<think>", "</think>")
CLOSING = tuple(b"</think>")
REPLY = "<think>one and one and one and one</think>two"
SCRIPT = FakeScript(default_reply=REPLY)
N_OPENING = len("<think>")


def budget(n: int, *, opened: bool = False) -> ReasoningBudget:
    return ReasoningBudget(n, (THINK,), THINK if opened else None, {THINK.closing: CLOSING})


def answered(asked: EngineRequest, script: FakeScript = SCRIPT, **how: object) -> Finished:
    engine, *_ = fake_engine(script=script, **how)  # type: ignore[arg-type]
    return run_all(engine, [asked])[0][asked.id]


def test_the_tag_comes_after_so_many_tokens_of_reasoning() -> None:
    end = answered(request("a", reasoning=budget(4)))
    n = N_OPENING + 4
    assert end.text == REPLY.encode()[:n] + b"</think>" + REPLY.encode()[n + len(CLOSING) :]
    assert end.tokens[n : n + len(CLOSING)] == CLOSING
    assert end.usage.completion_tokens == len(end.tokens)


def test_none_of_it_where_the_budget_is_nothing() -> None:
    assert answered(request("a", reasoning=budget(0))).text.startswith(b"<think></think>")
    assert answered(request("a", reasoning=budget(0, opened=True))).text.startswith(b"</think>")


def test_a_budget_that_is_not_spent_changes_nothing() -> None:
    assert answered(request("a", reasoning=budget(100))).text == REPLY.encode()
    plain = FakeScript(default_reply="no thought, though <think> is a word of it")
    assert answered(request("a", reasoning=budget(0)), plain) == answered(request("a"), plain)


def test_the_limits_of_the_reply_hold_inside_the_tag() -> None:
    end = answered(request("a", reasoning=budget(2), max_tokens=N_OPENING + 5))
    assert (end.text, end.reason) == (b"<think>on</t", "length")
    stopped = answered(request("a", reasoning=budget(2), stop=(b"</think>",)))
    assert (stopped.text, stopped.reason) == (b"<think>on", "stop_string")


def test_a_sampler_sees_what_was_put_in() -> None:
    params = SamplingParams(temperature=0.5, repeat_penalty=1.3)
    engine, backend, *_ = fake_engine(script=SCRIPT)
    asked = request("a", sampling=params, seed=3, reasoning=budget(4), max_tokens=25)
    engine.submit(asked, 0.0)
    samplers = []
    make = backend.new_sampler
    backend.new_sampler = lambda *given: samplers.append(make(*given)) or samplers[-1]  # type: ignore[method-assign, func-returns-value]
    events = [event for _ in range(40) if not engine.idle for event in engine.step()]
    end = next(event for event in events if isinstance(event, Finished))
    assert bytes(samplers[0].accepted[len(asked.prompt_ids) :]) == bytes(end.tokens)
    assert end.tokens[N_OPENING + 4 : N_OPENING + 4 + len(CLOSING)] == CLOSING


@pytest.mark.parametrize("mode", ["fast", "invariant"])
def test_guesses_ahead_respect_it(mode: Mode) -> None:
    """What the prompt says is guessed, and goes on over where the tag has to come."""
    asked = request("a", f"{REPLY} {REPLY} {REPLY}", reasoning=budget(6))
    engine, backend, *_ = fake_engine(script=SCRIPT, mode=mode, speculate=True)
    end = run_all(engine, [asked])[0]["a"]
    assert max(backend.row_counts[1:]) > 2, "it did guess"
    assert end.tokens == answered(asked).tokens


_asked = st.tuples(
    st.sampled_from(["hello", "what", "<think>x</think>"]),
    st.none() | st.integers(0, 40),
    st.booleans(),
    st.integers(1, 60),
)


@given(
    rows=st.lists(_asked, min_size=1, max_size=6),
    width=st.integers(1, 4),
    mode=st.sampled_from(["canonical", "invariant", "fast"]),
    speculate=st.booleans(),
    unified=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_neighbours_change_nothing(
    rows: list[tuple[str, int | None, bool, int]], width: int, mode: Mode, speculate: bool, unified: bool
) -> None:
    asked = [
        request(str(i), text, max_tokens=n, reasoning=None if limit is None else budget(limit, opened=opened))
        for i, (text, limit, opened, n) in enumerate(rows)
    ]
    engine, *_ = fake_engine(width, mode, SCRIPT, speculate=speculate, kv_unified=unified and mode == "fast")
    together, _ = run_all(engine, asked)
    for each in asked:
        alone = answered(each)
        assert (together[each.id].tokens, together[each.id].text) == (alone.tokens, alone.text)
        if each.reasoning is not None:
            _check(alone, each.reasoning)


def _check(end: Finished, asked: ReasoningBudget) -> None:
    """The tag stands where the budget ends, as far as the reply came."""
    meter = ReasoningMeter([THINK], THINK if asked.opened else None)
    for i, token in enumerate(end.tokens[:-1]):
        if meter.inside is not None and meter.n_tokens == asked.n_tokens:
            tag = end.tokens[i : i + len(CLOSING)]
            assert tag == CLOSING[: len(tag)]
            return
        meter.feed(bytes([token]) if token < 256 else b"")


def test_what_can_not_be_is_refused() -> None:
    for wrong, words in (
        (budget(-1), "a reasoning budget of -1"),
        (replace(budget(1), closing={}), "the closing tag </think> has no tokens"),
        (replace(budget(1), closing={THINK.closing: (999,)}), "token 999 of the closing tag"),
    ):
        end = answered(request("a", reasoning=wrong))
        assert end.reason == "error" and words in str(end.error)


def test_the_tag_is_put_in_once() -> None:
    """Whatever its tokens turn out to stand for."""
    limit = ReasoningLimit(budget(0, opened=True))
    for token in CLOSING:
        assert limit.next_token == token
        limit.take(b"?")
    assert limit.next_token is None
    limit.take(b"more")
    assert limit.next_token is None


@given(
    text=st.lists(st.sampled_from(["<think>", "</think>", " ", "\n", "a", "日", "<thi", "</"]), max_size=12),
    cuts=st.lists(st.integers(0, 60), max_size=10),
    opened=st.booleans(),
)
def test_the_meter_agrees_with_what_is_shown(text: list[str], cuts: list[int], opened: bool) -> None:
    data = "".join(text).encode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pair = THINK if opened else None
    meter, splitter = ReasoningMeter([THINK], pair), ReasoningSplitter([THINK], pair)
    for start, end in pairwise(edges):
        meter.feed(data[start:end])
    splitter.feed("".join(text))
    assert (meter.inside is None) == (splitter.inside is None)
    assert meter.n_tokens <= len(edges)
