"""The command line of `infer chat`, checked and typed. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from infer_cli.cli.flags.shared import PRIVATE_HINT, ShowingOptions, overflow_of, read_showing
from infer_cli.cli.flags.values import Values
from infer_cli.conversation.shortening import DEFAULT, OVERFLOW_POLICIES
from infer_cli.errors import UsageError
from infer_cli.settings.origins import Given
from infer_cli.system.files import is_url, not_a_file

Keys = Literal["emacs", "vi"]
_KEYS: tuple[Keys, ...] = ("emacs", "vi")


@dataclass(eq=False, repr=False)
class ChatOptions(ShowingOptions):
    """A checked command line of `infer chat`. Its files stand before the first message."""

    keys: Keys
    continues: bool
    resume: str | None


def check(given: Mapping[str, Given]) -> ChatOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""
    values = Values(given)
    values.exclude([("plain", "markdown")])
    keys = values.one_of("keys", _KEYS) or "emacs"
    template = values.text("chat_template")
    if template is not None and not os.path.exists(template):
        raise UsageError(not_a_file(template))
    for path in values.texts("file"):
        if path == "-":
            raise UsageError("-f - has nothing to read: the messages come from standard input")
        if not is_url(path) and not os.path.exists(path):
            raise UsageError(not_a_file(path))
    continues, resume = values.is_set("continue_"), values.text("resume")
    if continues and resume is not None:
        raise UsageError("--continue and --resume exclude each other")
    if values.is_set("private") and (continues or resume is not None):
        other = "--continue" if continues else "--resume"
        raise UsageError(f"{values.origin('private')} and {other} exclude each other", PRIVATE_HINT)
    shared = read_showing(
        values, overflow=overflow_of(values, OVERFLOW_POLICIES, DEFAULT), variables=values.texts("var")
    )
    return ChatOptions(**vars(shared), keys=keys, continues=continues, resume=resume)
