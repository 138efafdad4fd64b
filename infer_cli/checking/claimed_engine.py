"""What a results file says of the model and the engine that made it. The file may be anyone's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from infer_cli.backend.spec import LoraSpec
from infer_cli.batch.job import DEFAULT_WIDTH, MAX_WIDTH, JobFile
from infer_cli.batch.output_index import Line
from infer_cli.checking.claimed_values import value_of, whole
from infer_cli.errors import UsageError
from infer_cli.runtime.engine_facts import EngineFacts, fingerprint
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.defaults import MOST_TOKENS
from infer_cli.system.processors import default_threads
from infer_cli.types import EngineIdentity, ModelIdentity

_NO_JOB = "OpenAI's form leaves out what replies were made with, and the job's file is not there"


class EngineClaim(NamedTuple):
    """The model and engine that replies are said to come from. `recorded` are the facts as the file has them,
    those that only another version of infer knows too."""

    model: str | None
    model_sha256: str | None
    fingerprint: str
    facts: EngineFacts
    recorded: Mapping[str, object]
    only_seed: bool  # no more was promised
    width: int

    def is_as(self, other: EngineClaim) -> bool:
        """Whether replies come from the same: a model's file may have several names."""
        mine, others = (
            (c.model_sha256 or c.model, c.fingerprint, c.width, fingerprint(c.recorded))
            for c in (self, other)
        )
        return mine == others

    @property
    def model_identity(self) -> ModelIdentity:
        return ModelIdentity(self.model, self.model_sha256)

    @property
    def engine_identity(self) -> EngineIdentity:
        """With the fingerprint that the claimed facts have."""
        return EngineIdentity(
            self.facts.infer, self.facts.llama_cpp, fingerprint(self.recorded), self.recorded
        )


def engine_of_job(job: JobFile) -> EngineClaim:
    """Where a job's replies come from. Raises UsageError."""
    facts = _facts(job.engine.facts, "the job's file")
    return EngineClaim(
        job.model.name,
        job.model.sha256,
        job.fingerprint,
        facts,
        job.engine.facts,
        facts.mode == "fast",
        _width(facts, job),
    )


def engine_claim(line: Line, job: JobFile | None) -> EngineClaim:
    """Where a line's replies come from, by the line itself or by its job. Raises UsageError."""
    value = line.value
    if isinstance(value.get("infer"), dict):
        if job is None:
            raise UsageError(_NO_JOB, "put the directory that ends in .job beside it")
        ours = value_of(line, value, "infer", dict)
        return engine_of_job(job)._replace(fingerprint=value_of(line, ours, "fingerprint", str))
    model = value_of(line, value, "model", dict)
    engine = value_of(line, value, "engine", dict)
    recorded = value_of(line, engine, "facts", dict)
    facts = _facts(recorded, f"row {line.row}")
    name, sha256 = model.get("name"), model.get("sha256")
    return EngineClaim(
        None if name is None else str(name),
        None if sha256 is None else str(sha256),
        value_of(line, engine, "fingerprint", str),
        facts,
        recorded,
        facts.mode == "fast" or value.get("promise") == "seed-only",
        whole(line, "width", _width(facts, job), 1, MAX_WIDTH),
    )


def model_name(line: Line) -> str | None:
    """What a line calls its model; None where it does not say. Raises UsageError."""
    value = line.value
    if not isinstance(value.get("infer"), dict):
        name = value_of(line, value, "model", dict).get("name")
    else:
        response = value.get("response")
        body = response.get("body") if isinstance(response, dict) else None
        name = body.get("model") if isinstance(body, dict) else None
    return name if isinstance(name, str) else None


def _facts(recorded: Mapping[str, object], where: str) -> EngineFacts:
    try:
        return EngineFacts.read(recorded)
    except ValueError as e:
        raise UsageError(f"{where}: {e}") from None


def _width(facts: EngineFacts, job: JobFile | None) -> int:
    # Only a mode that keeps its promise at any width leaves it out of the facts.
    return facts.width or (DEFAULT_WIDTH if job is None else job.width)


def engine_options(claim: EngineClaim, window: int | None, loras: tuple[LoraSpec, ...]) -> EngineOptions:
    """The engine as it is said to have been; `window` None is all that the model has.

    Raises UsageError for one that can't be had.
    """
    facts = claim.facts
    n_adapters = len(facts.adapters)
    if n_adapters != len(loras):
        raise UsageError(
            f"the replies were made with {n_adapters} LoRA adapters, here are {len(loras)}",
            "give the same with --lora",
        )
    threads = facts.threads or default_threads()
    options = EngineOptions.of_facts(facts, threads=threads, ctx=window, loras=loras)
    options.check()
    return options


def filled_window(line: Line) -> int | None:
    """The window in tokens that a reply, or a context that was cut, has filled; None where it has not. Raises
    UsageError."""
    value = line.value
    was_cut = value.get("token_logprobs") is not None and value.get("truncation") is not None
    if value.get("finish_reason") != "context" and not was_cut:
        return None
    usage = value_of(line, value, "usage", dict)
    n_prompt, n_reply = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return whole(line, "prompt_tokens", n_prompt, 1, MOST_TOKENS) + whole(
        line, "completion_tokens", n_reply, 0, MOST_TOKENS
    )
