"""What differs between two records. Knows no database and no command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infer_cli.records.record import Record
from infer_cli.text.common_prefix import n_same

_CONTEXT = 30  # characters shown before the first that differs
_SHOWN = 80

_FACTS = (
    "kind", "model", "model_sha256", "template_sha256", "fingerprint", "mode", "promise", "width", "n_ctx",
    "run_seed", "seed", "finish_reason", "prompt_sha256", "text_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """`what` is a field's name, `params.<name>`, `engine.<fact>` or `log-probability.<choice>`. None: only
    the other record has it."""

    what: str
    a: object
    b: object


@dataclass(frozen=True)
class TokenDifference:
    """Where two token sequences part: the index, each side's token (None: it has ended), and each side's
    text around the first character that differs (empty where the texts are not kept or do not differ)."""

    index: int
    a: int | None
    b: int | None
    text_a: str
    text_b: str


@dataclass(frozen=True)
class Comparison:
    same_reply: bool  # equal digests
    differences: tuple[Difference, ...]
    prompt: TokenDifference | None
    reply: TokenDifference | None


def compare(a: Record, b: Record) -> Comparison:
    differences = [Difference(name, getattr(a, name), getattr(b, name)) for name in _FACTS]
    differences += _of_mappings("params", a.params, b.params)
    differences += _of_mappings("origin", _origins(a), _origins(b))
    differences += _of_mappings("engine", a.engine, b.engine)
    differences += _of_mappings("log-probability", _logprobs(a), _logprobs(b))
    return Comparison(
        a.digest == b.digest,
        tuple(d for d in differences if d.a != d.b),
        _of_tokens(a.prompt_ids, b.prompt_ids, a.prompt, b.prompt),
        _of_tokens(a.tokens, b.tokens, a.text, b.text),
    )


def _logprobs(record: Record) -> dict[str, object]:
    """Of the choices, where the answer was to be one of several texts."""
    return {choice.text: choice.logprob for choice in record.choices or ()}


def _origins(record: Record) -> dict[str, object]:
    return {setting.name: setting.origin for setting in record.settings}


def _of_mappings(name: str, a: Mapping[str, object], b: Mapping[str, object]) -> list[Difference]:
    return [Difference(f"{name}.{key}", a.get(key), b.get(key)) for key in sorted({*a, *b})]


def _of_tokens(
    a: Sequence[int] | None, b: Sequence[int] | None, text_a: str | None, text_b: str | None
) -> TokenDifference | None:
    if a is None or b is None or a == b:
        return None
    index = n_same(a, b)
    shown_a, shown_b = _around_difference(text_a or "", text_b or "")
    return TokenDifference(
        index, a[index] if index < len(a) else None, b[index] if index < len(b) else None, shown_a, shown_b
    )


def _around_difference(a: str, b: str) -> tuple[str, str]:
    if a == b:
        return "", ""
    start = max(0, n_same(a, b) - _CONTEXT)
    return a[start : start + _SHOWN], b[start : start + _SHOWN]
