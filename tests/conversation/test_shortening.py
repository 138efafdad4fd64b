"""What goes where a conversation does not fit: never too little or what may not be lost, and all is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.backend.fake import CHAT_TEMPLATE, FakeVocab
from infer_cli.conversation import summarizing
from infer_cli.conversation.codec import TurnCodec
from infer_cli.conversation.continuing import KeptConversation, restore
from infer_cli.conversation.conversation import Conversation, TurnPlan
from infer_cli.conversation.ledger import new_turn, record_of_turn
from infer_cli.conversation.shortening import OVERFLOW_POLICIES, OverflowPolicy, VisibleTurns
from infer_cli.engine import history
from infer_cli.errors import ContextOverflow
from infer_cli.prompt.encode import EncodedPrompt
from infer_cli.prompt.template import ChatTemplate
from infer_cli.records.record import Record
from infer_cli.records.thread import Thread
from infer_cli.types import EngineIdentity, ModelIdentity, Reply, Segment, Timings, Usage

VOCAB = FakeVocab()
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
# A template that wants the roles to alternate, and no system message.
STRICT = (
    "{% for m in messages %}{% if m.role != ('user' if loop.index0 % 2 == 0 else 'assistant') %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHORT = "They spoke of things."
MAX_TOKENS = 20


def conversation_of(
    policy: OverflowPolicy, window: int = 500, system: str | None = "Be brief.", template: str = CHAT_TEMPLATE
) -> Conversation:
    compiled = ChatTemplate(template, bos="", eos="", now=NOW)
    return Conversation(TurnCodec(compiled, VOCAB, window, 64), system, policy)


def reply_to(plan: TurnPlan, text: str, reply_id: str) -> Reply:
    ids = (*text.encode(), 258)
    return Reply(
        reply_id, None, 0, text, None, ids, None, "stop", "sha256:", Usage(plan.n_tokens, 0, len(ids)),
        Timings(0, 0, None, 0, None, None), None, None, "canonical", "canonical", False,
        {"stop": []}, ModelIdentity("fake", None), EngineIdentity(None, None, None, {}), plan.report,
    )  # fmt: skip


def ask(conversation: Conversation, user: str, reply: str = "yes", summary: str = SHORT) -> TurnPlan:
    plan = conversation.plan(user, MAX_TOKENS, lambda prompt, n: summary)
    conversation.add(plan, reply_to(plan, reply, str(len(conversation.turns))))
    return plan


def read(plan: TurnPlan) -> str:
    """The prompt as text."""
    return b"".join(map(VOCAB.token_text, (*history.flat(plan.past), *plan.prompt_ids))).decode(
        "utf-8", "replace"
    )


def filled(policy: OverflowPolicy, n_turns: int = 5, **how: Any) -> Conversation:
    conversation = conversation_of(policy, **how)
    for i in range(1, n_turns + 1):
        ask(conversation, f"question {i} ".ljust(40, "q"), f"answer {i}")
    return conversation


def questions(prompt: str) -> list[int]:
    return [int(n) for n in re.findall(r"question (\d+)", prompt)]


def test_error_refuses_and_leaves_the_talk_alone() -> None:
    conversation = filled("error")
    before = list(conversation.turns)
    with pytest.raises(ContextOverflow, match=r"the conversation with this message is \d+ tokens .* of 500$"):
        ask(conversation, "x" * 100)
    assert conversation.turns == before
    assert ask(conversation, "x").truncation is None


def test_whole_turns_go_in_the_order_of_the_policy() -> None:
    for policy, first in (("drop-oldest", 1), ("drop-middle", 2)):
        conversation = filled(policy)  # type: ignore[arg-type]
        plan = ask(conversation, "x" * 100)
        left = questions(read(plan))
        assert left[0] != 1 if policy == "drop-oldest" else left[0] == 1
        assert left[-1] == 5
        assert "Be brief." in read(plan)
        assert plan.n_tokens + MAX_TOKENS <= 0.75 * 500
        assert plan.truncation is not None
        (part,) = plan.truncation.dropped
        assert part.what.startswith(f"turns {first} to")
        last = ask(conversation, "y" * 300)
        assert questions(read(last)) == []
        assert last.truncation is not None
        if policy == "drop-middle":
            assert last.truncation.dropped[0].what == "turns 1, 4 to 6"


def test_the_middles_of_long_texts_go_and_never_grow_again() -> None:
    conversation = conversation_of("keep-ends", 690)
    ask(conversation, "".join(f"line {i}\n" for i in range(40)), "short")
    ask(conversation, "next", "".join(f"row {i}\n" for i in range(40)))
    plan = ask(conversation, "and now?", "")
    text = read(plan)
    assert plan.n_tokens + MAX_TOKENS <= 0.75 * 690
    for kept in ("line 0\n", "line 39\n", "row 0\n", "row 39\n", "short", "next", "lines left out"):
        assert kept in text
    assert plan.truncation is not None
    names = [part.what.rpartition(" of the ")[2] for part in plan.truncation.dropped]
    assert names == ["message of turn 1", "reply of turn 2"]
    after = ask(conversation, "z" * 220, "")
    assert after.truncation is not None
    assert len(read(after)) - 220 < len(text)
    assert text[: text.index("left out")].rpartition("\n")[0] not in read(after), "cut anew from the whole"
    assert read(after).count("left out") == 2


def test_a_talk_that_cannot_be_cut_is_refused() -> None:
    conversation = filled("keep-ends", 5)
    with pytest.raises(ContextOverflow, match="without all that --overflow keep-ends may cut"):
        ask(conversation, "x" * 250)
    assert len(conversation.turns) == 5


def test_a_summary_takes_the_place_of_the_oldest_turns() -> None:
    asked: list[tuple[str, int]] = []

    def summarize(prompt: EncodedPrompt, n: int) -> str:
        asked.append((prompt.text, n))
        return f" summary {len(asked)}\ufffd"

    conversation = filled("summarize", window=800, n_turns=8)
    n_before = len(conversation.encode("x" * 230, conversation.visible).ids)
    plan = conversation.plan("x" * 230, MAX_TOKENS, summarize)
    ((request, budget),) = asked
    assert budget == summarizing.budget(800) == 100
    assert plan.truncation is not None
    gone = plan.truncation.n_summarized
    assert questions(request) == list(range(1, gone + 1))
    assert "Be brief." not in request
    text = read(plan)
    assert questions(text) == list(range(gone + 1, 9))
    first = text.index("<|im_start|>user\n[Summary of the conversation before this]\nsummary 1\n[End")
    assert first < text.index("question")
    report = plan.report
    assert report is not None
    assert report["dropped"] == [{"what": f"turns 1 to {gone}", "tokens": report["dropped_tokens"]}]
    assert n_before - plan.n_tokens == report["dropped_tokens"] - report["summary_tokens"]  # type: ignore[operator]
    assert plan.truncation.told() == (
        f"the window is full: {gone} turns ({report['dropped_tokens']} tokens) were summarized in"
        f" {report['summary_tokens']} tokens"
    )
    conversation.add(plan, reply_to(plan, "ok", "x"))
    assert [turn.user[:10] for turn in conversation.turns][:2] == ["question 1", "question 2"], (
        "the original stays"
    )
    after = conversation.plan("y" * 350, MAX_TOKENS, summarize)
    assert "[Summary of what came before]\nsummary 1\n" in asked[1][0]
    assert "summary 2" in read(after) and "summary 1" not in read(after)
    assert after.truncation is not None
    assert after.truncation.dropped[1].what == "the summary before"


def test_a_summary_without_any_turn_left_stands_before_the_message() -> None:
    conversation = conversation_of("summarize", 600, None, STRICT)
    ask(conversation, "a" * 200, "b" * 200)
    plan = ask(conversation, "c" * 200)
    assert read(plan).count("<|im_start|>user") == 1
    assert f"{SHORT}\n[End of the summary]\n\n{'c' * 200}<|im_end|>" in read(plan)


def test_a_message_that_leaves_no_room_for_a_summary_asks_for_none() -> None:
    conversation = filled("summarize")

    def summarize(prompt: EncodedPrompt, n: int) -> str:
        raise AssertionError

    with pytest.raises(ContextOverflow, match="no summary can be fitted in"):
        conversation.plan("x" * 350, MAX_TOKENS, summarize)
    with pytest.raises(ContextOverflow, match="the message is"):
        conversation.plan("x" * 550, MAX_TOKENS, summarize)


def test_an_empty_summary_is_an_error() -> None:
    conversation = filled("summarize", window=800, n_turns=8)
    with pytest.raises(ContextOverflow, match="wrote no summary"):
        ask(conversation, "x" * 200, summary=" \n")


def test_what_is_too_long_to_be_summarized_is_cut_for_it() -> None:
    conversation = conversation_of("summarize", 1000)
    ask(conversation, "".join(f"line {i}\n" for i in range(70)), "r" * 290)
    prompts: list[EncodedPrompt] = []
    plan = conversation.plan("x" * 200, MAX_TOKENS, lambda prompt, n: prompts.append(prompt) or SHORT)  # type: ignore[func-returns-value]
    assert len(prompts[0].ids) <= 1000 - 125
    assert "lines left out" in prompts[0].text
    assert plan.truncation is not None


def test_a_thinking_model_is_told_not_to_think_about_a_summary() -> None:
    template = (
        "{% if enable_thinking is defined %}thinking: {{ enable_thinking }}\n{% endif %}" + CHAT_TEMPLATE
    )
    conversation = filled("summarize", window=800, n_turns=8, template=template)
    prompts: list[str] = []

    def summarize(prompt: EncodedPrompt, n: int) -> str:
        prompts.append(prompt.text)
        return SHORT

    assert "thinking:" not in read(conversation.plan("x" * 230, MAX_TOKENS, summarize))
    assert [prompt.partition("\n")[0] for prompt in prompts] == ["thinking: False"]


def test_a_summary_is_dropped_before_turns_are() -> None:
    conversation = filled("summarize", window=800, n_turns=8)
    ask(conversation, "x" * 230)
    conversation.overflow = "drop-oldest"
    plan = ask(conversation, "y" * 350)
    assert plan.truncation is not None
    assert plan.truncation.dropped[0].what == "the summary"
    assert SHORT not in read(plan)


# --- any conversation -------------------------------------------------------------------------------------

_text = st.lists(
    st.sampled_from(["word", " ", "\n", "\n\n", "é", "🇩🇪", "<|im_end|>", "[…", "x" * 30, "y" * 90]),
    max_size=8,
).map("".join)


def _same_again(
    conversation: Conversation, records: Sequence[Record], policy: OverflowPolicy
) -> Conversation:
    """The conversation as a new process would take it up."""
    again = conversation_of(policy, conversation.window, conversation.system)
    thread = Thread("t", "main", {"main": records[-1].id if records else None})
    restore(again, KeptConversation(thread, {"main": tuple(records)}, records[-1]), lambda record: True)
    return again


def _recorded(conversation: Conversation, plan: TurnPlan, reply: Reply) -> Record:
    turn = new_turn(conversation, plan, "t")
    return record_of_turn(
        reply, turn, model_path=None, template_sha256=None, settings=[], width=1, loras=[], private=False
    )


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-middle", "keep-ends", "summarize"])
def test_turns_are_found_where_older_records_are_gone(policy: OverflowPolicy) -> None:
    conversation = conversation_of(policy, 900)
    records: list[Record] = []
    for i in range(1, 9):
        plan = conversation.plan(f"question {i} ".ljust(90, "q"), MAX_TOKENS, lambda prompt, n: SHORT)
        reply = reply_to(plan, f"answer {i}", str(i))
        records.append(_recorded(conversation, plan, reply))
        conversation.add(plan, reply)
    whole = _same_again(conversation, records, policy)
    assert whole.visible == conversation.visible != VisibleTurns()
    left = _same_again(conversation, records[2:], policy)
    assert left.visible.gone == {i - 2 for i in conversation.visible.gone if i >= 2}
    assert left.visible.cuts == {i - 2: cut for i, cut in conversation.visible.cuts.items() if i >= 2}
    if conversation.visible.summary is not None:
        assert left.visible.summary == (
            SHORT,
            tuple(i - 2 for i in conversation.visible.summary.turns if i >= 2),
        )


@settings(max_examples=150, deadline=None)
@given(
    turns=st.lists(st.tuples(_text, _text, st.sampled_from(OVERFLOW_POLICIES)), min_size=1, max_size=10),
    system=st.none() | st.just("The system prompt."),
    window=st.integers(150, 900),
    summary=st.text("abc é", min_size=1, max_size=200).filter(str.strip),
)
def test_any_talk_fits_or_is_refused(
    turns: list[tuple[str, str, OverflowPolicy]], system: str | None, window: int, summary: str
) -> None:
    conversation = conversation_of("error", window, system)
    records: list[Record] = []
    for number, (user, reply, policy) in enumerate(turns):
        conversation.overflow = policy
        user = f"{user} last"
        asked: list[EncodedPrompt] = []

        def summarize(prompt: EncodedPrompt, n: int, asked: list[EncodedPrompt] = asked) -> str:
            asked.append(prompt)
            assert n == window // 8 and len(prompt.ids) + n <= window
            return summary.encode()[:n].decode("utf-8", "replace")

        before = list(conversation.turns)
        n_before = len(conversation.encode(user, conversation.visible).ids)
        try:
            plan = conversation.plan(user, MAX_TOKENS, summarize)
        except ContextOverflow:
            assert n_before + MAX_TOKENS > window
            assert conversation.turns == before
            continue
        # The window is never exceeded; the system prompt and the message are never lost.
        assert plan.n_tokens + MAX_TOKENS <= window
        text = read(plan)
        assert system is None or text.startswith(f"<|im_start|>system\n{system}<|im_end|>")
        assert text.endswith(f"{user}<|im_end|>\n<|im_start|>assistant\n")
        # The report is what was dropped, no more and no less.
        assert (plan.report is None) == (n_before + MAX_TOKENS <= window)
        if plan.report is not None:
            report: dict[str, Any] = plan.report
            assert report["policy"] == policy != "error"
            assert report["dropped_tokens"] == sum(part["tokens"] for part in report["dropped"])
            put_in = report.get("summary_tokens", 0) + report.get("marker_tokens", 0)
            assert n_before - plan.n_tokens == report["dropped_tokens"] - put_in
            assert ("summary_tokens" in report) == (policy == "summarize") == bool(asked)
            told = " ".join(part["what"] for part in report["dropped"] if part["what"].startswith("turn"))
            numbers = [
                n - 1
                for first, last in re.findall(r"(\d+)(?: to (\d+))?", told)
                for n in range(int(first), int(last or first) + 1)
            ]
            assert set(numbers) == plan.visible.gone - conversation.visible.gone
            cut = {
                (int(n) - 1, part)
                for what in report["dropped"]
                for part, n in re.findall(r" of the (message|reply) of turn (\d+)$", what["what"])
            }
            changed = {
                (i, part)
                for i, now in plan.visible.cuts.items()
                for part, old, new in zip(
                    ("message", "reply"), conversation.visible.cuts.get(i, (None, None)), now, strict=True
                )
                if old != new
            }
            assert cut <= changed
        # A process that takes the conversation up has the same prompt.
        if records:
            again = _same_again(conversation, records, policy)
            assert [turn.visible for turn in again.turns] == [turn.visible for turn in conversation.turns]
            other = again.plan(user, MAX_TOKENS, summarize)
            assert (other.past, other.prompt_ids, other.visible) == (plan.past, plan.prompt_ids, plan.visible)
        answer = reply_to(plan, reply, str(number))
        fits = window - plan.n_tokens
        answer = replace(answer, tokens=answer.tokens[:fits]) if len(answer.tokens) > fits else answer
        records.append(_recorded(conversation, plan, answer))
        turn = conversation.add(plan, answer)
        assert history.length(turn.evaluated) <= window
        assert turn.evaluated[-1].kind == "decoded" or len(answer.tokens) == 1
        assert isinstance(turn.evaluated[0], Segment)
