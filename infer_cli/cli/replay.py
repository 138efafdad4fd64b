"""`infer replay`: answers a recorded request again and says whether the reply is the same."""

from __future__ import annotations

from typing import Annotated

import typer


def replay(
    record_id: Annotated[str, typer.Argument(metavar="ID", help="A record's id, or its beginning.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="No warnings, no progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="llama.cpp's log on stderr.")] = False,
) -> int:
    """Answer a recorded request again and compare. Exit code 9 where the reply differs."""
    from infer_cli.supervisor import Worker, supervise

    def work(worker: Worker) -> int:
        from infer_cli.cli.replay_worker import answer_again

        return answer_again(record_id, worker, quiet=quiet)

    return supervise(work, verbose=verbose)
