"""What of a conversation stands in a prompt once not all of it fits, and how each policy makes it less.

- `drop-oldest` and `drop-middle` leave out whole turns, in the order of `overflow`; a summary goes first.
- `keep-ends` leaves out no turn: it cuts the middles of the longest texts before the last message.
- `summarize` leaves out the oldest turns, and a summary stands in their place.

All go down to a low-water mark, so that the rest of a prompt is evaluated anew only once in a while. Turns
are counted from 0 here and from 1 in what the user reads. It knows no template: tokens are counted by a
function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from infer_cli.prompt.attachments import Attachment
from infer_cli.prompt.fitting import (
    POLICIES,
    Dropped,
    Policy,
    cut_ends,
    fewest,
    in_dropping_order,
    listed,
    numbered,
    report_of,
)

OverflowPolicy = Policy | Literal["summarize"]
OVERFLOW_POLICIES: tuple[OverflowPolicy, ...] = (*POLICIES, "summarize")
DEFAULT: OverflowPolicy = "drop-oldest"
LOW_WATER = 0.75  # of the window: down to here it goes once it is full
_N_LISTED = 4  # parts that are told one by one


class Summary(NamedTuple):
    """A text in place of turns, which are among those that are gone."""

    text: str
    turns: tuple[int, ...]


class CutTurn(NamedTuple):
    """What stands in place of a turn's message and of its reply; None: it is whole."""

    user: str | None
    reply: str | None


@dataclass(frozen=True)
class VisibleTurns:
    """What of the turns before a message is in its prompt: all of them, but for what is said here."""

    gone: frozenset[int] = frozenset()
    summary: Summary | None = None
    cuts: Mapping[int, CutTurn] = field(default_factory=dict)

    def without(self, turns: Iterable[int]) -> VisibleTurns:
        gone = self.gone | set(turns)
        return replace(self, gone=gone, cuts={i: cut for i, cut in self.cuts.items() if i not in gone})

    def left(self, n_turns: int) -> list[int]:
        """The turns that are not gone, of this many."""
        return [i for i in range(n_turns) if i not in self.gone]


@dataclass(frozen=True)
class Truncation:
    """What went, and what stands in its place.

    `tokens` of a part left the prompt, `summary_tokens` is what the summary made it longer.
    """

    policy: OverflowPolicy
    dropped: tuple[Dropped, ...]
    summary_tokens: int | None = None
    n_summarized: int = 0  # turns

    def report(self) -> dict[str, object]:
        """The `truncation` of a reply."""
        summary = {} if self.summary_tokens is None else {"summary_tokens": self.summary_tokens}
        return {**report_of(self.policy, self.dropped), **summary}

    def told(self) -> str:
        n_tokens = sum(part.tokens for part in self.dropped)
        if self.summary_tokens is not None:
            what = "1 turn" if self.n_summarized == 1 else f"{self.n_summarized} turns"
            if len(self.dropped) > 1:
                what += " and the summary before"
            were = "was" if what == "1 turn" else "were"
            return (
                f"the window is full: {what} ({n_tokens} tokens) {were} summarized"
                f" in {self.summary_tokens} tokens"
            )
        if len(self.dropped) > _N_LISTED:
            n = len(self.dropped)
            return f"the window is full, so the middles of {n} texts were dropped ({n_tokens} tokens)"
        return f"the window is full, so these were dropped: {listed(self.dropped)}"


Count = Callable[[VisibleTurns], int]  # tokens of the prompt


def drop(
    before: VisibleTurns, n_turns: int, count: Count, limit: int, policy: OverflowPolicy
) -> tuple[VisibleTurns, Truncation]:
    """Leave out the summary, if any, and then as few turns as need be; all where that is not enough."""
    n_tokens, visible, dropped = count(before), before, []
    if before.summary is not None:
        visible = replace(before, summary=None)
        n_left = count(visible)
        dropped.append(Dropped("the summary", n_tokens - n_left))
        n_tokens = n_left
    order = in_dropping_order(before.left(n_turns), policy)
    if n_tokens > limit and order:
        went = order[: fewest(len(order), lambda n: count(visible.without(order[:n])) <= limit)]
        visible = visible.without(went)
        dropped.append(Dropped(_turns(went), n_tokens - count(visible)))
    return visible, Truncation(policy, tuple(dropped))


def cut(
    before: VisibleTurns, texts: Sequence[tuple[str, str]], count: Count, limit: int, most: int
) -> tuple[VisibleTurns, Truncation]:
    """Cut the longest of the turns' `texts`, (message, reply) each, until `count` is at most `limit`; where
    it can't be, until it is at most `most`, or as far as that goes.

    What was cut before is cut anew from the whole, and never becomes longer.
    """
    places = [(i, part) for i in before.left(len(texts)) for part in (0, 1)]

    def now(i: int, part: int) -> str:
        cut_to = before.cuts[i][part] if i in before.cuts else None
        return texts[i][part] if cut_to is None else cut_to

    def visible_with(items: Sequence[Attachment]) -> VisibleTurns:
        kept: dict[int, list[str | None]] = {}
        for (i, part), item in zip(places, items, strict=True):
            shortest = min(now(i, part), item.text, key=len)
            if shortest != texts[i][part]:
                kept.setdefault(i, [None, None])[part] = shortest
        return replace(before, cuts={i: CutTurn(*pair) for i, pair in kept.items()})

    whole = [Attachment(_name(i, part), texts[i][part]) for i, part in places]

    def changes(index: int, text: str) -> bool:
        return len(text) < len(now(*places[index]))

    fitted = cut_ends(whole, lambda items: count(visible_with(items)), limit, changes)
    if limit < fitted.n_tokens <= most:
        fitted = cut_ends(whole, lambda items: count(visible_with(items)), most, changes)
    return visible_with(fitted.attachments), Truncation("keep-ends", fitted.dropped)


def summarized(
    before: VisibleTurns, n_turns: int, count: Count, limit: int
) -> tuple[VisibleTurns, tuple[int, ...]]:
    """Leave out as few of the oldest turns as need be, an empty summary in their place; and which went."""
    left = before.left(n_turns)

    def without(n: int) -> VisibleTurns:
        before_it = () if before.summary is None else before.summary.turns
        return replace(before.without(left[:n]), summary=Summary("", (*before_it, *left[:n])))

    n_gone = fewest(len(left), lambda n: count(without(n)) <= limit)
    return without(n_gone), tuple(left[:n_gone])


def with_summary(
    before: VisibleTurns, visible: VisibleTurns, went: Sequence[int], text: str, count: Count
) -> tuple[VisibleTurns, Truncation]:
    """Put the text of a summary into what `summarized` left."""
    assert visible.summary is not None
    bare, after = (
        replace(visible, summary=None),
        replace(visible, summary=Summary(text, visible.summary.turns)),
    )
    n_bare, n_left = count(bare), count(replace(bare, summary=before.summary))
    dropped = [Dropped(_turns(went), count(before) - n_left)]
    if before.summary is not None:
        dropped.append(Dropped("the summary before", n_left - n_bare))
    return after, Truncation("summarize", tuple(dropped), count(after) - n_bare, len(went))


def _turns(turns: Sequence[int]) -> str:
    return numbered("turn", [turn + 1 for turn in turns])


def _name(turn: int, part: int) -> str:
    return f"{('the message', 'the reply')[part]} of turn {turn + 1}"
