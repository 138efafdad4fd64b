"""`infer cache`: evaluated files that `infer run` need not read again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import typer

from infer_cli.cli.flags import options as o
from infer_cli.cli.flags.lists import AsJson, AsJsonl, print_objects, wants_json
from infer_cli.errors import UnexpectedFailure, UsageError
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.prefix_cache.store import Entry, PrefixStore

# Typer reads the signatures at run time, on Python 3.10 too: `Optional` there, not `| None`.

app = typer.Typer(help="Files that were read by a model before, kept as it read them.")


@app.command("list")
def list_entries(
    cache_size: o.CacheSize = None,
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
) -> None:
    """List what is kept, last used first. A table, or tab-separated lines in a pipe."""
    in_json = wants_json(as_json, as_jsonl)
    store = _store(cache_size)
    entries = store.entries()
    if in_json:
        print_objects(map(_as_json, entries), lines=as_jsonl)
    elif sys.stdout.isatty():
        _print_table(entries, store.limit())
    else:
        for entry in entries:
            cells = (entry.key[:12], single_line(entry.owner.model), entry.n_tokens, entry.size, _when(entry))
            print("\t".join(map(str, cells)))


@app.command()
def prune(cache_size: o.CacheSize = None) -> None:
    """Remove what is damaged, and what is beyond the limit. What was not used for longest goes first."""
    _remove(_store(cache_size).prune)


@app.command()
def clear() -> None:
    """Remove everything, without asking."""
    _remove(_store(None).clear)


@app.command()
def warm(
    context: typer.Context,
    model: o.Model = None,
    system: o.System = None,
    file: o.Files = None,
    raw: o.Raw = False,
    parse_special: o.ParseSpecial = False,
    prompt_template: o.PromptTemplate = None,
    var: o.Var = None,
    chat_template: o.ChatTemplate = None,
    think: o.Think = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    cache_size: o.CacheSize = None,
    fast: o.Fast = False,
    canonical: o.Canonical = False,
    invariant: o.Invariant = False,
    ctx: o.Ctx = None,
    threads: o.Threads = None,
    gpu_layers: o.GpuLayers = None,
    device: o.DeviceNames = None,
    cache_type_k: o.CacheTypeK = None,
    cache_type_v: o.CacheTypeV = None,
    flash_attn: o.FlashAttn = None,
    lora: o.Lora = None,
    offline: o.Offline = False,
) -> int:
    """Let a model read files before they are asked about. `infer run -f` need not read them then."""
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Task

    if not file and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("there is no file to read", "name it with -f FILE, or pipe it in")
    return supervise(Task("infer_cli.cli.cache.worker", "warm", o.plain_values(context)), verbose=verbose)


def _store(cache_size: str | None) -> PrefixStore:
    from infer_cli.prefix_cache.store import PrefixStore
    from infer_cli.settings.sizes import parse_size

    # `INFER_CACHE_SIZE` and config.toml give the value too.
    return PrefixStore(most_bytes=None if cache_size is None else parse_size(cache_size, "--cache-size"))


def _when(entry: Entry) -> str:
    return datetime.fromtimestamp(entry.used, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _as_json(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key,
        "model": entry.owner.model,
        "model_sha256": entry.owner.model_sha256,
        "engine": entry.owner.engine,
        "n_tokens": entry.n_tokens,
        "bytes": entry.size,
        "bytes_per_token": round(entry.size / entry.n_tokens),
        "used": _when(entry),
    }


def _print_table(entries: list[Entry], limit: int) -> None:
    from infer_cli.cli.screen.table import Column, print_table
    from infer_cli.settings.sizes import size_text

    columns = (
        Column("key"),
        Column("model", rank=2),
        Column("tokens", rank=1, right=True),
        Column("size", rank=3, right=True),
        Column("a token", rank=5, right=True),
        Column("last used", rank=4),
    )
    rows = []
    for entry in entries:
        when = datetime.fromtimestamp(entry.used).astimezone().strftime("%Y-%m-%d %H:%M")
        size, per_token = size_text(entry.size), size_text(entry.size // entry.n_tokens)
        rows.append((entry.key[:12], entry.owner.model, str(entry.n_tokens), size, per_token, when))
    print_table(columns, rows)
    print(f"{size_text(sum(entry.size for entry in entries))} of at most {size_text(limit)}")


def _remove(removing: Callable[[], tuple[int, int]]) -> None:
    """Remove files of the store and say how many."""
    from infer_cli.settings.sizes import size_text

    try:
        n_files, n_bytes = removing()
    except OSError as e:
        raise UnexpectedFailure(f"{e.filename} can't be removed: {e.strerror}") from None
    what = "1 file" if n_files == 1 else f"{n_files} files"
    print(f"removed {what}: {size_text(n_bytes)} freed", file=sys.stderr)
