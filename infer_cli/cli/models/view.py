"""What `infer models` prints: rows of the list, facts of one model, the outcome of a check.

Names and values may come from a model's file or another tool's: they are shown as single safe lines.
"""

from __future__ import annotations

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


def print_verdicts(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """All of them, shown: a table on a terminal; in a pipe name, hash, outcome and path with tabs between."""
    shown: list[Verdict] = []
    if not sys.stdout.isatty():
        for verdict in verdicts:
            cells = (verdict.name, verdict.sha256, _outcome(verdict, whole=True), str(verdict.path))
            print("\t".join(map(single_line, cells)), flush=True)  # hashing the next may take minutes
            shown.append(verdict)
        return shown
    try:
        shown.extend(verdicts)
    finally:  # what was found before a file can't be read
        columns = (Column("model"), Column("outcome"), Column("sha256", rank=2), Column("path", rank=1))
        rows = [(v.name, _outcome(v, whole=False), v.sha256, str(v.path)) for v in shown]
        table.print_table(columns, rows)
    return shown


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
    """The catalogue, then what else is installed, then what other tools hold (`tool` names them)."""
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
    rows += [_found_row(found) for found in find_all() if found.files[0] not in used]
    return rows


def _found_row(found: FoundModel) -> dict[str, Any]:
    """A model that another tool holds: `-m` takes its name, and it is used in place."""
    name = str(found.source)
    return {
        "name": name,
        "aliases": [],
        "default": False,
        "installed": False,
        "tool": found.tool,
        "path": str(found.files[0]),
        "size": found.size,
        "sha256": None,
        "licence": None,
        "context": None,
        "sampling": None,
        "notes": None,
        "sources": [name],
    }


def _row(name: str, entry: ModelEntry | None, model: InstalledModel | None, default: bool) -> dict[str, Any]:
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
        "sha256": model.sha256 if model else entry.sha256 if entry else None,
        "licence": entry.licence if entry else None,
        "context": entry.context if entry else None,
        "sampling": dict(entry.sampling) if entry and entry.sampling else None,
        "notes": entry.notes if entry else None,
        "sources": [str(source) for source in entry.sources] if entry else [],
    }


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table on a terminal; in a pipe name, size, licence, context and path, separated by tabs."""
    if sys.stdout.isatty():
        _print_table(rows)
        return
    for row in rows:
        fields = (row["name"], row["size"], row["licence"], row["context"], row["path"])
        print("\t".join("-" if field is None else single_line(str(field)) for field in fields))


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    from infer_cli.settings.sizes import size_text

    columns = (
        Column("model"),
        Column("size", rank=2, right=True),
        Column("context", rank=3, right=True),
        Column("licence", rank=4),
        Column("here", rank=1),
    )
    shown = [
        (
            row["name"] + (" (default)" if row["default"] else ""),
            size_text(row["size"]) if row["size"] else "",
            str(row["context"] or ""),
            row["licence"] or "",
            "yes" if row["installed"] else "",
        )
        for row in rows
        if not row["tool"]
    ]
    table.print_table(columns, shown)
    elsewhere = [(row["name"], size_text(row["size"]), row["tool"]) for row in rows if row["tool"]]
    if elsewhere:
        print()
        columns_of_tools = (
            Column("found elsewhere"),
            Column("size", rank=2, right=True),
            Column("tool", rank=1),
        )
        table.print_table(columns_of_tools, elsewhere)
