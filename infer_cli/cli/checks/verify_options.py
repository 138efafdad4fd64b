"""The command line of `infer verify`, checked, over what the job's own file says. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infer_cli.backend.spec import LoraSpec
from infer_cli.batch.job import JobFile, read_job
from infer_cli.batch.row_template import RowTemplate
from infer_cli.batch.rows import STDIN, Input, input_format
from infer_cli.cli.flags.engine import lora_of
from infer_cli.cli.flags.shared import variables_of
from infer_cli.errors import UsageError
from infer_cli.settings.durations import parse_duration
from infer_cli.settings.origins import Given
from infer_cli.system.files import not_a_file, read_bytes
from infer_cli.system.hashing import sha256_hex

FRACTION = 0.05  # of the rows


@dataclass(frozen=True)
class VerifyOptions:
    """`model` None: the one that the results name. `job` None: the results came alone. `challenge` decides
    which rows are asked again. `deadline_s`: that of a batch whose results came alone."""

    results: Path
    job: JobFile | None
    input: Input
    fraction: float
    challenge: str
    model: str | None
    system: str | None
    raw: bool
    variables: Mapping[str, str]
    chat_template: str | None
    deadline_s: float | None
    loras: tuple[LoraSpec, ...]
    json: bool
    quiet: bool
    offline: bool

    @property
    def params(self) -> Mapping[str, object]:
        """The job's parameters."""
        return {} if self.job is None else self.job.params


def check(given: Mapping[str, Given]) -> VerifyOptions:
    """The command line's values, typed. Raises UsageError for the first that is wrong.

    What says how rows become prompts is the job's, unless a flag says otherwise: not a variable's or a
    configuration file's, which were not meant for this job.
    """
    results = Path(str(given["results"].value))
    if not results.is_file():
        raise UsageError(not_a_file(results))
    job = read_job(results)
    params = {} if job is None else job.params
    told = params.get("variables", {})
    assert isinstance(told, dict)

    def flag(name: str) -> object:
        return given[name].value if name in given and given[name].by_flag else None

    def text(name: str, key: str) -> str | None:
        value = params.get(key) if flag(name) is None else flag(name)
        return None if value is None else str(value)

    fraction = FRACTION if flag("fraction") is None else float(str(flag("fraction")))
    if not 0 < fraction <= 1:
        raise UsageError(f"--fraction {fraction:g} is not above 0 and at most 1")
    challenge = flag("challenge")
    if challenge is not None and fraction == 1:
        raise UsageError("--challenge has no meaning where all rows are answered again", "leave it out")
    deadline = flag("deadline")
    name = flag("input")
    if name is None:
        name = None if job is None else job.input
    if name is None or name == STDIN or not os.path.isfile(str(name)):
        raise UsageError(
            not_a_file(str(name)) if name not in (None, STDIN) else "where are the rows?", _INPUT
        )
    row_template = text("row_template", "row_template")
    chat_template = None if flag("chat_template") is None else str(flag("chat_template"))
    _check_template(chat_template, params)
    variables = flag("var")
    return VerifyOptions(
        results=results,
        job=job,
        input=Input(
            str(name),
            input_format(str(name), text("format_", "format")),
            None if row_template is None else RowTemplate(row_template),
        ),
        fraction=fraction,
        # Whoever wrote the file must not have known it.
        challenge=os.urandom(8).hex() if challenge is None else str(challenge),
        model=None if flag("model") is None else str(flag("model")),
        system=text("system", "system"),
        raw=bool(flag("raw") or params.get("raw")),
        variables=(
            variables_of(tuple(variables))
            if isinstance(variables, (list, tuple))
            else {str(name): str(value) for name, value in told.items()}
        ),
        chat_template=chat_template,
        deadline_s=None if deadline is None else parse_duration(str(deadline), "--deadline"),
        loras=tuple(lora_of(str(text)) for text in _listed(flag("lora"))),
        json=bool(flag("json")),
        quiet="quiet" in given and bool(given["quiet"].value),
        offline="offline" in given and bool(given["offline"].value),
    )


_INPUT = "name the file of rows with --input"


def _check_template(name: str | None, params: Mapping[str, object]) -> None:
    wanted = params.get("chat_template")
    if name is None:
        if wanted is not None:
            raise UsageError("the job had a chat template of its own", "name its file with --chat-template")
    elif wanted is not None and sha256_hex(read_bytes(name)) != wanted:
        raise UsageError(f"{name} is not the chat template of the job")


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []
