"""Which samples a page has, and how much of their texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.report import shown_samples as shown
from infer_cli.evaluation.report.shown_samples import (
    Text,
    most_chars,
    prompt_texts,
    shortened_text,
    shown_samples,
)
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.reading import Run, read_run
from tests.evaluation.comparing.run_folders import Answered, right, write_run


def run_of(tmp_path: Path, items: Sequence[Answered]) -> Run:
    return read_run(write_run(tmp_path / "run", items))


def test_each_sample_says_what_came_of_it(tmp_path: Path) -> None:
    items = [
        *right(1.0, 0.0),
        Answered("e", [{"exact": 0.0}], outcomes=["error"], answer=None, extracted=[None]),
        Answered("f1", [{"exact": 0.5}]),
        Answered("bits", [{"exact": 7.5}]),
    ]
    found = shown_samples([run_of(tmp_path, items)])
    assert [row["status"] for row in found.rows] == ["right", "wrong", "error", "wrong", "scored"]
    assert found.rows[0]["texts"] == [
        Text("prompt", "How much is 0 and 0?"),
        Text("answer", "It is 0."),
        Text("extracted", "it"),
    ]
    assert found.rows[0]["scores"] == [("exact", "1", "")]
    assert [row["line"] for row in found.rows] == [1, 2, 3, 4, 5]
    assert not any(row["cut"] for row in found.rows)


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    text = shortened_text("a" * 100 + "b" * 900 + "c" * 200, 300)
    assert text == "a" * 100 + "\n[… 900 characters are left out …]\n" + "c" * 200
    assert shortened_text("x" * 300, 300) == "x" * 300


@pytest.mark.parametrize("n", [1, 50, 5_000, 100_000])
def test_all_texts_of_a_page_have_room(n: int) -> None:
    lengths = [30_000] * n
    most = most_chars(lengths)
    assert sum(min(length, most) for length in lengths) <= shown.MOST_CHARS or most == 250
    assert most == {1: 20_000, 50: 20_000, 5_000: 2_500, 100_000: 250}[n]


def test_right_ones_are_left_out_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "MOST_ROWS", 3)
    found = shown_samples([run_of(tmp_path, right(1.0, 1.0, 0.0, 1.0, 0.0))])
    assert [row["item"] for row in found.rows] == ["0", "2", "4"]
    assert found.n_left_out == 2


def test_a_cut_row_says_where_the_whole_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "MOST_CHARS", 1_000)
    found = shown_samples(
        [run_of(tmp_path, [*right(1.0), Answered("long", [{"exact": 1.0}], answer="x" * 5_000)])]
    )
    assert [(row["line"], row["cut"]) for row in found.rows] == [(1, False), (2, True)]
    assert found.most == 500


def test_messages_are_shown_with_their_roles() -> None:
    prompt = [{"role": "user", "content": "hi"}, {"role": "tool", "content": [{"n": 1}]}, 5]
    assert list(prompt_texts(prompt)) == [
        Text("prompt, user", "hi"),
        Text("prompt", '{"role": "tool", "content": [{"n": 1}]}'),
        Text("prompt", "5"),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("answer", 5), ("group", []), ("outcome", "fine"), ("prompt", None), ("references", [1]),
        ("gold", "a"), ("n_tokens", -1), ("explanations", {"exact": 1}), ("error", "x"), ("extracted", {}),
        ("choices", [{"text": "a", "logprob": "b", "n_tokens": 1, "n_bytes": 1, "greedy": None}]),
    ],
)  # fmt: skip
def test_a_value_that_is_none_of_a_sample_is_named(tmp_path: Path, name: str, value: object) -> None:
    folder = RunFolder(write_run(tmp_path / "run", right(1.0, 0.0)))
    first, second = folder.samples.read_text().splitlines()
    folder.samples.write_text(f"{first}\n{json.dumps({**json.loads(second), name: value})}\n")
    with pytest.raises(UsageError, match=f"line 2 is no sample: its {name}"):
        shown_samples([read_run(folder.path)])
