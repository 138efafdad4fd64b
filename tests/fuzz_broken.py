"""A target for the harness's own tests: each kind of input goes wrong in another way."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping

from fuzz.target import Broken, Input, Target
from infer_cli.errors import ModelInvalid, UsageError


class BrokenTarget(Target):
    name = "broken"
    most_seconds = 0.5
    most_memory = 64 * 2**20

    @classmethod
    def corpus(cls) -> dict[str, Callable[[], Input]]:
        kinds = (
            "bug",
            "hang",
            "sleep",
            "memory",
            "crash",
            "code",
            "two-lines",
            "invariant",
            "refused",
            "sound",
        )
        return {kind: (lambda kind=kind: Input(kind, b"")) for kind in kinds}  # type: ignore[misc]

    @classmethod
    def big_inputs(cls) -> Mapping[str, Callable[[], Input]]:
        return {}

    def generate(self, rng: random.Random) -> Input:
        return Input("even" if rng.randrange(2) else "sound", b"")

    def check(self, given: Input) -> None:
        if given.kind == "bug":
            raise KeyError("x")
        if given.kind == "hang":
            ("a" * 200_000).rfind("ab" + "a" * 100_000)
        if given.kind == "sleep":
            time.sleep(60)
        if given.kind == "memory":
            bytearray(200 * 2**20)[::4096] = b"x" * 51_200
        if given.kind == "crash":
            os.abort()
        if given.kind == "code":
            raise ModelInvalid("no model")
        if given.kind == "two-lines":
            raise UsageError("")
        if given.kind in ("invariant", "even"):
            raise Broken(f"{given.kind}: it is not so")
        if given.kind == "refused":
            raise UsageError("that will not do", "do another thing")
