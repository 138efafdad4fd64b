"""A run's folder as a run that can be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import ComparableRun
from infer_cli.evaluation.comparing.run_folder import find_runs, read_comparable_run
from tests.evaluation.comparing.run_folders import Answered, right, write_run


def scores(run: ComparableRun, name: str) -> list[float]:
    metric = run.metric(name)
    assert metric is not None and metric.missing is None
    return [metric.of(place) for place in range(len(run.ids))]


def test_what_a_run_says(tmp_path: Path) -> None:
    run = read_comparable_run(write_run(tmp_path / "run", right(1, 0, 1)))
    assert (run.name, run.task, run.model) == (str(tmp_path / "run"), "sums", "small")
    assert run.ids == ["0", "1", "2"] and run.clusters is None
    assert scores(run, "exact") == [1, 0, 1]
    assert run.made_by["mode"] == "invariant" and run.made_by["llama.cpp"] == "0.3.36"
    assert run.asked(1) == ("How much is 1 and 1?", "It is 3.")
    assert run.asked(0) == ("How much is 0 and 0?", "It is 0.")


def test_items_are_told_by_row_and_prompt(tmp_path: Path) -> None:
    same = Answered("x", [{"exact": 1.0}])
    runs = [
        read_comparable_run(write_run(tmp_path / str(i), [item]))
        for i, item in enumerate(
            [
                same,
                replace(same, answer="another"),
                replace(same, document="another"),
                replace(same, prompt="another"),
                replace(same, prompt=[{"role": "user", "content": "What is it?"}]),
            ]
        )
    ]
    first, answer, document, prompt, messages = (run.contents[0] for run in runs)
    assert answer == first
    assert document.document != first.document and document.prompt == first.prompt
    assert prompt.document == first.document and prompt.prompt != first.prompt
    assert messages.prompt != first.prompt
    assert runs[-1].asked(0).prompt == "What is it?"


def test_an_items_score_is_the_mean_of_its_samples_and_seeds(tmp_path: Path) -> None:
    items = [
        Answered("a", [{"exact": score} for score in (1.0, 0.0, 0.0, 0.0)], seeds=(1, 2)),
        Answered("b", [{"exact": 1.0}, {"exact": 0.0}, {"exact": 1.0}], seeds=(1, 2, 2)),
    ]
    # Of b each seed counts alike: 1 and the mean of 0 and 1.
    assert scores(read_comparable_run(write_run(tmp_path / "run", items)), "exact") == [0.25, 0.75]


def test_metrics_of_several_samples(tmp_path: Path) -> None:
    items = [
        Answered("a", [{"exact": score} for score in (0.0, 1.0, 1.0)], extracted=("7", "8", "8")),
        Answered("b", [{"exact": score} for score in (1.0, 0.0, 0.0)], extracted=("7", "8", "9")),
        Answered("c", [{"exact": 0.0}] * 3, extracted=(None,), outcomes=("not_extracted",)),
    ]
    names = ("exact", "exact pass@1", "exact pass@2", "exact majority")
    run = read_comparable_run(write_run(tmp_path / "run", items, metrics=names))
    assert scores(run, "exact pass@1") == pytest.approx([2 / 3, 1 / 3, 0])
    assert scores(run, "exact pass@2") == pytest.approx([1, 2 / 3, 0])
    assert scores(run, "exact majority") == [1, 1, 0]


def test_bits_are_taken_over_bytes_and_perplexities_are_not_compared(tmp_path: Path) -> None:
    items = [
        Answered(f"{i}", [{"bits": 30.0 + i}], sizes={"bytes": 10.0 + i, "words": 2.0}) for i in range(2)
    ]
    run = read_comparable_run(
        write_run(tmp_path / "run", items, metrics=("bits_per_byte", "byte_perplexity"))
    )
    bits, perplexity = run.metrics
    assert bits.sizes is not None and bits.sizes.tolist() == [10, 11] and not bits.higher_is_better
    assert bits.scores.tolist() == [30, 31] and scores(run, "bits_per_byte") == pytest.approx([3, 31 / 11])
    assert perplexity.missing == "it is not a mean over items; bits_per_byte tells the same"


def test_what_failed_counts_as_the_worst_unless_the_run_leaves_it_out(tmp_path: Path) -> None:
    items = [
        Answered("a", [{"exact": 1.0}]),
        Answered("b", [{"exact": 0.0}], outcomes=("error",)),
        Answered("c", [{"exact": 1.0}, {"exact": 0.0}], outcomes=("ok", "cut")),
        Answered("d", [{"exact": 1.0}, {"exact": 0.0}], outcomes=("ok", "error"), seeds=(1, 2)),
    ]
    assert scores(read_comparable_run(write_run(tmp_path / "run", items)), "exact") == [1, 0, 0.5, 0.5]
    run = read_comparable_run(write_run(tmp_path / "other", items, exclude_errors=True))
    assert np.array_equal(scores(run, "exact"), [1, np.nan, 1, np.nan], equal_nan=True)


def test_a_metric_without_a_value_says_so(tmp_path: Path) -> None:
    items = [Answered("a", [{"logprob": -3.5}]), Answered("b", [{}], outcomes=("error",))]
    run = read_comparable_run(write_run(tmp_path / "run", items, metrics=("logprob",)))
    assert run.metrics[0].missing == "1 of its items have no value"


def test_items_without_a_cluster_are_one_by_themselves(tmp_path: Path) -> None:
    items = [replace(item, cluster=cluster) for item, cluster in zip(right(1, 1, 0, 0), "xx..", strict=True)]
    items[2:] = [replace(item, cluster=None) for item in items[2:]]
    run = read_comparable_run(write_run(tmp_path / "run", items))
    assert run.clusters is not None and run.clusters[0] == run.clusters[1] == "x"
    assert len(set(run.clusters)) == 3


def test_runs_are_found_below_a_folder(tmp_path: Path) -> None:
    deep = write_run(tmp_path / "out" / "small" / "sums", right(1))
    near = write_run(tmp_path / "out" / "words", right(1), task="words")
    assert find_runs(near) == [near]
    assert find_runs(tmp_path / "out") == [deep, near]
    with pytest.raises(UsageError, match="has no run of `infer eval`"):
        find_runs(write_run(tmp_path / "1" / "2" / "3" / "4", right(1)).parents[2])
    with pytest.raises(UsageError, match="no folder"):
        find_runs(tmp_path / "none")
    with pytest.raises(UsageError, match="is not a folder"):
        find_runs(near / "samples.jsonl")


@pytest.mark.parametrize(
    ("file", "change", "wrong"),
    [
        ("samples.jsonl", lambda text: text[:-20], "samples.jsonl, line 3: it is no JSON object"),
        ("samples.jsonl", lambda text: "".join(text.splitlines(True)[:2]), "item 2 has no sample"),
        ("samples.jsonl", lambda text: "[]\n" + text, "line 1: it is no JSON object"),
        ("samples.jsonl", lambda text: '{"item": 3}\n' + text, "line 1: it is no sample"),
        (
            "samples.jsonl",
            lambda text: text.replace('"cluster": null', '"cluster": 3'),
            "line 1: it is no sample",
        ),
        ("samples.jsonl", lambda text: text.replace('"sizes": {}', '"sizes": []'), "line 1: it is no sample"),
        ("samples.jsonl", lambda text: text.replace('"seed": null', '"seed": []'), "line 1: it is no sample"),
        ("samples.jsonl", lambda text: text + text.splitlines(True)[0], "line 4: item 0 is not in items"),
        ("items.jsonl", lambda text: "".join(text.splitlines(True)[1:]), "line 1: item 0 is not in items"),
        ("items.jsonl", lambda text: "{}\n" + text, "items.jsonl, line 1: it is no item"),
        ("samples.jsonl", lambda _: None, "samples.jsonl can't be read"),
        ("results.json", lambda _: None, "has no results.json"),
        ("run.json", lambda text: text.replace('"sums"', "3"), "run.json: name is missing or wrong"),
        ("results.json", lambda text: text.replace('"engine"', '"motor"'), "results.json is not what"),
    ],
)
def test_a_damaged_run_is_one_line(tmp_path: Path, file: str, change: object, wrong: str) -> None:
    assert callable(change)
    run = write_run(tmp_path / "run", right(1, 0, 1))
    text = change((run / file).read_text())
    if text is None:
        (run / file).unlink()
    else:
        (run / file).write_text(text)
    with pytest.raises(UsageError) as refused:
        read_comparable_run(run)
    assert wrong in refused.value.message and "\n" not in refused.value.message
