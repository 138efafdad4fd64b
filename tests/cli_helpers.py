"""Runs the real command line in a process of its own, as a user's shell would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from tests.warm_start import WarmStarts

REPO = Path(__file__).parents[1]
INFER = [sys.executable, "-m", "infer_cli"]
warm_starts = WarmStarts()


@dataclass(frozen=True)
class Outcome:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> dict[str, object]:
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


def infer(
    *arguments: object, stdin: bytes | None = None, env: dict[str, str] | None = None, timeout: float = 60
) -> Outcome:
    """`infer ARGUMENTS` with stdin piped in, or at /dev/null."""
    words = [str(argument) for argument in arguments]
    environment = {**os.environ, **(env or {})}
    done = warm_starts.run(words, stdin, environment, timeout) or subprocess.run(
        [*INFER, *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env=environment,
        cwd=REPO,
        timeout=timeout,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


def verify(results: Path, *arguments: object, timeout: float = 180, **more: Any) -> Outcome:
    """`infer verify` of all rows. It loads a model once more, and has time for that on a busy machine."""
    return infer("verify", results, "--fraction", 1, *arguments, timeout=timeout, **more)


def one_error_line(outcome: Outcome, code: int, *words: str) -> None:
    """The outcome is a failure in one `error:` line that holds `words`, perhaps a hint, and no traceback."""
    lines = outcome.err.splitlines()
    assert outcome.code == code, outcome
    assert sum(line.startswith("error: ") for line in lines) == 1, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err, outcome.err


def script(directory: Path, **values: object) -> str:
    """A `-m` value for a fake model with this script."""
    path = directory / "script.json"
    path.write_text(json.dumps(values))
    return f"fake:{path}"


def lines_of(data: bytes) -> Sequence[dict[str, object]]:
    return [json.loads(line) for line in data.decode().splitlines()]


def command_names() -> set[str]:
    """Every command that there is, such as `run` and `models pull`."""
    from infer_cli.cli.app import command_line

    def below(command: Any, name: str) -> Iterator[str]:
        commands = getattr(command, "commands", {})
        for each, sub in commands.items():
            yield from below(sub, f"{name} {each}")
        if not commands:
            yield name.strip()

    return set(below(typer.main.get_command(command_line()), ""))
