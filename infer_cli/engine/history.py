"""What a sequence has evaluated, and how much of it another request can use. Pure: no model, no clock.

An evaluation is a list of segments. In canonical mode the same ids give the same KV bits only where they were
evaluated in the same shapes: a prompt in chunks counted from its segment's start, sampled tokens one a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from infer_cli.text.common_prefix import n_same
from infer_cli.types import Segment


def chunk_end(start: int, n_prompt: int, chunk: int) -> int:
    """Where the chunk that begins at `start` ends: at a multiple of `chunk`, or at the prompt's end.

    A tail of one token joins the chunk before it: alone it would take the kernels of a single row.
    """
    end = min(start - start % chunk + chunk, n_prompt)
    return n_prompt if n_prompt - end == 1 else end


def normalized(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """The same evaluation without empty segments, and with neighbouring decoded ones joined."""
    joined: list[Segment] = []
    for segment in segments:
        if joined and segment.kind == joined[-1].kind == "decoded":
            joined[-1] = Segment("decoded", joined[-1].ids + segment.ids)
        elif segment.ids:
            joined.append(segment)
    return tuple(joined)


def length(segments: Iterable[Segment]) -> int:
    """Tokens."""
    return sum(len(segment.ids) for segment in segments)


def flat(segments: Iterable[Segment]) -> tuple[int, ...]:
    """All ids."""
    return tuple(token for segment in segments for token in segment.ids)


def first(segments: Iterable[Segment], n: int) -> tuple[Segment, ...]:
    """The first n tokens of an evaluation."""
    kept: list[Segment] = []
    for segment in segments:
        if n <= 0:
            break
        kept.append(segment if len(segment.ids) <= n else Segment(segment.kind, segment.ids[:n]))
        n -= len(segment.ids)
    return tuple(kept)


def reusable(held: Sequence[Segment], wanted: Sequence[Segment], chunk: int | None) -> int:
    """How many tokens of `held` serve as the beginning of `wanted`; less than all of `wanted`.

    `chunk` None: shapes do not matter, only ids do. Both normalized.
    """
    if chunk is None:
        return min(n_same(flat(held), flat(wanted)), length(wanted) - 1)
    n = 0
    for have, want in zip(held, wanted, strict=False):
        if have.kind != want.kind:
            break
        same = n_same(have.ids, want.ids)
        if have.kind == "prompt" and have.ids != want.ids:
            same = max(c for c in _cuts(len(have.ids), chunk) & _cuts(len(want.ids), chunk) if c <= same)
        n += same
        if have.ids != want.ids:
            break
    if n < length(wanted):
        return n
    # The last row is needed for its logits: its chunk, or the row alone, is evaluated again.
    last = wanted[-1]
    before = n - len(last.ids)
    return n - 1 if last.kind == "decoded" else before + sorted(_cuts(len(last.ids), chunk))[-2]


def begins_with(held: Sequence[Segment], wanted: Sequence[Segment], chunk: int | None) -> bool:
    """Whether `held`, cut to the length of `wanted`, is just what evaluating `wanted` would give.

    `chunk` None: shapes do not matter, only ids do. Both normalized.
    """
    n = length(wanted)
    if not n:
        return False
    if chunk is None:
        return flat(first(held, n)) == flat(wanted)
    if first(held, n) != tuple(wanted):
        return False
    whole, cut = held[len(wanted) - 1], wanted[-1]
    return cut.kind == "decoded" or len(cut.ids) in _cuts(len(whole.ids), chunk)


def split(
    ids: tuple[int, ...], evaluated: Sequence[Segment], chunk: int
) -> tuple[tuple[Segment, ...], tuple[int, ...]]:
    """(history, prompt): the longest beginning of `ids` that was evaluated, and the rest, never empty.

    A prompt that `ids` leave half-way is cut at the end of a chunk, so that its chunks stay as they were.
    """
    n = 0
    for segment in evaluated:
        same = n_same(segment.ids, ids[n : len(ids) - 1])
        if same < len(segment.ids) and segment.kind == "prompt":
            same = max(c for c in _cuts(len(segment.ids), chunk) if c <= same)
        n += same
        if same < len(segment.ids):
            break
    return first(evaluated, n), ids[n:]


def _cuts(n: int, chunk: int) -> set[int]:
    """The places between a prompt segment's chunks, both ends included."""
    cuts, end = {0}, 0
    while end < n:
        end = chunk_end(end, n, chunk)
        cuts.add(end)
    return cuts
