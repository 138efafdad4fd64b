"""`infer replay`: answers a recorded request again and says whether the reply is the same."""

from __future__ import annotations

from typing import Annotated

import typer

from infer_cli.cli.flags.lists import AsJson, AsJsonl, wants_json


def replay(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="An id of a record or a conversation, or its beginning.")
    ],
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No warnings, no progress.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="llama.cpp's log on stderr.")] = False,
) -> int:
    """Answer a recorded request or conversation again and compare. Exit code 9 where a reply differs."""
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    in_json = wants_json(as_json, as_jsonl)

    def work(worker: Worker) -> int:
        from infer_cli.cli.checks.replay_worker import answer_again

        return answer_again(name, worker, quiet=quiet, in_json=in_json, as_lines=as_jsonl)

    return supervise(work, verbose=verbose)
