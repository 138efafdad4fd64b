"""`infer models`: the store of models and the catalogue from the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from infer_cli.cli.flags.lists import AsJson, AsJsonl, print_objects, wants_json
from infer_cli.cli.flags.options import Ctx
from infer_cli.cli.models import view as model_view
from infer_cli.errors import CheckFailed, ModelNotFound, UsageError
from infer_cli.text.json_text import json_text
from infer_cli.text.sanitize import single_line

app = typer.Typer(help="Models: what there is, what is here, and fetching them.")

_MODEL = typer.Argument(
    metavar="[MODEL]",
    help="A name, an alias, a path or a source (hf:…, ollama:…, https:…); without it the default model.",
    show_default=False,
)


@app.command()
def pull(
    model: Annotated[str | None, _MODEL] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; failures only.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Touch no network.")] = False,
) -> None:
    """Install a model and print its path. Does nothing if it is here already."""
    from infer_cli.cli.screen.pull_progress import PullProgress
    from infer_cli.models import store

    with PullProgress(quiet) as progress:
        if offline:
            found = store.resolve(model, offline=True, on_event=progress.event)
        else:
            found = store.pull(model, on_fetch=progress.notice, on_event=progress.event)
    _print_path(found.path)


@app.command()
def path(model: Annotated[str | None, _MODEL] = None) -> None:
    """Print the path of an installed model. Downloads nothing; exit code 3 if it is not here."""
    from infer_cli.models import store

    _print_path(store.resolve(model, offline=True).path)


@app.command()
def show(
    model: Annotated[str | None, _MODEL] = None,
    ctx: Ctx = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show what a model is and where each value comes from. Reads headers only and fetches nothing."""
    from infer_cli.models import store
    from infer_cli.models.catalogue import ModelEntry
    from infer_cli.models.facts import facts_of_entry, facts_of_model

    window = _window(ctx)
    found = store.look(model)
    installed = not isinstance(found, ModelEntry)
    if isinstance(found, ModelEntry):
        facts = facts_of_entry(found)
    else:
        facts = facts_of_model(found.path, found.sha256, found.entry, window)
    if as_json:
        shown = {fact.name: {"value": fact.value, "origin": fact.origin} for fact in facts}
        print(json_text({"name": found.name, "installed": installed, **shown}))
        return
    model_view.print_facts(found.name, installed, facts)


@app.command()
def verify(
    model: Annotated[str | None, _MODEL] = None,
    all_models: Annotated[bool, typer.Option("--all", help="Everything on the shelf.")] = False,
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
) -> None:
    """Compare a model's hash with the published one. Reads every byte. Exit code 9 if it differs."""
    from infer_cli.models import store

    if all_models and model is not None:
        raise UsageError("--all and a model exclude each other")
    in_json = wants_json(as_json, as_jsonl)
    differing = []

    def verdicts() -> Iterator[store.Verdict]:
        for verdict in store.verify_all() if all_models else [store.verify(model)]:
            if not verdict.holds:
                differing.append(single_line(verdict.name))
            yield verdict

    if in_json:
        print_objects(map(model_view.verdict_object, verdicts()), lines=as_jsonl)
    else:
        model_view.print_verdicts(verdicts())
    if differing:
        raise CheckFailed(
            f"not what was published or installed: {', '.join(differing)}",
            f"`infer models rm {differing[0]}`, then `infer models pull {differing[0]}` fetches it again",
        )


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="A new name: a-z, 0-9, '.', '_' and '-'.", show_default=False)],
    source: Annotated[
        str,
        typer.Argument(
            help="hf:OWNER/REPO/FILE.gguf@REVISION, hf:OWNER/REPO:QUANT, ollama:NAME, https:… or a path.",
            show_default=False,
        ),
    ],
    alias: Annotated[list[str] | None, typer.Option("--alias", help="Another name (repeatable).")] = None,
    sha256: Annotated[str | None, typer.Option("--sha256", help="What the file's hash must be.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace your entry of that name.")] = False,
) -> None:
    """Give a model a name, in your own models.toml. Downloads nothing: `infer models pull` does."""
    from infer_cli.models.catalogue_edit import add_entry

    path = add_entry(name, source, aliases=alias or (), sha256=sha256, replace=replace)
    print(f"added {name} to {single_line(str(path))}", file=sys.stderr)


@app.command()
def rm(
    model: Annotated[str, typer.Argument(help="A name, an alias or a source.", show_default=False)],
    entry: Annotated[
        bool, typer.Option("--entry", help="Your entry in models.toml too, installed or not.")
    ] = False,
) -> None:
    """Remove what was installed of a model. Files used in place, of yours or of another tool, stay."""
    from infer_cli.cli.screen.pull_progress import PullProgress
    from infer_cli.models import store
    from infer_cli.models.catalogue import load_catalogue
    from infer_cli.models.catalogue_edit import check_removable, remove_entry

    own = load_catalogue().find(model).name if entry else None
    if own is not None:
        check_removable(own)
    try:
        with PullProgress(quiet=False) as progress:
            removed = store.remove(model, on_event=progress.event)
    except ModelNotFound:
        if own is None:
            raise
    else:
        from infer_cli.settings.sizes import size_text

        name, freed = single_line(removed.name), size_text(removed.freed)
        print(f"removed {name}: {freed} freed", file=sys.stderr)
        for path in removed.kept:
            print(f"kept {single_line(str(path))}: it was used in place", file=sys.stderr)
    if own is not None:
        remove_entry(own)
        print(f"removed the entry {own}", file=sys.stderr)


@app.command()
def default(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A name or an alias.", show_default=False)
    ] = None,
) -> None:
    """Print the name of the default model, or set it. It is kept in your own models.toml."""
    from infer_cli.models.catalogue import load_catalogue
    from infer_cli.models.catalogue_edit import set_default

    print(load_catalogue().default if model is None else set_default(model))


@app.command("list")
def list_models(
    installed: Annotated[bool, typer.Option("--installed", help="Only what is installed here.")] = False,
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
) -> None:
    """List the catalogue, what is installed, what other tools hold. By size; tab-separated in a pipe."""
    in_json = wants_json(as_json, as_jsonl)
    rows = [row for row in model_view.list_rows() if row["installed"] or not installed]
    if in_json:
        print_objects(rows, lines=as_jsonl)
    else:
        model_view.print_rows(rows)


def _print_path(path: Path) -> None:
    """The path's own bytes, which may be no text."""
    sys.stdout.buffer.write(os.fsencode(path) + b"\n")


def _window(ctx: str | None) -> int | None:
    if ctx in (None, "auto"):
        return None
    if not (ctx.isascii() and ctx.isdigit() and len(ctx) <= 10 and 0 < int(ctx) < 2**31):
        raise UsageError(f"--ctx {ctx!r} is not a number of tokens above 0, nor auto")
    return int(ctx)
