"""The panels of a help page: which flags stand together, in which order, and how they fit a terminal.

Plain text: Rich would cost more than all the rest of a help page.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

ROWS, JOB = "Rows", "Job"
MODEL, PROMPT, SAMPLING, OUTPUT = "Model", "Prompt", "Sampling", "Output"
WINDOW, ENGINE = "Window", "Engine"
ORDER = (ROWS, JOB, MODEL, PROMPT, SAMPLING, OUTPUT, WINDOW, ENGINE)  # behind those of the command alone
_OWN, _REST = "Options", "Other"

_LEAST_WIDTH = 30  # of a page
_MARGIN, _INDENT, _GAP = 2, 2, 2
_MOST_NAMES = 28  # columns for the names of flags; longer names have a line of their own
_NARROW = 70  # a page of fewer columns has a third of them for names

_Records = Sequence[tuple[str, str]]


def add_panels(command: Any) -> None:
    """Let a Typer command, and all inside it, show their flags in panels, and whole lists of commands."""
    columns = shutil.get_terminal_size().columns
    command.context_settings["terminal_width"] = max(min(columns, 100) - _MARGIN, _LEAST_WIDTH)
    _add(command)


def _add(command: Any) -> None:
    inside = getattr(command, "commands", {})
    if inside:
        command.format_commands = partial(_format_commands, command)
    else:
        command.format_options = partial(_format_options, command)
    for sub in inside.values():
        _add(sub)


def panels(command: Any, context: Any) -> dict[str, list[tuple[str, str]]]:
    """Names of flags and what they do, by panel, in the order of the page."""
    arguments: list[tuple[str, str]] = []
    found: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is None:
            continue
        if param.param_type_name == "argument":
            arguments.append(record)
        else:
            panel = _REST if "--help" in param.opts else getattr(param, "rich_help_panel", None) or _OWN
            found.setdefault(panel, []).append(record)
    if set(found) <= {_OWN, _REST}:  # one list is enough
        found = {_OWN: [record for records in found.values() for record in records]}
    shown = {"Arguments": arguments} if arguments else {}
    return {**shown, **{panel: found[panel] for panel in sorted(found, key=_place)}}


def _place(panel: str) -> int:
    """What only one command has comes first."""
    places = {_OWN: -2, _REST: len(ORDER)}
    return places[panel] if panel in places else ORDER.index(panel) if panel in ORDER else -1


def _format_options(command: Any, context: Any, formatter: Any) -> None:
    for panel, records in panels(command, context).items():
        with formatter.section(panel):
            for line in definition_list(records, formatter.width):
                formatter.write(line + "\n")


def _format_commands(command: Any, context: Any, formatter: Any) -> None:
    records = [(name, sub.get_short_help_str(limit=1000)) for name, sub in command.commands.items()]
    with formatter.section("Commands"):
        for line in definition_list(records, formatter.width):
            formatter.write(line + "\n")


def definition_list(records: _Records, width: int) -> Iterator[str]:
    """Lines of names with texts beside them, indented; a text begins below names that are too long."""
    most = _MOST_NAMES if width >= _NARROW else width // 3
    fitting = [len(names) for names, _ in records if len(names) <= most]
    column = _INDENT + _GAP + max(fitting, default=most)
    for names, text in records:
        *above, last = _name_lines(names, width - _INDENT)
        yield from (" " * _INDENT + line for line in above)
        begun = " " * _INDENT + last
        first, *following = textwrap.wrap(
            text, width - column, break_long_words=False, break_on_hyphens=False
        ) or [""]
        if above or len(begun) + _GAP > column:
            yield begun
            begun = ""
        yield f"{begun:<{column}}{first}".rstrip()
        yield from (" " * column + line for line in following)


def _name_lines(names: str, width: int) -> list[str]:
    """Broken between words, and where that is not enough behind the `|` of choices."""
    lines = [""]
    for word in names.split(" "):
        for i, piece in enumerate(word.replace("|", "|\n").split("\n")):
            space = " " if i == 0 and lines[-1].strip() else ""
            if len(lines[-1]) + len(space) + len(piece) > width and lines[-1].strip():
                lines.append("    " + piece)
            else:
                lines[-1] += space + piece
    return lines
