"""`infer perplexity`: how well a model predicts a text, and how far it is from another one."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from infer_cli.cli.flags import options as o
from infer_cli.cli.panels import MODEL, OUTPUT

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

_WINDOWS = "Windows"


@o.takes_groups
def perplexity(
    context: typer.Context,
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A text; `-` is stdin.")],
    against: Annotated[
        Optional[str],
        typer.Option(
            "--against",
            metavar="MODEL",
            help="Compare with this model, the original of a quantization: divergence, agreement, ratio.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    stride: Annotated[
        Optional[int],
        typer.Option(
            "--stride",
            metavar="TOKENS",
            help="Begin a window every so many tokens, and score the last of each (llama-perplexity's"
            " --ppl-stride).",
            rich_help_panel=_WINDOWS,
        ),
    ] = None,
    rolling: Annotated[
        bool,
        typer.Option(
            "--rolling",
            help="Score every token once, in windows as large as the model's (lm-evaluation-harness's).",
            rich_help_panel=_WINDOWS,
        ),
    ] = False,
    limit: Annotated[
        Optional[int],
        typer.Option(
            "--limit",
            metavar="N",
            help="Only the first N windows.",
            rich_help_panel=_WINDOWS,
        ),
    ] = None,
    model: o.Model = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.", rich_help_panel=OUTPUT)] = False,
    stats: o.Stats = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    fast: o.Fast = False,
    canonical: o.Canonical = False,
    invariant: o.Invariant = False,
    engine: o.EngineFlags,
) -> int:
    """Measure how well a model predicts a text. --against compares it with another model."""
    from infer_cli.cli.perplexity.options import check
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    checked = check(o.given_values(context))

    def work(worker: Worker) -> int:
        from infer_cli.cli.perplexity.worker import measure

        return measure(checked, worker)

    return supervise(work, verbose=verbose)
