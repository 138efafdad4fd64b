"""inspect reads the logs of our runs: what it finds is what the run says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.formats.made_runs import KINDS, log_path, make_run
from tests.evaluation.runs.run_helpers import results_of, samples_of
from tests.integrations.extras import needs

pytestmark = needs("inspect_ai")


@pytest.mark.filterwarnings("ignore")  # of pandas, of how inspect uses it
@pytest.mark.parametrize("kind", KINDS)
def test_inspect_reads_the_log(kind: str, tmp_path: Path) -> None:
    from inspect_ai.analysis import messages_df, samples_df
    from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries

    made = make_run(tmp_path, kind)
    path, own, results = str(log_path(made)), samples_of(made), results_of(made)
    log = read_eval_log(path)
    assert log.status == "success" and log.samples is not None and log.results is not None
    by_item = {(sample.id, sample.epoch): sample for sample in log.samples}
    epochs: dict[str, int] = {}
    for each in own:
        epoch = epochs[each["item"]] = epochs.get(each["item"], 0) + 1
        found = by_item[each["item"], epoch]
        assert {name: score.value for name, score in (found.scores or {}).items()} == each["scores"]
        assert found.output.completion == (each["answer"] or "") == found.messages[-1].text
        assert found.metadata["digest"] == " ".join(each["digests"])
    assert len(by_item) == len(own)
    metrics = log.results.scores[0].metrics
    name = "mean" if kind != "perplexity" else "bits_per_byte"
    assert metrics[name].value == results["scores"][0]["value"]
    assert len(read_eval_log_sample_summaries(path)) == len(own)
    assert read_eval_log_sample(path, own[0]["item"], 1).uuid == log.samples[0].uuid
    table = samples_df(path)
    assert len(table) == len(own)
    name = next(iter(own[0]["scores"]))
    assert sorted(table[f"score_{name}"]) == sorted(each["scores"][name] for each in own)
    assert len(messages_df(path)) >= len(own)


def test_inspect_writes_the_log_again_as_it_is(tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log, write_eval_log

    made = make_run(tmp_path, "generate")
    log = read_eval_log(str(log_path(made)))
    write_eval_log(log, str(tmp_path / "again.eval"))
    again = read_eval_log(str(tmp_path / "again.eval"))
    assert again.samples == log.samples and again.eval == log.eval and again.results == log.results
