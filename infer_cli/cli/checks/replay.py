"""`infer replay`: answers a recorded request again and says whether the reply is the same."""

from __future__ import annotations

from typing import Annotated

import typer


def replay(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="An id of a record or a conversation, or its beginning.")
    ],
    quiet: Annotated[bool, typer.Option("--quiet", help="No warnings, no progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="llama.cpp's log on stderr.")] = False,
) -> int:
    """Answer a recorded request or conversation again and compare. Exit code 9 where a reply differs."""
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    def work(worker: Worker) -> int:
        from infer_cli.cli.checks.replay_worker import answer_again

        return answer_again(name, worker, quiet=quiet)

    return supervise(work, verbose=verbose)
