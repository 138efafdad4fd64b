"""A chat template that is loaded with the first row that needs one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from infer_cli.errors import InferError

if TYPE_CHECKING:
    from infer_cli.prompt.template import ChatTemplate


class NoTemplate(Exception):
    """There is no chat template to be had, for any row: `error` says why."""

    def __init__(self, error: InferError) -> None:
        super().__init__(error.message)
        self.error = error


class LateTemplate:
    """Calls `load` once."""

    def __init__(self, load: Callable[[], ChatTemplate]) -> None:
        self._load = load
        self._template: ChatTemplate | None = None

    def get(self) -> ChatTemplate:
        """Raises NoTemplate."""
        if self._template is None:
            try:
                self._template = self._load()
            except InferError as e:
                raise NoTemplate(e) from e
        return self._template
