"""`--row-template 'Summarise: {text}'`: a prompt with the fields of a row in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Formatter

from infer_cli.errors import UsageError

_N_NAMED = 20  # fields in a message
_HINT = "write a field as {name}, a brace as {{ or }}"


class RowTemplate:
    """Raises UsageError for a text that is no template."""

    def __init__(self, text: str) -> None:
        try:
            self._parts = [
                (literal, name, bool(spec) or conversion is not None)
                for literal, name, spec, conversion in Formatter().parse(text)
            ]
        except ValueError as e:
            raise UsageError(f"--row-template: {e}", _HINT) from None
        for _, name, more in self._parts:
            if name is not None and (more or not name or set(name) & set(".[]")):
                raise UsageError(f"--row-template: {{{name}}} is not the plain name of a field", _HINT)
        self.text = text
        self.names = tuple(dict.fromkeys(name for _, name, _ in self._parts if name is not None))
        if not self.names:
            raise UsageError("--row-template names no field: every row would be the same", _HINT)

    def texts(self, fields: Mapping[str, object]) -> dict[str, str]:
        """What of a row fills the places. Raises UsageError for a field that the row has not."""
        return {name: self._text(fields, name) for name in self.names}

    def fill(self, texts: Mapping[str, str]) -> str:
        """The prompt with a text at each place."""
        return "".join(literal + ("" if name is None else texts[name]) for literal, name, _ in self._parts)

    def _text(self, fields: Mapping[str, object], name: str) -> str:
        value = fields.get(name)
        if value is None:
            known = ", ".join(f"{field:.60}" for field in list(fields)[:_N_NAMED]) or "none"
            raise UsageError(f"the row has no field {name!r} for the row template (it has: {known})")
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
