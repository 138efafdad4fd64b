"""What goes where a prompt is too long: never too little, never what may not be lost, and all of it told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.backend.fake import CHAT_TEMPLATE, FakeVocab
from infer_cli.errors import ContextOverflow
from infer_cli.prompt.attachments import Attachment, message_text
from infer_cli.prompt.encode import encode_prompt
from infer_cli.prompt.fitting import Fitted, Policy, fit
from infer_cli.prompt.template import ChatTemplate
from infer_cli.types import Message

CALLS = "{{ message.content }}{{ message.tool_calls|tojson if message.tool_calls }}"
SOURCE = CHAT_TEMPLATE.replace("{{ message.content }}", CALLS)
TEMPLATE = ChatTemplate(SOURCE, bos="", eos="", now=datetime(2026, 1, 1, tzinfo=timezone.utc))
VOCAB = FakeVocab()
CUTTING: list[Policy] = ["drop-oldest", "drop-middle", "keep-ends"]
FAMILY = "👨\u200d👩\u200d👧"


def built(messages: Sequence[Message], attachments: Sequence[Attachment], words: str | None) -> list[Message]:
    if words is None:
        return list(messages)
    return [*messages, Message("user", message_text(attachments, words, tagged=True))]


def n_tokens(messages: Sequence[Message]) -> int:
    return len(encode_prompt(TEMPLATE, messages, VOCAB).ids)


def fitted(
    messages: Sequence[Message],
    attachments: Sequence[Attachment],
    words: str | None,
    window: int,
    policy: Policy,
    reserve: int = 0,
) -> Fitted:
    return fit(
        messages,
        attachments,
        lambda m, a: n_tokens(built(m, a, words)),
        window=window,
        reserve=reserve,
        policy=policy,
        answers_last=words is None,
    )


def turn(n: int, length: int = 40) -> list[Message]:
    return [Message("user", f"question {n} ".ljust(length, "q")), Message("assistant", f"answer {n}")]


SYSTEM = Message("system", "Be brief.")
TALK = [SYSTEM, *turn(1), *turn(2), *turn(3), *turn(4), Message("user", "and now?")]


def contents(result: Fitted) -> list[str]:
    return [re.sub("q+$", "", message.text).strip() for message in result.messages]


def test_what_fits_is_left_alone() -> None:
    for policy in ("error", *CUTTING):
        result = fitted(TALK, [], None, n_tokens(TALK), policy)
        assert (result.messages, result.dropped, result.report()) == (tuple(TALK), (), None)


def test_error_drops_nothing() -> None:
    result = fitted(TALK, [], None, 10, "error")
    assert (result.messages, result.report()) == (tuple(TALK), None)
    assert result.n_tokens == n_tokens(TALK)


def test_the_oldest_turns_go_first() -> None:
    result = fitted(TALK, [], None, n_tokens(TALK) - 80, "drop-oldest")
    assert contents(result) == ["Be brief.", "question 3", "answer 3", "question 4", "answer 4", "and now?"]
    saved = n_tokens(TALK) - result.n_tokens
    assert result.report() == {
        "policy": "drop-oldest",
        "dropped_tokens": saved,
        "dropped": [{"what": "turns 1 to 2", "tokens": saved}],
    }


def test_the_middle_is_what_follows_the_first_turn() -> None:
    result = fitted(TALK, [], None, n_tokens(TALK) - 80, "drop-middle")
    assert contents(result) == ["Be brief.", "question 1", "answer 1", "question 4", "answer 4", "and now?"]
    assert [part.what for part in result.dropped] == ["turns 2 to 3"]
    result = fitted(TALK, [], None, n_tokens([SYSTEM, TALK[-1]]), "drop-middle")
    assert contents(result) == ["Be brief.", "and now?"]
    assert [part.what for part in result.dropped] == ["turns 1 to 4"]


def test_a_turn_holds_its_tool_calls() -> None:
    call = Message("assistant", "", {"tool_calls": [{"id": "c"}]})
    talk = [
        Message("user", "q1"),
        call,
        Message("tool", "r" * 50),
        Message("assistant", "a1"),
        *turn(2),
        TALK[-1],
    ]
    result = fitted(talk, [], None, n_tokens(talk) - 10, "drop-oldest")
    assert contents(result) == ["question 2", "answer 2", "and now?"]


@pytest.mark.parametrize("policy", CUTTING)
@pytest.mark.parametrize("words", ["?", ""])
def test_tokens_that_went_are_counted_without_the_marker(policy: Policy, words: str) -> None:
    """The defect: what was told was what was saved."""
    file = Attachment("a.txt", "0123456789" * 50)
    whole = n_tokens(built([SYSTEM], [file], words))
    for window in (whole - 40, whole - 300, whole - 460):
        result = fitted([SYSTEM], [file], words, window, policy)
        (part,) = result.dropped
        first, last = re.findall(r"\d+", part.what.partition(" of ")[0])
        assert part.tokens == int(last) - int(first) + 1
        marker = re.search(r"\n?\[….*…\]\n?", result.attachments[0].text)
        assert marker is not None
        assert part.marker_tokens == len(marker[0].encode())
        report = result.report()
        assert report is not None
        assert report["dropped_tokens"] == part.tokens
        assert report["marker_tokens"] == part.marker_tokens


def test_null_content_is_not_cut() -> None:
    call = Message("assistant", None, {"tool_calls": [{"id": "c"}]})
    talk = [Message("user", "q " * 99), call, Message("tool", "r " * 99), Message("user", "and now?")]
    result = fitted(talk, [], None, n_tokens(talk) - 150, "keep-ends")
    assert result.messages[1] == call
    assert [part.what.split()[-1] for part in result.dropped] == ["1", "3"]


def test_a_greeting_before_the_first_question_is_a_turn() -> None:
    result = fitted([Message("assistant", "hello"), TALK[-1]], [], None, n_tokens(TALK[-1:]), "drop-oldest")
    assert (result.messages, [part.what for part in result.dropped]) == ((TALK[-1],), ["turn 1"])


def test_a_system_message_in_the_middle_stays() -> None:
    talk = [*turn(1), Message("developer", "From now on: be kind."), *turn(2), TALK[-1]]
    result = fitted(talk, [], None, n_tokens(talk[2:3] + talk[-1:]), "drop-oldest")
    assert contents(result) == ["From now on: be kind.", "and now?"]


def test_the_ends_of_the_longest_texts_are_kept() -> None:
    long = "\n".join(f"line {i}" for i in range(100))
    talk = [SYSTEM, Message("user", long), Message("assistant", "short"), Message("user", "and now?")]
    result = fitted(talk, [], None, 400, "keep-ends")
    assert len(result.messages) == 4
    text = result.messages[1].text
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("\nline 98\nline 99")
    n_left_out = re.search(r"\[… (\d+) lines left out …\]", text)
    assert n_left_out is not None
    assert len(text.splitlines()) == 100 - int(n_left_out[1]) + 1
    (what,) = [part.what for part in result.dropped]
    assert re.fullmatch(r"lines \d+ to \d+ of message 2", what)


def test_attachments_are_cut_by_policy() -> None:
    log = Attachment("log", "".join(f"event {i}\n" for i in range(100)))
    oldest = fitted([], [log], "what failed?", 300, "drop-oldest").attachments[0].text
    assert oldest.startswith("[… ")
    assert oldest.endswith("event 99\n")
    for policy in ("drop-middle", "keep-ends"):
        text = fitted([], [log], "what failed?", 300, policy).attachments[0].text
        assert text.startswith("event 0\n")
        assert text.endswith("event 99\n")


def test_a_short_attachment_stays_whole_beside_a_long_one() -> None:
    short, long = Attachment("a", "short text"), Attachment("b", "word " * 500)
    result = fitted([], [short, long], "?", 400, "drop-middle")
    assert result.attachments[0] == short
    assert [part.what.rpartition(" of ")[2] for part in result.dropped] == ["b"]


def test_turns_go_before_attachments_are_cut() -> None:
    file = Attachment("file", "paragraph\n\n" * 30)
    messages = TALK[:-1]
    n = n_tokens(built([SYSTEM], [file], "?"))
    result = fitted(messages, [file], "?", n, "drop-oldest")
    assert (result.messages, result.attachments) == ((SYSTEM,), (file,))
    result = fitted(messages, [file], "?", n - 1, "drop-oldest")
    assert [part.what.partition(" ")[0] for part in result.dropped] == ["turns", "lines"]


def test_cuts_prefer_paragraphs() -> None:
    text = "\n\n".join(f"{i}: " + "some words of it " * 4 for i in range(30))
    result = fitted([], [Attachment("f", text)], "?", 900, "keep-ends")
    head, marker, tail = re.split(r"(\[…[^\]]*\])", result.attachments[0].text)
    assert "lines left out" in marker
    assert head.endswith("\n\n")
    assert re.match(r"\n\d+: ", tail)


@pytest.mark.parametrize("unit", [FAMILY, "e\u0301", "🇩🇪", "👍🏽", "é"])
def test_no_character_is_split(unit: str) -> None:
    text = unit * 200
    for window in range(200, 260):
        for policy in CUTTING:
            kept = fitted([], [Attachment("f", text)], "?", window, policy).attachments[0].text
            rest = re.sub(r"\n?\[… \d+ characters left out …\]\n?", "", kept)
            assert rest == unit * (len(rest) // len(unit))


def test_what_may_not_be_lost_is_an_error() -> None:
    for policy in CUTTING:
        with pytest.raises(
            ContextOverflow, match=rf"{n_tokens([SYSTEM, TALK[-1]])} without all that .* of 40$"
        ):
            fitted(TALK if policy != "keep-ends" else [SYSTEM, TALK[-1]], [], None, 40, policy)
        with pytest.raises(ContextOverflow):
            fitted([], [Attachment("f", "x" * 100)], "long words " * 20, 150, policy)


def test_a_text_of_many_windows_takes_few_short_looks() -> None:
    n_counted = []

    def count(messages: Sequence[Message], attachments: Sequence[Attachment]) -> int:
        n_counted.append(len(attachments[0].text))
        return len(attachments[0].text)

    result = fit(
        [], [Attachment("f", "word " * 2_000_000)], count, window=4000, reserve=100, policy="keep-ends"
    )
    assert 3700 <= result.n_tokens <= 3900
    assert len(n_counted) < 40
    assert sum(n_counted) < 10_000_000 + 200_000


# --- any conversation -----------------------------------------------------------------------------

_text = st.lists(
    st.sampled_from(
        ["word", " ", "\n", "\n\n", "é", FAMILY, "e\u0301", "🇩🇪", "<|im_end|>", "\r\n", "[…", "x" * 30]
    ),
    max_size=25,
).map("".join)


@st.composite
def _talks(draw: st.DrawFn) -> list[Message]:
    messages = [Message("system", draw(_text))] if draw(st.booleans()) else []
    if draw(st.integers(0, 9)) == 0:
        messages.append(Message("assistant", draw(_text)))
    for _ in range(draw(st.integers(0, 6))):
        messages.append(Message("user", draw(_text)))
        if draw(st.integers(0, 4)) == 0:
            messages += [
                Message("assistant", "", {"tool_calls": [{"id": "c"}]}),
                Message("tool", draw(_text), {"tool_call_id": "c"}),
            ]
        messages.append(Message("assistant", draw(_text)))
        if draw(st.integers(0, 9)) == 0:
            messages.append(Message("developer", draw(_text)))
    return messages


def _told_turns(messages: Sequence[Message], what: str) -> list[Message]:
    """The messages of `turn N` or `turns N to M`."""
    numbers = [int(n) for n in re.findall(r"\d+", what)]
    turns: list[list[Message]] = []
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        if not turns or message.role == "user":
            turns.append([])
        turns[-1].append(message)
    return [message for one in turns[numbers[0] - 1 : numbers[-1]] for message in one]


def _without(text: str, what: str) -> tuple[str, str]:
    """What stands before and after `lines N to M` or `characters N to M`."""
    kind, *_ = what.split()
    first, last = (int(n) for n in (re.findall(r"\d+", what) * 2)[:2])
    if kind == "characters":
        return text[: first - 1], text[last:]
    lines = text.split("\n")
    start = len("\n".join(lines[: first - 1])) + (first > 1)
    end = min(len("\n".join(lines[:last])) + 1, len(text))
    return text[:start], text[end:]


@settings(max_examples=1000, deadline=None)
@given(
    talk=_talks(),
    files=st.lists(_text, max_size=3),
    words=st.none() | st.sampled_from(["?", "what is it?"]),
    window=st.integers(20, 700),
    reserve=st.integers(1, 50),
    policy=st.sampled_from(CUTTING),
)
def test_any_conversation_fits_or_is_refused(
    talk: list[Message], files: list[str], words: str | None, window: int, reserve: int, policy: Policy
) -> None:
    if words is None:
        talk, files = [*talk, Message("user", "the last one")], []
    attachments = [Attachment(f"file{i}", text) for i, text in enumerate(files)]
    n_before = n_tokens(built(talk, attachments, words))
    fixed = [m for m in talk if m.role in ("system", "developer")] + (talk[-1:] if words is None else [])
    try:
        result = fitted(talk, attachments, words, window, policy, reserve)
    except ContextOverflow:
        assert n_before + reserve > window
        if policy != "keep-ends" and not attachments:
            assert n_tokens(built(fixed, [], words)) + reserve > window
        return
    after = built(result.messages, result.attachments, words)
    assert result.n_tokens == n_tokens(after) <= window - reserve
    # Nothing that may not be lost is lost.
    assert all(message in result.messages for message in fixed)
    assert after[-1].text.endswith(words if words is not None else "the last one")
    # The report is what was dropped, no more and no less.
    report = result.report()
    assert (report is None) == (n_before + reserve <= window)
    if report is None:
        assert after == built(talk, attachments, words)
        return
    assert report["dropped_tokens"] == sum(part.tokens for part in result.dropped)
    n_marker = sum(part.marker_tokens for part in result.dropped)
    assert report.get("marker_tokens", 0) == n_marker
    assert report["dropped_tokens"] - n_marker == n_before - result.n_tokens
    kept = list(talk)
    texts = {f"message {i}": message.text for i, message in enumerate(talk, 1)}
    texts |= {attachment.name: attachment.text for attachment in attachments}
    now = {a.name: a.text for a in result.attachments}
    cut: set[str] = set()
    for part in result.dropped:
        if part.what.startswith("turn"):
            gone = {id(message) for message in _told_turns(talk, part.what)}
            kept = [message for message in talk if id(message) not in gone]
            continue
        where, _, name = part.what.partition(" of ")
        cut.add(name)
        shown = now[name] if name in now else result.messages[int(name.split()[1]) - 1].text
        head, tail = _without(texts[name], where)
        if name not in now:  # a token of the fake model is a byte
            assert part.tokens == len(texts[name].encode()) - len((head + tail).encode())
        assert shown.startswith(head)
        assert shown.endswith(tail)
        assert re.fullmatch(
            r"\n?\[… \d+ (lines?|characters) left out …\]\n?", shown[len(head) : len(shown) - len(tail)]
        )
    for i, (old, new) in enumerate(zip(kept, result.messages, strict=True), 1):
        assert old == new or f"message {i}" in cut
    assert all(now[name] == texts[name] for name in now if name not in cut)
