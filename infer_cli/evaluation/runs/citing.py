"""How runs are described and cited, from their results alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from infer_cli.evaluation.runs.results import RATES, Estimated, Results
from infer_cli.evaluation.statistics.resampling import n_resamples_of

_METHODS = {
    "wilson": "Wilson's score interval",
    "clopper-pearson": "Clopper and Pearson's exact interval",
    "t": "Student's t",
    "mover": "MOVER",
    "jackknife": "Student's t with the jackknife's standard error",
}
_PROMISES = {
    "invariant": "replies depend neither on what is computed beside them nor on the number of threads",
    "canonical": "replies repeat for as many computed side by side, on the same build",
    "seed-only": "only the seed is kept: replies may depend on what is computed beside them",
}
_FAILED = {
    "error": "that failed",
    "cut": "that the limit of tokens cut",
    "not_extracted": "in which no answer was found",
    "scorer_failed": "that could not be scored",
}
_SHA256_SHOWN = 16


def methods_paragraph(results: Results) -> str:
    """What a paper says of one run, in full sentences."""
    sentences = [_what(results), _how(results), _promise(results), _failures(results)]
    scores = [_score(score.metric, score.score, results) for score in results.scores]
    return " ".join(sentence for sentence in (*sentences, *scores) if sentence)


def bibtex(all_results: Sequence[Results]) -> str:
    """Entries for this program and for the tasks' data, each once."""
    versions = sorted({results.infer for results in all_results})
    engines = sorted({_llama(results) for results in all_results})
    own = (
        "@software{infer_cli,\n"
        "  title = {infer: answers from local language models that can be trusted and repeated},\n"
        "  author = {{The infer authors}},\n"
        f"  version = {{{', '.join(versions)}}},\n"
        f"  note = {{with llama.cpp through llama-cpp-python {', '.join(engines)}}},\n"
        f"  year = {{{max(results.began_at[:4] for results in all_results)}}}\n"
        "}"
    )
    others = [str(results.task.get("citation") or "").strip() for results in all_results]
    return "\n\n".join([own, *dict.fromkeys(other for other in others if other)])


def _what(results: Results) -> str:
    task, config = results.task, results.config
    n = (
        f"all {results.n} items"
        if results.n == results.n_asked
        else f"{results.n} of {results.n_asked} items"
    )
    if results.limit is not None and results.n < results.n_asked:
        n += " (the first of them)"
    elif config.get("ids"):
        n += " (chosen by their ids)"
    return (
        f"{results.model.name} (SHA-256 {_short(results.model.sha256)}) was evaluated on {n} of"
        f" {task.get('name')}, version {task.get('version')} (task {_short(results.hashes.get('task'))}, data"
        f" {_short(results.hashes.get('data'))}), with infer {results.infer}"
        f" (llama-cpp-python {_llama(results)}, fingerprint"
        f" {_short(str(results.engine.get('fingerprint')))}) on {results.began_at[:10]}."
    )


def _how(results: Results) -> str:
    config, kind = results.config, results.task.get("kind")
    shots = (
        f"{config.get('fewshot')} examples before each question" if config.get("fewshot") else "no examples"
    )
    form = "put through the model's chat template" if config.get("chat") else "completed as plain text"
    if kind == "minimal_pairs":
        return "Of each pair of sentences the likelier one is the model's choice."
    if kind == "perplexity":
        return "Each text was scored in pieces, each after the piece before it."
    if kind != "generate":
        return f"Prompts were {form}, with {shots}; answers were scored by their likelihood."
    temperature, n = config.get("temperature"), config.get("samples")
    seeds = config.get("seeds")
    if temperature in (0, 0.0, None):
        way = "Replies were greedy"
    elif isinstance(seeds, (list, tuple)) and seeds:
        way = f"Replies were sampled at temperature {temperature} with the seeds {', '.join(map(str, seeds))}"
    else:
        way = f"Replies were sampled at temperature {temperature} with the seed {config.get('run_seed')}"
    times = f", {n} to each prompt" if isinstance(n, int) and n > 1 else ""
    said = f"Prompts were {form}, with {shots}. {way}{times}, of at most {config.get('max_tokens')} tokens."
    return " ".join((said, *_thinking(config)))


def _thinking(config: Mapping[str, object]) -> Iterator[str]:
    think, budget = config.get("think"), config.get("reasoning_budget")
    if think is not None:
        yield f"The chat template's thinking was turned {'on' if think else 'off'}."
    if budget is not None:
        yield f"Reasoning was ended after {budget} tokens."


def _promise(results: Results) -> str:
    why = _PROMISES.get(results.promise, "")
    return f"The scores were made under the promise `{results.promise}`{': ' + why if why else ''}."


def _failures(results: Results) -> str:
    failed = [f"{results.rates[name]:.1%} {_FAILED[name]}" for name in RATES if results.rates.get(name)]
    if results.exclude_errors:
        return f"Left out were replies that failed: {', '.join(failed) or 'none'}."
    return f"Replies that failed count as wrong: {', '.join(failed) or 'none'}."


def _score(metric: str, found: Estimated, results: Results) -> str:
    if found.value is None:
        return f"{metric} has no value: {found.note}."
    if found.ci is None:
        return f"{metric} = {found.value:.4g} (n = {found.n}; no interval: {found.note})."
    method = _METHODS.get(found.method or "")
    if found.method == "bca":
        n_resamples = n_resamples_of(found.n if found.clusters is None else found.clusters)
        method = f"BCa bootstrap, {n_resamples} resamples, seed {results.config.get('bootstrap_seed')}"
    clusters = f" in {found.clusters} clusters" if found.clusters is not None else ""
    return (
        f"{metric} = {found.value:.4g} (95 % interval {found.ci[0]:.4g} to {found.ci[1]:.4g}, {method};"
        f" n = {found.n}{clusters})."
    )


def _llama(results: Results) -> str:
    return results.libraries.get("llama-cpp-python", "of an unknown version")


def _short(sha256: str | None) -> str:
    return re.sub("^sha256:", "", sha256 or "none")[:_SHA256_SHOWN]
