"""What a command that does a job over rows was told, checked and typed. Knows no model."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from infer_cli.batch.job import Shard
from infer_cli.batch.request import JobRequest
from infer_cli.batch.row_template import RowTemplate
from infer_cli.batch.rows import STDIN, Input, RowShape, input_format
from infer_cli.cli.flags.values import Values
from infer_cli.errors import UsageError
from infer_cli.settings.origins import Setting
from infer_cli.system.files import not_a_file

STDOUT = "-"
_STREAMS = (STDOUT, "/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2")  # not a worker's to open


@dataclass(frozen=True)
class MaxErrors:
    """Most answers that may fail: a number, or a share of all."""

    value: float
    is_share: bool = False

    def of(self, n_answers: int) -> float:
        return self.value * n_answers if self.is_share else self.value


@dataclass(eq=False, repr=False)
class JobFlags:
    """What commands that do a job are told alike, beside what a row is asked. `output` None is stdout."""

    model: str | None
    offline: bool
    quiet: bool
    no_record: bool
    input: Input
    output: Path | None
    ordered: bool
    shard: Shard
    max_errors: MaxErrors | None
    retry_errors: bool
    redo: bool
    dry_run: bool
    summary: Path | None


class JobCommand(NamedTuple):
    """A job that is asked for. `settings` are those that need no model to be known."""

    request: JobRequest
    flags: JobFlags
    settings: Sequence[Setting]


def job_flags(values: Values, name: str, shape: RowShape, what: str) -> JobFlags:
    """`name` is the input's, `shape` that of its rows, `what` they are answered with, in the plural. Raises
    UsageError for the first that is wrong."""
    is_set, text = values.is_set, values.text
    values.exclude([("fail_fast", "max_errors")])
    row_template, shard = text("row_template"), text("shard")
    output = _output(text("output"), what, dry_run=is_set("dry_run"))
    summary = None if (path := text("summary")) is None else Path(path)
    _check_files(name, output, text("chat_template"), summary)
    return JobFlags(
        model=text("model"),
        offline=is_set("offline"),
        quiet=is_set("quiet"),
        no_record=is_set("no_record"),
        input=Input(
            name,
            input_format(name, text("format_")),
            None if row_template is None else RowTemplate(row_template),
            shape,
        ),
        output=output,
        ordered=is_set("ordered"),
        shard=Shard() if shard is None else Shard.parse(shard),
        max_errors=MaxErrors(0) if is_set("fail_fast") else _max_errors(text("max_errors")),
        retry_errors=is_set("retry_errors"),
        redo=is_set("redo"),
        dry_run=is_set("dry_run"),
        summary=summary,
    )


def _output(name: str | None, what: str, *, dry_run: bool) -> Path | None:
    if name is None and not dry_run:
        raise UsageError(f"where do the {what} go?", "give -o OUT.jsonl, or -o - for standard output")
    return None if name is None or name == STDOUT else Path(name)


def _check_files(name: str, output: Path | None, chat_template: str | None, summary: Path | None) -> None:
    for needed in (name, chat_template):
        if needed is not None and needed != STDIN and not os.path.exists(needed):
            raise UsageError(not_a_file(needed))
    if name == STDIN and sys.stdin is None:
        raise UsageError("there is no stdin to read", "name a file of rows")
    if summary is not None:
        _check_summary(summary, name, output)
    if name != STDIN and not os.path.isfile(name):
        raise UsageError(not_a_file(name), "what comes from a pipe is read from standard input: IN is -")
    if output is None:
        return
    if not output.parent.is_dir():
        raise UsageError(f"no directory {output.parent}")
    if output.is_dir():
        raise UsageError(f"{output} is a directory", "name a file with -o")
    if name != STDIN and output.exists() and output.samefile(name):
        raise UsageError(f"{output} is the input", "name another file with -o")


def _check_summary(summary: Path, name: str, output: Path | None) -> None:
    if str(summary) in _STREAMS:
        raise UsageError(f"--summary {summary}: it is written to a file", "name a file, and print that")
    if not summary.parent.is_dir():
        raise UsageError(f"no directory {summary.parent}")
    if summary.is_dir():
        raise UsageError(f"{summary} is a directory", "name a file with --summary")
    for other, what in ((Path(name), "input"), (output, "output")):
        if other is not None and summary.resolve() == other.resolve():
            raise UsageError(f"{summary} is the {what}", "name another file with --summary")


def _max_errors(text: str | None) -> MaxErrors | None:
    if text is None:
        return None
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number) if percent else int(number)
    except ValueError:
        value = -1
    if not 0 <= value < 2**31 or (percent and value > 100):
        raise UsageError(f"--max-errors {text!r} is neither a number nor a percentage", "write 20 or 5%")
    return MaxErrors(value / 100 if percent else value, is_share=percent)
