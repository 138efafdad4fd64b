"""What a results file says of its replies. The file may be anyone's: all that is read here is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, get_args

from infer_cli.backend.spec import LoraSpec
from infer_cli.batch.job import DEFAULT_WIDTH, MAX_WIDTH, JobFile
from infer_cli.batch.output_index import Line
from infer_cli.errors import UsageError
from infer_cli.prompt.fitting import POLICIES, Policy, policy_named
from infer_cli.runtime.engine_facts import EngineFacts, fingerprint
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.defaults import MAX_LOGPROBS, MOST_TOKENS
from infer_cli.system.processors import default_threads
from infer_cli.types import MAX_SEED, EngineIdentity, FinishReason, ModelIdentity

_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)

T = TypeVar("T")


class Claim(NamedTuple):
    """One reply as a line has it. `tokens` and `params` None: OpenAI's form does not have them, and a row
    that failed has no parameters. `error_code`: it failed."""

    row: int
    row_sha256: str
    custom_id: str
    sample: int
    text: str | None
    tokens: tuple[int, ...] | None
    finish_reason: FinishReason
    digest: str
    seed: int | None
    run_seed: int | None
    params: Mapping[str, object] | None
    n_prompt: int | None  # tokens; None in OpenAI's form where a row failed
    truncation: Mapping[str, object] | None
    overflow: Policy  # what its prompt was cut by
    n_logprobs: int | None  # of each token, as `EngineRequest` has it
    error_code: int | None

    @property
    def was_cut(self) -> bool:
        """Ended from outside, at a moment that does not come again."""
        return self.finish_reason == "deadline"


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


def claims_of(line: Line, job: JobFile | None) -> list[Claim]:
    """The replies of a line. Raises UsageError for a line that is not as it should be."""
    if isinstance(line.value.get("infer"), dict):
        return _openai_claims(line, job)
    return [_own_claim(line)]


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
        ours = _of(line, value, "infer", dict)
        return engine_of_job(job)._replace(fingerprint=_of(line, ours, "fingerprint", str))
    model = _of(line, value, "model", dict)
    engine = _of(line, value, "engine", dict)
    recorded = _of(line, engine, "facts", dict)
    facts = _facts(recorded, f"row {line.row}")
    name, sha256 = model.get("name"), model.get("sha256")
    return EngineClaim(
        None if name is None else str(name),
        None if sha256 is None else str(sha256),
        _of(line, engine, "fingerprint", str),
        facts,
        recorded,
        facts.mode == "fast" or value.get("promise") == "seed-only",
        _whole(line, "width", _width(facts, job), 1, MAX_WIDTH),
    )


def model_name(line: Line) -> str | None:
    """What a line calls its model; None where it does not say. Raises UsageError."""
    value = line.value
    if not isinstance(value.get("infer"), dict):
        name = _of(line, value, "model", dict).get("name")
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
    """The window in tokens that a reply has filled; None where it has not. Raises UsageError."""
    value = line.value
    if value.get("finish_reason") != "context":
        return None
    usage = _of(line, value, "usage", dict)
    n_prompt, n_reply = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return _whole(line, "prompt_tokens", n_prompt, 1, MOST_TOKENS) + _whole(
        line, "completion_tokens", n_reply, 0, MOST_TOKENS
    )


_NO_JOB = "OpenAI's form leaves out what replies were made with, and the job's file is not there"


def _own_claim(line: Line) -> Claim:
    value = line.value
    usage, params = _of(line, value, "usage", dict), _of(line, value, "params", dict)
    error_code = _error_code(line)
    was_computed = error_code is None or bool(params)
    if was_computed:
        _whole(line, "max_tokens", params.get("max_tokens"), 1, MOST_TOKENS)
    tokens = _of(line, value, "tokens", list)
    for token in tokens:
        _whole(line, "tokens", token, 0, MOST_TOKENS)
    return Claim(
        line.row,
        line.row_sha256,
        _custom_id(line),
        _whole(line, "sample", value.get("sample"), 0, 255),
        _text_or_none(line, "text", value.get("text")),
        tuple(tokens),
        _reason(line, value.get("finish_reason")),
        _of(line, value, "digest", str),
        _seed(line, value.get("seed")),
        _seed(line, value.get("run_seed")),
        params,
        _whole(line, "prompt_tokens", usage.get("prompt_tokens"), 0, MOST_TOKENS),
        *_truncation(line, value),
        _n_logprobs(line),
        error_code,
    )


def _n_logprobs(line: Line) -> int | None:
    """How many alternatives the tokens of a line have, at most."""
    logprobs = line.value.get("logprobs")
    if logprobs is None:
        return None
    items = _of(line, line.value, "logprobs", list)
    tops = [item.get("top_logprobs", ()) for item in items if isinstance(item, dict)]
    return min(max((len(top) for top in tops if isinstance(top, (list, tuple))), default=0), MAX_LOGPROBS)


def _openai_claims(line: Line, job: JobFile | None) -> list[Claim]:
    ours = _of(line, line.value, "infer", dict)
    error_code = _error_code(line)
    kept = [_of(line, ours, name, list) for name in ("finish_reasons", "digests", "seeds")]
    choices: list[object] = [None] * len(kept[0])
    n_prompt: int | None = None
    if error_code is None:
        body = _of(line, _of(line, line.value, "response", dict), "body", dict)
        usage = _of(line, body, "usage", dict)
        choices = _of(line, body, "choices", list)
        n_prompt = _whole(line, "prompt_tokens", usage.get("prompt_tokens"), 0, MOST_TOKENS)
    if not choices or len({len(choices), *map(len, kept)}) > 1:
        raise UsageError(f"row {line.row}: its choices are not as many as its digests")
    found = []
    for sample, (choice, reason, digest, seed) in enumerate(zip(choices, *kept, strict=True)):
        found.append(
            Claim(
                line.row,
                line.row_sha256,
                _custom_id(line),
                sample,
                None if error_code is not None else _text_of(line, choice),
                None,
                _reason(line, reason),
                str(digest),
                _seed(line, seed),
                None if job is None else job.run_seed,
                None,
                n_prompt,
                *_truncation(line, ours),
                None,
                error_code,
            )
        )
    return found


def _text_of(line: Line, choice: object) -> str | None:
    if not isinstance(choice, dict):
        raise UsageError(f"row {line.row}: choices is not as it should be")
    text = choice["text"] if "text" in choice else _of(line, choice, "message", dict).get("content")
    return _text_or_none(line, "content", text)


def _error_code(line: Line) -> int | None:
    """The exit code that a row failed with, a text in OpenAI's form."""
    if line.value.get("error") is None:
        return None
    code = _of(line, line.value, "error", dict).get("code")
    if isinstance(code, str) and code.isdecimal() and len(code) <= 3:
        code = int(code)
    return _whole(line, "error", code, 0, 255)


