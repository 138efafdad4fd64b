"""What `infer verify` does with a run's folder in its worker process: its files first, then its replies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.batch.rows import PROMPTS, Input
from infer_cli.checking.verify_request import VerifyReport, VerifyRequest
from infer_cli.cli.checks.verify_options import RunOptions, VerifyOptions
from infer_cli.cli.checks.verify_worker import (
    Verified,
    as_json,
    model_of,
    opened,
    tell_reasons,
    told_check,
    told_differences,
    verified,
)
from infer_cli.cli.eval.other_programs import OPENERS
from infer_cli.cli.eval.report import report_run
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus, ModelNotFound, UsageError
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.results import Results as RunResults
from infer_cli.evaluation.verification.run_files import RunFiles, check_files
from infer_cli.evaluation.verification.verdict import mark_verified, unmark_verified, verdict
from infer_cli.process.explain import explained
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker


class _Judged(NamedTuple):
    """`verified` None: the judge's replies were not checked, and `why` says why."""

    verified: Verified | None
    why: str = ""


def verify_run(options: VerifyOptions, run: RunOptions, worker: Worker) -> int:
    """Verify one run; returns the exit code. Raises InferError."""
    notices = Notices(quiet=options.quiet, stats=False)
    try:
        with explained(worker), closed_at_end():
            notices.status("reading the run")
            files = check_files(run.folder, allow_code=run.allow_code, data=run.data, openers=OPENERS)
            results = opened(options.request, notices)
            name = options.model or results.engine.model
            model = model_of(name, is_named=options.model is not None, options=options, flag="-m")
            replies = verified(options.request, results, model, options.loras, worker, notices)
            judged = _judged(options, run, files, worker, notices)
            judge = None if judged is None or judged.verified is None else judged.verified.report
            reports = [replies.report] if judge is None else [replies.report, judge]
            holds = not files.findings and all(report.holds for report in reports)
            found = verdict(files, options.request.fraction, replies.report, judge) if holds else None
            _keep(run.folder, files.results, found, notices)
    finally:
        notices.clear()
    if options.json:
        print(json.dumps(_as_json(files, replies, judged, holds=holds)))
    else:
        for line in _told(files, replies, judged, holds=holds):
            print(line)
        tell_reasons(replies.report, notices)
    return ExitStatus.OK if holds else ExitStatus.CHECK_FAILED


def _judged(
    options: VerifyOptions, run: RunOptions, files: RunFiles, worker: Worker, notices: Notices
) -> _Judged | None:
    """The judge's replies; None where there are none."""
    job = files.judge_job
    if job is None:
        return None
    if job.engine.mode != files.job.engine.mode:  # a process has one mode
        return _Judged(
            None, f"they are in another mode: `infer verify {run.folder.judge_replies}` checks them"
        )
    request = VerifyRequest(
        results=run.folder.judge_replies,
        job=job,
        input=Input(str(run.folder.judge_requests), "jsonl", shape=PROMPTS),
        fraction=options.request.fraction,
        challenge=options.request.challenge,
        by_tokens=options.request.by_tokens,
    )
    results = opened(request, notices)
    try:
        name = run.judge or results.engine.model
        model = model_of(name, is_named=run.judge is not None, options=options, flag="--judge")
    except ModelNotFound as e:
        if run.judge is not None:
            raise
        return _Judged(None, f"{e.message}: {e.hint}")
    return _Judged(verified(request, results, model, (), worker, notices))


def _keep(
    folder: RunFolder, checked: RunResults | None, found: Mapping[str, object] | None, notices: Notices
) -> None:
    """Write what was found into the results, or take back what an earlier check has found; then the report
    says the same. The verdict does not depend on it."""
    try:
        if found is not None and checked is not None:
            mark_verified(folder, checked, found)
        elif not unmark_verified(folder):
            return
    except UsageError as e:
        notices.warn(f"what was found is not in the results: {e.in_full}")
        return
    except OSError as e:
        notices.warn(f"what was found is not in the results: {folder.results} can't be written: {e.strerror}")
        return
    if not folder.report.exists():
        return
    try:
        report_run(folder, notices)
    except UsageError as e:  # of files that do not hold
        folder.report.unlink()
        notices.warn(f"no {folder.report.name}: {e.in_full}")
    except OSError as e:
        notices.warn(f"{folder.report} can't be written: {e.strerror}")


def _as_json(files: RunFiles, replies: Verified, judged: _Judged | None, *, holds: bool) -> dict[str, object]:
    return {
        "holds": holds,
        "task": {
            "name": files.facts.task.name,
            "version": files.facts.task.version,
            "sha256": files.facts.task.sha256,
            "shipped": files.is_shipped,
        },
        "data": {"sha256": files.facts.data.sha256, "compared": files.made_of == "data"},
        "findings": [finding._asdict() for finding in files.findings],
        "scores": files.scores,
        "code_scorers": list(files.code_scorers),
        "replies": as_json(replies.report),
        "judge": None
        if judged is None
        else {
            "checked": judged.verified is not None,
            "why": judged.why,
            "replies": None if judged.verified is None else as_json(judged.verified.report),
        },
    }


def _told(files: RunFiles, replies: Verified, judged: _Judged | None, *, holds: bool) -> Iterator[str]:
    for finding in files.findings:
        yield single_line(f"{finding.file}: {finding.what}")
    yield from told_differences(replies.report, replies.vocab)
    judge = None if judged is None else judged.verified
    if judge is not None:
        yield from (f"judge: {line}" for line in told_differences(judge.report, judge.vocab))
    task = files.facts.task
    n, score = files.facts.n_items, f"the score of {task.name}, version {task.version}"
    if holds:
        yield single_line(f"holds: {score}, on {n} {'item' if n == 1 else 'items'}")
    else:
        yield single_line(f"does not hold: {score}")
    yield f"  task: {_told_task(files)}"
    yield f"  items: {_told_items(files)}"
    yield f"  scores: {_told_scores(files)}"
    yield f"  replies: {_told_replies(replies.report)}"
    if judged is not None:
        yield f"  judge: {f'not checked: {judged.why}' if judge is None else _told_replies(judge.report)}"
    yield from told_check(replies.report)


def _told_task(files: RunFiles) -> str:
    task = files.facts.task
    if files.is_shipped:
        return "the one that comes with infer"
    return f"a file of its author, sha256 {task.sha256[:16]}: read it, it says what is scored"


def _told_items(files: RunFiles) -> str:
    if files.made_of == "data":
        return f"made again of the data, {files.facts.data.path}"
    if files.made_of == "nothing":
        return (
            "those that the run was begun with; another program makes them, and they are not made again here"
        )
    return (
        "made again of the rows in the folder; whether these are the data's is not known here:"
        " --data PATH compares them"
    )


def _told_scores(files: RunFiles) -> str:
    code = f"; code was run again: {', '.join(files.code_scorers)}" if files.code_scorers else ""
    return f"all replies scored again{code}"


def _told_replies(report: VerifyReport) -> str:
    how = "answered again" if report.nearness is None else "checked by their tokens"
    return f"{report.n_same} of {report.n_drawn} {how} and the same, of {report.n_answers} in all"
