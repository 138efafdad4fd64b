"""Reasoning blocks told from answers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.backend.base import ControlToken
from infer_cli.prompt.encode import tag_tokens
from infer_cli.text.reasoning import KNOWN_PAIRS, ReasoningSplitter, TagPair, opened_pair, pairs_of

THINK = TagPair("<think>", "</think>")


def _run(
    parts: list[str], pairs: tuple[TagPair, ...] = KNOWN_PAIRS, inside: TagPair | None = None
) -> tuple[str, str]:
    """(reasoning, answer)"""
    splitter = ReasoningSplitter(pairs, inside)
    out = [piece for part in parts for piece in splitter.feed(part)] + splitter.finish()
    assert all(text for text, _ in out)
    return (
        "".join(text for text, reasoning in out if reasoning),
        "".join(text for text, reasoning in out if not reasoning),
    )


@pytest.mark.parametrize("pair", KNOWN_PAIRS, ids=lambda pair: pair.opening)
def test_each_known_pair(pair: TagPair) -> None:
    text = f"\n{pair.opening}why\n{pair.closing}\n\nBecause.\n"
    assert _run([text]) == ("why\n", "Because.\n")
    assert _run(list(text)) == ("why\n", "Because.\n")


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<thinking>", "<thi", "</th", ">", "<", "a", " ", "\n"]),
        max_size=12,
    ).map("".join),
    st.lists(st.integers(0, 60), max_size=8),
    st.sampled_from([None, THINK]),
)
def test_any_split_gives_the_same(text: str, cuts: list[int], inside: TagPair | None) -> None:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    parts = [text[a:b] for a, b in pairwise(places)]
    whole = _run([text], inside=inside)
    assert _run(parts, inside=inside) == whole
    assert _run(list(text), inside=inside) == whole


def test_only_a_block_at_the_start_counts() -> None:
    text = "Use <think>x</think> for that."
    assert _run([text]) == ("", text)
    assert _run(["<think>a</think>b <think>c</think>"]) == ("a", "b <think>c</think>")


def test_a_prompt_that_left_a_block_open() -> None:
    assert _run(["why", "</thi", "nk>\n\n", "yes"], inside=THINK) == ("why", "yes")


def test_a_reply_cut_inside_its_reasoning() -> None:
    assert _run(["<think>why</thi"]) == ("why</thi", "")
    assert _run(["<thi"]) == ("", "<thi")
    assert _run(["  "]) == ("", "  ")


def test_text_is_not_held_longer_than_a_tag_is_possible() -> None:
    splitter = ReasoningSplitter((THINK,))
    assert splitter.feed("<th") == []
    assert splitter.feed("e ") == [("<the ", False)]
    assert splitter.feed("<think>") == [("<think>", False)]


def test_without_pairs_all_is_answer() -> None:
    assert _run([" <think>a</think>"], pairs=()) == ("", " <think>a</think>")


def test_pairs_come_from_the_template() -> None:
    assert pairs_of("{% if x %}<think>\n{% endif %}") == (THINK,)
    assert pairs_of("plain") == ()


def test_a_prompt_that_ends_in_an_open_tag() -> None:
    assert opened_pair((THINK,), "<|Assistant|><think>\n") == THINK
    assert opened_pair((THINK,), "<think>\n\n</think>\n\n") is None
    assert opened_pair((), "<think>") is None


@dataclass
class _Control:
    id: int
    text: bytes
    lstrip: bool = False
    rstrip: bool = False


class _Vocab:
    n_tokens = 10
    bos: int | None = None
    eos: int | None = None
    add_bos = False
    add_eos = False

    def tokenize(self, text: bytes) -> list[int]:
        return []

    tokenize_special = tokenize

    def piece(self, token: int) -> bytes:
        return b""

    token_text = piece

    def is_eog(self, token: int) -> bool:
        return False

    def control_tokens(self) -> list[ControlToken]:
        return [_Control(7, b"[/THINK]"), _Control(3, b"[THINK]"), _Control(1, b"</s>")]


def test_tags_that_are_control_tokens() -> None:
    assert tag_tokens(_Vocab(), KNOWN_PAIRS) == {7: b"[/THINK]", 3: b"[THINK]"}
    assert tag_tokens(_Vocab(), (THINK,)) == {}