def _of(line: Line, value: Mapping[str, Any], name: str, kind: type[T]) -> T:
    found = value.get(name)
    if not isinstance(found, kind):
        raise UsageError(f"row {line.row}: {name} is not as it should be: {str(found)[:60]!r}")
    return found


def _whole(line: Line, name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"row {line.row}: {name} is not as it should be: {str(value)[:60]!r}")
    return value


def _truncation(line: Line, value: Mapping[str, Any]) -> tuple[Mapping[str, object] | None, Policy]:
    """What was cut from a prompt, and by which policy."""
    if value.get("truncation") is None:
        return None, "error"
    found = _of(line, value, "truncation", dict)
    policy = policy_named(found.get("policy"), POLICIES)
    if policy is None:
        raise UsageError(f"row {line.row}: truncation is not as it should be: {str(found)[:60]!r}")
    return found, policy


def _seed(line: Line, value: object) -> int | None:
    return None if value is None else _whole(line, "seed", value, 0, MAX_SEED)


def _custom_id(line: Line) -> str:
    return _of(line, line.value, "custom_id", str)


def _text_or_none(line: Line, name: str, value: object) -> str | None:
    return None if value is None else _of(line, {name: value}, name, str)


def _reason(line: Line, value: object) -> FinishReason:
    reason = next((reason for reason in _REASONS if reason == value), None)
    if reason is None:
        raise UsageError(f"row {line.row}: finish_reason is not as it should be: {str(value)[:60]!r}")
    return reason
