"""Items of two programs are the same where the row and the words of the prompt are."""

from __future__ import annotations

import json

import pytest

from infer_cli.evaluation.comparing.likeness import likeness_of, said

QUESTION = "How much is 1 and 1?"
USER = [{"role": "user", "content": QUESTION}]


@pytest.mark.parametrize(
    "prompt",
    [
        QUESTION,
        f"  {QUESTION}\n",
        USER,
        json.dumps(USER),
        [{"role": "system", "content": "Be brief."}, *USER],
        [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
        f"<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n",
        f"<bos><start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday.<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ],
)
def test_one_question_however_it_is_written(prompt: object) -> None:
    assert said(prompt) == QUESTION


def test_several_turns_are_told_by_role_and_text() -> None:
    turns = [*USER, {"role": "assistant", "content": "2"}, {"role": "user", "content": "And 2?"}]
    rendered = (
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\nAnd 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert said(turns) == said(rendered) != said(USER)
    assert said([turns[0], turns[2]]) != said(turns)


def test_a_text_that_only_speaks_of_templates_is_itself() -> None:
    text = "What does <|im_start|>user\nhi<|im_end|> mean?"
    assert said(text) == text
    assert said('[{"not": json') == '[{"not": json'


def test_rows_are_told_by_what_they_hold() -> None:
    first = likeness_of({"a": 1, "b": "x"}, "p")
    assert likeness_of({"b": "x", "a": 1, "c": None}, "p") == first
    assert likeness_of({"a": 2, "b": "x"}, "p") != first
    assert likeness_of({"a": 1, "b": "x"}, "q") != first
    assert likeness_of(None, "p").document is None
