"""From tokens to text: UTF-8 that is cut anywhere, stop strings, reasoning tags.

Each is compared with a plain statement of what it does, over one whole text.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence

from fuzz.target import Broken, Input, Target
from infer_cli.text.reasoning import KNOWN_PAIRS, ReasoningSplitter, TagPair
from infer_cli.text.stream import StopMatcher, Utf8Stream

_PIECES = (
    b"a", b"b", b"ab", b"aba", b"\n", b" ", b"\xc3\xa9", b"\xc3", b"\xa9", b"\xe6\x97\xa5", b"\xe6\x97",
    b"\xf0\x9f",
    b"\xf0\x9f\x99\x82", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\0", b"<think>",
    b"</think>",
    b"<thi", b"</th", b"<thinking>", b"</thinking>", b"\xe2\x97\x81think\xe2\x96\xb7", b"stop", b"sto", b"p",
)  # fmt: skip
_STOPS = ((b"stop",), (b"aba", b"ab"), (b"a", b"aab"), (b"\n\n",), ("é".encode(),), (b"\xf0\x9f", b"b"), ())


class TextTarget(Target):
    name = "text"
    statuses = frozenset()
    most_memory = 64 * 2**20

    def generate(self, rng: random.Random) -> Input:
        return Input("bytes", b"".join(rng.choice(_PIECES) for _ in range(rng.randrange(40))))

    def check(self, given: Input) -> None:
        data = given.data
        chunks = list(_cut(data))
        stream = Utf8Stream()
        text = "".join(map(stream.feed, chunks)) + stream.finish()
        if text != data.decode("utf-8", "replace"):
            raise Broken("UTF-8 in pieces is not UTF-8 as a whole")
        for stops in _STOPS:
            if _stopped(stops, chunks) != _first_stop(stops, data):
                raise Broken(f"stop strings: {stops!r} in {chunks!r}")
        pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
        for inside in (None, KNOWN_PAIRS[0]):
            if _split(pieces, inside) != _split([text], inside):
                raise Broken("reasoning tags: the outcome depends on the pieces")


def _stopped(stops: Sequence[bytes], chunks: list[bytes]) -> tuple[bytes, bytes | None]:
    matcher = StopMatcher(stops)
    shown = b""
    for chunk in chunks:
        piece, matched = matcher.feed(chunk)
        shown += piece
        if matched is not None:
            return shown, matched
    piece, matched = matcher.finish()
    return shown + piece, matched


def _first_stop(stops: Sequence[bytes], data: bytes) -> tuple[bytes, bytes | None]:
    found = [(data.find(stop), -len(stop), stop) for stop in stops if stop in data]
    if not found:
        return data, None
    start, _, stop = min(found)
    return data[:start], stop


def _split(pieces: list[str], inside: TagPair | None) -> tuple[str, str]:
    splitter = ReasoningSplitter(KNOWN_PAIRS, inside)
    parts = [part for piece in pieces for part in splitter.feed(piece)] + splitter.finish()
    answer = "".join(text for text, is_reasoning in parts if not is_reasoning)
    return answer, "".join(text for text, is_reasoning in parts if is_reasoning)


def _cut(data: bytes) -> Iterator[bytes]:
    rng = random.Random(zlib.crc32(data))
    while data:
        n = rng.choice((1, 1, 2, 3, 7))
        yield data[:n]
        data = data[n:]
