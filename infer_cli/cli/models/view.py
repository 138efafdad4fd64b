"""What `infer models` prints: rows of the list, facts of one model, the outcome of a check.

Names and values may come from a model's file or another tool's: they are shown as single safe lines.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from infer_cli.cli.screen.terminal import console
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.models.catalogue import ModelEntry
    from infer_cli.models.facts import Fact
    from infer_cli.models.installed import InstalledModel
    from infer_cli.models.other_programs import FoundModel
    from infer_cli.models.store import Verdict


def print_facts(name: str, installed: bool, facts: Sequence[Fact]) -> None:
    """Columns on a terminal, tabs in a pipe: name, value, origin."""
    state = "yes" if installed else f"no: `infer models pull {name}` installs it"
    rows = [("name", name, ""), ("installed", state, "")]
    rows += [(fact.name, _shown(fact), fact.origin) for fact in facts]
    lines = [tuple(single_line(cell) for cell in row) for row in rows]
    if not sys.stdout.isatty():
        for line in lines:
            print("\t".join(line))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for style in ("bold", "", "dim"):
        table.add_column(style=style, overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    console(sys.stdout).print(table)


def _shown(fact: Fact) -> str:
    """A value in one line."""
    from infer_cli.settings.sizes import size_text

    value = fact.value
    if fact.name == "quantization":
        parts = (
            f"{kind} {size_text(sums['bytes'])} ({sums['tensors']} tensors)" for kind, sums in value.items()
        )
        return ", ".join(parts)
    if fact.name.startswith("memory"):
        return size_text(value)
    if fact.name == "size":
        return f"{value} bytes ({size_text(value)})"
    if fact.name == "parameters":
        return f"{value} ({value / 1e9:.2f}B)"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def verdict_object(verdict: Verdict) -> dict[str, object]:
    return {
        "name": verdict.name,
        "sha256": verdict.sha256,
        "expected": verdict.expected,
        "origin": verdict.origin if verdict.expected is not None else None,
        "holds": verdict.holds,
        "path": str(verdict.path),
    }


def verdict_line(verdict: Verdict) -> str:
    """Name, hash, outcome and path, separated by tabs."""
    if verdict.expected is None:
        state = "no hash is known"
    elif verdict.holds:
        state = f"ok, as {verdict.origin}"
    else:
        state = f"DIFFERS from {verdict.expected} ({verdict.origin})"
    cells = (verdict.name, verdict.sha256, state, str(verdict.path))
    return "\t".join(single_line(cell) for cell in cells)


def list_rows() -> list[dict[str, Any]]:
    """The catalogue and what else is installed, then what other tools hold (`tool` names them), by size.

    `memory` is in bytes, of models that are here.
    """
    from infer_cli.models.catalogue import load_catalogue
    from infer_cli.models.other_programs import find_all
    from infer_cli.models.store import list_here

    catalogue = load_catalogue()
    installed = {model.name: model for model in list_here()}
    used = {model.path for model in installed.values()}
    rows = [
        _row(name, entry, installed.pop(name, None), name == catalogue.default)
        for name, entry in catalogue.entries.items()
    ]
    rows += [_row(name, None, model, False) for name, model in installed.items()]
    elsewhere = [_found_row(found) for found in find_all() if found.files[0] not in used]
    return sorted(rows, key=_size_of) + sorted(elsewhere, key=_size_of)


def _size_of(row: Mapping[str, Any]) -> float:
    """What no size is known of comes last."""
    return math.inf if row["size"] is None else float(row["size"])


def _found_row(found: FoundModel) -> dict[str, Any]:
    """A model that another tool holds: `-m` takes its name, and it is used in place."""
    from infer_cli.models.facts import memory_need

    name = str(found.source)
    return {
        "name": name,
        "aliases": [],
        "default": False,
        "installed": False,
        "tool": found.tool,
        "path": str(found.files[0]),
        "size": found.size,
        "memory": memory_need(found.files[0]),
        "sha256": None,
        "licence": None,
        "context": None,
        "sampling": None,
        "notes": None,
        "sources": [name],
    }


def _row(name: str, entry: ModelEntry | None, model: InstalledModel | None, default: bool) -> dict[str, Any]:
    from infer_cli.models.facts import memory_need
    from infer_cli.models.hashes import parts_of

    size = entry.size if entry else None
    if model is not None:
        size = sum(part.stat().st_size for part in parts_of(model.path))
    return {
        "name": name,
        "aliases": list(entry.aliases) if entry else [],
        "default": default,
        "installed": model is not None,
        "tool": None,
        "path": str(model.path) if model else None,
        "size": size,
        "memory": memory_need(model.path) if model else None,
        "sha256": model.sha256 if model else entry.sha256 if entry else None,
        "licence": entry.licence if entry else None,
        "context": entry.context if entry else None,
        "sampling": dict(entry.sampling) if entry and entry.sampling else None,
        "notes": entry.notes if entry else None,
        "sources": [str(source) for source in entry.sources] if entry else [],
    }


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Tables on a terminal; in a pipe name, size, licence, context, path, memory and notes, between tabs."""
    if sys.stdout.isatty():
        _print_table(rows)
        return
    for row in rows:
        keys = ("name", "size", "licence", "context", "path", "memory", "notes")
        fields = [row[key] for key in keys]
        print("\t".join("-" if field is None else single_line(str(field)) for field in fields))


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from infer_cli.settings.sizes import size_text

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "size", "memory", "context", "licence", "here"):
        table.add_column(
            heading,
            justify="right" if heading in ("size", "memory", "context") else "left",
            no_wrap=heading == "model",  # a name that is cut could not be typed
            overflow="fold",
        )
    for row in (row for row in rows if not row["tool"]):
        cells = (
            row["name"] + (" (default)" if row["default"] else ""),
            size_text(row["size"]) if row["size"] else "",
            _memory_text(row),
            str(row["context"] or ""),
            row["licence"] or "",
            "yes" if row["installed"] else "",
        )
        table.add_row(*(Text(single_line(cell)) for cell in cells))
    console(sys.stdout).print(table)
    _print_notes(rows)
    elsewhere = [row for row in rows if row["tool"]]
    if not elsewhere:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("found elsewhere", "size", "memory", "tool"):
        justify: Literal["left", "right"] = "right" if heading in ("size", "memory") else "left"
        table.add_column(heading, justify=justify, overflow="fold")
    for row in elsewhere:
        cells_of = (row["name"], size_text(row["size"]), _memory_text(row), row["tool"])
        table.add_row(*(Text(single_line(cell)) for cell in cells_of))
    console(sys.stdout).print()
    console(sys.stdout).print(table)


def _memory_text(row: Mapping[str, Any]) -> str:
    """Of a model that is not here only the weights are known, which are nearly all of its file."""
    from infer_cli.settings.sizes import size_text

    if row["memory"] is not None:
        return size_text(row["memory"])
    return f"over {size_text(row['size'])}" if row["size"] else ""


def _print_notes(rows: Sequence[Mapping[str, Any]]) -> None:
    """Below the table: beside the columns there is no room for sentences."""
    from rich.table import Table
    from rich.text import Text

    noted = [row for row in rows if row["notes"]]
    if not noted:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("notes", overflow="fold")
    for row in noted:
        table.add_row(Text(single_line(row["name"])), Text(single_line(row["notes"])))
    console(sys.stdout).print()
    console(sys.stdout).print(table)
