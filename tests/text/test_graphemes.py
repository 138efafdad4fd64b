"""A cut never goes through what a reader takes for one character, wherever it falls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.text.graphemes import beginning, grapheme_end, grapheme_start, graphemes

UNITS = {
    "family": "👨\u200d👩\u200d👧",
    "flag": "🇩🇪",
    "flag of England": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "skin tone": "👍🏽",
    "skin tone in a sequence": "👩🏽\u200d🚀",
    "variation selector": "❤\ufe0f",
    "keycap": "1\ufe0f\u20e3",
    "combining mark": "e\u0301",
    "many marks": "e" + "\u0301" * 40,
    "Hangul": "\u1112\u1161\u11ab",
    "Devanagari": "क्षि",
    "line end": "\r\n",
    "letter": "é",
}


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_a_cut_inside_goes_to_either_end(unit: str) -> None:
    text = "a" + unit * 3 + "b"
    for n in range(3):
        start = 1 + n * len(unit)
        for index in range(start + 1, start + len(unit)):
            assert grapheme_start(text, index) == start
            assert grapheme_end(text, index) == start + len(unit)
        assert grapheme_start(text, start) == grapheme_end(text, start) == start
    assert beginning(text, 2 * len(unit)) == "a" + unit
    assert beginning(text, len(text)) == beginning(text, 10_000) == text


def test_the_ends_of_a_text_are_ends() -> None:
    for text in ("", "\u0301", "\u200d🇩"):
        for index in (0, len(text)):
            assert grapheme_start(text, index) == grapheme_end(text, index) == index


@given(st.text(st.sampled_from("ab\r\n\u200d\u0301👨👩🏽🇩🇪\ufe0f"), max_size=30))
def test_cuts_are_those_between_graphemes(text: str) -> None:
    ends = [0]
    for grapheme in graphemes(text):
        ends.append(ends[-1] + len(grapheme))
    assert ends[-1] == len(text)
    for index in range(len(text) + 1):
        assert grapheme_start(text, index) == max(end for end in ends if end <= index)
        assert grapheme_end(text, index) == min(end for end in ends if end >= index)


@pytest.mark.parametrize("unit", ["\u200d", "\u0301", "🇩", "я"])
def test_a_long_text_without_ends_takes_no_time(unit: str) -> None:
    text = unit * 5_000_000
    for _ in range(20):
        assert grapheme_start(text, 3_000_000) <= 3_000_000 <= grapheme_end(text, 3_000_000)
