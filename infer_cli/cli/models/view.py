"""What `infer models` prints: rows of the list, facts of one model, the outcome of a check.

Names and values may come from a model's file or another tool's: they are shown as single safe lines.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infer_cli.cli.screen import table
from infer_cli.cli.screen.table import Column
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
    lines = [(single_line(name), single_line(value), single_line(origin)) for name, value, origin in rows]
    if sys.stdout.isatty():
        table.print_facts(lines)
        return
    for line in lines:
        print("\t".join(line))


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


def print_verdicts(verdicts: Iterable[Verdict]) -> None:
    """Each of them: a table on a terminal; in a pipe name, hash, outcome and path with tabs between."""
    if not sys.stdout.isatty():
        for verdict in verdicts:
            cells = (verdict.name, verdict.sha256, _outcome(verdict, whole=True), str(verdict.path))
            print("\t".join(map(single_line, cells)), flush=True)  # hashing the next may take minutes
        return
    shown: list[Verdict] = []
    try:
        shown.extend(verdicts)
    finally:  # what was found before a file can't be read
        columns = (Column("model"), Column("outcome"), Column("sha256", rank=2), Column("path", rank=1))
        rows = [(v.name, _outcome(v, whole=False), v.sha256, str(v.path)) for v in shown]
        table.print_table(columns, rows)


def _outcome(verdict: Verdict, *, whole: bool) -> str:
    """`whole`: with the hash that was expected."""
    if verdict.expected is None:
        return "no hash is known"
    if verdict.holds:
        return f"ok, as {verdict.origin}"
    return (
        f"DIFFERS from {verdict.expected} ({verdict.origin})"
        if whole
        else f"DIFFERS, not as {verdict.origin}"
    )


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
    from infer_cli.settings.sizes import size_text

    columns = (
        Column("model"),
        Column("size", rank=1, right=True),
        Column("memory", rank=3, right=True),
        Column("context", rank=4, right=True),
        Column("licence", rank=5),
        Column("here", rank=2),
    )
    shown = [
        (
            row["name"] + (" (default)" if row["default"] else ""),
            size_text(row["size"]) if row["size"] else "",
            _memory_text(row),
            str(row["context"] or ""),
            row["licence"] or "",
            "yes" if row["installed"] else "",
        )
        for row in rows
        if not row["tool"]
    ]
    table.print_table(columns, shown)
    if notes := [(single_line(row["name"]), single_line(row["notes"]), "") for row in rows if row["notes"]]:
        print()
        table.print_facts(notes)  # beside the columns there is no room for sentences
    elsewhere = [
        (row["name"], size_text(row["size"]), _memory_text(row), row["tool"]) for row in rows if row["tool"]
    ]
    if elsewhere:
        print()
        columns_of_tools = (
            Column("found elsewhere"),
            Column("size", rank=2, right=True),
            Column("memory", rank=3, right=True),
            Column("tool", rank=1),
        )
        table.print_table(columns_of_tools, elsewhere)


def _memory_text(row: Mapping[str, Any]) -> str:
    """Of a model that is not here only the weights are known, which are nearly all of its file."""
    from infer_cli.settings.sizes import size_text

    if row["memory"] is not None:
        return size_text(row["memory"])
    return f"over {size_text(row['size'])}" if row["size"] else ""
