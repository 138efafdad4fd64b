"""What the user's store keeps of one run of a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from infer_cli.batch.job import JobFile
from infer_cli.batch.preparing import Preparer
from infer_cli.batch.request import BatchRequest
from infer_cli.batch.summary import Tally
from infer_cli.records.record import Record, adapters_of, model_files
from infer_cli.runtime.session import Session
from infer_cli.settings.origins import Setting
from infer_cli.system.ids import new_id


def record_of_run(
    request: BatchRequest,
    job: JobFile,
    session: Session,
    preparer: Preparer,
    settings: Sequence[Setting],
    tally: Tally,
    wall_s: float,
    output: Path | None,
) -> Record:
    """`settings` are the command's, those of sampling are known by the preparer. Raises OSError where the
    model's files are gone."""
    policy = session.loaded.policy
    return Record(
        id=new_id(),
        kind="batch",
        created_at=time.time(),
        model=job.model.name,
        model_sha256=job.model.sha256,
        model_files=() if session.model.is_fake else model_files(session.model.path),
        adapters=adapters_of(request.engine.loras),
        fingerprint=job.fingerprint,
        engine=job.engine.facts,
        mode=policy.mode,
        promise=policy.promise,
        width=job.width,
        n_ctx=job.window,
        params=preparer.params,
        settings=(*settings, *preparer.settings),
        run_seed=job.run_seed,
        usage={
            "prompt_tokens": tally.n_prompt,
            "cached_tokens": tally.n_cached,
            "completion_tokens": tally.n_generated,
        },
        timings={"total_s": wall_s},
        output=None if output is None else str(output.absolute()),
    )
