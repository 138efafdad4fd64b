"""Files of a run are read as they were written; what is none of ours is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from infer_cli.answering.reply import json_line
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import (
    DataFacts,
    GenerationFacts,
    RunFacts,
    Scoring,
    SelectionFacts,
    TaskFacts,
    read_facts,
)
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.layout import folder_name, plan_runs
from infer_cli.evaluation.runs.reading import Run, read_samples, run_folders, sample_of
from infer_cli.evaluation.runs.results import Estimated, Identity, MetricResult, Results, read_results
from infer_cli.evaluation.runs.sample import ScoredChoice
from tests.evaluation.runs.run_helpers import sample

FACTS = RunFacts(
    TaskFacts("t", "1", "generate", "aa", "bb", "t.toml", "d", False, "MIT", "@x"),
    DataFacts("d.jsonl", "cc", 9),
    SelectionFacts(4, ("a", "b"), 2, 7, (0, 1), True),
    GenerationFacts({"temperature": 0.7}, 64, ("\n",)),
    Scoring(True, "clopper-pearson", 3),
    {"items.jsonl": "dd"},
    4,
    ("infer", "eval"),
    "0.1.0",
    "2026-01-01T00:00:00+00:00",
    {"python": "3.11"},
    {"cpu": None, "cores": 2},
)
ESTIMATED = Estimated(0.5, 0.1, (0.3, 0.7), "wilson", 4, None, None)
RESULTS = Results(
    task={"name": "t", "version": "1"},
    model=Identity("m", None),
    engine={"fingerprint": "f"},
    mode="invariant",
    promise="invariant",
    config={"limit": None},
    hashes={"task": "aa", "model": None},
    n=4,
    n_asked=9,
    limit=4,
    rates={"error": 0.25},
    scores=(
        MetricResult("acc", ESTIMATED, True, {"g": ESTIMATED}, ESTIMATED, (0.5, 0.25), 0.1),
        MetricResult("bits", Estimated(None, None, None, None, 4, 2, "why"), False),
    ),
    tokens={"prompt": 1},
    command=("infer", "eval"),
    infer="0.1.0",
    libraries={"python": "3.11"},
    hardware={},
    began_at="2026-01-01T00:00:00+00:00",
    warnings=("mind",),
    code_scorers=("code",),
    verified={"holds": True},
)


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    FACTS.write(tmp_path / "run.json")
    assert read_facts(tmp_path / "run.json") == FACTS


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(RESULTS.as_bytes())
    found = read_results(path)
    assert found == RESULTS
    assert found.verified == {"holds": True}
    assert found.as_bytes() == path.read_bytes()


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    choice = ScoredChoice("a", None, 1, 1, None)
    written = [
        sample(0, choices=(choice,), gold=1, digests=("x",), seed=3, sample=1),
        sample(1, outcome="error", error={"code": 5, "message": "no"}, answer=None),
    ]
    (tmp_path / "samples.jsonl").write_bytes(b"".join(json_line(each.as_json()) for each in written))
    again = [replace(each, digests=tuple(each.digests)) for each in read_samples(tmp_path / "samples.jsonl")]
    assert again == written


def test_samples_of_an_item_are_together(tmp_path: Path) -> None:
    lines = [sample(0, sample=0), sample(0, sample=1), sample(1)]
    (tmp_path / "samples.jsonl").write_bytes(b"".join(json_line(each.as_json()) for each in lines))
    run = Run(RunFolder(tmp_path), FACTS, RESULTS)
    assert [[each.sample for each in item] for item in run.items()] == [[0, 1], [0]]


@pytest.mark.parametrize("name", ["task", "data", "selection", "scoring", "files", "command", "n_items"])
@pytest.mark.parametrize("value", [None, 3.5, "x", [1]])
def test_a_wrong_value_of_the_facts_is_named(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "run.json"
    FACTS.write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(UsageError, match=name):
        read_facts(path)


@pytest.mark.parametrize("name", list(RESULTS.as_json()))
def test_a_wrong_value_of_the_results_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results.json"
    value = RESULTS.as_json()
    path.write_text(json.dumps({**value, name: [{"x": float(3)}]}, default=list))
    with pytest.raises(UsageError, match=r"results\.json"):
        read_results(path)
    path.write_text(json.dumps({**value, "other": 1}, default=list))
    with pytest.raises(UsageError, match="other"):
        read_results(path)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e101", "-1e999", "NaN", '"1"', "true"])
def test_a_number_that_nothing_can_be_computed_with_is_refused(tmp_path: Path, number: str) -> None:
    results, samples = tmp_path / "results.json", tmp_path / "samples.jsonl"
    text = RESULTS.as_bytes().decode()
    for was, now in (("0.25", number.replace("e101", "e151")), ('"holds": true', '"holds": NaN')):
        results.write_text(text.replace(was, now, 1))
        with pytest.raises(UsageError, match=r"results\.json"):
            read_results(results)
    for name in ("scores", "sizes"):
        line = json_line({**sample().as_json(), name: {"exact": 0.125}})
        samples.write_bytes(line.replace(b"0.125", number.encode()))
        with pytest.raises(UsageError, match=f"line 1 is no sample: its {name}"):
            list(read_samples(samples))


def test_an_interval_has_two_ends(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(RESULTS.as_bytes().decode().replace("0.3,", ""))
    with pytest.raises(UsageError, match="1 ends"):
        read_results(tmp_path / "results.json")


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", "x", json.dumps({**sample().as_json(), "scores": {"a": "b"}}, default=list)]
)
def test_what_is_no_sample_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(json_line(sample().as_json()) + line.encode() + b"\n")
    with pytest.raises(UsageError, match="line 2 is no sample"):
        list(read_samples(path))


def test_a_sample_has_all_keys() -> None:
    value = sample().as_json()
    with pytest.raises(ValueError, match="keys"):
        sample_of({k: v for k, v in value.items() if k != "outcome"})


def test_folders_of_runs_are_found(tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        (tmp_path / name).mkdir(parents=True)
        FACTS.write(tmp_path / name / "run.json")
    assert run_folders(tmp_path) == [tmp_path / "a", tmp_path / "b" / "c"]
    assert run_folders(tmp_path / "a") == [tmp_path / "a"]
    assert run_folders(tmp_path / "b" / "none") == []


def test_each_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    def folders(tasks: list[str], models: list[str | None]) -> list[str]:
        return [str(run.folder.relative_to(tmp_path)) for run in plan_runs(tasks, models, tmp_path)]

    assert folders(["a"], [None]) == ["."]
    assert folders(["a", "x/b.toml"], ["m"]) == ["a", "b"]
    assert folders(["a"], ["m.gguf", "hf:o/r:Q4"]) == ["m", "hf_o_r_Q4"]
    assert folders(["a", "b"], ["m", None]) == ["m/a", "m/b", "default/a", "default/b"]
    with pytest.raises(UsageError, match="one folder"):
        folders(["a", "b"], ["x/m.gguf", "y/m.gguf"])


@pytest.mark.parametrize("name", ["..", "../..", "/", "...", ""])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    assert folder_name(name) not in ("", ".", "..")
    assert "/" not in folder_name(name)
