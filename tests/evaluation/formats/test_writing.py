"""Other programs' files of a run: all of its answers and scores, and the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from infer_cli.evaluation.formats.writing import write_formats
from infer_cli.evaluation.runs.folder import RunFolder
from tests.cli_helpers import infer
from tests.evaluation.formats.made_runs import (
    CAPITALS,
    KINDS,
    harness_results,
    harness_samples,
    log_members,
    make_run,
)
from tests.evaluation.runs.run_helpers import evaluate, results_of, samples_of

# What the harness's 0.4.13 writes, in its order.
RESULT_KEYS = [
    "results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config",
    "git_hash", "date", "pretty_env_info", "transformers_version", "lm_eval_version", "upper_git_hash",
    "task_hashes", "model_source", "model_name", "model_name_sanitized", "system_instruction",
    "system_instruction_sha", "fewshot_as_multiturn", "chat_template", "chat_template_sha",
    "total_evaluation_time_seconds",
]  # fmt: skip
SAMPLE_KEYS = [
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash",
    "prompt_hash", "target_hash",
]  # fmt: skip


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_all_answers_and_scores_are_there(kind: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, kind)
    samples, results = samples_of(run), results_of(run)
    members = log_members(run)
    seen: dict[str, int] = {}
    for sample in samples:
        epoch = seen[sample["item"]] = seen.get(sample["item"], 0) + 1
        there = members[f"samples/{sample['item']}_epoch_{epoch}.json"]
        assert {name: score["value"] for name, score in there["scores"].items()} == sample["scores"]
        assert all(score["explanation"] for score in there["scores"].values())
        assert there["output"]["completion"] == (sample["answer"] or "")
        assert there["metadata"]["digest"] == " ".join(sample["digests"])
        assert there["metadata"]["outcome"] == sample["outcome"]
        assert there["output"]["usage"]["input_tokens"] == sample["n_prompt_tokens"]
    assert sum(name.startswith("samples/") for name in members) == len(samples)
    assert [(each["id"], each["epoch"]) for each in members["summaries.json"]] == [
        (each["id"], each["epoch"]) for name, each in members.items() if name.startswith("samples/")
    ]
    header = members["header.json"]
    assert header["status"] == "success" and header["eval"] == members["_journal/start.json"]["eval"]
    assert header["eval"]["dataset"]["sample_ids"] == list(seen)
    found = harness_samples(run)
    assert [line["doc_id"] for line in found] == list(range(results["n"]))
    assert [digests for line in found for digests in line["infer"]["digests"]] == [
        sample["digests"] for sample in samples
    ]
    values = harness_results(run)["results"][results["task"]["name"]]
    assert {
        f"{score['metric']},none": score["value"] for score in results["scores"]
    }.items() <= values.items()


def test_the_keys_are_those_of_the_harness(tmp_path: Path) -> None:
    run = make_run(tmp_path, "choice")
    results, samples = harness_results(run), harness_samples(run)
    assert list(results)[: len(RESULT_KEYS)] == RESULT_KEYS
    assert all(list(sample)[: len(SAMPLE_KEYS)] == SAMPLE_KEYS for sample in samples)
    hashes = [sample[name] for sample in samples for name in ("doc_hash", "prompt_hash", "target_hash")]
    assert results["task_hashes"] == {"capitals": sha256("".join(hashes))}
    assert samples[2]["doc"] == CAPITALS[2]
    assert samples[2]["doc_hash"] == sha256(json.dumps(CAPITALS[2], indent=2, ensure_ascii=False))
    assert samples[2]["prompt_hash"] == sha256("The capital of Côte d'Ivoire is")
    assert samples[2]["target_hash"] == sha256("1")
    assert samples[2]["arguments"]["gen_args_1"] == {
        "arg_0": "The capital of Côte d'Ivoire is",
        "arg_1": " Yamoussoukro",
    }
    logprobs = [choice["logprob"] for choice in samples_of(run)[2]["choices"]]
    assert [float(each[0]) for each in samples[2]["filtered_resps"]] == logprobs
    assert samples[2]["metrics"] == ["acc", "acc_norm", "acc_token"]
    assert results["n-samples"] == {"capitals": {"original": 3, "effective": 3}}


def test_a_text_is_its_log_likelihood_and_its_sizes(tmp_path: Path) -> None:
    run = make_run(tmp_path, "perplexity")
    (sample,), (own,) = harness_samples(run), samples_of(run)
    logprob = -own["scores"]["bits"] * math.log(2)
    assert sample["bits_per_byte"] == [logprob, own["sizes"]["bytes"]]
    assert sample["word_perplexity"] == [logprob, own["sizes"]["words"]]
    assert sample["arguments"]["gen_args_0"]["arg_0"] == "One line.\nAnd another one.\n" * 200


def test_replies_that_were_cut_say_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, "cut")
    sample = log_members(run)["samples/q1_epoch_1.json"]
    assert sample["scores"]["has"]["explanation"].startswith("counts as failed: cut")
    assert sample["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert harness_samples(run)[1]["infer"]["outcomes"] == ["cut"]


def test_items_of_several_answers(tmp_path: Path) -> None:
    run = make_run(tmp_path, "sampled")
    members, own = log_members(run), samples_of(run)
    assert members["header.json"]["eval"]["config"]["epochs"] == 4
    (reduced,) = members["reductions.json"]
    mean = [
        sum(s["scores"]["has"] for s in own if s["item"] == item) / 4 for item in ("q0", "q1", "q2", "q3")
    ]
    assert [each["value"] for each in reduced["samples"]] == mean
    assert [sample["has"] for sample in harness_samples(run)] == mean
    assert len(harness_samples(run)[0]["resps"][0]) == 4


def test_a_row_that_failed_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path, "choice")
    lines = (run / "replies.jsonl").read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["custom_id"] != "0/0"]
    (run / "replies.jsonl").write_bytes(b"".join(kept))
    assert infer("rescore", run).code == 0
    sample = log_members(run)["samples/0_epoch_1.json"]
    assert "counts as failed: error" in sample["error"]["message"]
    assert log_members(run)["summaries.json"][0]["error"] == sample["error"]["message"]


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


@pytest.mark.parametrize("kind", ["generate", "choice"])
def test_the_bytes_are_a_function_of_the_folder(kind: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, kind)
    before = files(run)
    written = write_formats(RunFolder(run))
    assert {path.name for path in written} <= set(before)
    for path in written:
        path.unlink()
    elsewhere = tmp_path / "elsewhere"
    run.rename(elsewhere)
    write_formats(RunFolder(elsewhere))
    assert files(elsewhere) == before


def test_files_of_these_scores_are_not_written_again(tmp_path: Path) -> None:
    run = make_run(tmp_path, "generate")
    times = {path: path.stat().st_mtime_ns for path in write_formats(RunFolder(run))}
    assert infer("rescore", run).code == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    task = run / "task.toml"
    task.write_text(task.read_text().replace('kind = "contains"', 'kind = "exact"'))
    assert infer("rescore", run).code == 0
    assert not any(path.exists() and path.stat().st_mtime_ns == time for path, time in times.items())
    assert [sample["has"] for sample in harness_samples(run)] == [0, 0, 0, 0]


def test_a_run_that_begins_again_leaves_no_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, "generate")
    facts: dict[str, Any] = json.loads((run / "run.json").read_bytes())
    facts["began_at"] = "2001-02-03T04:05:06+00:00"
    (run / "run.json").write_text(json.dumps(facts))
    mine = run / "results_of_mine.json"
    mine.write_text("{}")
    assert infer("rescore", run).code == 0
    names = {path.name for path in run.iterdir()}
    assert "results_2001-02-03T04-05-06.json" in names and mine.name in names
    assert (
        sum(name.startswith(("results_2", "samples_sums")) or name.endswith(".eval") for name in names) == 3
    )


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Those of the harness and of inspect, of another run of infer, and what a note of anyone's names."""
    run = make_run(tmp_path, "generate")
    (tmp_path / "elsewhere").mkdir()
    other = make_run(tmp_path / "elsewhere", "generate")
    theirs = {
        "results_2024-01-02T03-04-05.678901.json": b"{}",
        "samples_gsm8k_2024-01-02T03-04-05.678901.jsonl": b"{}",
        "2024-01-02T03-04-05-00-00_gsm8k_abcdef0123456789abcdef.eval": b"PK",
        "results_2001-01-01T00-00-00.json": next(other.glob("results_*.json")).read_bytes(),
        "notes.json": b"{}",
    }
    for name, data in theirs.items():
        (run / name).write_bytes(data)
    with (run / ".infer-formats").open("a") as noted:
        noted.write("notes.json\n../sums.toml\nrun.json\n")
    facts: dict[str, Any] = json.loads((run / "run.json").read_bytes())
    facts["began_at"] = "2003-02-03T04:05:06+00:00"
    (run / "run.json").write_text(json.dumps(facts))
    before = set(files(run))
    assert infer("rescore", run).code == 0
    now = files(run)
    assert theirs.items() <= now.items() and (tmp_path / "sums.toml").exists()
    assert len(now) == len(before) and len(before - set(now)) == 3


def test_a_shard_has_none_of_them(tmp_path: Path) -> None:
    make_run(tmp_path, "generate")
    part = tmp_path / "part"
    evaluate(tmp_path / "sums.toml", "--data", tmp_path / "sums.jsonl", "-o", part, "--shard", "1/2")
    assert not list(part.glob("*.eval"))


def test_a_time_that_is_none_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path, "generate")
    facts = json.loads((run / "run.json").read_bytes())
    facts["began_at"] = "yesterday"
    (run / "run.json").write_text(json.dumps(facts))
    done = infer("rescore", run)
    assert done.code == 2 and "began_at is no time: yesterday" in done.err
