"""A template of a scorer: over an answer and what it is an answer to."""

from __future__ import annotations

from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.scorer import Answer, ScorerFailed
from infer_cli.prompt.renderer import TemplateSource, shared
from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised
from infer_cli.text.sanitize import single_line

_MOST_REASON = 300  # characters


class AnswerTemplate:
    """The option `key` of a scorer. Its names are the fields of the row, and above these `doc` (the row),
    `reply` (the whole of it), `extracted` (what was found in it) and `references`.

    What a model wrote is a value of the template, never part of its text. Raises UsageError naming file,
    table and key for a template that does not compile.
    """

    def __init__(self, options: ScorerOptions, key: str) -> None:
        self._key = key
        self._source = TemplateSource(options.needed_text(key), strict=True)
        self._renderer = shared()
        try:
            self._renderer.compile(self._source)
        except TemplateFailed as e:
            line = "" if e.line is None else f" in line {e.line}"
            raise options.wrong(key, f"fails{line}: {_one_line(e.reason)}") from None

    def fill(self, answer: Answer) -> str:
        """The text for an answer. Raises ScorerFailed where the template fails."""
        variables = {
            **answer.doc,
            "doc": answer.doc,
            "reply": answer.text,
            "extracted": answer.extracted,
            "references": list(answer.references),
        }
        try:
            text = self._renderer.render(self._source, variables)
            text.encode()
        except UnicodeEncodeError:
            raise ScorerFailed(f"{self._key}: it gives half a surrogate pair, which is no text") from None
        except (TemplateFailed, TemplateRaised) as e:
            raise ScorerFailed(f"{self._key}: {_one_line(str(e))}") from None
        return text


def _one_line(text: str) -> str:
    return single_line(text[: 2 * _MOST_REASON])[:_MOST_REASON]
