"""Stop strings and whole characters, on every split of a stream."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.errors import UsageError
from infer_cli.text.stream import StopMatcher, Utf8Stream

# Few letters, so that stop strings overlap each other and themselves.
_texts = st.text("ab", max_size=30).map(str.encode)
_stops = st.lists(st.text("ab", min_size=1, max_size=6).map(str.encode), max_size=4)
_cuts = st.lists(st.integers(0, 30), max_size=6)


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def _expected(data: bytes, stops: list[bytes]) -> tuple[bytes, bytes | None]:
    found = [(data.find(stop), -len(stop), stop) for stop in stops if stop in data]
    if not found:
        return data, None
    start, _, stop = min(found)
    return data[:start], stop


@given(_texts, _stops, _cuts)
def test_the_earliest_longest_stop_ends_the_stream_at_any_split(
    data: bytes, stops: list[bytes], cuts: list[int]
) -> None:
    matcher = StopMatcher(stops)
    released = b""
    matched = None
    for part in _split(data, cuts):
        shown, matched = matcher.feed(part)
        released += shown
        assert _expected(data, stops)[0].startswith(released)  # nothing of a stop string escapes
    tail, matched = matcher.finish()
    assert (released + tail, matched) == _expected(data, stops)
    assert matcher.matched == matched


@given(_texts, _stops)
def test_no_more_is_held_back_than_could_begin_a_stop(data: bytes, stops: list[bytes]) -> None:
    matcher = StopMatcher(stops)
    released, matched = matcher.feed(data)
    text, stop = _expected(data, stops)
    if stop is None:
        beginnings = {s[:size] for s in stops for size in range(len(s))} | {b""}
        assert text[len(released) :] == max((b for b in beginnings if text.endswith(b)), key=len)
        assert matched is None


def test_a_match_is_reported_at_once_where_no_other_is_possible() -> None:
    matcher = StopMatcher([b"\n\n", b"END"])
    assert matcher.feed(b"a\n") == (b"a", None)
    assert matcher.feed(b"\nb") == (b"", b"\n\n")
    assert matcher.feed(b"more") == (b"", b"\n\n")
    assert matcher.finish() == (b"", b"\n\n")


def test_a_longer_stop_is_waited_for() -> None:
    matcher = StopMatcher([b"ab", b"abc"])
    assert matcher.feed(b"xab") == (b"x", None)
    assert matcher.feed(b"c") == (b"", b"abc")
    matcher = StopMatcher([b"ab", b"abc"])
    matcher.feed(b"xab")
    assert matcher.finish() == (b"", b"ab")


def test_an_earlier_stop_is_waited_for() -> None:
    matcher = StopMatcher([b"bc", b"abcd"])
    assert matcher.feed(b"abc") == (b"", None)
    assert matcher.feed(b"x") == (b"a", b"bc")


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        StopMatcher([b"a", b""])


def test_a_long_near_miss_takes_linear_time() -> None:
    matcher = StopMatcher([b"a" * 1000 + b"b"])
    started = time.monotonic()
    shown = sum(len(matcher.feed(b"a" * 100)[0]) for _ in range(2000))
    assert time.monotonic() - started < 5  # 200 kB; quadratic would be minutes
    assert shown == 200_000 - 1000


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode), _cuts)
def test_decoding_does_not_depend_on_the_split(data: bytes, cuts: list[int]) -> None:
    stream = Utf8Stream()
    parts = [stream.feed(part) for part in _split(data, cuts)]
    assert "".join(parts) + stream.finish() == data.decode("utf-8", "replace")


def test_a_character_is_shown_when_it_is_whole() -> None:
    stream = Utf8Stream()
    assert [stream.feed(bytes([byte])) for byte in "é😀".encode()] == ["", "é", "", "", "", "😀"]
    assert stream.finish() == ""
    stream.feed("😀".encode()[:2])
    assert stream.finish() == "�"
