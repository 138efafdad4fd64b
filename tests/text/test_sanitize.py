from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.text.sanitize import MAX_SEQUENCE, Sanitizer, sanitize

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]")
_PIECES = st.sampled_from(
    [
        "\x1b",
        "[",
        "]",
        "P",
        "\\",
        "\x9b",
        "\x9d",
        "\x9c",
        "\x07",
        "\r",
        "\n",
        "\t",
        "\x18",
        "31m",
        "a",
        "é",
        "\x7f",
        "\u202e",
        " ",
    ]
)


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a\x1b[31;1mred\x1b[0m", "ared"),
        ("\x1b[?25lx\x1b[2 qy", "xy"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://e.x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x07still\x1b\\x", "x"),
        ("\x1b_apc\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\x", "x"),
        ("\x1b(0x\x1b7y\x1bcz", "xyz"),
        ("\x9b31mx\x9d0;t\x9cy\x85z", "xyz"),
        ("a\r\nb\rc\x00\x08\x0b\x0c\x7fd\te", "a\nbcd\te"),
        ("a\u202eb\u202dc", "abc"),
        ("\u2067مرحبا\u2069 שלום", "\u2067مرحبا\u2069 שלום"),
        ("end\x1b", "end"),
        ("\x1b]0;t\x1b[1mx", "x"),
        ("\x1b]0;t\x18x\x1b[1\x1ay", "xy"),
        ("\x1b[31\nx", "\nx"),
        ("\x1b[31éx", "éx"),
        ("👩\u200d🚀 日本", "👩\u200d🚀 日本"),
    ],
)
def test_removes_what_a_terminal_obeys(dirty: str, clean: str) -> None:
    assert sanitize(dirty) == clean


def test_unterminated_string_costs_a_line_at_most() -> None:
    assert sanitize("\x1b]0;never ended\nthe reply") == "\nthe reply"
    assert sanitize("\x1bP" + "x" * (MAX_SEQUENCE + 100)).count("x") == 101


@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)), st.data())
def test_any_chunking_gives_the_same_safe_text(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    sanitizer = Sanitizer()
    bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
    out = "".join(sanitizer.feed(text[start:end]) for start, end in bounds)
    assert out == sanitize(text)
    assert not _UNSAFE.search(out)


@given(st.text().filter(lambda text: not _UNSAFE.search(text)))
def test_safe_text_is_untouched(text: str) -> None:
    assert sanitize(text) == text
