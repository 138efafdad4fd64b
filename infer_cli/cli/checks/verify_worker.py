"""What `infer verify` does in its worker process: opens results and their model, tells what was found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from infer_cli.answering.reply import finite
from infer_cli.batch.job import N_SHOWN, counted_rows
from infer_cli.checking.examination import Difference, Unchecked
from infer_cli.checking.results import Results, chance_of_finding, forged_rows_found
from infer_cli.checking.verification import open_session, verify
from infer_cli.checking.verify import ONLY_SEED
from infer_cli.checking.verify_request import VerifyReport
from infer_cli.cli.checks.verify_options import VerifyOptions
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import wait_for
from infer_cli.errors import ExitStatus, ModelNotFound, UsageError
from infer_cli.process.explain import explained
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.models.installed import InstalledModel
    from infer_cli.process.worker import Worker

_MODEL = "name the model with -m"


def verify_results(options: VerifyOptions, worker: Worker) -> int:
    """Verify one results file; returns the exit code. Raises InferError."""
    notices = Notices(quiet=options.quiet, stats=False)
    request = options.request
    try:
        with explained(worker), closed_at_end():
            results = Results(request.results, request.job, request.fraction, request.challenge)
            if results.is_torn:
                notices.warn("the last line of the results is torn: it is left out")
            model = _model(options, results)
            session = open_session(results, model, options.loras, worker.native_fd)
            wait_for(session, notices)
            report = verify(request, results, session, notices)
    finally:
        notices.clear()
    if options.json:
        print(json.dumps(_as_json(report)))
    else:
        _tell(report, session.loaded.vocab, notices)
    return ExitStatus.OK if report.holds else ExitStatus.CHECK_FAILED


def _model(options: VerifyOptions, results: Results) -> InstalledModel:
    name = options.model or results.engine.model
    if name is None:
        raise UsageError("the results name no model", _MODEL)
    try:
        # What a file names is looked for here, and not fetched.
        return find_model(name, offline=options.offline or options.model is None, quiet=options.quiet)
    except ModelNotFound as e:
        raise ModelNotFound(e.message, e.hint if options.model is not None else _MODEL) from None


def _as_json(report: VerifyReport) -> dict[str, object]:
    return {
        "holds": report.holds,
        "replies": report.n_drawn,
        "same": report.n_same,
        "rows": report.n_rows_drawn,
        "rows_in_all": report.n_rows,
        "challenge": report.challenge,
        "check": report.check,
        "margin": report.margin,
        "farthest": None if report.farthest is None else finite(report.farthest),
        "missing": report.missing,
        "differences": [difference._asdict() for difference in report.differences],
        "unchecked": [unchecked._asdict() for unchecked in report.unchecked],
        "reasons": [] if report.holds else report.reasons,
    }


def _tell(report: VerifyReport, vocab: Vocab, notices: Notices) -> None:
    for difference in report.differences:
        print(single_line(_in_words(difference, vocab)))
    for unchecked in report.unchecked:
        print(single_line(f"{_place(unchecked)}: can't be checked: {unchecked.what}"))
    if report.missing:
        n_missing = len(report.missing)
        more = f" ({n_missing} in all)" if n_missing > N_SHOWN else ""
        print(f"no reply to {counted_rows(report.missing)} of the job{more}")
    if report.holds:
        print(f"holds: {report.n_same} of {report.n_drawn} {report.kind}")
    else:
        print(f"does not hold: {len(report.differences)} of {report.n_answers} {report.kind} differ")
    if report.check == "tokens":
        print(_told_check(report))
    if report.challenge is not None:
        print(_told_chance(report))
    for reason in report.reasons:
        if not report.holds:
            print(f"  {single_line(reason)}")
        elif reason != ONLY_SEED:  # that was said before
            notices.warn(reason)


def _told_check(report: VerifyReport) -> str:
    return (
        f"checked by their tokens, each within {report.margin:g} of the one that the model takes here"
        f" (farthest: {report.farthest:.2f}): another model that is as near is not told apart"
    )


def _told_chance(report: VerifyReport) -> str:
    n, n_drawn = report.n_rows, report.n_rows_drawn
    one = chance_of_finding(n, n_drawn, 1)
    how = "answered again" if report.check == "answers" else "checked"
    n_forged, sure = forged_rows_found(n, n_drawn)
    return (
        f"{n_drawn} of {n} rows were {how}, drawn by --challenge {report.challenge}:"
        f" one forged row is found with a chance of {one:.0%}, one of {n_forged} with {sure:.0%}"
    )


def _place(of: Difference | Unchecked) -> str:
    place = f"row {of.row}" + ("" if of.custom_id == str(of.row) else f" ({of.custom_id})")
    return place + (f" sample {of.sample}" if of.sample else "")


def _in_words(difference: Difference, vocab: Vocab) -> str:
    _, _, _, what, token, was, now = difference
    place = _place(difference)
    if token is None:
        return f"{place}: {what}"
    return f"{place}: {what} at token {token}: {_token(vocab, was)}, now {_token(vocab, now)}"


def _token(vocab: Vocab, token: int | None) -> str:
    if token is None:
        return "the end"
    if token >= vocab.n_tokens:
        return f"no token ({token})"
    return f"{vocab.token_text(token).decode('utf-8', 'replace')!r} ({token})"
