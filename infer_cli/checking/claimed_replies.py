"""What a results file says of its replies. The file may be anyone's: all that is read here is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, get_args

from infer_cli.answering.reply import digest
from infer_cli.batch.job import JobFile
from infer_cli.batch.output_index import Line
from infer_cli.checking.claimed_values import (
    custom_id_of,
    error_code_of,
    text_or_none,
    tokens_of,
    truncation_of,
    value_of,
    whole,
    wrong,
)
from infer_cli.errors import UsageError
from infer_cli.prompt.fitting import POLICIES, Policy
from infer_cli.settings.defaults import MAX_LOGPROBS, MOST_TOKENS
from infer_cli.types import MAX_SEED, FinishReason

_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)


class ReplyClaim(NamedTuple):
    """One reply as a line has it. `tokens` and `params` None: OpenAI's form does not have them, and a row
    that failed has no parameters. `error_code`: it failed."""

    row: int
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

    @property
    def has_answer(self) -> bool:
        return self.text is not None or bool(self.tokens) or bool(self.params)

    @property
    def contradiction(self) -> str:
        """What of its own values does not fit together, as far as these are there; empty where all does."""
        if self.tokens is None or self.params is None:
            return ""
        try:
            found = digest(self.tokens, self.text, self.finish_reason, self.seed, self.params)
        except (ValueError, RecursionError):  # NaN, or nested too deeply
            found = ""
        return "" if found == self.digest else "its digest is not that of what the line says"


def reply_claims(line: Line, job: JobFile | None) -> list[ReplyClaim]:
    """The replies of a line. Raises UsageError for a line that is not as it should be."""
    if isinstance(line.value.get("infer"), dict):
        return _openai_claims(line, job)
    return [_own_claim(line)]


def _own_claim(line: Line) -> ReplyClaim:
    value = line.value
    usage, params = value_of(line, value, "usage", dict), value_of(line, value, "params", dict)
    error_code = error_code_of(line)
    was_computed = error_code is None or bool(params)
    if was_computed and "choices" not in params:
        whole(line, "max_tokens", params.get("max_tokens"), 1, MOST_TOKENS)
    return ReplyClaim(
        line.row,
        custom_id_of(line),
        whole(line, "sample", value.get("sample"), 0, 255),
        text_or_none(line, "text", value.get("text")),
        tokens_of(line),
        _reason(line, value.get("finish_reason")),
        value_of(line, value, "digest", str),
        _seed(line, value.get("seed")),
        _seed(line, value.get("run_seed")),
        params,
        whole(line, "prompt_tokens", usage.get("prompt_tokens"), 0, MOST_TOKENS),
        *truncation_of(line, value, POLICIES, "error"),
        _n_logprobs(line),
        error_code,
    )


def _n_logprobs(line: Line) -> int | None:
    """How many alternatives the tokens of a line have, at most."""
    logprobs = line.value.get("logprobs")
    if logprobs is None:
        return None
    items = value_of(line, line.value, "logprobs", list)
    tops = [item.get("top_logprobs", ()) for item in items if isinstance(item, dict)]
    return min(max((len(top) for top in tops if isinstance(top, (list, tuple))), default=0), MAX_LOGPROBS)


def _openai_claims(line: Line, job: JobFile | None) -> list[ReplyClaim]:
    ours = value_of(line, line.value, "infer", dict)
    error_code = error_code_of(line)
    kept = [value_of(line, ours, name, list) for name in ("finish_reasons", "digests", "seeds")]
    choices: list[object] = [None] * len(kept[0])
    n_prompt: int | None = None
    if error_code is None:
        body = value_of(line, value_of(line, line.value, "response", dict), "body", dict)
        usage = value_of(line, body, "usage", dict)
        choices = value_of(line, body, "choices", list)
        n_prompt = whole(line, "prompt_tokens", usage.get("prompt_tokens"), 0, MOST_TOKENS)
    if not choices or len({len(choices), *map(len, kept)}) > 1:
        raise UsageError(f"row {line.row}: its choices are not as many as its digests")
    found = []
    for sample, (choice, reason, digest_, seed) in enumerate(zip(choices, *kept, strict=True)):
        found.append(
            ReplyClaim(
                line.row,
                custom_id_of(line),
                sample,
                None if error_code is not None else _text_of(line, choice),
                None,
                _reason(line, reason),
                str(digest_),
                _seed(line, seed),
                None if job is None else job.run_seed,
                None,
                n_prompt,
                *truncation_of(line, ours, POLICIES, "error"),
                None,
                error_code,
            )
        )
    return found


def _text_of(line: Line, choice: object) -> str | None:
    if not isinstance(choice, dict):
        raise UsageError(f"row {line.row}: choices is not as it should be")
    text = choice["text"] if "text" in choice else value_of(line, choice, "message", dict).get("content")
    return text_or_none(line, "content", text)


def _seed(line: Line, value: object) -> int | None:
    return None if value is None else whole(line, "seed", value, 0, MAX_SEED)


def _reason(line: Line, value: object) -> FinishReason:
    reason = next((reason for reason in _REASONS if reason == value), None)
    if reason is None:
        raise wrong(line, "finish_reason", value)
    return reason
