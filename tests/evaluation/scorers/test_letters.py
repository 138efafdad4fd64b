"""Letters of choices: where a reply says one, and where a letter is a word."""

from __future__ import annotations

import pytest

from tests.evaluation.scorers.making import find

SAID = [
    ("B", "B"),
    (" b\n", "B"),
    ("B.", "B"),
    ("(B)", "B"),
    ("**B**", "B"),
    ("B) Paris", "B"),
    ("B. Paris, as A is wrong", "B"),
    ("Answer: B", "B"),
    ("answer: b", "B"),
    ("ANSWER = C", "C"),
    ("The answer is B", "B"),
    ("The answer is (B).", "B"),
    ("The answer is: **(C)** Rome", "C"),
    ("The correct answer is option D, since A is too small", "D"),
    ("The best choice is C because A and B fail.", "C"),
    (r"So $\boxed{D}$", "D"),
    (r"So \boxed{\text{D}}", "D"),
    ("I would choose B.", "B"),
    ("It must be (C), not A", "C"),
    ("A is correct", "A"),
    ("I think it is A", "A"),
    ("Let me think. A dog is not a cat, so D", "D"),
    ("First I say answer: A. No, the answer is B", "B"),
    # None of these is an answer.
    ("A dog", None),
    ("A dog and a cat are a pair", None),
    ("The answer is a bit long", None),
    ("Because the Database is a Case", None),
    ("A's", None),
    ("E", None),
    ("", None),
    ("A-levels", "A"),  # a hyphen ends a word
]


@pytest.mark.parametrize(("text", "wanted"), SAID)
def test_the_letter_of_a_reply(text: str, wanted: str | None) -> None:
    assert find(text, kind="letter") == wanted


def test_the_first_letter() -> None:
    assert find("The answer is A. No, the answer is B", kind="letter", first=True) == "A"


def test_letters_of_a_task() -> None:
    assert find("The answer is 3", kind="letter", letters="1234") == "3"
    assert find("the answer is (h)", kind="letter", letters="abcdefgh") == "h"
    assert find("The answer is I", kind="letter", letters="ABCDEFGHI") == "I"
    assert find("I think so", kind="letter", letters="ABCDEFGHI") is None
