"""`infer template`: the chat template of a model, what it makes of a conversation, and what it can't do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from infer_cli.cli.flags import options as o
from infer_cli.cli.screen.unloaded_model import DEFAULT, find_unloaded
from infer_cli.errors import CheckFailed, UsageError
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.cli.screen.terminal import Notices
    from infer_cli.process.worker import Worker
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.prompt.template_check import Report

# Typer reads the signatures at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

app = typer.Typer(help="Chat templates: show, render and check them.")

_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command()
def show(
    name: Annotated[
        Optional[str],
        typer.Argument(metavar="[NAME]", help="Another template than the default one.", show_default=False),
    ] = None,
    model: o.Model = None,
    list_names: Annotated[bool, typer.Option("--list", help="Name the model's templates.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="All of the model's templates as one JSON object.")
    ] = False,
    quiet: o.Quiet = False,
    offline: o.Offline = False,
) -> None:
    """Print a model's chat template. Reads the header only."""
    from infer_cli.cli.screen.table import Column, print_table
    from infer_cli.cli.screen.terminal import Notices
    from infer_cli.system.hashing import sha256_hex

    if sum((name is not None, list_names, as_json)) > 1:
        raise UsageError("NAME, --list and --json exclude each other")
    found = find_unloaded(model, offline=offline, quiet=quiet)
    if not found.templates:
        raise UsageError(f"{found.name} has no chat template: it is a base model")
    hashes = {key: sha256_hex(text.encode("utf-8", "surrogatepass")) for key, text in found.templates.items()}
    if as_json:
        templates = [
            {"name": key, "sha256": hashes[key], "source": text} for key, text in found.templates.items()
        ]
        _write_json({"model": found.name, "templates": templates})
        return
    if list_names:
        if sys.stdout.isatty():
            columns = (Column("template"), Column("characters", rank=1, right=True), Column("sha256", rank=2))
            print_table(columns, [(k, str(len(text)), hashes[k]) for k, text in found.templates.items()])
        else:
            for key, text in found.templates.items():
                _write(f"{single_line(key)}\t{len(text)} characters\tsha256 {hashes[key]}\n")
        return
    wanted = DEFAULT if name is None else name
    if wanted not in found.templates:
        names = ", ".join(found.templates)
        raise UsageError(f"{found.name} has no chat template named {wanted!r}", f"it has {names}")
    _write(found.templates[wanted])
    if name is None and (others := [key for key in found.templates if key != DEFAULT]):
        Notices(quiet=quiet, stats=False).note(f"this model has other templates too: {', '.join(others)}")


@app.command()
def render(
    prompt: Annotated[Optional[list[str]], typer.Argument(help="The prompt; words are joined.")] = None,
    model: o.Model = None,
    system: o.System = None,
    messages: o.Messages = None,
    tools: o.Tools = None,
    var: o.Var = None,
    chat_template: o.ChatTemplate = None,
    as_json: _Json = False,
    stats: o.Stats = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    offline: o.Offline = False,
) -> int:
    """Print a conversation as the text that the model is given. As `infer run` would give it."""

    def work(opened: _Opened, notices: Notices) -> int:
        from infer_cli.cli.flags.values import variables_of
        from infer_cli.cli.screen.waiting import warn_of_unused
        from infer_cli.prompt.encode import encode_prompt
        from infer_cli.prompt.messages import build_messages, parse_messages, parse_tools
        from infer_cli.prompt.template import template_variables
        from infer_cli.system.files import read_bytes

        variables = variables_of(tuple(var or ()))
        warn_of_unused(opened.template, variables, notices)
        history = [] if messages is None else parse_messages(read_bytes(messages))
        encoded = encode_prompt(
            opened.template,
            build_messages(system, args=tuple(prompt or ()), history=history),
            opened.vocab,
            variables=template_variables(variables),
            tools=None if tools is None else parse_tools(read_bytes(tools)),
        )
        if as_json:
            _write_json(
                {
                    "model": opened.name,
                    "template_sha256": opened.template.sha256,
                    "text": encoded.text,
                    "n_tokens": len(encoded.ids),
                    "ids": list(encoded.ids),
                }
            )
        else:
            _write(encoded.text)
        notices.statistics(f"[{opened.name} · {len(encoded.ids)} tokens]")
        return 0

    return _with_template(work, model, chat_template, stats, quiet, verbose, offline)


@app.command()
def check(
    model: o.Model = None,
    chat_template: o.ChatTemplate = None,
    as_json: _Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    offline: o.Offline = False,
) -> int:
    """Render a standard set of conversations; say what fails. Exit code 9 if one does."""

    def work(opened: _Opened, notices: Notices) -> int:
        from infer_cli.prompt.template_check import check

        report = check(opened.template, opened.vocab)
        if as_json:
            _write_json(_as_json(opened, report))
        else:
            _print_report(report)
        if not report.holds:
            n = sum(outcome.status != "ok" for outcome in report.outcomes)
            raise CheckFailed(
                f"the chat template does not take {n} of {len(report.outcomes)} conversations",
                "give another one with --chat-template FILE",
            )
        return 0

    return _with_template(work, model, chat_template, False, quiet, verbose, offline)


def _as_json(opened: _Opened, report: Report) -> dict[str, object]:
    conversations = [
        {"name": outcome.name, "status": outcome.status, "reason": outcome.reason or None}
        for outcome in report.outcomes
    ]
    return {
        "model": opened.name,
        "template_sha256": opened.template.sha256,
        "holds": report.holds,
        "conversations": conversations,
        "warnings": list(report.warnings),
    }


def _print_report(report: Report) -> None:
    for outcome in report.outcomes:
        reason = f": {single_line(outcome.reason)}" if outcome.reason else ""
        _write(f"{outcome.status:<8} {outcome.name}{reason}\n")
    for warning in report.warnings:
        _write(f"{'warning':<8} {single_line(warning)}\n")


# --- the template of a model that is not loaded ---------------------------------------------------


@dataclass(frozen=True)
class _Opened:
    name: str
    template: ChatTemplate
    vocab: Vocab


def _with_template(
    work: Callable[[_Opened, Notices], int],
    model: str | None,
    source: str | None,
    stats: bool | None,
    quiet: bool,
    verbose: bool,
    offline: bool,
) -> int:
    """Do `work` in a worker process, which reads the vocabulary."""
    from infer_cli.process.supervisor import supervise

    def supervised(worker: Worker) -> int:
        from infer_cli.cli.screen.terminal import Notices
        from infer_cli.process.explain import explained
        from infer_cli.prompt.renderer import closed_at_end
        from infer_cli.prompt.template import compiled_template

        notices = Notices(quiet=quiet, stats=stats)
        try:
            with explained(worker), closed_at_end():
                found = find_unloaded(model, offline=offline, quiet=quiet)
                vocab = found.vocab(worker)
                template = compiled_template(found.templates.get(DEFAULT), vocab, source)
                return work(_Opened(found.name, template, vocab), notices)
        finally:
            notices.clear()

    return supervise(supervised, verbose=verbose)


# --- output ---------------------------------------------------------------------------------------


def _write(text: str) -> None:
    """Text as it is; on a terminal without control sequences."""
    if sys.stdout.isatty():
        from infer_cli.text.sanitize import Sanitizer

        text = Sanitizer().feed(text)
        text = text if text.endswith("\n") else text + "\n"
    sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
    sys.stdout.buffer.flush()  # before what stderr says of it


def _write_json(value: dict[str, object]) -> None:
    from infer_cli.answering.reply import json_line

    sys.stdout.buffer.write(json_line(value))
