"""`infer models`: the shelf and the catalogue from the command line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from infer_cli.catalogue import ModelEntry
    from infer_cli.shelf import InstalledModel

app = typer.Typer(help="Models: what there is, what is here, and fetching them.", no_args_is_help=True)

_MODEL = typer.Argument(
    metavar="[MODEL]",
    help="A name, an alias, a path or a source (hf:…, pypi:…, https:…); without it the default model.",
    show_default=False,
)


@app.command()
def pull(
    model: Annotated[str | None, _MODEL] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; failures only.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Touch no network.")] = False,
) -> None:
    """Install a model and print its path. Does nothing if it is here already."""
    from infer_cli import shelf
    from infer_cli.cli.pull_progress import PullProgress

    with PullProgress(quiet) as progress:
        if offline:
            found = shelf.resolve(model, offline=True, on_event=progress.event)
        else:
            found = shelf.pull(model, on_fetch=progress.notice, on_event=progress.event)
    typer.echo(str(found.path))


@app.command()
def path(model: Annotated[str | None, _MODEL] = None) -> None:
    """Print the path of an installed model. Downloads nothing; exit code 3 if it is not here."""
    from infer_cli import shelf

    typer.echo(str(shelf.resolve(model, offline=True).path))


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """List the catalogue and what is installed: a table, or tab-separated lines in a pipe."""
    rows = _rows()
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in rows:
            fields = (row["name"], row["size"], row["licence"], row["context"], row["path"])
            typer.echo("\t".join("-" if field is None else str(field) for field in fields))


def _rows() -> list[dict[str, Any]]:
    from infer_cli.catalogue import load_catalogue
    from infer_cli.shelf import list_installed

    catalogue = load_catalogue()
    installed = {model.name: model for model in list_installed()}
    rows = [
        _row(name, entry, installed.pop(name, None), name == catalogue.default)
        for name, entry in catalogue.entries.items()
    ]
    rows += [_row(name, None, model, False) for name, model in installed.items()]
    return rows


def _row(name: str, entry: ModelEntry | None, model: InstalledModel | None, default: bool) -> dict[str, Any]:
    size = model.path.stat().st_size if model else entry.size if entry else None
    return {
        "name": name,
        "aliases": list(entry.aliases) if entry else [],
        "default": default,
        "installed": model is not None,
        "path": str(model.path) if model else None,
        "size": size,
        "sha256": model.sha256 if model else entry.sha256 if entry else None,
        "licence": entry.licence if entry else None,
        "context": entry.context if entry else None,
        "sampling": dict(entry.sampling) if entry and entry.sampling else None,
        "notes": entry.notes if entry else None,
        "sources": [str(source) for source in entry.sources] if entry else [],
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from infer_cli.fetch.base import human_size

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "size", "context", "licence", "here", "notes"):
        table.add_column(heading, justify="right" if heading in ("size", "context") else "left")
    for row in rows:
        cells = (
            row["name"] + (" (default)" if row["default"] else ""),
            human_size(row["size"]) if row["size"] else "",
            str(row["context"] or ""),
            row["licence"] or "",
            "yes" if row["installed"] else "",
            row["notes"] or "",
        )
        table.add_row(*map(Text, cells))
    Console().print(table)
