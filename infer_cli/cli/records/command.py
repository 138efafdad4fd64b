"""`infer records`: what was answered on this machine, from the command line."""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from infer_cli.cli.flags.lists import AsJson, AsJsonl, print_objects, wants_json
from infer_cli.cli.records.view import (
    as_object,
    counted,
    described,
    differences_in_words,
    markdown_of,
    print_table,
    table_row,
    write,
    write_json,
    write_objects,
)
from infer_cli.cli.screen.terminal import Notices, columns_of
from infer_cli.errors import ExitStatus, UsageError
from infer_cli.settings.durations import parse_duration

if TYPE_CHECKING:
    from infer_cli.records.store import Store

# Typer reads the signatures at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

LIST_LIMIT = 20

app = typer.Typer(help="Records: what was answered, with all that it came from.")

_Thread = Annotated[Optional[str], typer.Option("--thread", metavar="ID", help="Only this conversation.")]


@app.command("list")
def list_records(
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="Most records shown.")
    ] = LIST_LIMIT,
    search: Annotated[
        Optional[str],
        typer.Option("--search", metavar="WORDS", help="Only records with these words in prompt or reply."),
    ] = None,
    # Not `model`: a model set for all commands in config.toml is no wish to see only its records.
    of_model: Annotated[
        Optional[str],
        typer.Option("-m", "--model", metavar="MODEL", help="Only this model's, by name or alias."),
    ] = None,
    thread: _Thread = None,
    since: Annotated[
        Optional[str],
        typer.Option("--since", metavar="AGE|DATE", help="Only records since, e.g. 12h, 30d or 2026-01-31."),
    ] = None,
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
) -> None:
    """List the newest records. A table, or tab-separated lines in a pipe."""
    in_json = wants_json(as_json, as_jsonl)
    after = None if since is None else _moment(since, "--since")
    models = () if of_model is None else _names_of(of_model)
    with _store() as store:
        records = store.newest(limit, search=search, models=models, thread=thread, since=after)
    if in_json:
        print_objects(map(as_object, records), lines=as_jsonl)
    elif sys.stdout.isatty():
        print_table(records)
    else:
        write("".join("\t".join(table_row(record)) + "\n" for record in records))


@app.command()
def show(
    record_id: Annotated[str, typer.Argument(metavar="ID", help="An id, its beginning, or `last`.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show a record: what it came from, the prompt and the reply."""
    with _store() as store:
        record = store.get(record_id)
    if as_json:
        write_json([record])
    else:
        write(described(record, columns_of(sys.stdout) if sys.stdout.isatty() else None))


@app.command()
def export(
    ids: Annotated[Optional[list[str]], typer.Argument(metavar="[ID]...", help="All without.")] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="jsonl|md", help="JSON lines, or Markdown to read.")
    ] = "jsonl",
    thread: _Thread = None,
) -> int:
    """Write records to stdout, oldest first. Those that are named come in the order of their ids."""
    if format_ not in ("jsonl", "md"):
        raise UsageError(f"--format {format_!r} is not jsonl or md")
    if ids and thread is not None:
        raise UsageError("--thread and ids exclude each other")
    with _store() as store:
        records = [store.get(name) for name in ids] if ids else store.export(thread=thread)
        if format_ == "jsonl":
            write_json(records)
        else:
            for record in records:
                write(markdown_of(record))
        n_left_out = store.n_left_out
    if not n_left_out:
        return ExitStatus.OK
    print(f"{counted(n_left_out, 'damaged record')} left out", file=sys.stderr)
    return ExitStatus.SOME_ROWS_FAILED


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="An id, or its beginning.")],
    b: Annotated[str, typer.Argument(metavar="B", help="An id, or its beginning.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> int:
    """Show what differs between two records. Exit code 0 where the replies are the same, else 9."""
    from infer_cli.records.compare import compare

    with _store() as store:
        one, other = store.get(a), store.get(b)
    for record in (one, other):
        if record.digest is None:
            raise UsageError(
                f"{record.id} is a whole {record.kind}, not a reply", f"its replies are in {record.output}"
            )
    comparison = compare(one, other)
    if as_json:
        from dataclasses import asdict

        write_objects([asdict(comparison)])
    else:
        write(differences_in_words(comparison))
    return ExitStatus.OK if comparison.same_reply else ExitStatus.CHECK_FAILED


@app.command()
def rm(
    ids: Annotated[Optional[list[str]], typer.Argument(metavar="[ID]...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all records.")] = False,
    older_than: Annotated[
        Optional[str],
        typer.Option("--older-than", metavar="AGE|DATE", help="Remove records from before, e.g. 30d."),
    ] = None,
) -> None:
    """Remove records, without asking."""
    if bool(ids) + everything + (older_than is not None) != 1:
        raise UsageError("name ids, or give --all or --older-than, and only one of these")
    before = None if older_than is None else _moment(older_than, "--older-than")
    with _store() as store:
        if ids:
            n_removed = store.remove([store.id_of(name) for name in ids])
        elif before is not None:
            n_removed = store.remove_before(before)
        else:
            n_removed = store.remove_all()
    print(f"removed {counted(n_removed, 'record')}", file=sys.stderr)


def _store() -> Store:
    from infer_cli.records.store import Store, store_path

    return Store.open(store_path(), Notices(quiet=False, stats=False).warn)


def _names_of(model: str) -> tuple[str, ...]:
    """What records may call a model: as it is named here, and as the catalogue does."""
    from infer_cli.models.catalogue import load_catalogue

    entry = load_catalogue().get(model)
    return (model,) if entry is None else (model, entry.name)


def _moment(text: str, flag: str) -> float:
    """Unix seconds of a date, local unless it says otherwise, or of an age before now. Raises UsageError."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(text).timestamp()
    try:
        if text.endswith("d"):
            return time.time() - 24 * parse_duration(text[:-1] + "h", flag)
        return time.time() - parse_duration(text, flag)
    except UsageError:
        raise UsageError(
            f"{flag} {text!r} is neither an age nor a date", "write 12h, 30d or 2026-01-31"
        ) from None


# --- as text --------------------------------------------------------------------------------------
