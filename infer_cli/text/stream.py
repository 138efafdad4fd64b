"""From a stream of bytes to what can be shown: stop strings with hold-back, whole characters.

Both give the same result for any split of the stream. They know no tokens.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence

from infer_cli.errors import UsageError


class StopMatcher:
    """Ends a stream before the first stop string: the earliest start wins, on equal start the longest.

    Bytes that may begin a stop string are held back, so no part of one is ever released. Where a longer or an
    earlier stop string is still possible the match waits for it. Aho-Corasick: one step a byte.
    """

    def __init__(self, stops: Sequence[bytes]) -> None:
        if not all(stops):
            raise UsageError("a stop string is empty", "give --stop at least one character")
        # Per node (a beginning of some stop strings): transitions, the next shorter beginning that is its
        # end, length of the longest stop string that ends here (0: none), depth of the longest end that can
        # still grow.
        self._children: list[dict[int, int]] = [{}]
        self._shorter = [0]
        self._ends = [0]
        self._growing = [0]
        for stop in stops:
            self._insert(stop)
        self._link()
        self._node = 0
        self._seen = 0  # bytes fed
        self._released = 0  # bytes given out
        self._held = bytearray()  # those between
        self._best: tuple[int, int] | None = None  # (start, length) of the match that waits
        self.matched: bytes | None = None

    def _insert(self, stop: bytes) -> None:
        node = 0
        for byte in stop:
            if byte not in self._children[node]:
                self._children[node][byte] = len(self._children)
                self._children.append({})
                self._shorter.append(0)
                self._ends.append(0)
                self._growing.append(0)
            node = self._children[node][byte]
        self._ends[node] = len(stop)

    def _link(self) -> None:
        queue = deque((node, 1) for node in self._children[0].values())
        while queue:
            node, depth = queue.popleft()
            shorter = self._shorter[node]
            self._growing[node] = depth if self._children[node] else self._growing[shorter]
            self._ends[node] = self._ends[node] or self._ends[shorter]
            for byte, child in self._children[node].items():
                self._shorter[child] = self._step(shorter, byte)
                queue.append((child, depth + 1))

    def _step(self, node: int, byte: int) -> int:
        while node and byte not in self._children[node]:
            node = self._shorter[node]
        return self._children[node].get(byte, 0)

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """(bytes that can be shown, the stop string that was met or None). All after a match is swallowed."""
        if not self._children[0]:
            return data, None
        if self.matched is not None:
            return b"", self.matched
        self._held += data
        for byte in data:
            self._node = self._step(self._node, byte)
            self._seen += 1
            length = self._ends[self._node]
            if length:
                start = self._seen - length
                if self._best is None or start <= self._best[0]:  # on equal start the later one is longer
                    self._best = (start, length)
            if self._best is not None and self._seen - self._growing[self._node] > self._best[0]:
                return self._end(), self.matched
        keep = self._growing[self._node]
        if self._best is not None:
            keep = max(keep, self._seen - self._best[0])
        return self._release(len(self._held) - keep), None

    def finish(self) -> tuple[bytes, bytes | None]:
        """The stream is over: what is held can't grow into an earlier or longer stop string any more."""
        if self.matched is not None:
            return b"", self.matched
        if self._best is not None:
            return self._end(), self.matched
        return self._release(len(self._held)), None

    def _end(self) -> bytes:
        assert self._best is not None
        start, length = self._best
        offset = start - self._released
        self.matched = bytes(self._held[offset : offset + length])
        return self._release(offset)

    def _release(self, size: int) -> bytes:
        shown = bytes(self._held[:size])
        del self._held[:size]
        self._released += size
        return shown


class Utf8Stream:
    """Decodes UTF-8 as it comes, whole characters only; anything else becomes U+FFFD as in `bytes.decode`."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What an incomplete last character becomes."""
        return self._decoder.decode(b"", final=True)
