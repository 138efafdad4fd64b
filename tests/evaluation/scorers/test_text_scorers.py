"""Scorers of texts and numbers, against the formulas of their sources written out."""

from __future__ import annotations

import re
import string
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.evaluation.scorers.scorer import ScorerFailed
from tests.evaluation.scorers.making import score, scorer_of, value

WORDS = st.lists(
    st.sampled_from(
        ["the", "The", "a", "an", "cat,", "cat", "Sat!", "on", "an.other", "'s", "é", "-", " \t"]
    ),
    max_size=8,
).map(" ".join)


def squad_normalized(text: str) -> str:
    """As the paper's evaluation script says: lower, then punctuation, articles and white space (v1.1)."""
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction: str, reference: str) -> float:
    got, wanted = squad_normalized(prediction).split(), squad_normalized(reference).split()
    common = sum((Counter(got) & Counter(wanted)).values())
    if not got or not wanted:
        return float(got == wanted)  # v2.0: what has no answer
    if common == 0:
        return 0.0
    precision, recall = common / len(got), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_normalized_and_f1_are_those_of_squad(got: str, references: list[str]) -> None:
    equal = any(squad_normalized(got) == squad_normalized(each) for each in references)
    assert value("normalized", got, *references) == float(equal)
    wanted = max(squad_f1(got, each) for each in references)
    assert value("f1", got, *references) == pytest.approx(wanted, abs=1e-12)


def test_steps_of_normalization_can_be_left_out() -> None:
    assert value("normalized", "The cat", "cat") == 1
    assert value("normalized", "The cat", "cat", articles=False) == 0
    assert value("normalized", "Cat", "cat", lower=False) == 0
    assert value("normalized", "cat!", "cat", punctuation=False) == 0
    assert value("normalized", "a  b", "a b", articles=False, white_space=False) == 0
    assert value("f1", "The cat", "cat", articles=False) == pytest.approx(2 / 3)


def test_exact() -> None:
    assert score("exact", " 72\n", "68", "72") == (1, "")
    assert score("exact", "Paris", "paris") == (0, "got Paris, wanted paris")
    assert value("exact", "STRASSE", "straße", ignore_case=True) == 1
    assert score("exact", "x" * 99, "") == (0, f"got {'x' * 40}…, wanted nothing")


def test_contains() -> None:
    assert value("contains", "in Paris or Rome", "Rome", "Berlin") == 1
    assert score("contains", "in Paris or Rome", "Rome", "Berlin", which="all") == (0, "Berlin not found")
    assert value("contains", "in paris", "Paris") == 0
    assert value("contains", "in paris", "Paris", ignore_case=True) == 1
    assert value("contains", "a, b", which="all", values=["a", "b"]) == 1
    assert score("contains", "a", "a", values=["b"]) == (0, "b not found")


def test_regex() -> None:
    assert value("regex", "It is 72.", pattern=r"\b72\b") == 1
    assert score("regex", "It is 721.", pattern=r"\b72\b") == (0, "no match")
    assert value("regex", "72", pattern="[0-9]+", full=True) == 1
    assert value("regex", "72.", pattern="[0-9]+", full=True) == 0
    assert value("regex", "YES", pattern="^yes$") == 0
    assert value("regex", "YES", pattern="^yes$", ignore_case=True) == 1
    assert value("regex", "\ud800", pattern=".", full=True) == 1


def test_numbers_are_compared_exactly() -> None:
    assert value("number", "0.3", "3/10") == 1
    assert value("number", "$1,000.00", "1000") == 1
    assert score("number", "72", "68") == (0, "got 72, wanted 68")
    assert score("number", "many", "68") == (0, "many is not a number")
    assert value("number", "0.30000000000000000000000000000000000001", "0.3") == 0
    assert value("number", "9007199254740993", "9007199254740992") == 0  # one float for both
    assert value("number", "50%", "50") == 1
    assert value("number", "50%", "1/2", percent_is_hundredth=True) == 1


