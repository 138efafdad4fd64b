"""The command line of `infer perplexity`, checked and typed. Knows no model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from infer_cli.cli.flags.engine import engine_options
from infer_cli.cli.flags.values import Values
from infer_cli.engine.mode_policy import OF_JOBS
from infer_cli.errors import UsageError
from infer_cli.runtime.options import EngineOptions
from infer_cli.scoring.windows import DEFAULT_WINDOW, Windowing
from infer_cli.settings.defaults import MOST_TOKENS
from infer_cli.settings.origins import Given
from infer_cli.system.files import not_a_file


@dataclass(frozen=True)
class PerplexityOptions:
    """A checked command line. `against`: the model to compare with."""

    file: str
    model: str | None
    against: str | None
    stride: int | None
    rolling: bool
    limit: int | None
    engine: EngineOptions
    offline: bool
    json: bool
    stats: bool
    quiet: bool

    @property
    def text_name(self) -> str:
        """What an error calls the text."""
        return "stdin" if self.file == "-" else self.file

    @property
    def engine_of_base(self) -> EngineOptions:
        """For the model to compare with: adapters are the other's."""
        return replace(self.engine, loras=())

    def windowing(self, model_window: int) -> Windowing:
        """For a model that reads so many tokens at most."""
        window = self.engine.ctx or (model_window if self.rolling else DEFAULT_WINDOW)
        return Windowing(window, self.stride, self.rolling, self.limit)


def check(given: Mapping[str, Given]) -> PerplexityOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""
    values = Values(given)
    values.exclude((("rolling", "stride"),))
    file = values.argument("file")
    if file == "-" and sys.stdin is None:
        raise UsageError("there is no stdin to read", "name a text file")
    if file != "-" and not os.path.exists(file):  # before a model is loaded, perhaps downloaded
        raise UsageError(not_a_file(file))
    engine, _ = engine_options(values, OF_JOBS)
    return PerplexityOptions(
        file=file,
        model=values.text("model"),
        against=values.text("against"),
        stride=values.number("stride", 1, MOST_TOKENS),
        rolling=values.is_set("rolling"),
        limit=values.number("limit", 1, MOST_TOKENS),
        engine=engine,
        offline=values.is_set("offline"),
        json=values.is_set("json"),
        stats=values.is_set("stats"),
        quiet=values.is_set("quiet"),
    )
