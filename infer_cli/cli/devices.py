"""`infer devices`: what this build of llama.cpp can compute on."""

from __future__ import annotations

from typing import Annotated

import typer

from infer_cli.cli.flags.lists import AsJson, AsJsonl, print_objects, wants_json


def devices(
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="llama.cpp's log on stderr.")] = False,
) -> int:
    """List the devices that this build can use: name, kind, free and total memory."""
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    in_json = wants_json(as_json, as_jsonl)

    def work(worker: Worker) -> int:
        from infer_cli.backend import native
        from infer_cli.settings.sizes import size_text

        native.log_to(worker.native_fd)
        if in_json:
            print_objects((device._asdict() for device in native.devices()), lines=as_jsonl)
        else:
            for device in native.devices():
                free, total = size_text(device.free), size_text(device.total)
                print(f"{device.name}\t{device.kind}\t{free} free of {total}\t{device.description}")
        return 0

    return supervise(work, verbose=verbose)
