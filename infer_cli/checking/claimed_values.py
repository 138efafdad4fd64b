"""Values of a results file. The file may be anyone's: each is checked, and what is wrong names its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from infer_cli.batch.output_index import Line
from infer_cli.errors import UsageError
from infer_cli.prompt.fitting import policy_named
from infer_cli.settings.defaults import MOST_TOKENS

T = TypeVar("T")
P = TypeVar("P", bound=str)

# Each raises UsageError for a value that is not as it should be.


def wrong(line: Line, name: str, value: object) -> UsageError:
    return UsageError(f"row {line.row}: {name} is not as it should be: {str(value)[:60]!r}")


def value_of(line: Line, value: Mapping[str, Any], name: str, kind: type[T]) -> T:
    found = value.get(name)
    if not isinstance(found, kind):
        raise wrong(line, name, found)
    return found


def whole(line: Line, name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise wrong(line, name, value)
    return value


def text_or_none(line: Line, name: str, value: object) -> str | None:
    return None if value is None else value_of(line, {name: value}, name, str)


def tokens_of(line: Line) -> tuple[int, ...]:
    tokens = value_of(line, line.value, "tokens", list)
    return tuple(whole(line, "tokens", token, 0, MOST_TOKENS) for token in tokens)


def error_code_of(line: Line) -> int | None:
    """The exit code that a row failed with, a text in OpenAI's form."""
    if line.value.get("error") is None:
        return None
    code = value_of(line, line.value, "error", dict).get("code")
    if isinstance(code, str) and code.isdecimal() and len(code) <= 3:
        code = int(code)
    return whole(line, "error", code, 0, 255)


def truncation_of(
    line: Line, value: Mapping[str, Any], known: Sequence[P], default: P
) -> tuple[Mapping[str, object] | None, P]:
    """What was cut from a prompt, and by which policy."""
    if value.get("truncation") is None:
        return None, default
    found = value_of(line, value, "truncation", dict)
    policy = policy_named(found.get("policy"), known)
    if policy is None:
        raise wrong(line, "truncation", found)
    return found, policy


def custom_id_of(line: Line) -> str:
    return value_of(line, line.value, "custom_id", str)
