"""The command line of `infer batch`, checked and typed. Knows no model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infer_cli.batch.job import MAX_WIDTH, OUTPUT_FORMATS, OutputFormat, Shard
from infer_cli.batch.row_template import RowTemplate
from infer_cli.batch.rows import STDIN, Input, input_format
from infer_cli.cli.flags.shared import AskingOptions, n_samples_of, overflow_of, read_asking
from infer_cli.cli.flags.values import Values
from infer_cli.engine.mode_policy import OF_JOBS
from infer_cli.errors import UsageError
from infer_cli.prompt.fitting import POLICIES, Policy
from infer_cli.settings.defaults import MAX_LOGPROBS
from infer_cli.settings.origins import Given
from infer_cli.system.files import not_a_file

STDOUT = "-"
_STREAMS = (STDOUT, "/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2")  # not a worker's to open


@dataclass(frozen=True)
class MaxErrors:
    """Most replies that may fail: a number, or a share of all."""

    value: float
    is_share: bool = False

    def of(self, n_replies: int) -> float:
        return self.value * n_replies if self.is_share else self.value


@dataclass(eq=False, repr=False)
class BatchOptions(AskingOptions):
    """A checked command line of `infer batch`. `output` None is stdout."""

    overflow: Policy  # no conversation is summarized
    input: Input
    row_template: str | None
    output: Path | None
    output_format: OutputFormat
    ordered: bool
    shard: Shard
    raw: bool
    n_samples: int
    n_logprobs: int | None
    parallel: int | None
    max_errors: MaxErrors | None
    retry_errors: bool
    redo: bool
    dry_run: bool
    summary: Path | None


def check(given: Mapping[str, Given]) -> BatchOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""
    values = Values(given)
    is_set, text = values.is_set, values.text
    values.exclude([("raw", "system"), ("raw", "chat_template"), ("fail_fast", "max_errors")])
    n_samples = n_samples_of(values)
    shared = read_asking(
        values, overflow=overflow_of(values, POLICIES, "error"), n_samples=n_samples, mode=OF_JOBS
    )
    output_format = text("output_format") or OUTPUT_FORMATS[0]
    if output_format not in OUTPUT_FORMATS:
        raise UsageError(f"--output-format {output_format!r} is not {' or '.join(OUTPUT_FORMATS)}")
    name, row_template, shard = values.argument("input"), text("row_template"), text("shard")
    output = _output(text("output"), dry_run=is_set("dry_run"))
    summary = None if (path := text("summary")) is None else Path(path)
    _check_files(name, output, text("chat_template"), summary)

    return BatchOptions(
        **vars(shared),
        input=Input(
            name,
            input_format(name, text("format_")),
            None if row_template is None else RowTemplate(row_template),
        ),
        row_template=row_template,
        output=output,
        output_format=output_format,
        ordered=is_set("ordered"),
        shard=Shard() if shard is None else Shard.parse(shard),
        raw=is_set("raw"),
        n_samples=n_samples,
        n_logprobs=values.number("logprobs", 0, MAX_LOGPROBS),
        parallel=values.number("parallel", 1, MAX_WIDTH),
        max_errors=MaxErrors(0) if is_set("fail_fast") else _max_errors(text("max_errors")),
        retry_errors=is_set("retry_errors"),
        redo=is_set("redo"),
        dry_run=is_set("dry_run"),
        summary=summary,
    )


def _output(name: str | None, *, dry_run: bool) -> Path | None:
    if name is None and not dry_run:
        raise UsageError("where do the replies go?", "give -o OUT.jsonl, or -o - for standard output")
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
