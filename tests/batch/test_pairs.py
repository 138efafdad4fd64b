"""Rows of likelihoods on their way to the engine: as ids, in order, and what is counted of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infer_cli.backend.fake import CHAT_TEMPLATE, FakeVocab
from infer_cli.batch.job import job_path
from infer_cli.batch.job_reading import read_job
from infer_cli.batch.late_template import NoTemplate
from infer_cli.batch.neighbours import LookAhead, neighbours_together
from infer_cli.batch.pair_preparing import PairDefaults, PairPreparer
from infer_cli.batch.pair_tally import PairTally
from infer_cli.batch.pairs import PairPolicy, PreparedPair
from infer_cli.batch.rows import PAIRS, Input
from infer_cli.errors import ContextOverflow, InferError, UsageError
from infer_cli.prompt.template import ChatTemplate
from tests.batch_helpers import write_rows
from tests.cli_helpers import infer
from tests.prompt.test_template import NOW


class NoEnds(FakeVocab):
    """Has neither BOS nor EOS."""

    eos = None


class Swallowing(FakeVocab):
    """Has one token for any text."""

    def tokenize(self, text: bytes) -> list[int]:
        return [len(text)] if text else []


def preparer(
    vocab: FakeVocab | None = None,
    *,
    window: int = 100,
    overflow: PairPolicy = "error",
    has_template: bool = True,
) -> PairPreparer:
    def load() -> ChatTemplate:
        if not has_template:
            raise UsageError("no template")
        return ChatTemplate(CHAT_TEMPLATE, bos="", eos="", now=NOW)

    return PairPreparer(PairDefaults(overflow=overflow), vocab or FakeVocab(), load, window)


def prepared(tmp_path: Path, row: dict[str, object], by: PairPreparer | None = None) -> PreparedPair:
    rows = write_rows(tmp_path / "in.jsonl", row)
    (read,) = Input(str(rows), "jsonl", shape=PAIRS).rows()
    return (by or preparer()).prepare(read)


def test_a_pair_asks_for_its_continuation(tmp_path: Path) -> None:
    asked = prepared(tmp_path, {"context": "ab", "continuation": "cde"})
    (request,) = asked.requests(0)
    assert (bytes(request.ids), request.first, request.id) == (b"abcde", 2, "0-0")
    assert (bytes(asked.prompt_ids), asked.n_score_window, asked.n_window) == (b"abcd", 4, 0)
    assert (asked.n_dropped, asked.truncation, asked.is_sampled) == (0, None, False)


def test_the_window_holds_all_but_the_last_token(tmp_path: Path) -> None:
    row: dict[str, object] = {"context": "a" * 50, "continuation": "b" * 51}
    assert prepared(tmp_path, row).n_score_window == 100
    row["context"] = "a" * 51
    with pytest.raises(ContextOverflow):
        prepared(tmp_path, row)
    cut = prepared(tmp_path, row, preparer(overflow="truncate-left"))
    assert (cut.n_dropped, cut.n_score_window) == (1, 100)


@pytest.mark.parametrize(
    ("row", "vocab", "words"),
    [
        ({"context": "", "continuation": "x"}, NoEnds(), "neither BOS nor EOS"),
        ({"context": "  ", "continuation": "x"}, NoEnds(), "neither BOS nor EOS"),
        ({"context": "ab", "continuation": "c"}, Swallowing(), "no tokens of its own"),
    ],
)
def test_what_a_vocabulary_can_not_score(
    tmp_path: Path, row: dict[str, object], vocab: FakeVocab, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        prepared(tmp_path, row, preparer(vocab))
    if isinstance(vocab, NoEnds):
        assert prepared(tmp_path, {**row, "context": "a"}, preparer(vocab)).n_score_window == 1


def test_rows_without_messages_need_no_template(tmp_path: Path) -> None:
    bare = preparer(has_template=False)
    assert prepared(tmp_path, {"context": "a", "continuation": "b"}, bare)
    with pytest.raises(NoTemplate, match="no template"):
        prepared(tmp_path, {"messages": [{"role": "user", "content": "x"}], "continuation": "b"}, bare)


def test_a_job_of_likelihoods_whose_rows_need_a_template_that_is_not_there(tmp_path: Path) -> None:
    template = tmp_path / "none.jinja"
    rows = write_rows(tmp_path / "in.jsonl", {"context": "a", "continuation": "b"})
    done = infer("score", "-m", "fake", rows, "-o", tmp_path / "out", "--chat-template", template)
    assert done.code == 2 and str(template) in done.err


def test_few_tokens_are_looked_at_ahead() -> None:
    def key(item: int) -> tuple[int, ...]:
        return (item % 3,) * 10

    found = list(neighbours_together(iter(range(1000)), key, LookAhead(10_000, 300)))
    assert sorted(found) == list(range(1000))
    assert all(abs(place - item) < 60 for place, item in enumerate(found))
    long_first = [100, *[1] * 200]
    by_length = list(
        neighbours_together(iter(enumerate(long_first)), lambda item: (0,) * item[1], LookAhead(1000, 100))
    )
    assert len(by_length) == 201


def test_what_is_counted_of_pairs() -> None:
    tally = PairTally(3, 3, 1)
    for ids in ((1, 2, 3), (1, 2, 4), (1, 5)):
        tally.begin(ids)
    assert tally.n_distinct == 3 + 1 + 1
    tally.n_prompt, tally.n_cached, tally.n_done = 8, 3, 3
    found = tally.as_json(2.0)
    assert found["tokens"] == {"asked": 8, "distinct": 5, "evaluated": 5}
    assert (found["shared_factor"], found["repeated_factor"], found["pairs_per_s"]) == (1.6, 1.0, 1.5)
    assert "5 of 8 tokens were evaluated, 1.00 times the 5 that are distinct" in tally.in_words(2.0)[2]
    assert PairTally(0, 0, 1).as_json(0.0)["shared_factor"] is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("kind", "songs", "kind is 'songs'"),
        ("kind", "replies", "params.overflow is 'truncate-left'"),
        ("kind", None, "params.overflow is 'truncate-left'"),
    ],
)
def test_a_job_file_of_another_kind(tmp_path: Path, name: str, value: object, words: str) -> None:
    rows = write_rows(tmp_path / "in.jsonl", {"context": "a", "continuation": "b"})
    out = tmp_path / "out"
    assert infer("score", "-m", "fake", rows, "-o", out, "--overflow", "truncate-left").code == 0
    job = read_job(out)
    assert job is not None and job.kind == "likelihoods"
    values = json.loads(job_path(out).read_text())
    if value is None:
        del values[name]
    else:
        values[name] = value
    job_path(out).write_text(json.dumps(values))
    with pytest.raises(InferError, match=words):
        read_job(out)
