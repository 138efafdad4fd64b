"""Answers as samples of an inspect log, the keys of its 0.3.285: whole ones, summaries and reductions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from infer_cli.evaluation.formats.scored_items import ScoredItem, derived_id, explanation_of
from infer_cli.evaluation.runs.sample import Sample

_MOST_THIN = 1024  # characters of a text in a summary, as there
_STOP_REASONS = {"stop": "stop", "stop_string": "stop", "length": "max_tokens", "context": "model_length"}


class InspectSamples:
    """Makes the samples of one run: `eval_id` is its id, `model` what the log calls the model, `date` stands
    for all times."""

    def __init__(self, eval_id: str, model: str, date: str) -> None:
        self._eval_id, self._model, self._date = eval_id, model, date

    def sample(self, scored: ScoredItem, epoch: int) -> dict[str, object]:
        """`epoch`: which of the item's answers, from 1."""
        sample = scored.samples[epoch - 1]
        uuid = derived_id(self._eval_id, scored.item.id, epoch)
        asked, date = _asked(scored, uuid), self._date
        answer = {
            "id": f"{uuid}-answer",
            "content": sample.answer or "",
            "source": "generate",
            "role": "assistant",
            "model": self._model,
        }
        output = self._output(sample, answer)
        value: dict[str, object] = {
            "id": scored.item.id,
            "epoch": epoch,
            "input": asked if isinstance(scored.prompt, list) else scored.prompt_text,
            "target": _target(scored),
            "messages": [*asked, answer],
            "output": output,
            "scores": _scores(sample),
            "metadata": _metadata(scored, sample),
            "store": {},
            "events": [self._event(uuid, asked, output)],
            "model_usage": {self._model: _usage(sample)},
            "role_usage": {},
            "started_at": date,
            "completed_at": date,
            "uuid": uuid,
            "error_retries": [],
            "attachments": {},
        }
        if scored.item.choices:
            value["choices"] = list(scored.item.choices)
        if sample.outcome == "error":
            message = explanation_of(sample, "")
            value["error"] = {"message": message, "traceback": message, "traceback_ansi": message}
        return value

    def summary(self, sample: Mapping[str, object]) -> dict[str, object]:
        """Of a whole sample: long texts are cut, and only what is short is left of its metadata."""
        keys = ("id", "epoch", "input", "choices", "target", "scores", "model_usage", "role_usage",
                "started_at", "completed_at", "uuid")  # fmt: skip
        value = {key: sample[key] for key in keys if key in sample}
        value["input"] = _thin_input(value["input"])
        target, scores, metadata = sample["target"], sample["scores"], sample["metadata"]
        value["target"] = [_thin(each) for each in target] if isinstance(target, list) else _thin(target)
        assert isinstance(scores, dict) and isinstance(metadata, dict)
        value["scores"] = {
            name: {key: _thin(each) for key, each in score.items()} for name, score in scores.items()
        }
        value["metadata"] = {
            name: each
            for name, each in metadata.items()
            if isinstance(each, (str, int, float, type(None))) and len(str(each)) <= _MOST_THIN
        }
        messages, error = sample["messages"], sample.get("error")
        assert isinstance(messages, list)
        value |= {"retries": 0, "completed": True, "message_count": len(messages)}
        if isinstance(error, dict):
            value["error"] = _thin(error["message"])
        return value

    def _event(self, uuid: str, asked: Sequence[object], output: object) -> dict[str, object]:
        """That the model was asked: what inspect takes messages and transcripts from."""
        return {
            "uuid": f"{uuid}-asked",
            "timestamp": self._date,
            "working_start": 0.0,
            "event": "model",
            "model": self._model,
            "input": asked,
            "tools": [],
            "tool_choice": "none",
            "config": {},
            "output": output,
            "completed": self._date,
        }

    def _output(self, sample: Sample, answer: Mapping[str, object]) -> dict[str, object]:
        reason = _STOP_REASONS.get(sample.finish_reason or "", "unknown" if sample.error else "stop")
        output: dict[str, object] = {
            "model": self._model.partition("/")[2],
            "choices": [{"message": answer, "stop_reason": reason}],
            "completion": sample.answer or "",
            "usage": _usage(sample),
            "metadata": {"digests": list(sample.digests), "finish_reason": sample.finish_reason},
        }
        if sample.error is not None:
            output["error"] = explanation_of(sample, "")
        return output


def reduction(scored: ScoredItem, name: str) -> dict[str, object] | None:
    """The mean of a score over an item's answers; None where one has it not."""
    values = [sample.scores.get(name) for sample in scored.samples]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return {
        "value": statistics.fmean(known),
        "answer": scored.samples[0].extracted,
        "sample_id": scored.item.id,
    }


def _asked(scored: ScoredItem, uuid: str) -> list[dict[str, object]]:
    prompt = scored.prompt
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": scored.prompt_text}]
    return [
        {"id": f"{uuid}-{i}", "content": each["content"], "source": "input", "role": each["role"]}
        for i, each in enumerate(messages)
    ]


def _target(scored: ScoredItem) -> str | list[str]:
    targets = scored.targets
    return targets[0] if len(targets) == 1 else targets if targets else ""


def _scores(sample: Sample) -> dict[str, object]:
    return {
        name: {
            "value": value,
            "answer": sample.extracted,
            "explanation": explanation_of(sample, name),
            "history": [],
        }
        for name, value in sample.scores.items()
    }


def _metadata(scored: ScoredItem, sample: Sample) -> dict[str, object]:
    """What inspect has no key for: the digests that the answer can be checked by, and the row of data."""
    return {
        "digest": " ".join(sample.digests),
        "outcome": sample.outcome,
        "extracted": sample.extracted,
        "finish_reason": sample.finish_reason,
        "group": sample.group,
        "cluster": sample.cluster,
        "seed": sample.seed,
        "sample": sample.sample,
        "sizes": sample.sizes,
        "error": sample.error,
        "fewshot": list(scored.item.fewshot),
        "likelihoods": [choice._asdict() for choice in sample.choices],
        "doc": scored.item.doc,
    }


def _usage(sample: Sample) -> dict[str, object]:
    n_prompt, n_tokens = sample.n_prompt_tokens, sample.n_tokens
    return {"input_tokens": n_prompt, "output_tokens": n_tokens, "total_tokens": n_prompt + n_tokens}


def _thin_input(value: object) -> object:
    if not isinstance(value, list):
        return _thin(value)
    return [{**message, "content": _thin(message["content"])} for message in value]


def _thin(value: object) -> object:
    return value[: _MOST_THIN - 1] + "…" if isinstance(value, str) and len(value) > _MOST_THIN else value
