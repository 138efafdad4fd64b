"""`infer probe`: proves on the model at hand that replies do not depend on what they ran beside."""

from __future__ import annotations

from typing import Annotated

import typer

from infer_cli.cli.flags import options as o


def probe(
    context: typer.Context,
    model: o.Model = None,
    requests: Annotated[
        int, typer.Option("--requests", metavar="N", min=2, max=256, help="Requests that are answered.")
    ] = 16,
    max_tokens: Annotated[
        int, typer.Option("-n", "--max-tokens", metavar="N", min=1, max=128, help="Tokens of each reply.")
    ] = 16,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    threads: o.Threads = None,
    gpu_layers: o.GpuLayers = None,
    device: o.DeviceNames = None,
    offline: o.Offline = False,
) -> int:
    """Test that replies do not depend on what runs beside them.

    The same requests are answered alone, batched, shuffled, chunked and from cache; every byte is compared.
    A table for each mode, with what the mode costs on this machine. Exit code 9 where a promise is not kept.
    """
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    given = o.given_values(context)

    def work(worker: Worker) -> int:
        from infer_cli.cli.checks.probe_worker import probe_modes
        from infer_cli.cli.flags.values import Values

        return probe_modes(Values(given), worker, n_requests=requests, n_tokens=max_tokens)

    return supervise(work, verbose=verbose)
