"""How a template fails, for those who render it and those who only have it rendered."""

from __future__ import annotations


class TemplateFailed(Exception):
    """The template is broken or does what it may not. `line` counts from 1; None where unknown."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


class TemplateRaised(Exception):
    """The template called `raise_exception`; the text is the template's own."""
