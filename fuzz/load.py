"""Damaged GGUF files are loaded for real, in a process of their own that llama.cpp may crash.

The work is `fuzz.gguf_load`'s, which has a command line too. A load takes some tenths of a second: the
corpus is what `fuzz.gguf_mutations` makes of the tiny model.
"""

from __future__ import annotations

import importlib
import random
import tempfile
from pathlib import Path
from typing import Any

from fuzz.target import Broken, Input, Target


class LoadTarget(Target):
    """An input's data is the seed of a mutated file, as `fuzz.gguf_load` has it."""

    name = "load"
    statuses = frozenset()
    most_seconds = 60.0

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._loads: Any = importlib.import_module("fuzz.gguf_load")
        self._mutations: Any = importlib.import_module("fuzz.gguf_mutations")
        self._path = scratch / "mutated.gguf"
        self._bases = dict(self._loads.bases([], scratch))
        self._child = self._loads.Child(Path(tempfile.mkdtemp(dir=scratch)) / "log")

    def generate(self, rng: random.Random) -> Input:
        name = rng.choice(sorted(self._bases))
        return Input("seed", f"{name}:{rng.randrange(2**32)}:0".encode())

    def check(self, given: Input) -> None:
        seed = given.data.decode()
        self._mutations.write_parts(
            self._mutations.mutated(self._bases[seed.partition(":")[0]], seed), self._path
        )
        outcome = self._child.load(self._path)
        tally = self._loads.Tally()
        tally.add(seed, outcome)
        if outcome["code"] is None or self._child.n_loads >= self._loads.LOADS_A_CHILD:
            self._child.close()
            self._child = self._loads.Child(Path(tempfile.mkdtemp(dir=self.scratch)) / "log")
        if tally.bad:
            raise Broken(f"a load: {seed} {outcome['message']}")
