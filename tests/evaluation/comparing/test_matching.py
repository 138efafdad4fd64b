"""Which runs and items belong together, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import Asked, ComparableRun, Content, MetricScores
from infer_cli.evaluation.comparing.matching import (
    common_tasks,
    label_of,
    make_entries,
    pair_items,
)


def run(
    ids: str,
    *,
    name: str = "a",
    task: str = "sums",
    other_rows: str = "",
    other_prompts: str = "",
    clusters: Sequence[str] | None = None,
) -> ComparableRun:
    """An item for each letter."""
    contents = [
        Content(each.encode() + b"'" * (each in other_rows), b"asked" + b"'" * (each in other_prompts))
        for each in ids
    ]
    scores = MetricScores("exact", True, np.zeros(len(ids)))
    return ComparableRun(
        name, task, "small", list(ids), contents, clusters, (scores,), {}, lambda _: Asked("", None), list
    )


def test_items_are_paired_by_their_ids_in_any_order() -> None:
    found = pair_items(run("abcd"), run("dbca"), allow_different=False)
    assert (found.a, found.b) == ([0, 1, 2, 3], [3, 1, 2, 0])
    assert not found.differs


@pytest.mark.parametrize(
    ("a", "b", "wrong"),
    [
        (run("abc"), run("ac", name="b"), "item b of a is not in b"),
        (run("ac"), run("abc", name="b"), "item b of b is not in a"),
        (run("abc"), run("abc", name="b", other_rows="bc"), "item b of a has other data in b"),
        (run("abc"), run("abc", name="b", other_prompts="cb"), "item b of a has another prompt in b"),
        (
            run("ab", clusters=["x", "x"]),
            run("ab", name="b", clusters=["x", "y"]),
            "item b of a is of another cluster in b",
        ),
    ],
)
def test_the_first_item_that_is_not_the_same_is_named(a: ComparableRun, b: ComparableRun, wrong: str) -> None:
    with pytest.raises(UsageError) as refused:
        pair_items(a, b, allow_different=False)
    assert refused.value.message == wrong
    assert "--allow-different" in refused.value.hint


def test_what_is_in_common_is_compared_if_that_is_wanted() -> None:
    b = run("xfedcb", name="b", other_rows="c", other_prompts="de")
    found = pair_items(run("abcdef"), b, allow_different=True)
    assert (found.a, found.b) == ([1, 3, 4, 5], [5, 3, 2, 1])
    assert (found.n_only_a, found.n_only_b, found.n_other_prompts) == (2, 2, 2)
    assert found.differs


def test_runs_with_nothing_in_common() -> None:
    for b in (run("cd", name="b"), run("ab", name="b", other_rows="ab")):
        with pytest.raises(UsageError, match="a and b have no item in common"):
            pair_items(run("ab"), b, allow_different=True)


def test_clusters_that_one_run_names_are_no_difference() -> None:
    assert pair_items(run("ab", clusters=["x", "x"]), run("ab"), allow_different=False).a == [0, 1]


def test_tasks_are_matched_by_name() -> None:
    sums, words = run("a"), run("a", task="words")
    one, other, third = make_entries([("one", [sums, words]), ("other", [words, sums]), ("third", [words])])
    assert [entry.label for entry in (one, other, third)] == ["A", "B", "C"]
    assert common_tasks(one, other, allow_different=False) == ["sums", "words"]
    for pair in ((one, third), (third, one)):
        with pytest.raises(UsageError, match="third has no run of sums, which one has"):
            common_tasks(*pair, allow_different=False)
        assert common_tasks(*pair, allow_different=True) == ["words"]


def test_runs_of_other_tasks() -> None:
    one, other = make_entries([("one", [run("a")]), ("other", [run("a", task="words")])])
    with pytest.raises(UsageError, match="one and other have no task in common: sums, and words"):
        common_tasks(one, other, allow_different=True)


def test_one_argument_with_two_runs_of_a_task() -> None:
    with pytest.raises(UsageError, match="both has several runs of sums: m1/sums and m2/sums"):
        make_entries([("both", [run("a", name="m1/sums"), run("a", name="m2/sums")])])


def test_labels() -> None:
    assert [label_of(place) for place in (0, 25, 26, 27, 52, 702)] == ["A", "Z", "AA", "AB", "BA", "AAA"]
