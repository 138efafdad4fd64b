"""What an inspect log says of a run as a whole: `header.json` and `_journal/start.json`, version 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from infer_cli.evaluation.formats.scored_items import began_at, derived_id, model_path, parameters
from infer_cli.evaluation.runs.item_amounts import score_of
from infer_cli.evaluation.runs.reading import Run
from infer_cli.evaluation.runs.results import MetricResult

_VERSION = 2
# Ours, and inspect's.
_GENERATION = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "max_tokens": "max_tokens",
    "run_seed": "seed",
    "stop": "stop_seqs",
}


class LogIdentity(NamedTuple):
    """Ids where inspect draws random ones: functions of the run. `date` is of its beginning."""

    eval_id: str
    run_id: str
    task_id: str
    date: str
    model: str

    def file_name(self, task: str) -> str:
        return f"{self.date.replace(':', '-').replace('+', '-')}_{task.replace('_', '-')}_{self.task_id}.eval"


def identity_of(run: Run) -> LogIdentity:
    facts, results = run.facts, run.results
    task_id = derived_id("task", facts.task.name, results.hashes.get("task"), results.hashes.get("items"))
    run_id = derived_id("run", task_id, results.model.sha256, facts.began_at, *facts.command)
    date = began_at(run).isoformat()
    return LogIdentity(derived_id("eval", run_id), run_id, task_id, date, model_path(run))


class Counts(NamedTuple):
    """`ids` of all items, each with `n_epochs` answers; `n_samples` in all."""

    ids: Sequence[str]
    n_epochs: int
    n_samples: int


def start_json(run: Run, identity: LogIdentity, counts: Counts) -> dict[str, object]:
    return {"version": _VERSION, "eval": _eval(run, identity, counts), "plan": _plan(run)}


def header_json(run: Run, identity: LogIdentity, counts: Counts) -> dict[str, object]:
    tokens = run.results.tokens
    usage = {
        "input_tokens": tokens.get("prompt", 0),
        "output_tokens": tokens.get("completion", 0),
        "total_tokens": tokens.get("prompt", 0) + tokens.get("completion", 0),
    }
    return {
        "version": _VERSION,
        "status": "success",
        "eval": _eval(run, identity, counts),
        "plan": _plan(run),
        "results": {
            "total_samples": counts.n_samples,
            "completed_samples": counts.n_samples,
            "scores": _scores(run),
        },
        "stats": {
            "started_at": identity.date,
            "completed_at": identity.date,
            "model_usage": {identity.model: usage},
            "role_usage": {},
        },
        "invalidated": False,
    }


def _eval(run: Run, identity: LogIdentity, counts: Counts) -> dict[str, object]:
    facts, results = run.facts, run.results
    return {
        "eval_id": identity.eval_id,
        "run_id": identity.run_id,
        "created": identity.date,
        "task": facts.task.name,
        "task_id": identity.task_id,
        "task_version": facts.task.version,
        "task_file": facts.task.given,
        "task_display_name": facts.task.name,
        "task_attribs": {},
        "task_args": {},
        "task_args_passed": {},
        "dataset": {
            "name": Path(facts.data.path).name,
            "location": facts.data.path,
            "samples": results.n,
            "sample_ids": list(counts.ids),
            "shuffled": False,
        },
        "model": identity.model,
        "model_generate_config": _generation(run),
        "model_args": {},
        "config": {"limit": results.limit, "epochs": counts.n_epochs, "log_samples": True},
        "packages": {"infer": results.infer},
        "scorers": [
            {"name": name, "options": {}, "metrics": [{"name": "mean", "options": {}}], "metadata": {}}
            for name in dict.fromkeys(score_of(each.metric) for each in results.scores)
        ],
        "metadata": {
            "promise": results.promise,
            "mode": results.mode,
            "model_sha256": results.model.sha256,
            "engine": results.engine,
            "hashes": results.hashes,
            "config": results.config,
            "rates": results.rates,
            "libraries": results.libraries,
            "hardware": results.hardware,
            "command": list(results.command),
            "warnings": list(results.warnings),
        },
    }


def _plan(run: Run) -> dict[str, object]:
    step = {"solver": "generate", "params": {}, "params_passed": {}}
    return {"name": "plan", "steps": [step], "config": _generation(run)}


def _generation(run: Run) -> dict[str, object]:
    if run.facts.task.kind != "generate":
        return {}
    return parameters(run.results.config, _GENERATION)


def _scores(run: Run) -> list[dict[str, object]]:
    """By score: all metrics that are made of it."""
    made: dict[str, list[MetricResult]] = {}
    for each in run.results.scores:
        made.setdefault(score_of(each.metric), []).append(each)
    return [
        {
            "name": name,
            "scorer": name,
            "scored_samples": max(each.score.n for each in metrics),
            "unscored_samples": run.results.n - max(each.score.n for each in metrics),
            "params": {},
            "metrics": {key: value for each in metrics for key, value in _metrics(name, each)},
            "metadata": {
                each.metric: {
                    "ci": each.score.ci,
                    "method": each.score.method,
                    "note": each.score.note,
                    "higher_is_better": each.higher_is_better,
                }
                for each in metrics
            },
        }
        for name, metrics in made.items()
    ]


def _metrics(score: str, metric: MetricResult) -> list[tuple[str, Mapping[str, object]]]:
    """Inspect's names for a mean and its standard error; others are called by the metric."""
    name = metric.metric.removeprefix(f"{score} ")
    mean, spread = ("mean", "stderr") if name == score else (name, f"{name} stderr")
    values = {mean: metric.score.value, spread: metric.score.stderr}
    found = [(key, value) for key, value in values.items() if value is not None]
    for group, each in (metric.groups or {}).items():
        if each.value is not None:
            found.append((f"{mean} of {group}", each.value))
    return [(key, {"name": key, "value": value, "params": {}}) for key, value in found]
