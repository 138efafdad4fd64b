"""The scorer `judge`: what is asked, and what a reply comes to."""

from __future__ import annotations

import json

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.scorers.judge import MAX_TOKENS, Judge
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.scorers.scorer import Answer, ScorerFailed
from infer_cli.evaluation.tasks.loading import read_task

SCALE = "min = 1\nmax = 10"
LETTERS = 'verdict = "letter"\nvalues = {A = 1, B = 0, C = 0.5}'
MARKED = SCALE + '\nverdict = "regex"\npattern = "\\\\[\\\\[([0-9.]+)\\\\]\\\\]"'
PROMPT = "{{ question }} {{ references[0] }} {{ reply }}"


def judge(options: str = SCALE, prompt: str = PROMPT) -> Judge:
    text = (
        'name = "t"\nversion = "1"\nkind = "generate"\n[prompt]\ntext = "{{ question }}"\n'
        f'[[scorer]]\nkind = "judge"\nname = "good"\nprompt = {json.dumps(prompt)}\n{options}\n'
    )
    (made,) = make_scorers(read_task(text, "t.toml"), allow_code=False)
    assert isinstance(made, Judge)
    return made


def answer(reply: str = "mine") -> Answer:
    return Answer(reply, reply, ("right",), {"question": "What?"})


def test_what_is_asked_is_the_row_the_references_and_the_reply() -> None:
    assert judge().question(answer()) == "What? right mine"


def test_a_reply_is_no_template() -> None:
    assert judge().question(answer("{{ question }}{% if %}")) == "What? right {{ question }}{% if %}"


def test_a_template_that_fails_fails_its_item() -> None:
    with pytest.raises(ScorerFailed, match="prompt: 'rubric' is undefined"):
        judge(prompt="{{ rubric }}").question(answer())
    with pytest.raises(ScorerFailed, match="prompt: the text is empty"):
        judge(prompt="{{ '' }}").question(answer())


@pytest.mark.parametrize(
    ("options", "reply", "score"),
    [
        (SCALE, "I give it 7.", 6 / 9),
        (SCALE, "Out of 10, this is a 1", 0.0),
        (SCALE, "10", 1.0),
        (SCALE, "4.6", 0.4),
        ("min = -1\nmax = 1", "-1", 0.0),
        ("min = 0.1\nmax = 0.3", "0.2", 0.5),  # in fractions: no rounding before the end
        (MARKED, "Of 9 points I give [[5.5]], not 10.", 0.5),
        (LETTERS, "My verdict is (C)", 0.5),
        (LETTERS, "The better answer: A", 1.0),
        ('values = {good = 1, bad = 0}\nverdict = "regex"\npattern = "(good|bad)"', "It is bad.", 0.0),
        ("values = {1 = 1, 0 = 0}", "0, or rather 1", 1.0),
    ],
)
def test_a_verdict_becomes_a_score(options: str, reply: str, score: float) -> None:
    assert judge(options).verdict(reply).value == score


@pytest.mark.parametrize(
    ("options", "reply", "said"),
    [
        (SCALE, "I can't say.", "no verdict in the judge's reply: I can't say."),
        (SCALE, "", "no verdict in the judge's reply: nothing"),
        (SCALE, "11", "the judge's verdict 11 is not a number from 1 to 10"),
        (SCALE, "0", "the judge's verdict 0 is not a number from 1 to 10"),
        (SCALE, "1e999", "no verdict|is not a number"),
        (MARKED, "10", "no verdict"),
        (LETTERS, "D", "no verdict"),
        ("values = {1 = 1, 0 = 0}", "2", "the judge's verdict 2 is none of 1, 0"),
        (SCALE + '\nverdict = "regex"\npattern = "(.*)"', "x" * 300, "is not a number"),
    ],
)
def test_no_verdict_is_no_score(options: str, reply: str, said: str) -> None:
    with pytest.raises(ScorerFailed, match=said) as caught:
        judge(options).verdict(reply)
    assert len(str(caught.value)) < 200


def test_what_can_be_said_of_its_scores() -> None:
    assert not judge(SCALE).is_proportion
    assert not judge(LETTERS).is_proportion
    assert judge("values = {1 = 1, 0 = 0}").is_proportion
    assert (judge().is_code, judge().worst, judge().model, judge().max_tokens) == (
        False,
        0.0,
        None,
        MAX_TOKENS,
    )
    assert judge(SCALE + '\nmodel = "m"\nmax_tokens = 5').model == "m"


def test_without_replies_it_fails() -> None:
    with pytest.raises(ScorerFailed, match="its judge has not been asked"):
        judge().score(answer())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "min is missing"),
        ("min = 1", "max is missing"),
        ("min = 2\nmax = 2", "max must be above min"),
        ("min = 1\nmax = inf", "can't be inf|max must be a number"),
        ('min = "1"\nmax = 2', "min must be a number"),
        ("values = {A = 2}", "values gives 'A' the value 2, not one from 0 to 1"),
        ("values = {A = true}", "values gives 'A' the value True"),
        ("values = {}", "values is empty"),
        ("values = {A = 1}\nmax = 2", "max has no meaning where values says"),
        ('verdict = "letter"\n' + SCALE, "verdict is letter: values must say"),
        ('verdict = "letter"\nvalues = {AB = 1}', "verdict is letter: values must say"),
        ('verdict = "mood"\n' + SCALE, "verdict must be last_number, letter or regex"),
        ('verdict = "regex"\n' + SCALE, "pattern is missing"),
        ('verdict = "regex"\npattern = "("\n' + SCALE, r"\[\[scorer\]\] 1 pattern"),
        ('pattern = "x"\n' + SCALE, "pattern has no meaning for the verdict last_number"),
        (SCALE + "\nmax_tokens = 0", "max_tokens must be a whole number"),
    ],
)
def test_bad_options_are_one_line(options: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        judge(options)
    assert caught.value.message.startswith("t.toml: [[scorer]] 1 ")
    assert "\n" not in caught.value.message
