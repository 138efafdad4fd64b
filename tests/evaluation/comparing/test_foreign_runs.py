"""Samples of lm-evaluation-harness and logs of inspect, as runs compared with ours and each other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.any_runs import read_runs
from infer_cli.evaluation.comparing.comparable import ComparableRun
from infer_cli.evaluation.comparing.matching import pair_items
from tests.cli_helpers import infer
from tests.evaluation.comparing.foreign_files import (
    HEADER,
    harness_sample,
    inspect_sample,
    write_harness,
    write_log,
)
from tests.evaluation.formats.made_runs import KINDS, log_path, make_run


def one(path: Path) -> ComparableRun:
    (run,) = read_runs(path)
    return run


def scores(run: ComparableRun, name: str = "exact") -> list[float]:
    metric = run.metric(name)
    assert metric is not None and metric.missing is None
    return [metric.of(place) for place in range(len(run.ids))]


def test_samples_of_the_harness(tmp_path: Path) -> None:
    more = {"metrics": ["exact", "loss", "words"], "loss": 0.5, "words": ["not", "a", "number"]}
    path = write_harness(tmp_path / "out", [harness_sample(i, i % 2 == 0, **more) for i in range(3)])
    run = one(path)
    assert (run.task, run.model, run.ids) == ("sums", "theirs", ["0", "1", "2"])
    assert scores(run) == [1, 0, 1] and run.metrics[0].higher_is_better
    assert scores(run, "loss") == [0.5] * 3 and not run.metrics[1].higher_is_better
    assert run.metrics[2].missing == "3 of its values are no numbers"
    assert run.asked(1) == ("How much is 1?", "one")
    assert run.made_by == {"program": "lm_eval 0.4.13", "mode": "fast"}
    assert one(tmp_path / "out").ids == run.ids
    assert one(tmp_path).ids == run.ids


def test_filters_are_metrics_of_their_own(tmp_path: Path) -> None:
    lines = [harness_sample(i, float(f == "strict"), filter=f) for f in ("strict", "loose") for i in (0, 1)]
    run = one(write_harness(tmp_path / "out", lines))
    assert [metric.name for metric in run.metrics] == ["exact,strict", "exact,loose"]
    assert scores(run, "exact,strict") == [1, 1] and scores(run, "exact,loose") == [0, 0]


def test_bits_are_taken_over_bytes(tmp_path: Path) -> None:
    sample = harness_sample(
        0, 0, metrics=["bits_per_byte", "word_perplexity"], bits_per_byte=[-8 * math.log(2), 4],
        word_perplexity=[-3.0, 2],
    )  # fmt: skip
    run = one(write_harness(tmp_path / "out", [sample]))
    assert scores(run, "bits_per_byte") == [2.0] and not run.metrics[0].higher_is_better
    assert run.metrics[1].missing == "it is not a mean over items"


def test_the_likeliest_choice_is_the_answer(tmp_path: Path) -> None:
    arguments = {f"gen_args_{i}": {"arg_0": "q", "arg_1": text} for i, text in enumerate([" a", " b"])}
    sample = harness_sample(0, 1, arguments=arguments, filtered_resps=[["-3.0", "False"], ["-1.0", "True"]])
    assert one(write_harness(tmp_path / "out", [sample])).asked(0) == ("q", "b")


@pytest.mark.parametrize("name", ["log.eval", "log.json"])
def test_logs_of_inspect(name: str, tmp_path: Path) -> None:
    samples = [inspect_sample(i, grade) for i, grade in enumerate(["C", "I", "P", 0.25, True])]
    run = one(write_log(tmp_path / name, samples))
    assert (run.task, run.model, run.ids) == ("sums", "infer/theirs", ["0", "1", "2", "3", "4"])
    assert scores(run) == [1, 0, 0.5, 0.25, 1]
    assert run.asked(1) == ("How much is 1?", "one")


def test_epochs_are_meant_and_what_failed_is_left_out(tmp_path: Path) -> None:
    samples = [inspect_sample(0, "C"), inspect_sample(0, "I", epoch=2), inspect_sample(1, "C", scores=None)]
    metric = one(write_log(tmp_path / "log.eval", samples)).metrics[0]
    assert metric.scores[0] == 0.5 and np.isnan(metric.scores[1])


def test_scores_of_several_values(tmp_path: Path) -> None:
    run = one(write_log(tmp_path / "log.eval", [inspect_sample(0, {"a": 1, "b": [1]})]))
    assert scores(run, "exact/a") == [1]
    missing = run.metric("exact/b")
    assert missing is not None and missing.missing == "1 of its values are no numbers"


def test_long_texts_that_inspect_keeps_apart(tmp_path: Path) -> None:
    sample = inspect_sample(0, "C", attachments={"abc": "How much is 0?"})
    sample["messages"][0]["content"] = "attachment://abc"
    runs = [
        one(write_log(tmp_path / f"{i}.eval", [each]))
        for i, each in enumerate([sample, inspect_sample(0, "C")])
    ]
    assert runs[0].contents == runs[1].contents


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_files_are_the_run_again(kind: str, tmp_path: Path) -> None:
    made = make_run(tmp_path, kind)
    run = one(made)
    for path in (log_path(made), *made.glob("samples_*_*.jsonl")):
        again = one(path)
        pairing = pair_items(run, again, allow_different=False)
        assert list(pairing.a) == list(pairing.b) == list(range(len(run.ids)))
        name = run.metrics[0].name
        if again.metric(name) is not None:
            assert scores(again, name) == pytest.approx(scores(run, name))
        assert again.asked(0) == run.asked(0) or kind in ("pairs", "perplexity")


def test_items_are_matched_by_data_and_prompt_not_by_id(tmp_path: Path) -> None:
    first = one(write_harness(tmp_path / "a", [harness_sample(i, 1) for i in range(3)]))
    turned = [harness_sample(i, 0, doc_id=9 - i) for i in (2, 0, 1)]
    second = one(write_harness(tmp_path / "b", turned))
    assert list(pair_items(first, second, allow_different=False).b) == [1, 2, 0]
    log = one(write_log(tmp_path / "log.eval", [inspect_sample(i, "C") for i in (1, 0, 2)]))
    assert list(pair_items(first, log, allow_different=False).b) == [1, 0, 2]


def test_other_items_are_not_compared(tmp_path: Path) -> None:
    first = one(write_harness(tmp_path / "a", [harness_sample(i, 1) for i in range(3)]))
    other = [harness_sample(0, 1), harness_sample(1, 1, doc={"question": "other"}), harness_sample(2, 1)]
    second = one(write_harness(tmp_path / "b", other))
    with pytest.raises(UsageError, match="has no item with the data and prompt of item 1 of"):
        pair_items(first, second, allow_different=False)
    pairing = pair_items(first, second, allow_different=True)
    assert (list(pairing.a), pairing.n_only_a, pairing.n_only_b) == ([0, 2], 1, 1)


def test_items_that_nothing_tells_apart(tmp_path: Path) -> None:
    first = one(write_log(tmp_path / "a.eval", [inspect_sample(0, "C"), inspect_sample(1, "C")]))
    same = [inspect_sample(0, "C"), {**inspect_sample(0, "C"), "id": 1}]
    second = one(write_log(tmp_path / "b.eval", same))
    with pytest.raises(UsageError, match=r"items 0 and 1 of .*b\.eval have the same prompt and data"):
        pair_items(first, second, allow_different=True)


def test_the_command_compares_any_mix(tmp_path: Path) -> None:
    harness = write_harness(tmp_path / "out", [harness_sample(i, 1) for i in range(8)])
    log = write_log(tmp_path / "log.eval", [inspect_sample(i, "I") for i in range(8)])
    done = infer("compare", harness, log)
    assert done.code == 0 and "B is worse" not in done.err
    assert b"sums, exact: A is better by 100.0 points on 8 items" in done.out
    assert "program lm_eval 0.4.13 (A), inspect (B)" in done.err and "unknown" not in done.err


BROKEN = {
    "not json\n": "line 1 is not JSON",
    "[1]\n": "line 1 is no JSON object",
    '{"doc_id": 1}\n': "line 1 is no sample of lm-evaluation-harness",
    "": "it has no sample",
    '{"a": ' + "[" * 100 + "]" * 100 + "}\n": "line 1 is nested too deeply",
    '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n": "line 1 is (not JSON|nested too deeply)",
    '{"a": ' + "9" * 5000 + "}\n": "line 1 is not JSON",
    '{"doc_id": 0, "metrics": [], "doc": {"x": NaN}}\n': "line 1: its document is no JSON",
    '{"doc_id": 0, "metrics": [], "doc": {"x": "\\ud800"}}\n': "line 1: its document is no JSON",
    '{"doc_id": 0, "metrics": [], "doc": {}}\n' * 2: "line 2: document 0 is there twice",
}


@pytest.mark.parametrize("text", BROKEN)
def test_samples_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "samples_x.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=BROKEN[text]):
        read_runs(path)


def test_huge_numbers_are_no_scores(tmp_path: Path) -> None:
    path = write_harness(tmp_path / "out", [harness_sample(0, 10**400), harness_sample(1, math.inf)])
    assert one(path).metrics[0].missing == "2 of its values are no numbers"


def test_scores_of_which_no_square_is_a_number(tmp_path: Path) -> None:
    path = write_harness(tmp_path / "out", [harness_sample(i, (-1) ** i * 1.7e308) for i in range(8)])
    assert one(path).metrics[0].missing == "8 of its values are no numbers"
    a = write_harness(tmp_path / "a", [harness_sample(i, (-1) ** i * 1e100) for i in range(60)])
    b = write_harness(tmp_path / "b", [harness_sample(i, -((-1) ** i) * 1e100) for i in range(60)])
    done = infer("compare", a, b, "--json")
    assert (done.code, done.err.count("\n")) == (0, 0), done.err


def test_texts_of_less_than_a_byte(tmp_path: Path) -> None:
    lines = [harness_sample(i, 1, metrics=["bits_per_byte"], bits_per_byte=[-5.0, 1e-300]) for i in range(3)]
    assert one(write_harness(tmp_path / "out", lines)).metrics[0].missing == "some of its sizes are below 1"


@pytest.mark.parametrize(
    ("samples", "header", "wrong"),
    [
        ([], HEADER, "it has no sample"),
        ([inspect_sample(0, "C")], {**HEADER, "status": "error"}, "did not end"),
        ([inspect_sample(0, "C")], {"status": "success"}, "it is no log of inspect"),
        ([{"id": None, "epoch": 1}], HEADER, "sample 1 is none of inspect's"),
    ],
)
@pytest.mark.parametrize("name", ["log.eval", "log.json"])
def test_logs_that_are_none(
    name: str, samples: list[dict[str, object]], header: dict[str, object], wrong: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=wrong):
        read_runs(write_log(tmp_path / name, samples, header=header))


def test_a_sample_that_is_there_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sample 0 is there twice in epoch 1"):
        read_runs(write_log(tmp_path / "log.json", [inspect_sample(0, "C")] * 2))


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no run"):
        read_runs(tmp_path)
    with pytest.raises(UsageError, match="no file or folder"):
        read_runs(tmp_path / "none")
    (tmp_path / "text.txt").touch()
    with pytest.raises(UsageError, match="is no run"):
        read_runs(tmp_path / "text.txt")
