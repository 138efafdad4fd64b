"""A run's results as lm-evaluation-harness writes them: `results_DATE.json`, the keys of its 0.4.13."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from infer_cli.evaluation.formats.harness_samples import FILTER
from infer_cli.evaluation.formats.scored_items import began_at, model_path, parameters
from infer_cli.evaluation.runs.reading import Run
from infer_cli.system.files import MOST_INPUT, read_regular

# Ours, and the harness's.
_GENERATION = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "max_tokens": "max_gen_toks",
    "stop": "until",
}
_OUTPUT_TYPES = {
    "generate": "generate_until",
    "choice": "multiple_choice",
    "minimal_pairs": "multiple_choice",
    "likelihood": "loglikelihood",
    "perplexity": "loglikelihood_rolling",
}
_NOT_IN_NAMES = re.compile(r'["<>:/|\\?*\[\]]+')
_HUB = "hf:"
_SOURCES = "infer_sources_sha256"


def harness_date(run: Run) -> str:
    """As it stands in the names of the harness's files: of the run's beginning, in UTC."""
    return began_at(run).replace(tzinfo=None).isoformat().replace(":", "-")


def generation_of(run: Run) -> dict[str, object]:
    """What replies were asked with, by the harness's names; empty where none were."""
    if run.facts.task.kind != "generate":
        return {}
    return parameters(run.results.config, _GENERATION)


def harness_results(run: Run, task_hash: str, sources_sha256: str) -> bytes:
    """`task_hash`: of its items (`HarnessSamples`). `sources_sha256`: what `written_from` tells again."""
    facts, results = run.facts, run.results
    task, n_shot = facts.task.name, facts.selection.fewshot
    model = model_path(run)
    value: dict[str, object] = {
        "results": {task: _values(run)},
        "group_subtasks": {},
        "configs": {task: _task_config(run)},
        "versions": {task: facts.task.version},
        "n-shot": {task: n_shot},
        "higher_is_better": {task: {each.metric: each.higher_is_better for each in results.scores}},
        "n-samples": {task: {"original": results.n_asked, "effective": results.n}},
        "config": _config(run),
        "git_hash": None,
        "date": began_at(run).timestamp(),
        "pretty_env_info": _environment(run),
        "transformers_version": "N/A",
        "lm_eval_version": f"N/A (infer {results.infer})",
        "upper_git_hash": None,
        "task_hashes": {task: task_hash},
        "model_source": "infer",
        "model_name": model,
        "model_name_sanitized": _NOT_IN_NAMES.sub("__", model),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": bool(facts.selection.chat and n_shot) or None,
        "chat_template": None,
        "chat_template_sha": None,
        "total_evaluation_time_seconds": None,  # the folder's files have no clock
        _SOURCES: sources_sha256,
    }
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False, default=list).encode()


def written_from(path: Path) -> str | None:
    """What results at a path were made of; None: they are none of ours. Raises OSError."""
    try:
        value = json.loads(read_regular(path, MOST_INPUT))
    except (ValueError, RecursionError):
        return None
    found = value.get(_SOURCES) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _values(run: Run) -> dict[str, object]:
    values: dict[str, object] = {
        "name": run.facts.task.name,
        "alias": run.facts.task.name,
        "sample_len": run.results.n,
    }
    for each in run.results.scores:
        if each.score.value is not None:
            values[f"{each.metric},{FILTER}"] = each.score.value
            spread = "N/A" if each.score.stderr is None else each.score.stderr
            values[f"{each.metric}_stderr,{FILTER}"] = spread
    return values


def _task_config(run: Run) -> dict[str, object]:
    facts, results = run.facts, run.results
    config: dict[str, object] = {
        "task": facts.task.name,
        **_data(facts.data.path),
        "test_split": "test",
        "description": facts.task.description,
        "num_fewshot": facts.selection.fewshot,
        "metric_list": [
            {"metric": each.metric, "higher_is_better": each.higher_is_better} for each in results.scores
        ],
        "output_type": _OUTPUT_TYPES[facts.task.kind],
        "repeats": results.config.get("samples", 1),
        "should_decontaminate": False,
        "metadata": {
            "version": facts.task.version,
            "config_source": facts.task.given,
            "task_sha256": results.hashes.get("task"),
            "data_sha256": facts.data.sha256,
            "template_sha256": facts.task.template_sha256,
        },
    }
    if facts.task.kind == "generate":
        config["generation_kwargs"] = generation_of(run)
    return config


def _data(path: str) -> Mapping[str, object]:
    """A file of the hub by its repository; another as the harness's own loader of files names it."""
    if path.startswith(_HUB):
        return {"dataset_path": "/".join(path.removeprefix(_HUB).split("/")[:2])}
    return {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": path}}}


def _config(run: Run) -> dict[str, object]:
    facts, results = run.facts, run.results
    return {
        "model": "infer",
        "model_args": {"model": results.model.name},
        "mode": results.mode,
        "promise": results.promise,
        "model_sha256": results.model.sha256,
        "engine": results.engine,
        "chat": facts.selection.chat,
        "batch_size": None,
        "batch_sizes": [],
        "device": None,
        "use_cache": None,
        "limit": results.limit,
        "bootstrap_iters": None,
        "gen_kwargs": generation_of(run),
        "random_seed": results.config.get("run_seed"),
        "numpy_seed": None,
        "torch_seed": None,
        "fewshot_seed": facts.selection.fewshot_seed,
    }


def _environment(run: Run) -> str:
    known = {**run.results.libraries, **run.results.hardware}
    return "\n".join(f"{name}: {value}" for name, value in known.items())
