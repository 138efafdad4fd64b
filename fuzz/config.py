"""The user's config.toml: read, shown, and taken as defaults by commands whose work is left out."""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fuzz.target import Input, Target
from fuzz.toml_text import changed_toml, deep, setting
from infer_cli.cli.app import call
from infer_cli.errors import ExitStatus, InferError
from infer_cli.process import supervisor
from infer_cli.settings.config_file import config_path

_NAMES = (
    "model", "temperature", "max-tokens", "max_tokens", "stop", "seed", "ctx", "threads", "deadline",
    "samples", "json",
    "quiet", "system", "top-k", "set", "cache-size", "parallel", "format", "device", "gpu-layers",
    "overflow", "var",
    "reasoning", "lora", "offline", "help", "version", "all", "no_such_flag", "run.stop",
    "batch.parallel", "cache.x",
)  # fmt: skip
_TABLES = ("run", "chat", "batch", "tokens", "models", "records", "cache", "model", "no-command", '"a b"')


class ConfigTarget(Target):
    name = "config"

    @classmethod
    def big_inputs(cls) -> Mapping[str, Callable[[], Input]]:
        texts = deep(100_000) | {f"{name}-few": text for name, text in deep(600).items()}
        return {f"{name}.toml": partial(Input, "toml", text) for name, text in texts.items()}

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        config_path().parent.mkdir(parents=True)
        (scratch / "rows.jsonl").write_text('{"prompt": "a"}\n')
        self._seeds = [given.data for given in self.seed_inputs()]
        supervisor.supervise = _nothing
        os.chdir(scratch)

    def generate(self, rng: random.Random) -> Input:
        if rng.random() < 0.5:
            return Input("toml", changed_toml(rng, rng.choice(self._seeds)))
        lines = [setting(rng, _NAMES) for _ in range(rng.randrange(3))]
        for _ in range(rng.randrange(2)):
            lines.append(f"[{rng.choice(_TABLES)}]\n")
            lines += [setting(rng, _NAMES) for _ in range(rng.randrange(3))]
        return Input("toml", "".join(lines).encode("utf-8", "surrogatepass"))

    def check(self, given: Input) -> None:
        config_path().write_bytes(given.data)
        failure: InferError | None = None
        for arguments in (
            ["config", "show"],
            ["run", "-m", "fake", "hi"],
            ["batch", "-m", "fake", "rows.jsonl", "-o", "out.jsonl"],
            ["models", "path", "smollm2", "--offline"],
        ):
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    call(arguments)
            except InferError as error:
                if error.exit_status is not ExitStatus.MODEL_NOT_FOUND:  # there is no model here
                    failure = failure or error
        if failure is not None:
            raise failure


def _nothing(work: object, **how: Any) -> int:
    return 0
