"""Items of a run: which rows are selected, ids, and the files that they are written to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer_cli.batch.rows import PAIRS, PROMPTS, Input
from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.item import Item
from infer_cli.evaluation.tasks.item_file import read_item_lines, read_written_items, write_items
from infer_cli.evaluation.tasks.items import read_items
from infer_cli.evaluation.tasks.loading import load_task
from infer_cli.evaluation.tasks.selection import Selection
from tests.cli_helpers import REPO
from tests.evaluation.tasks.examples import CHOICE, GENERATE, ROWS, items_of, task_of, write_rows

DATA = Path(os.environ.get("INFER_TEST_DATA", REPO.parent / "shared" / "data"))
BY_Q = GENERATE + '[data]\nid = "q"\n'


def test_limit_and_ids(tmp_path: Path) -> None:
    assert [item.id for item in items_of(GENERATE, tmp_path, limit=2)] == ["0", "1"]
    assert [item.id for item in items_of(GENERATE, tmp_path, limit=99)] == ["0", "1", "2", "3", "4"]
    items = items_of(BY_Q, tmp_path, ids=("question 3", "question 1"))
    assert [(item.index, item.id) for item in items] == [(0, "question 1"), (1, "question 3")]
    assert [item.id for item in items_of(BY_Q, tmp_path, ids=("question 3", "question 1"), limit=1)] == [
        "question 1"
    ]
    selection = Selection(data=write_rows(tmp_path, ROWS), limit=2)
    items_set = read_items(task_of(GENERATE, tmp_path), selection)
    assert (items_set.n_all, items_set.n) == (5, 2)
    assert items_set.data_sha256 == hashlib.sha256(Path(items_set.data_path).read_bytes()).hexdigest()
    with pytest.raises(UsageError, match=r"--ids: \S+ has no item 'none'"):
        items_of(BY_Q, tmp_path, ids=("question 1", "none"))


def test_ids_that_are_there_twice(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"data.jsonl: row 5 has the id 'question 2', which is another row's"
    ):
        items_of(BY_Q, tmp_path, [*ROWS, ROWS[2]], limit=1)
    choice = CHOICE + 'choices = ["a", "b"]\ngold = "0"\n[data]\nid = "q"\n'
    for twin in ("x/0", "x@12"):
        with pytest.raises(UsageError, match="the second could be a row of the first item"):
            items_of(choice, tmp_path, [{"q": twin}, {"q": "x"}])
    assert len(items_of(choice, tmp_path, [{"q": "x/0"}, {"q": "y"}])) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"a": "x"}, "row 5 has no field 'q'"),
        ({"q": None, "a": "x"}, "row 5: its field 'q', which is needed by"),
        ({"q": "", "a": "x"}, ", is empty"),
        ({"q": ["x"], "a": "x"}, ", is not a text or a number"),
    ],
)
def test_an_id_that_is_none(row: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        items_of(BY_Q, tmp_path, [*ROWS, row])
    assert said in raised.value.message
    assert "t.toml: [data] id" in raised.value.message


def test_a_group_that_a_row_has_not(tmp_path: Path) -> None:
    for key in ("group", "cluster"):
        said = rf"row 0 has no field 'topic', which is needed by .*t.toml: \[data\] {key}"
        with pytest.raises(UsageError, match=said):
            items_of(GENERATE + f'[data]\n{key} = "topic"\n', tmp_path)


def test_data_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no rows"):
        items_of(GENERATE, tmp_path, [])
    with pytest.raises(UsageError, match="the task gsm8k has no data of its own"):
        read_items(load_task("gsm8k"), Selection())


def test_a_path_of_a_task_is_beside_its_file(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS, "own.jsonl")
    task = task_of(GENERATE + '[data]\npath = "own.jsonl"\n', tmp_path)
    assert read_items(task, Selection()).n_all == 5
    other = write_rows(tmp_path, ROWS[:2], "other.jsonl")
    assert read_items(task, Selection(data=other)).n_all == 2


# --- files ----------------------------------------------------------------------------------------


def test_items_are_written_and_read_again(tmp_path: Path) -> None:
    text = GENERATE + '[fewshot]\nn = 1\nanswer = "{{ a }}"\n[data]\ngroup = "q"\n'
    items = items_of(
        text, tmp_path, [{"q": "é\u2028", "a": "x\ny"}, {"q": "=1", "a": "y", "n": 0.1}], seeds=(1, 2)
    )
    paths = tmp_path / "items.jsonl", tmp_path / "requests.jsonl"
    written = write_items(iter(items), *paths)
    assert (written.n_items, written.n_rows) == (2, 4)
    assert written.sha256 == hashlib.sha256(paths[0].read_bytes()).hexdigest()
    assert list(read_written_items(*paths)) == items
    lines = list(read_item_lines(paths[0]))
    assert [line.n_rows for line in lines] == [2, 2] and lines[0].doc == items[0].doc
    assert write_items(iter(items), *paths) == written, "the same bytes"
    rows = list(Input(str(paths[1]), "jsonl", shape=PROMPTS).rows())
    assert [row.custom_id for row in rows] == ["0@1", "0@2", "1@1", "1@2"]
    assert not any(row.error for row in rows)
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_what_fails_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    paths = tmp_path / "items.jsonl", tmp_path / "requests.jsonl"
    write_items(items_of(GENERATE, tmp_path), *paths)
    before = [path.read_bytes() for path in paths]

    def failing() -> Iterator[Item]:
        yield items_of(GENERATE, tmp_path)[0]
        raise UsageError("row 1")

    with pytest.raises(UsageError, match="row 1"):
        write_items(failing(), *paths)
    assert [path.read_bytes() for path in paths] == before
    assert {path.name for path in tmp_path.iterdir()} == {"items.jsonl", "requests.jsonl", "data.jsonl"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index": -1}, "line 1 is not an item's"),
        ({"n_rows": True}, "line 1 is not an item's"),
        ({"references": "x"}, "line 1 is not an item's"),
        ({"more": 1}, "line 1 is not an item's"),
        ({"doc": {"q": "other"}}, "line 1: the digest of its doc is not the one beside it"),
        ({"n_rows": 9}, "has fewer rows than"),
        ({"n_rows": 0}, "has more rows than"),
    ],
)
def test_an_edited_file(change: dict[str, object], said: str, tmp_path: Path) -> None:
    paths = tmp_path / "items.jsonl", tmp_path / "requests.jsonl"
    write_items(items_of(GENERATE, tmp_path), *paths)
    first, *rest = paths[0].read_text("utf-8").splitlines()
    paths[0].write_text("\n".join([json.dumps({**json.loads(first), **change}), *rest]) + "\n", "utf-8")
    with pytest.raises(UsageError, match=said):
        list(read_written_items(*paths))


# --- the shipped tasks over public data -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "n", "n_rows", "id_", "group", "reference"),
    [
        ("gsm8k", "gsm8k/train_200.jsonl", 200, 200, "0", None, "72"),
        ("mt_bench", "mt_bench/question.jsonl", 80, 80, "81", "writing", None),
        ("blimp", "blimp/wh_island.jsonl", 1000, 2000, "wh_island-0", "wh_island",
         "Who have those men revealed they helped?"),
        ("perplexity", "wikitext2/valid.txt", 1, 705, "0", None, None),
    ],
)  # fmt: skip
def test_shipped_tasks_read_their_data(
    name: str,
    path: str,
    n: int,
    n_rows: int,
    id_: str,
    group: str | None,
    reference: str | None,
    tmp_path: Path,
) -> None:
    items = read_items(load_task(name), Selection(data=str(DATA / path)))
    paths = tmp_path / "items.jsonl", tmp_path / "requests.jsonl"
    written = write_items(items.items(), *paths)
    assert (items.n_all, written.n_items, written.n_rows) == (n, n, n_rows)
    first = next(read_written_items(*paths))
    assert (first.id, first.group) == (id_, group)
    assert first.references[:1] == (() if reference is None else (reference,))
    shape = PROMPTS if name in ("gsm8k", "mt_bench") else PAIRS
    rows = list(Input(str(paths[1]), "jsonl", shape=shape).rows())
    assert len(rows) == n_rows and not any(row.error for row in rows)


def test_examples_of_gsm8k_have_no_notes_for_a_calculator() -> None:
    items = read_items(
        load_task("gsm8k"), Selection(data=str(DATA / "gsm8k/train_200.jsonl"), n_fewshot=5, limit=3)
    )
    for item in items.items():
        messages = item.rows[0]["messages"]
        assert isinstance(messages, list) and len(messages) == 11
        assert not any("<<" in message["content"] for message in messages)
        assert all("\n#### " in message["content"] for message in messages[1::2])
