"""The command line of `infer verify`, checked, over what the job's own file says. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from infer_cli.backend.spec import LoraSpec
from infer_cli.batch.job_reading import read_job
from infer_cli.batch.row_template import RowTemplate
from infer_cli.batch.rows import STDIN, Input, input_format
from infer_cli.checking.verify_request import VerifyRequest
from infer_cli.cli.flags.engine import lora_of
from infer_cli.cli.flags.values import Values, variables_of
from infer_cli.errors import UsageError
from infer_cli.settings.origins import Given
from infer_cli.system.files import not_a_file, read_bytes
from infer_cli.system.hashing import sha256_hex

FRACTION = 0.05  # of the rows


@dataclass(frozen=True)
class VerifyOptions:
    """`model` None: the one that the results name."""

    request: VerifyRequest
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
    if not results.is_file():
        raise UsageError(not_a_file(results))
    job = read_job(results)
    params = cast("Mapping[str, Any]", {} if job is None else job.params)  # checked by the job's reader

    def text(name: str, key: str) -> str | None:
        told = of_job.text(name)
        return params.get(key) if told is None else told

    fraction = FRACTION if (share := of_job.real("fraction")) is None else share
    if not 0 < fraction <= 1:
        raise UsageError(f"--fraction {fraction:g} is not above 0 and at most 1")
    challenge = of_job.text("challenge")
    if challenge is not None and fraction == 1:
        raise UsageError("--challenge has no meaning where all rows are answered again", "leave it out")
    name = of_job.text("input")
    if name is None and job is not None:
        name = job.input
    if name is None or name == STDIN:
        raise UsageError("where are the rows?", _INPUT)
    if not os.path.isfile(name):
        raise UsageError(not_a_file(name), _INPUT)
    row_template = text("row_template", "row_template")
    chat_template = of_job.text("chat_template")
    _check_template(chat_template, params)
    pairs = of_job.texts("var")
    request = VerifyRequest(
        results=results,
        job=job,
        input=Input(
            name,
            input_format(name, text("format_", "format")),
            None if row_template is None else RowTemplate(row_template),
        ),
        fraction=fraction,
        # Whoever wrote the file must not have known it.
        challenge=os.urandom(8).hex() if challenge is None else challenge,
        system=text("system", "system"),
        raw=of_job.is_set("raw") or bool(params.get("raw")),
        variables=variables_of(pairs) if pairs else params.get("variables", {}),
        chat_template=chat_template,
        deadline_s=of_job.seconds("deadline"),
        by_tokens=of_job.is_set("tokens"),
    )
    return VerifyOptions(
        request=request,
        model=of_job.text("model"),
        loras=tuple(lora_of(text) for text in of_job.texts("lora")),
        json=of_job.is_set("json"),
        quiet=values.is_set("quiet"),
        offline=values.is_set("offline"),
    )


_INPUT = "name the file of rows with --input"


def _check_template(name: str | None, params: Mapping[str, object]) -> None:
    wanted = params.get("chat_template")
    if name is None:
        if wanted is not None:
            raise UsageError("the job had a chat template of its own", "name its file with --chat-template")
    elif wanted is not None and sha256_hex(read_bytes(name)) != wanted:
        raise UsageError(f"{name} is not the chat template of the job")