def test_tolerances_include_their_ends() -> None:
    """0.1 is a tenth here: as floats, 1.1 - 1.0 is more than 0.1."""
    assert value("number", "1.1", "1.0", absolute=0.1) == 1
    assert value("number", "0.9", "1.0", absolute=0.1) == 1
    assert value("number", "1.1000000001", "1.0", absolute=0.1) == 0
    assert value("number", "-101", "-100", relative=0.01) == 1
    assert value("number", "-101.1", "-100", relative=0.01) == 0
    assert value("number", "0.5", "0", absolute=1, relative=0.1) == 1  # the wider one
    assert value("number", "0.01", "0", relative=0.1) == 0


@given(st.fractions(-100, 100), st.fractions(-100, 100), st.sampled_from([0, 0.1, 0.25, 3, 1e-5]))
def test_near_is_by_the_formula(got: Fraction, wanted: Fraction, tolerance: float) -> None:
    exact = Fraction(str(tolerance))
    assert value("number", str(got), str(wanted), absolute=tolerance) == (abs(got - wanted) <= exact)
    near = abs(got - wanted) <= exact * abs(wanted)
    assert value("number", str(got), str(wanted), relative=tolerance) == near


def test_choice() -> None:
    cities = {"cities": ["Rome", "Paris", "B"]}
    assert value("choice", "B", "(b)") == 1
    assert score("choice", "A", "B") == (0, "got A, wanted B")
    assert value("choice", "none", "B") == 0
    assert value("choice", "paris.", "B", choices="cities", doc=cities) == 1
    assert value("choice", "Rome", "Paris", choices="cities", doc=cities) == 0
    assert (
        value("choice", "B", "Paris", choices="cities", doc=cities) == 1
    )  # the letter, not the third's text
    assert value("choice", "2", "Paris", letters="123", choices="cities", doc=cities) == 1
    with pytest.raises(ScorerFailed, match="the reference E is no letter and no choice"):
        value("choice", "A", "E")
    with pytest.raises(ScorerFailed, match="the field cities is not an array of texts"):
        value("choice", "A", "A", choices="cities")
    with pytest.raises(ScorerFailed, match="has 3 texts for 2 letters"):
        value("choice", "A", "A", letters="AB", choices="cities", doc=cities)


def test_the_form_of_a_reply_is_that_of_its_whole_text() -> None:
    assert value("not_empty", "", text="x") == 1
    assert score("not_empty", "x", text=" \n") == (0, "empty")
    assert score("length", "", text="a b c", min=6) == (0, "5 characters, at least 6 wanted")
    assert score("length", "", text="a b c", max=2, unit="words") == (0, "3 words, at most 2 wanted")
    assert value("length", "", text="a b c", min=3, max=3, unit="words") == 1
    for reason in ("stop", "stop_string"):
        assert value("ended", "x", finish_reason=reason) == 1
    assert score("ended", "x", finish_reason="length") == (0, "ended by length")
    with pytest.raises(ScorerFailed, match="what ended it"):
        value("ended", "x")


@pytest.mark.parametrize("kind", ["exact", "normalized", "contains", "f1", "number", "choice", "json_field"])
def test_an_item_without_a_reference_can_not_be_scored(kind: str) -> None:
    with pytest.raises(ScorerFailed, match="no reference"):
        value(kind, "1")


def test_a_reference_that_is_not_a_number_is_the_datas_fault() -> None:
    with pytest.raises(ScorerFailed, match="the reference many is not a number"):
        value("number", "1", "many")


def test_what_scorers_say_of_themselves() -> None:
    for kind, options in {"exact": {}, "number": {}, "length": {"min": 1}}.items():
        scorer = scorer_of(kind, **options)
        assert (scorer.name, scorer.is_code, scorer.worst) == (kind, False, 0)
        assert scorer.is_proportion and scorer.higher_is_better
    assert not scorer_of("f1").is_proportion
    assert not scorer_of("json_field", partial=True).is_proportion
    assert scorer_of("json_field").is_proportion
