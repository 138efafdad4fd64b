"""What `infer verify` does in its worker process: opens results and their model, tells what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.answering.reply import finite
from infer_cli.batch.job import N_SHOWN, counted_rows
from infer_cli.checking.examination import Difference, Unchecked
from infer_cli.checking.results import Results, chance_of_finding, forged_rows_found
from infer_cli.checking.verification import open_session, verify
from infer_cli.checking.verify import ONLY_SEED
from infer_cli.checking.verify_request import Nearness, VerifyReport, VerifyRequest
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
    from infer_cli.backend.spec import LoraSpec
    from infer_cli.models.installed import InstalledModel
    from infer_cli.process.worker import Worker


class Verified(NamedTuple):
    """`vocab` is the model's."""

    report: VerifyReport
    vocab: Vocab


def verify_results(options: VerifyOptions, worker: Worker) -> int:
    """Verify one results file; returns the exit code. Raises InferError."""
    notices = Notices(quiet=options.quiet, stats=False)
    try:
        with explained(worker), closed_at_end():
            results = opened(options.request, notices)
            name = options.model or results.engine.model
            model = model_of(name, is_named=options.model is not None, options=options, flag="-m")
            found = verified(options.request, results, model, options.loras, worker, notices)
    finally:
        notices.clear()
    report = found.report
    if options.json:
        print(json.dumps(as_json(report)))
    else:
        _tell(report, found.vocab, notices)
    return ExitStatus.OK if report.holds else ExitStatus.CHECK_FAILED


def opened(request: VerifyRequest, notices: Notices) -> Results:
    """Raises UsageError for a file that holds no results."""
    results = Results(request.results, request.job, request.fraction, request.challenge)
    if results.is_torn:
        notices.warn("the last line of the results is torn: it is left out")
    return results


def model_of(name: str | None, *, is_named: bool, options: VerifyOptions, flag: str) -> InstalledModel:
    """The model of results: what a file names is looked for here, and not fetched. Raises ModelNotFound with
    the flag that names it."""
    hint = f"name the model with {flag}"
    if name is None:
        raise UsageError("the results name no model", hint)
    try:
        return find_model(name, offline=options.offline or not is_named, quiet=options.quiet)
    except ModelNotFound as e:
        raise ModelNotFound(e.message, e.hint if is_named else hint) from None


def verified(
    request: VerifyRequest,
    results: Results,
    model: InstalledModel,
    loras: tuple[LoraSpec, ...],
    worker: Worker,
    notices: Notices,
) -> Verified:
    """Loads the model and verifies. Raises InferError."""
    session = open_session(results, model, loras, worker.native_fd)
    wait_for(session, notices)
    return Verified(verify(request, results, session, notices), session.loaded.vocab)


def as_json(report: VerifyReport) -> dict[str, object]:
    """The object of `--json`."""
    near = report.nearness
    return {
        "holds": report.holds,
        "replies": report.n_drawn,
        "same": report.n_same,
        "rows": report.n_rows_drawn,
        "rows_in_all": report.n_rows,
        "challenge": report.challenge,
        "check": report.check,
        "margin": None if near is None else near.margin,
        "farthest": None if near is None else finite(near.farthest),
        "mean_margin": None if near is None else near.mean_margin,
        "farthest_mean": None if near is None else near.farthest_mean,
        "missing": report.missing,
        "differences": [difference._asdict() for difference in report.differences],
        "unchecked": [unchecked._asdict() for unchecked in report.unchecked],
        "reasons": [] if report.holds else report.reasons,
    }


def _tell(report: VerifyReport, vocab: Vocab, notices: Notices) -> None:
    for line in told_differences(report, vocab):
        print(line)
    if report.holds:
        print(f"holds: {report.n_same} of {report.n_drawn} {report.kind}")
    else:
        print(f"does not hold: {len(report.differences)} of {report.n_answers} {report.kind} differ")
    for line in told_check(report):
        print(line)
    tell_reasons(report, notices)


def told_differences(report: VerifyReport, vocab: Vocab) -> Iterator[str]:
    """A line for each answer that differs or can't be checked, and one for those that are missing."""
    for difference in report.differences:
        yield single_line(_in_words(difference, vocab))
    for unchecked in report.unchecked:
        yield single_line(f"{_place(unchecked)}: can't be checked: {unchecked.what}")
    if report.missing:
        n_missing = len(report.missing)
        more = f" ({n_missing} in all)" if n_missing > N_SHOWN else ""
        yield f"no reply to {counted_rows(report.missing)} of the job{more}"


def told_check(report: VerifyReport) -> Iterator[str]:
    """What kind of check it was where that is not plain, and what a sample finds."""
    if report.nearness is not None:
        yield _told_tokens(report.nearness)
    if report.challenge is not None:
        yield _told_chance(report)


def tell_reasons(report: VerifyReport, notices: Notices) -> None:
    """What may explain differences; a warning where there are none."""
    for reason in report.reasons:
        if not report.holds:
            print(f"  {single_line(reason)}")
        elif reason != ONLY_SEED:  # that was said before
            notices.warn(reason)


def _told_tokens(near: Nearness) -> str:
    return (
        f"checked by their tokens: each is at most {near.farthest:.2f} from the one that the model takes here"
        f" ({near.margin:g} is allowed), a reply's on average {near.farthest_mean:.3f}"
        f" ({near.mean_margin:g}): another model that is as near is not told apart"
    )


def _told_chance(report: VerifyReport) -> str:
    n, n_drawn = report.n_rows, report.n_rows_drawn
    one = chance_of_finding(n, n_drawn, 1)
    how = "answered again" if report.nearness is None else "checked"
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
