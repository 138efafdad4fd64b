"""A text in pieces: nothing is lost, none is too long, and no context ends with white space."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infer_cli.evaluation.tasks.pieces import pieces_of

SPACES = " \n\r\t\u00a0\u2003\u2028\x1c"


@given(st.text(st.sampled_from("ab" + SPACES), max_size=60) | st.text(max_size=60), st.integers(1, 12))
def test_pieces_make_up_the_text(text: str, most: int) -> None:
    pieces = pieces_of(text, most)
    assert "".join(pieces) == text
    assert all(pieces)
    for piece in pieces[:-1]:
        assert not piece[-1].isspace(), "it would be tokenized with what follows, and counted twice"
        assert len(piece) <= most or piece[:most].isspace()
    if pieces:
        assert len(pieces[-1]) <= most or pieces[-1][:most].isspace()


def test_where_a_text_is_cut() -> None:
    assert pieces_of("") == []
    assert pieces_of("one two three", 20) == ["one two three"]
    assert pieces_of("one\ntwo three", 9) == ["one", "\ntwo", " three"]
    assert pieces_of("one two\nthree four", 12) == ["one two", "\nthree four"]
    assert pieces_of("one two three", 8) == ["one two", " three"]
    assert pieces_of("abcdefgh", 3) == ["abc", "def", "gh"]
    assert pieces_of("      a b", 3) == ["      a", " b"]
    assert pieces_of("a       ", 3) == ["a", "       "]
