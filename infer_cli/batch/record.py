"""What the user's store keeps of one run of a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from infer_cli.batch.planning import BatchPlan
from infer_cli.batch.request import JobRequest
from infer_cli.batch.run import BatchRun, Outcome
from infer_cli.records.record import Record, adapters_of, model_files
from infer_cli.settings.origins import Setting
from infer_cli.system.ids import new_id


def record_of_run(
    request: JobRequest,
    plan: BatchPlan,
    run: BatchRun,
    outcome: Outcome,
    settings: Sequence[Setting],
    output: Path | None,
) -> Record:
    """`settings` are the command's, those of sampling are known by the preparer. Raises OSError where the
    model's files are gone."""
    model, policy, preparer = plan.session.model, plan.session.loaded.policy, plan.preparer
    job, tally = run.job, run.tally
    return Record(
        id=new_id(),
        kind="batch" if request.kind == "replies" else "score",
        created_at=time.time(),
        model=job.model.name,
        model_sha256=job.model.sha256,
        model_files=() if model.is_fake else model_files(model.path),
        adapters=adapters_of(request.engine.loras),
        fingerprint=job.fingerprint,
        engine=job.engine.facts,
        mode=policy.mode,
        promise=policy.promise,
        width=job.width,
        n_ctx=job.window,
        params=preparer.params,
        settings=(*(_in_use(setting, request, plan) for setting in settings), *preparer.settings),
        run_seed=job.run_seed,
        usage={
            "prompt_tokens": tally.n_prompt,
            "cached_tokens": tally.n_cached,
            "completion_tokens": tally.n_generated,
        },
        timings={"total_s": outcome.wall_s},
        output=None if output is None else str(output.absolute()),
    )


def _in_use(setting: Setting, request: JobRequest, plan: BatchPlan) -> Setting:
    """A setting as it came to be: the mode is known once the model is."""
    if setting.name != "mode":
        return setting
    goes_on = plan.begun is not None and request.engine.fallback is not None
    origin = "the job's beginning" if goes_on else setting.origin
    return setting._replace(value=plan.session.loaded.policy.mode, origin=origin)
