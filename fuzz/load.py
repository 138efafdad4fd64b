"""Damaged GGUF files are loaded for real, in a process of their own that llama.cpp may crash.

The work is `fuzz.gguf_load`'s, which has a command line too. A load takes some milliseconds: the
corpus is what `fuzz.gguf_mutations` makes of the tiny model.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from fuzz.gguf_load import LOADS_A_CHILD, Child, Tally, bases, mode_of
from fuzz.gguf_mutations import mutated, write_parts
from fuzz.target import Broken, Input, Target


class LoadTarget(Target):
    """An input's data is the seed of a mutated file, as `fuzz.gguf_load` has it."""

    name = "load"
    statuses = frozenset()
    most_seconds = 60.0

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._path = scratch / "mutated.gguf"
        self._bases = dict(bases([], scratch))
        self._child = self._new_child()

    def _new_child(self) -> Child:
        return Child(Path(tempfile.mkdtemp(dir=self.scratch)) / "log")

    def generate(self, rng: random.Random) -> Input:
        name = rng.choice(sorted(self._bases))
        return Input("seed", f"{name}:{rng.randrange(2**32)}:0".encode())

    def check(self, given: Input) -> None:
        seed = given.data.decode()
        write_parts(mutated(self._bases[seed.partition(":")[0]], seed), self._path)
        outcome = self._child.load(self._path, mode_of(seed))
        tally = Tally()
        tally.add(seed, outcome)
        if outcome["code"] is None or self._child.n_loads >= LOADS_A_CHILD:
            self._child.close()
            self._child = self._new_child()
        if tally.bad:
            raise Broken(f"a load: {seed} {outcome['message']}")
