"""Are a run's samples and results what its replies come to? They are scored again, and compared as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from infer_cli.answering.reply import json_line
from infer_cli.batch.job import JobFile
from infer_cli.checking.comparison import fields_that_differ
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.beginning import file_sha256
from infer_cli.evaluation.runs.facts import RunFacts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.graders import Openers, grader_of
from infer_cli.evaluation.runs.rescoring import graded, n_samples, rescore
from infer_cli.evaluation.runs.results import Results
from infer_cli.evaluation.verification.finding import Finding, first_of
from infer_cli.system.files import MOST_INPUT, open_regular, read_regular


class Scored(NamedTuple):
    """`code_scorers` ran code again: their scores are what this machine gives."""

    findings: Sequence[Finding]
    results: Results | None  # scored here; None: they can't be
    code_scorers: Sequence[str]


def check_scores(
    folder: RunFolder, facts: RunFacts, job: JobFile, *, allow_code: bool, openers: Openers
) -> Scored:
    """Raises UsageError for a folder that can't be scored, and for code that is not allowed."""
    again = rescore(folder, allow_code=allow_code, openers=openers, write=False)
    findings: list[Finding] = []
    if not folder.samples.is_file():
        findings.append(Finding(folder.samples.name, "it is missing"))
    elif file_sha256(folder.samples) != again.samples_bytes_sha256:
        found = _samples(folder, facts, job, allow_code=allow_code, openers=openers)
        findings += first_of(folder.samples.name, found, lambda n: f"{n} more lines differ")
    findings += _results(folder, again.results.as_json(), again.results.as_bytes())
    return Scored(findings, again.results, again.code_scorers)


def _samples(
    folder: RunFolder, facts: RunFacts, job: JobFile, *, allow_code: bool, openers: Openers
) -> Iterator[str]:
    """Lines that are not what the replies give."""
    grader = grader_of(folder, facts, n_samples(job), allow_code=allow_code, openers=openers).grader
    wanted = (json_line(sample.as_json()) for samples in graded(folder, grader) for sample in samples)
    with open_regular(folder.samples) as file:
        for number, (was, now) in enumerate(zip_longest(file, wanted), 1):
            if was == now:
                continue
            if was is None:
                yield f"line {number} is missing"
            elif now is None:
                yield f"line {number} is no reply's"
            else:
                yield f"line {number}: {_told(was, now)}"


def _results(folder: RunFolder, wanted: dict[str, object], data: bytes) -> Iterator[Finding]:
    name = folder.results.name
    try:
        was = read_regular(folder.results, MOST_INPUT)
    except FileNotFoundError:
        yield Finding(name, "it is missing")
        return
    except OSError as e:
        raise UsageError(f"{folder.results} can't be read: {e.strerror}") from None
    if was != data and (told := _told(was, data, but="verified")):
        yield Finding(name, told)


def _told(was: bytes, now: bytes, but: str | None = None) -> str:
    """What differs of two objects, in words; `but`: not this key."""
    try:
        before, after = json.loads(was), json.loads(now)
    except (ValueError, RecursionError):
        return "it is no JSON"
    if not isinstance(before, dict):
        return "it is no object"
    if but is not None:
        before.pop(but, None)
        after.pop(but, None)
        if before == after and list(before) == list(after):
            return ""
    field = next(fields_that_differ(before, after), None)
    if field is None:
        return "it is not written as infer writes it"
    return f"its {field.path:.60} is {field.was!r:.60}, scored again it is {field.now!r:.60}"
