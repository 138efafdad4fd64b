"""Flags of the commands that print a list or verdicts, and how these are printed as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated

import typer

from infer_cli.errors import UsageError

AsJson = Annotated[bool, typer.Option("--json", help="One JSON array.")]
AsJsonl = Annotated[bool, typer.Option("--jsonl", help="JSON, an object a line.")]


def wants_json(as_json: bool, as_jsonl: bool) -> bool:
    """Raises UsageError where both are asked for."""
    if as_json and as_jsonl:
        raise UsageError("--json and --jsonl exclude each other")
    return as_json or as_jsonl


def print_objects(objects: Iterable[Mapping[str, object]], *, lines: bool) -> None:
    """To stdout as an array, or with `lines` an object a line; each as soon as it is known."""
    from infer_cli.answering.reply import json_line
    from infer_cli.text.json_text import in_json

    out = sys.stdout.buffer
    sys.stdout.flush()
    n_written = 0
    for value in objects:
        line = json_line(in_json(value))
        out.write(line if lines else (b",\n" if n_written else b"[\n") + line[:-1])
        out.flush()
        n_written += 1
    if not lines:
        out.write(b"\n]\n" if n_written else b"[]\n")
    out.flush()
