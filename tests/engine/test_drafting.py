"""Guesses by prompt lookup, and when they pay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infer_cli.engine.drafting import MAX_ROWS, PromptLookup, StepCosts, draft_length


def test_what_followed_the_last_tokens_before_is_guessed() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 9, 1, 2, 3])
    assert lookup.draft(3) == [4, 5, 6]
    lookup.append(4)
    assert lookup.draft(2) == [5, 6]
    lookup.append(7)
    assert lookup.draft(2) == [], "4, 7 is new"


def test_three_tokens_say_more_than_two_and_the_latest_place_most() -> None:
    assert PromptLookup([1, 2, 3, 8, 5, 2, 3, 9, 1, 2, 3]).draft(1) == [8]
    assert PromptLookup([2, 3, 8, 2, 3, 9, 7, 2, 3]).draft(1) == [9]


def test_a_rhythm_goes_on() -> None:
    assert PromptLookup([5, 1, 2, 3, 1, 2, 3]).draft(7) == [1, 2, 3, 1, 2, 3, 1]


@given(ids=st.lists(st.integers(0, 3), max_size=40), more=st.lists(st.integers(0, 3), max_size=10))
def test_token_by_token_is_as_at_once(ids: list[int], more: list[int]) -> None:
    one, other = PromptLookup(ids), PromptLookup([*ids, *more])
    for token in more:
        one.append(token)
    assert one.draft(5) == other.draft(5)


def lookup_of(n_right: int, n_wrong: int) -> PromptLookup:
    """One whose guesses were so often right, and that has a guess."""
    lookup = PromptLookup([1, 2, 3, 1, 2])
    lookup._right, lookup._wrong = float(n_right), float(n_wrong)
    return lookup


def test_good_guesses_are_long_and_bad_ones_are_not_made() -> None:
    costs = StepCosts()
    assert draft_length([lookup_of(99, 1)], costs, 100) > draft_length([lookup_of(6, 4)], costs, 100) > 0
    assert draft_length([lookup_of(1, 9)], costs, 100) == 0
    assert 0 < draft_length([lookup_of(99, 1)], costs, 6) <= 6
    assert draft_length([PromptLookup([1, 2, 3])], costs, 100) == 0


def test_rows_that_cost_as_much_as_steps_do_not_pay() -> None:
    dear, cheap = StepCosts(), StepCosts()
    for n_rows in range(1, MAX_ROWS + 1):
        dear.note(n_rows, 0.01 * n_rows)
        cheap.note(n_rows, 0.01)
    assert draft_length([lookup_of(99, 1)], dear, 100) == 0
    assert draft_length([lookup_of(99, 1)], cheap, 100) == MAX_ROWS - 1


@given(n=st.integers(1, 20))
def test_a_call_has_no_more_rows_than_there_is_room_for_logits(n: int) -> None:
    length = draft_length([lookup_of(99, 1)] * n, StepCosts(), 100)
    assert length == 0 or n * (1 + length) <= MAX_ROWS


def test_many_that_gain_nothing_outweigh_one_that_does() -> None:
    costs = StepCosts()
    none = PromptLookup([1, 2, 3])
    assert draft_length([lookup_of(9, 1)], costs, 100) > 0
    assert draft_length([lookup_of(9, 1), *[none] * 7], costs, 100) == 0
