"""What the user is told of a batch: its mode, what came of it or would, and the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.batch.engine_choice import quicker_than_canonical
from infer_cli.batch.measuring import estimate
from infer_cli.batch.planning import BatchPlan
from infer_cli.batch.request import JobRequest
from infer_cli.batch.run import BatchRun, Outcome
from infer_cli.batch.scanned import Scan
from infer_cli.batch.summary import Tally, summary_of
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus
from infer_cli.runtime.calibration import reading_tps
from infer_cli.settings.durations import duration
from infer_cli.system.files import write_atomic

if TYPE_CHECKING:
    from infer_cli.engine.mode_policy import ModePolicy
    from infer_cli.runtime.model_protocols import LoadedModel


def tell_mode(plan: BatchPlan, request: JobRequest, notices: Notices) -> None:
    """Say which mode it is where none was asked for."""
    policy = plan.session.loaded.policy
    asked = request.engine
    if asked.fallback is None:
        return
    if plan.begun is not None:
        why = ", as the job was begun"
    elif policy.passed_over:
        why = f", not {asked.mode}: {policy.passed_over}"
    else:
        why = f", the default: what stands beside a {request.answer_name} does not change it"
    notices.note(f"mode {policy.mode}{why}")


def tell_dry_run(
    request: JobRequest,
    scanned: Scan,
    loaded: LoadedModel,
    policy: ModePolicy,
    summary: Path | None,
    notices: Notices,
) -> ExitStatus:
    """Print what was counted, then what is measured here."""
    found = request.counted(scanned)
    _print_table(found)
    measured = _measured(request, scanned, loaded, policy, notices)
    _print_table(measured)
    if summary is not None:
        _write_json(summary, {**found, **measured})
    return ExitStatus.SOME_ROWS_FAILED if scanned.failures else ExitStatus.OK


def _measured(
    request: JobRequest, scanned: Scan, loaded: LoadedModel, policy: ModePolicy, notices: Notices
) -> dict[str, float]:
    if not scanned.n_to_answer:
        return {"expected_s": 0.0}
    notices.status("measuring the speed")
    if request.kind == "likelihoods":
        tps = reading_tps(loaded)
        seconds = scanned.n_prompt_tokens / tps
        notices.clear()
        notices.note(
            f"expected: at most {duration(seconds)}, at {tps:.0f} tok/s; shared beginnings cost nothing"
        )
        return {"tokens_per_s": round(tps, 1), "expected_s": round(seconds, 1)}
    pace, seconds = estimate(scanned, loaded, policy)
    notices.clear()
    notices.note(
        f"expected: {duration(seconds)}, if every reply is as long as it may be:"
        f" {pace.n_rows} side by side, {pace.prefill_tps:.0f} tok/s in, {pace.decode_tps:.0f} tok/s out"
    )
    return {
        "width": policy.width,
        "prompt_tokens_per_s": round(pace.prefill_tps, 1),
        "generated_tokens_per_s": round(pace.decode_tps, 1),
        "expected_s": round(seconds, 1),
    }


def tell_end(
    plan: BatchPlan,
    run: BatchRun,
    outcome: Outcome,
    output: Path | None,
    summary: Path | None,
    notices: Notices,
) -> None:
    """Tell what was done, and write it to `summary`."""
    tally, wall_s, policy = run.tally, outcome.wall_s, plan.session.loaded.policy
    for line in tally.in_words(wall_s):
        notices.note(line)
    notices.note(
        f"mode {policy.mode}" + ("" if policy.promise == policy.mode else f", promise {policy.promise}")
    )
    flags = _quicker_flags(plan)
    if flags:
        notices.note(
            f"each step had {policy.width} rows, however few the replies: quicker would be"
            f" {' or '.join(flags)}"
        )
    if run.job.run_seed is not None:
        notices.note(f"seed {run.job.run_seed}")
    for message in (tally.truncated(), tally.cut_in_reasoning()):
        if message:
            notices.warn(message)
    if summary is not None:
        _write_json(summary, summary_of(run.job, tally, wall_s, policy.mode, policy.promise, flags, output))


def _quicker_flags(plan: BatchPlan) -> list[str]:
    """Each would have made a small canonical job quicker."""
    quicker = quicker_than_canonical(plan.begun, plan.scanned, plan.session.loaded)
    if quicker is None:
        return []
    return [*(["--invariant"] if quicker.invariant else []), f"--parallel {quicker.width}"]


def tell_status(tally: Tally, outcome: Outcome, notices: Notices, *, resumes: bool) -> ExitStatus:
    """The exit code, and what it means."""
    goes_on = "; the same command line goes on from there" if resumes else ""
    if outcome.stopped == "interrupted":
        notices.warn(f"interrupted: what was finished is kept{goes_on}")
        return ExitStatus.INTERRUPTED
    if outcome.stopped == "errors" and tally.done < tally.n_replies:
        notices.warn(f"stopped: too many errors ({outcome.n_failed}){goes_on}")
        return ExitStatus.DEADLINE
    if tally.failed:
        if resumes:
            notices.note("the same command line with --retry-errors answers those again that failed")
        return ExitStatus.SOME_ROWS_FAILED
    return ExitStatus.OK


def _print_table(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        print(f"{name}\t{value}")
    sys.stdout.flush()  # a note on stderr follows it


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    write_atomic(path, [json.dumps(value, indent=1).encode() + b"\n"], durable=True)
