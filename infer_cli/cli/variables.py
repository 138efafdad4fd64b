"""Environment variables that look like ours and are none: a misspelt one would be ignored in silence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

_PREFIX = "INFER_"
_OF_NO_FLAG = {"INFER_HOME"}
_OF_THE_TESTS = "INFER_TEST_"


def unknown_variables(called: Any, everything: Callable[[], Any]) -> list[str]:
    """A message about each variable that no flag has. `called` is the command that is called, as Typer built
    it; `everything` builds all commands, which is done only where a variable is none of the first."""
    found = {name for name in os.environ if name.startswith(_PREFIX) and not name.startswith(_OF_THE_TESTS)}
    found -= _OF_NO_FLAG
    if not found - set(_variables(called)):
        return []
    known = {*_variables(everything()), *_OF_NO_FLAG}
    return [_told(name, known) for name in sorted(found - known)]


def _told(name: str, known: set[str]) -> str:
    close = get_close_matches(name.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in known], n=1)
    return f"the variable {name} is not used" + (f": did you mean {_PREFIX}{close[0]}?" if close else "")


def _variables(command: Any) -> Iterator[str]:
    """Of the flags of a command and of all commands inside it."""
    for param in getattr(command, "params", []):
        if isinstance(param.envvar, str):
            yield param.envvar
    for sub in getattr(command, "commands", {}).values():
        yield from _variables(sub)
