"""A row of data as JSON: what it may hold, its digest, and its fields as text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from infer_cli.errors import UsageError
from infer_cli.prompt.messages import MAX_DEPTH
from infer_cli.system.hashing import sha256_hex

Doc = Mapping[str, object]

_N_NAMED = 20  # fields in a message
_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class MissingField(UsageError):
    """A row is none of the task's: its error begins with the row."""


def canonical_json(value: object) -> bytes:
    """The one form of a JSON value that digests are made of."""
    return _ENCODER.encode(value).encode()


def doc_sha256(doc: Doc) -> str:
    """64 bits, hex."""
    return sha256_hex(canonical_json(doc))[:16]


def checked_doc(value: object, where: str) -> dict[str, object]:
    """`value`, if it is an object that templates can be given. Raises UsageError that begins with `where`."""
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not an object", 'write {"question": "…"}')
    pending: list[tuple[object, int]] = [(value, 1)]
    while pending:
        each, depth = pending.pop()
        if isinstance(each, dict):
            for key in each:
                if not isinstance(key, str):
                    raise UsageError(f"{where} has the key {key!r:.60}, which is not a string")
            pending += [(inner, depth + 1) for pair in each.items() for inner in pair]
        elif isinstance(each, (list, tuple)):
            pending += [(inner, depth + 1) for inner in each]
        elif isinstance(each, str):
            _check_unicode(each, where)
        elif isinstance(each, float) and not math.isfinite(each):
            raise UsageError(f"{where} holds {each}, which JSON has not")
        elif each is not None and not isinstance(each, (bool, int, float)):
            raise UsageError(f"{where} holds {type(each).__name__}, which JSON has not")
        if depth > MAX_DEPTH:
            raise UsageError(f"{where} is nested too deeply: more than {MAX_DEPTH} levels")
    return value


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where} holds half a surrogate pair, which is no text") from None


def field_text(doc: Doc, name: str, where: str, needed_by: str) -> str:
    """A field that names something. Raises UsageError that begins with `where` for one that is not there, or
    is no text or number."""
    if name not in doc:
        raise MissingField(
            f"{where} has no field {name!r:.60}, which is needed by {needed_by}",
            f"it has {named_fields(list(doc))}",
        )
    value = doc[name]
    if not isinstance(value, (str, int, float)) or value == "":
        what = "is empty" if value == "" else "is null" if value is None else "is not a text or a number"
        raise UsageError(f"{where}: its field {name!r:.60}, which is needed by {needed_by}, {what}")
    return value if isinstance(value, str) else json.dumps(value)


def named_fields(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name:.60}" for name in names[:_N_NAMED])
    return (shown + (", …" if len(names) > _N_NAMED else "")) or "none"
