"""Examples of an item: never the item itself, and the same on every machine, in every order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks import fewshot
from infer_cli.evaluation.tasks.fewshot import Example, ExamplePool, permuted, question_key
from tests.evaluation.tasks.examples import GENERATE, ROWS, items_of, write_rows

FEWSHOT = GENERATE + '[fewshot]\nanswer = "{{ a }}"\n'
SEEDED = FEWSHOT + 'draw = "seeded"\n'


def example(number: int) -> Example:
    return Example(str(number), {"n": number}, question_key(number))


def drawn(examples: list[Example], n: int, seed: int, item: str, key: bytes = b"") -> list[str]:
    return [each.id for each in ExamplePool(examples, n, seed, None).of(item, key)]


def test_a_draw_is_the_same_on_every_machine() -> None:
    assert list(permuted(6, 0, "item")) == [5, 1, 2, 4, 3, 0]
    assert list(permuted(6, 1, "item")) == [1, 0, 4, 5, 2, 3]
    assert drawn([example(i) for i in range(50)], 3, 7, "é") == ["24", "4", "37"]


@given(st.integers(0, 60), st.integers(0, 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_draw_is_a_permutation(n: int, seed: int, item: str) -> None:
    assert sorted(permuted(n, seed, item)) == list(range(n))
    assert list(permuted(n, seed, item)) == list(permuted(n, seed, item))


@given(
    st.lists(st.integers(0, 30), min_size=5, unique=True).flatmap(
        lambda numbers: st.tuples(st.just(numbers), st.permutations(numbers), st.sampled_from(numbers))
    ),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_a_draw_has_not_the_item_and_does_not_depend_on_the_order(
    numbers: tuple[list[int], list[int], int], n: int, seed: int
) -> None:
    one, other, item = numbers
    examples = [example(i) for i in one]
    shown = drawn(examples, n, seed, str(item), question_key(item))
    assert len(set(shown)) == n and str(item) not in shown
    twice = [example(i) for i in other] * 2  # what is there twice counts once
    assert drawn(twice, n, seed, str(item), question_key(item)) == shown


def test_a_draw_favours_none() -> None:
    examples = [example(i) for i in range(10)]
    pool = ExamplePool(examples, 3, 0, None)
    counts = Counter(each.id for item in range(2000) for each in pool.of(str(item), b""))
    assert len(counts) == 10
    assert all(abs(count - 600) < 5 * (2000 * 0.3 * 0.7) ** 0.5 for count in counts.values())


def test_of_many_examples_those_with_the_least_digests_are_drawn_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fewshot, "MOST_IN_POOL", 20)
    examples = [example(i) for i in range(500)]
    least = sorted(examples, key=lambda each: each.key)[:20]
    assert list(ExamplePool(examples, 3, 0, None).examples) == least
    assert list(ExamplePool(examples[::-1] * 2, 3, 0, None).examples) == least


def test_examples_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewshot, "MOST_BYTES", 30)
    for seed in (0, None):
        with pytest.raises(UsageError, match=r"the examples are more than"):
            ExamplePool([example(i) for i in range(9)], 5, seed, None)


# --- as a task has them ---------------------------------------------------------------------------


def test_fixed_examples_are_the_first_without_the_item(tmp_path: Path) -> None:
    shown = [item.fewshot for item in items_of(FEWSHOT + "n = 2\n", tmp_path)]
    assert shown == [("1", "2"), ("0", "2"), ("0", "1"), ("0", "1"), ("0", "1")]


def test_the_item_is_known_by_its_question(tmp_path: Path) -> None:
    """A row with another id and other notes, but the same question, would show the answer."""
    rows = [*ROWS, {**ROWS[0], "note": "again"}]
    shown = [item.fewshot for item in items_of(SEEDED + "n = 4\n", tmp_path, rows)]
    assert all(len(ids) == 4 for ids in shown)
    assert not {"0", "5"} & {*shown[0], *shown[5]}


def test_a_draw_depends_on_seed_and_item_alone(tmp_path: Path) -> None:
    text = SEEDED + "n = 2\n[data]\nid = 'q'\n"
    shown = {item.id: item.fewshot for item in items_of(text, tmp_path)}
    again = {item.id: item.fewshot for item in items_of(text, tmp_path, ROWS[::-1])}
    assert shown == again
    some = items_of(text, tmp_path, ids=("question 3",))
    assert {item.id: item.fewshot for item in some} == {"question 3": shown["question 3"]}
    other = {item.id: item.fewshot for item in items_of(text, tmp_path, fewshot_seed=1)}
    assert other != shown
    assert len({item.fewshot for item in items_of(text, tmp_path)}) > 1


def test_a_file_of_examples_may_not_have_the_item(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"q": "other", "a": "x"}, {"q": "another", "a": "y"}], "shots.jsonl")
    text = FEWSHOT + 'n = 1\npath = "shots.jsonl"\n'
    assert [item.fewshot for item in items_of(text, tmp_path)] == [("0",)] * 5
    write_rows(tmp_path, [{"q": "other", "a": "x"}, {"id": 9, **ROWS[3]}], "shots.jsonl")
    for draw in ("", 'draw = "seeded"\n'):
        with pytest.raises(UsageError, match=r"shots\.jsonl: row 1 is the item '3' itself"):
            items_of(text + draw, tmp_path)


def test_too_few_examples(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[fewshot\] n: 5 examples are asked for, and there are 4"):
        items_of(FEWSHOT, tmp_path, n_fewshot=5)
    assert len(items_of(FEWSHOT, tmp_path, n_fewshot=4)[0].fewshot) == 4
