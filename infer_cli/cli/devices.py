"""`infer devices`: what this build of llama.cpp can compute on."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from infer_cli.cli.flags.lists import AsJson, AsJsonl, print_objects, wants_json
from infer_cli.errors import ExitStatus


def devices(
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="llama.cpp's log on stderr.")] = False,
) -> int:
    """List what this build can compute on, and its memory."""
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    in_json = wants_json(as_json, as_jsonl)

    def work(worker: Worker) -> int:
        from infer_cli.backend import native
        from infer_cli.cli.screen.table import Column, print_table
        from infer_cli.settings.sizes import size_text

        native.log_to(worker.native_fd)
        if in_json:
            print_objects((device._asdict() for device in native.devices()), lines=as_jsonl)
            return ExitStatus.OK
        rows = []
        for device in native.devices():
            memory = f"{size_text(device.free)} free of {size_text(device.total)}"
            rows.append((device.name, device.kind, memory, device.description))
        if sys.stdout.isatty():
            columns = (Column("device"), Column("kind", rank=1), Column("memory", rank=2))
            print_table((*columns, Column("description", rank=3)), rows)
        else:
            for row in rows:
                print("\t".join(row))
        return ExitStatus.OK

    return supervise(work, verbose=verbose)
