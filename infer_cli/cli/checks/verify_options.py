"""The command line of `infer verify`, checked, over what the job's own file says. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from infer_cli.backend.spec import LoraSpec
from infer_cli.batch.job import JobFile
from infer_cli.batch.job_reading import read_job
from infer_cli.batch.row_template import RowTemplate
from infer_cli.batch.rows import STDIN, Input, input_format
from infer_cli.checking.verify_request import VerifyRequest
from infer_cli.cli.flags.engine import lora_of
from infer_cli.cli.flags.values import Values, variables_of
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.settings.origins import Given
from infer_cli.system.files import not_a_file, read_bytes
from infer_cli.system.hashing import sha256_hex

FRACTION = 0.05  # of the rows


@dataclass(frozen=True)
class RunOptions:
    """What is asked of a run's folder beside its replies. `data`: where its task's data are; `judge`: the
    model that judged, None: the one that the judge's replies name."""

    folder: RunFolder
    allow_code: bool
    data: str | None
    judge: str | None


@dataclass(frozen=True)
class VerifyOptions:
    """`model` None: the one that the results name. `run` None: the results are a file."""

    request: VerifyRequest
    run: RunOptions | None
    model: str | None
    loras: tuple[LoraSpec, ...]
    json: bool
    quiet: bool
    offline: bool


def check(given: Mapping[str, Given]) -> VerifyOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong.

    What says how rows become prompts is the job's, unless a flag says otherwise: not a variable's or a
    configuration file's, which were not meant for this job.
    """
    values = Values(given)
    of_job = Values({name: one for name, one in given.items() if one.by_flag})
    results = Path(values.argument("results"))
    run = _run_options(results, of_job)
    if run is not None:
        results = run.folder.replies
    if not results.is_file():
        raise UsageError(not_a_file(results))
    job = read_job(results)
    fraction = FRACTION if (share := of_job.real("fraction")) is None else share
    if not 0 < fraction <= 1:
        raise UsageError(f"--fraction {fraction:g} is not above 0 and at most 1")
    challenge = of_job.text("challenge")
    if challenge is not None and fraction == 1:
        raise UsageError("--challenge has no meaning where all rows are answered again", "leave it out")
    # Whoever wrote the file must not have known it.
    challenge = os.urandom(8).hex() if challenge is None else challenge
    return VerifyOptions(
        request=_request(results, job, of_job, run, fraction, challenge),
        run=run,
        model=of_job.text("model"),
        loras=tuple(lora_of(text) for text in of_job.texts("lora")),
        json=of_job.is_set("json"),
        quiet=values.is_set("quiet"),
        offline=values.is_set("offline"),
    )


def _run_options(results: Path, given: Values) -> RunOptions | None:
    """Raises UsageError for flags that have no meaning for a folder, or none for a file."""
    of_run, of_file = ("allow_code", "data", "judge"), ("input", "format_", "row_template", "system", "raw")
    if not results.exists():
        raise UsageError(not_a_file(results), "name a run's folder, or a file of results")
    is_run = results.is_dir()
    for name in of_file if is_run else of_run:
        if name in given.by_flag():
            flag = "--" + name.rstrip("_").replace("_", "-")
            what = "for a run: its folder says it" if is_run else "for a results file: it is of a run"
            raise UsageError(f"{flag} has no meaning {what}", "leave it out")
    if not is_run:
        return None
    folder = RunFolder(results)
    if not folder.facts.is_file():
        raise UsageError(
            f"{results} is no directory of a run of `infer eval`: it has no {folder.facts.name}",
            "name a run's folder, or a file that `batch -o` or `score -o` wrote",
        )
    if not folder.replies.exists():
        raise folder.no_job()
    return RunOptions(folder, given.is_set("allow_code"), given.text("data"), given.text("judge"))


def _request(
    results: Path, job: JobFile | None, given: Values, run: RunOptions | None, fraction: float, challenge: str
) -> VerifyRequest:
    params = cast("Mapping[str, Any]", {} if job is None else job.params)  # checked by the job's reader

    def text(name: str, key: str) -> str | None:
        told = given.text(name)
        return params.get(key) if told is None else told

    row_template = text("row_template", "row_template")
    chat_template = given.text("chat_template")
    _check_template(chat_template, params)
    pairs = given.texts("var")
    name = str(run.folder.requests) if run is not None else _input_name(job, given)
    form = "jsonl" if run is not None else input_format(name, text("format_", "format"))
    return VerifyRequest(
        results=results,
        job=job,
        input=Input(name, form, None if row_template is None else RowTemplate(row_template)),
        fraction=fraction,
        challenge=challenge,
        system=text("system", "system"),
        raw=given.is_set("raw") or bool(params.get("raw")),
        variables=variables_of(pairs) if pairs else params.get("variables", {}),
        chat_template=chat_template,
        deadline_s=given.seconds("deadline"),
        by_tokens=given.is_set("tokens"),
    )


def _input_name(job: JobFile | None, given: Values) -> str:
    name = given.text("input")
    if name is None and job is not None:
        name = job.input
    if name is None or name == STDIN:
        raise UsageError("where are the rows?", _INPUT)
    if not os.path.isfile(name):
        raise UsageError(not_a_file(name), _INPUT)
    return name


_INPUT = "name the file of rows with --input"


def _check_template(name: str | None, params: Mapping[str, object]) -> None:
    wanted = params.get("chat_template")
    if name is None:
        if wanted is not None:
            raise UsageError("the job had a chat template of its own", "name its file with --chat-template")
    elif wanted is not None and sha256_hex(read_bytes(name)) != wanted:
        raise UsageError(f"{name} is not the chat template of the job")
