"""Which runs, and which items of two runs, belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import ComparableRun
from infer_cli.evaluation.comparing.likeness import Likeness

_ALLOW_HINT = "--allow-different compares what they have in common"


class Entry(NamedTuple):
    """One argument of the comparison: `label` is its letter, `name` what the user calls it, `runs` are by
    the name of their task."""

    label: str
    name: str
    runs: dict[str, ComparableRun]


class Pairing(NamedTuple):
    """Places of the same items in A and in B, in A's order, and what is not the same.

    `n_only_a` and `n_only_b` items are left out: the other run has them not, or with another row of data.
    `n_other_prompts` of the items that are compared were asked otherwise.
    """

    a: Sequence[int]
    b: Sequence[int]
    n_only_a: int = 0
    n_only_b: int = 0
    n_other_prompts: int = 0

    @property
    def differs(self) -> bool:
        return bool(self.n_only_a or self.n_only_b or self.n_other_prompts)


def label_of(place: int) -> str:
    """A, B, … Z, then AA, AB …"""
    label = ""
    while place >= 0:
        place, letter = divmod(place, 26)
        label, place = chr(ord("A") + letter) + label, place - 1
    return label


def make_entries(named: Iterable[tuple[str, Sequence[ComparableRun]]]) -> list[Entry]:
    """Raises UsageError where one argument has two runs of one task."""
    entries = []
    for place, (name, found) in enumerate(named):
        runs: dict[str, ComparableRun] = {}
        for run in found:
            other = runs.setdefault(run.task, run)
            if other is not run:
                raise UsageError(
                    f"{name} has several runs of {run.task}: {other.name} and {run.name}",
                    "name the folders of one model each",
                )
        entries.append(Entry(label_of(place), name, runs))
    return entries


def common_tasks(a: Entry, b: Entry, *, allow_different: bool) -> list[str]:
    """Names of the tasks that both have runs of, in A's order. Raises UsageError where there is none, or
    (unless `allow_different`) one has a task that the other has not."""
    tasks = [task for task in a.runs if task in b.runs]
    if not tasks:
        raise UsageError(
            f"{a.name} and {b.name} have no task in common: {_listed(a.runs)}, and {_listed(b.runs)}",
            "name runs of the same task",
        )
    for one, other in ((a, b), (b, a)):
        lacking = next((task for task in one.runs if task not in other.runs), None)
        if lacking is not None and not allow_different:
            raise UsageError(f"{other.name} has no run of {lacking}, which {one.name} has", _ALLOW_HINT)
    return tasks


def pair_items(a: ComparableRun, b: ComparableRun, *, allow_different: bool) -> Pairing:
    """Items of one id are the same where row of data and prompt are; where another program made one of the
    runs, those are that are alike (`likeness.py`), whatever their ids.

    Raises UsageError that names the first item that is not; with `allow_different` only where no item has
    the same id and row.
    """
    if a.is_foreign or b.is_foreign:
        return _pair_alike(a, b, allow_different=allow_different)
    places = {item: place for place, item in enumerate(b.ids)}
    in_a, in_b = [], []
    n_other_prompts = 0
    for place, item in enumerate(a.ids):
        other = places.get(item)
        if wrong := _difference(a, b, place, other):
            if not allow_different:
                raise UsageError(f"item {item} of {a.name} {wrong} in {b.name}", _ALLOW_HINT)
            if other is None or a.contents[place].document != b.contents[other].document:
                continue
            n_other_prompts += a.contents[place].prompt != b.contents[other].prompt
        assert other is not None
        in_a.append(place)
        in_b.append(other)
    if not in_a:
        raise UsageError(f"{a.name} and {b.name} have no item in common", "name runs over the same data")
    if len(in_b) < len(b.ids) and not allow_different:
        known = set(a.ids)
        extra = next(item for item in b.ids if item not in known)
        raise UsageError(f"item {extra} of {b.name} is not in {a.name}", _ALLOW_HINT)
    return Pairing(in_a, in_b, len(a.ids) - len(in_a), len(b.ids) - len(in_b), n_other_prompts)


def _pair_alike(a: ComparableRun, b: ComparableRun, *, allow_different: bool) -> Pairing:
    """By row of data and prompt; by the prompt alone where one of the programs does not tell the row."""
    in_a, in_b = a.likenesses(), b.likenesses()
    if any(each.document is None for each in (*in_a, *in_b)):
        in_a, in_b = ([each._replace(document=None) for each in side] for side in (in_a, in_b))
    places_a, places_b = _places(a, in_a), _places(b, in_b)
    for one, places, other, there in ((a, places_a, b, places_b), (b, places_b, a, places_a)):
        lacking = next((place for alike, place in places.items() if alike not in there), None)
        if lacking is not None and not allow_different:
            raise UsageError(
                f"{other.name} has no item with the data and prompt of item {one.ids[lacking]} of {one.name}",
                _ALLOW_HINT,
            )
    both = [alike for alike in places_a if alike in places_b]
    if not both:
        raise UsageError(f"{a.name} and {b.name} have no item in common", "name runs over the same data")
    return Pairing(
        [places_a[alike] for alike in both],
        [places_b[alike] for alike in both],
        len(a.ids) - len(both),
        len(b.ids) - len(both),
    )


def _places(run: ComparableRun, likenesses: Sequence[Likeness]) -> dict[Likeness, int]:
    """Raises UsageError for items that nothing tells apart."""
    places: dict[Likeness, int] = {}
    for place, alike in enumerate(likenesses):
        other = places.setdefault(alike, place)
        if other != place:
            raise UsageError(
                f"items {run.ids[other]} and {run.ids[place]} of {run.name} have the same prompt and data:"
                " nothing tells which is which",
                "compare runs without the one or the other",
            )
    return places


def _difference(a: ComparableRun, b: ComparableRun, place: int, other: int | None) -> str | None:
    if other is None:
        return "is not"
    if a.contents[place].document != b.contents[other].document:
        return "has other data"
    if a.contents[place].prompt != b.contents[other].prompt:
        return "has another prompt"
    if a.clusters and b.clusters and a.clusters[place] != b.clusters[other]:
        return "is of another cluster"
    return None


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
