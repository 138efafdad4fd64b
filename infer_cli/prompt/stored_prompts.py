"""Prompt templates: text files with `{{ variable }}` places, kept in the user's `prompts/` directory.

It knows nothing of chat templates, roles or models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.system.files import MOST_INPUT, read_regular
from infer_cli.system.paths import config_dir

INPUT = "input"  # the variable that stands for the text of stdin, files and arguments
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt with places to fill. Raises UsageError, on first use, where the text does not compile."""

    name: str
    source: str

    @cached_property
    def _all_variables(self) -> frozenset[str]:
        from infer_cli.prompt.renderer import TemplateSource, shared
        from infer_cli.prompt.template_errors import TemplateFailed

        try:
            return shared().free_variables(TemplateSource(self.source))
        except TemplateFailed as error:
            raise self._failed(error.reason, error.line) from error

    @property
    def variables(self) -> tuple[str, ...]:
        """Names that `--var` can give, sorted; `input` is not among them."""
        return tuple(sorted(self._all_variables - {INPUT}))

    def render(self, variables: Mapping[str, str], input: str) -> str:
        """The prompt. `input` goes to `{{ input }}`, or after a blank line where the template has none.

        Raises UsageError for a variable that is missing or unknown, and for a template that fails.
        """
        from infer_cli.prompt.renderer import TemplateSource, shared
        from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised

        self._check_names(variables)
        try:
            text = shared().render(TemplateSource(self.source, strict=True), {**variables, INPUT: input})
        except TemplateRaised as error:
            raise self._failed(str(error), None) from error
        except TemplateFailed as error:
            for name in self.variables:  # one that is read without a default
                if name not in variables and error.reason == f"{name!r} is undefined":
                    raise self._missing(name, variables) from error
            raise self._failed(error.reason, error.line) from error
        if INPUT in self._all_variables or not input:
            return text
        return f"{text.rstrip()}\n\n{input}" if text.strip() else input

    def _check_names(self, given: Mapping[str, str]) -> None:
        if INPUT in given:
            raise UsageError(
                f"{INPUT!r} can't be given with --var", "it stands for standard input and the arguments"
            )
        unknown = sorted(name for name in given if name not in self._all_variables)
        if unknown:
            known = ", ".join(self.variables) or "none"
            raise UsageError(
                f"prompt template {self.name!r} has no variable {', '.join(unknown)} (it has: {known})",
                f"leave out --var {unknown[0]}=…",
            )

    def _missing(self, name: str, given: Mapping[str, str]) -> UsageError:
        listed = ", ".join(sorted(given)) or "none"
        return UsageError(
            f"prompt template {self.name!r} needs the variable {name!r} (given: {listed})",
            f"add --var {name}=VALUE",
        )

    def _failed(self, reason: str, line: int | None) -> UsageError:
        where = f", line {line}" if line is not None else ""
        return UsageError(
            f"prompt template {self.name!r}{where}: {' '.join(reason.split())}", "correct the file"
        )


def load(name: str) -> PromptTemplate:
    """The template `name` of `prompts/`, or the file at the path `name`.

    A path is what has a directory part or ends in `.md` or `.txt`. Raises UsageError where there is none.
    """
    from infer_cli.prompt.messages import decode_input

    if _NAME.fullmatch(name) and not name.endswith((".md", ".txt")):
        path = config_dir() / "prompts" / f"{name}.md"
    else:
        path = Path(name).expanduser()
    try:
        data = read_regular(path, MOST_INPUT)
    except FileNotFoundError as error:
        known = ", ".join(names())
        raise UsageError(
            f"no prompt template {name!r}: {path} does not exist",
            f"there are: {known}" if known else f"write one to {config_dir() / 'prompts' / 'NAME.md'}",
        ) from error
    except OSError as error:
        raise UsageError(f"can't read prompt template {path}: {error.strerror or error}") from error
    return PromptTemplate(name, decode_input(data, str(path)))


def names() -> list[str]:
    """Templates in the user's directory, sorted."""
    return sorted(path.stem for path in (config_dir() / "prompts").glob("*.md"))
