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
from infer_cli.cli.flags.engine import engine_options
from infer_cli.cli.flags.shared import overflow_of, sampling_of, seed_of, variables_of
from infer_cli.cli.flags.values import Values
from infer_cli.engine.mode_policy import OF_JOBS
from infer_cli.errors import UsageError
from infer_cli.prompt.fitting import POLICIES, Policy
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.defaults import MAX_LOGPROBS, MAX_SAMPLES, MAX_TOKENS
from infer_cli.settings.origins import Given, Setting
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


@dataclass(frozen=True)
class BatchOptions:
    """A checked command line of `infer batch`. `output` None is stdout."""

    model: str | None
    offline: bool
    input: Input
    row_template: str | None
    output: Path | None
    output_format: OutputFormat
    ordered: bool
    shard: Shard
    system: str | None
    raw: bool
    variables: Mapping[str, str]
    chat_template: str | None
    overflow: Policy
    sampling: Mapping[str, Given]
    seed: Given | None  # an int
    n_samples: int
    max_tokens: int
    stop: tuple[str, ...]
    n_logprobs: int | None
    deadline_s: float | None
    parallel: int | None
    max_errors: MaxErrors | None
    retry_errors: bool
    redo: bool
    dry_run: bool
    summary: Path | None
    quiet: bool
    no_record: bool
    engine: EngineOptions
    settings: tuple[Setting, ...]


def check(given: Mapping[str, Given]) -> BatchOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong."""

    values = Values(given)
    value, text, texts, setting = values.get, values.text, values.texts, values.setting

    values.exclude([("raw", "system"), ("raw", "chat_template"), ("fail_fast", "max_errors")])
    stop = values.stop()
    output_format = text("output_format") or OUTPUT_FORMATS[0]
    if output_format not in OUTPUT_FORMATS:
        raise UsageError(f"--output-format {output_format!r} is not {' or '.join(OUTPUT_FORMATS)}")
    sampling = sampling_of(given, texts("set_"))
    n_samples = values.number("samples", 1, MAX_SAMPLES) or 1
    if n_samples > 1 and "temperature" not in given:
        raise UsageError("--samples above 1 needs -t: greedy replies would all be the same")
    overflow: Policy = overflow_of(given, POLICIES) if "overflow" in given else "error"
    engine, engine_settings = engine_options(given, OF_JOBS)
    max_tokens = values.number("max_tokens", 1, 2**31 - 1) or MAX_TOKENS
    row_template = text("row_template")
    name = str(value("input"))
    output = _output(text("output"), dry_run=bool(value("dry_run")))
    summary = None if value("summary") is None else Path(str(value("summary")))
    _check_files(name, output, text("chat_template"), summary)

    return BatchOptions(
        model=text("model"),
        offline=bool(value("offline")),
        input=Input(
            name,
            input_format(name, text("format_")),
            None if row_template is None else RowTemplate(row_template),
        ),
        row_template=row_template,
        output=output,
        output_format=output_format,
        ordered=bool(value("ordered")),
        shard=Shard() if value("shard") is None else Shard.parse(str(value("shard"))),
        system=text("system"),
        raw=bool(value("raw")),
        variables=variables_of(texts("var")),
        chat_template=text("chat_template"),
        overflow=overflow,
        sampling=sampling,
        seed=seed_of(given),
        n_samples=n_samples,
        max_tokens=max_tokens,
        stop=stop,
        n_logprobs=values.number("logprobs", 0, MAX_LOGPROBS),
        deadline_s=values.seconds("deadline"),
        parallel=values.number("parallel", 1, MAX_WIDTH),
        max_errors=MaxErrors(0) if value("fail_fast") else _max_errors(text("max_errors")),
        retry_errors=bool(value("retry_errors")),
        redo=bool(value("redo")),
        dry_run=bool(value("dry_run")),
        summary=summary,
        quiet=bool(value("quiet")),
        no_record=bool(value("no_record")),
        engine=engine,
        settings=(
            *engine_settings,
            setting("max_tokens", max_tokens),
            setting("samples", n_samples),
            setting("stop", list(stop)),
            setting("deadline", text("deadline")),
            setting("overflow", overflow),
        ),
    )


def _output(name: str | None, *, dry_run: bool) -> Path | None:
    if name is None and not dry_run:
        raise UsageError("where do the replies go?", "give -o OUT.jsonl, or -o - for standard output")
    return None if name in (None, STDOUT) else Path(str(name))


def _check_files(name: str, output: Path | None, chat_template: str | None, summary: Path | None) -> None:
    for needed in (name, chat_template):
        if needed not in (None, STDIN) and not os.path.exists(str(needed)):
            raise UsageError(not_a_file(str(needed)))
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
