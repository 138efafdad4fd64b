"""Items: what each kind asks, with the chat template and without, with examples and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.items import read_items
from infer_cli.evaluation.tasks.rendering import item_from
from infer_cli.evaluation.tasks.selection import Selection
from tests.evaluation.tasks.examples import CHOICE, GENERATE, HEAD, ROWS, items_of, task_of, write_rows

SHOTS = '[fewshot]\nn = 1\nanswer = "{{ a }}"\n'
RAW = GENERATE.replace('text = "{{ q }}"', 'text = "Q: {{ q }}\\nA:"\nchat = false')


def test_generate_in_a_chat(tmp_path: Path) -> None:
    item = items_of(GENERATE, tmp_path)[1]
    assert item.rows == ({"custom_id": "1", "prompt": "question 1"},)
    assert (item.index, item.id, item.references) == (1, "1", ("answer 1",))
    item = items_of(GENERATE + SHOTS, tmp_path)[1]
    user, assistant = {"role": "user"}, {"role": "assistant"}
    assert item.rows == (
        {
            "custom_id": "1",
            "messages": [
                {**user, "content": "question 0"},
                {**assistant, "content": "answer 0"},
                {**user, "content": "question 1"},
            ],
        },
    )


def test_messages_and_a_system_message_that_stands_first_once(tmp_path: Path) -> None:
    text = GENERATE.replace(
        'text = "{{ q }}"',
        'messages = [{ role = "system", content = "Be brief." }, { role = "user", content = "{{ q }}" }]',
    )
    expected = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "question 0"},
        {"role": "assistant", "content": "answer 0"},
        {"role": "user", "content": "question 1"},
    ]
    assert items_of(text + SHOTS, tmp_path)[1].rows[0]["messages"] == expected
    text = GENERATE.replace("[answer]", 'system = "Be brief."\n[answer]')
    assert items_of(text + SHOTS, tmp_path)[1].rows[0]["messages"] == expected
    assert items_of(text, tmp_path)[1].rows[0]["messages"] == [expected[0], expected[3]]


def test_generate_without_the_chat_template(tmp_path: Path) -> None:
    assert items_of(RAW, tmp_path)[1].rows == ({"custom_id": "1", "prompt": "Q: question 1\nA:"},)
    prompt = items_of(RAW + SHOTS, tmp_path)[1].rows[0]["prompt"]
    assert prompt == "Q: question 0\nA: answer 0\n\nQ: question 1\nA:"
    text = RAW.replace("[answer]\n", '[answer]\ndelimiter = "_"\n') + SHOTS + 'separator = "|"\n'
    assert items_of(text, tmp_path)[1].rows[0]["prompt"] == "Q: question 0\nA:_answer 0|Q: question 1\nA:"
    assert items_of(GENERATE, tmp_path, chat=False)[0].rows == ({"custom_id": "0", "prompt": "question 0"},)


def test_seeds_are_rows_of_an_item(tmp_path: Path) -> None:
    assert items_of(GENERATE, tmp_path, seeds=(3, 8))[2].rows == (
        {"custom_id": "2@3", "prompt": "question 2", "seed": 3},
        {"custom_id": "2@8", "prompt": "question 2", "seed": 8},
    )


def test_references_of_any_number(tmp_path: Path) -> None:
    text = GENERATE.replace('["{{ a }}"]', '"{{ a | tojson }}"')
    items = items_of(text, tmp_path, [{"q": "x", "a": ["one", "two"]}, {"q": "y", "a": []}])
    assert [item.references for item in items] == [("one", "two"), ()]


CHOICES = CHOICE + "choices = '{{ c | tojson }}'\ngold = '{{ g }}'\n"
QUESTIONS: list[dict[str, object]] = [
    {"q": "Which?", "c": ["red", "blue"], "g": 1},
    {"q": "What?", "c": ["up", "down", "left"], "g": "A"},
    {"q": "Who?", "c": ["he", "she"], "g": "she"},
]


def test_choices(tmp_path: Path) -> None:
    items = items_of(CHOICES, tmp_path, QUESTIONS)
    assert [item.gold for item in items] == [1, 0, 1]
    assert items[0].rows == (
        {"custom_id": "0/0", "context": "Which?", "continuation": " red"},
        {"custom_id": "0/1", "context": "Which?", "continuation": " blue"},
    )
    assert (items[0].choices, items[0].references) == (("red", "blue"), ("blue",))
    assert len(items[1].rows) == 3
    items = items_of(CHOICES, tmp_path, QUESTIONS, chat=True)
    messages = [{"role": "user", "content": "Which?"}]
    assert items[0].rows[1] == {"custom_id": "0/1", "messages": messages, "continuation": "blue"}
    alone = CHOICES.replace('[prompt]\ntext = "{{ q }}"\n', "")
    assert items_of(alone, tmp_path, QUESTIONS)[0].rows[0]["context"] == ""


def test_choices_with_examples(tmp_path: Path) -> None:
    text = CHOICES + "[fewshot]\nn = 1\nanswer = '{{ c[0] }}'\n"
    row = items_of(text, tmp_path, QUESTIONS)[1].rows[0]
    assert row == {"custom_id": "1/0", "context": "Which? red\n\nWhat?", "continuation": " up"}


def test_the_same_question_with_other_choices_is_another_item(tmp_path: Path) -> None:
    rows = [{"q": "Which?", "c": [f"a{i}", f"b{i}"], "g": 0} for i in range(3)]
    text = CHOICES + "[fewshot]\nn = 2\nanswer = '{{ c[0] }}'\n"
    assert [item.fewshot for item in items_of(text, tmp_path, rows)] == [("1", "2"), ("0", "2"), ("0", "1")]


def test_likelihoods_pairs_and_texts(tmp_path: Path) -> None:
    rows = [{"x": "The sky is", "y": " blue", "z": " green"}]
    text = HEAD.format(kind="likelihood") + '[prompt]\ntext = "{{ x }}"\n[answer]\ncontinuation = "{{ y }}"\n'
    (item,) = items_of(text, tmp_path, rows)
    assert item.rows == ({"custom_id": "0", "context": "The sky is", "continuation": " blue"},)
    assert (item.choices, item.gold) == ((" blue",), None)
    text = HEAD.format(kind="minimal_pairs") + '[answer]\ngood = "{{ x + y }}"\nbad = "{{ x + z }}"\n'
    (item,) = items_of(text, tmp_path, rows)
    assert item.rows == (
        {"custom_id": "0/0", "context": "", "continuation": "The sky is blue"},
        {"custom_id": "0/1", "context": "", "continuation": "The sky is green"},
    )
    assert (item.choices, item.gold) == (("The sky is blue", "The sky is green"), 0)
    text = HEAD.format(kind="perplexity") + '[answer]\ntext = "{{ x }}"\n'
    long = " ".join(["word"] * 1000)
    short, item = items_of(text, tmp_path, [{"x": "a text"}, {"x": long}])
    assert short.rows == ({"custom_id": "0", "context": "", "continuation": "a text"},)
    pieces = [str(row["continuation"]) for row in item.rows]
    assert "".join(pieces) == long and len(pieces) == 3
    assert [row["context"] for row in item.rows] == ["", *pieces[:-1]]
    assert [row["custom_id"] for row in item.rows] == ["1/0", "1/1", "1/2"]


def test_ids_groups_and_clusters(tmp_path: Path) -> None:
    rows = [
        {"q": "x", "a": "y", "set": "s", "n": 1, "of": 2.5},
        {"q": "x", "a": "y", "set": "s", "n": 2, "of": 3},
    ]
    text = GENERATE + '[data]\nid = ["set", "n"]\ngroup = "set"\ncluster = "of"\n'
    items = items_of(text, tmp_path, rows)
    assert [(item.id, item.group, item.cluster) for item in items] == [("s-1", "s", "2.5"), ("s-2", "s", "3")]


def test_an_item_is_made_again_of_its_row_and_examples(tmp_path: Path) -> None:
    task = task_of(GENERATE + SHOTS + 'draw = "seeded"\n', tmp_path)
    selection = Selection(data=write_rows(tmp_path, ROWS), n_fewshot=3)
    items = read_items(task, selection)
    by_id = {example["id"]: example for example in items.examples}
    for item in items.items():
        examples = [by_id[id_] for id_ in item.fewshot]
        assert item_from(task, selection, item.index, item.id, item.doc, examples) == item
    changed = {**ROWS[0], "q": "another"}
    assert item_from(task, selection, 0, "0", changed, []) != next(items.items())


@pytest.mark.parametrize(
    ("text", "said", "what"),
    [
        (GENERATE, {"n_fewshot": 1}, "has no \\[fewshot\\]"),
        (GENERATE + SHOTS, {"fewshot_seed": 1}, "its examples are fixed"),
        (CHOICES, {"seeds": (1,)}, "--seeds has no meaning"),
        (
            GENERATE.replace("[answer]", 'system = "x"\n[answer]'),
            {"chat": False},
            "it has \\[prompt\\] system",
        ),
        (HEAD.format(kind="perplexity") + '[answer]\ntext = "x"\n', {"chat": True}, "asks nothing of a chat"),
    ],
)
def test_flags_that_have_no_meaning(text: str, said: dict[str, object], what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=what):
        items_of(text, tmp_path, QUESTIONS, **said)
