"""What a target is: inputs it makes or finds in its corpus, and a check that each of them must pass."""

from __future__ import annotations

import importlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from infer_cli.errors import ExitStatus

CORPUS = Path(__file__).parent / "corpus"

# Name -> module and class. Imported one at a time: none needs what another one does.
TARGETS = {
    "header": "fuzz.header:HeaderTarget",
    "load": "fuzz.load:LoadTarget",
    "templates": "fuzz.templates:TemplatesTarget",
    "rows": "fuzz.rows:RowsTarget",
    "catalogue": "fuzz.catalogue:CatalogueTarget",
    "config": "fuzz.config:ConfigTarget",
    "job": "fuzz.job:JobTarget",
    "records": "fuzz.records:RecordsTarget",
    "prefix": "fuzz.prefix:PrefixTarget",
    "sanitize": "fuzz.sanitize:SanitizeTarget",
    "http": "fuzz.http:HttpTarget",
    "text": "fuzz.text:TextTarget",
    "scorers": "fuzz.scorers:ScorersTarget",
}


class Input(NamedTuple):
    """`kind` says what `data` is where a target takes several things: a file's role, a format."""

    kind: str
    data: bytes


class Broken(Exception):
    """An invariant does not hold. The text says which."""


class Target(ABC):
    """One thing that is attacked.

    `check` may raise InferError with one of `statuses`, and nothing else. An input may take `most_seconds` of
    processor time and `most_memory` bytes on top of what was used before.
    """

    name: ClassVar[str]
    statuses: ClassVar[frozenset[ExitStatus]] = frozenset({ExitStatus.USAGE})
    most_seconds: ClassVar[float] = 5.0
    most_memory: ClassVar[int] = 256 * 2**20

    def __init__(self, scratch: Path) -> None:
        """`scratch` is an empty directory of its own; INFER_HOME is below it."""
        self.scratch = scratch

    @abstractmethod
    def generate(self, rng: random.Random) -> Input:
        """A new input. The same generator state gives the same input."""

    @abstractmethod
    def check(self, given: Input) -> None:
        """Raises Broken where an invariant does not hold."""

    @classmethod
    def big_inputs(cls) -> Mapping[str, Callable[[], Input]]:
        """Inputs of the corpus that are too large to be kept as files, by name."""
        return {}

    @classmethod
    def corpus(cls) -> dict[str, Callable[[], Input]]:
        """All named inputs. A file NAME.KIND gives its content as an input of that kind."""
        found: dict[str, Callable[[], Input]] = {}
        for path in sorted((CORPUS / cls.name).glob("*")):
            kind = path.name.partition(".")[2]
            found[path.name] = lambda path=path, kind=kind: Input(kind, path.read_bytes())  # type: ignore[misc]
        return {**found, **cls.big_inputs()}

    @classmethod
    def seed_inputs(cls) -> list[Input]:
        """The files of the corpus that are sound, to be changed: all but those named `hostile-…`."""
        big = cls.big_inputs()
        names = [name for name in cls.corpus() if name not in big and not name.startswith("hostile-")]
        return [cls.corpus()[name]() for name in names]


def input_name(names: Sequence[str], seed: int, number: int) -> str:
    """`corpus/NAME` for the first inputs of a run, then seed and number of a generated one."""
    return f"corpus/{names[number]}" if number < len(names) else f"{seed}:{number - len(names)}"


def input_of(target: Target, name: str) -> Input:
    """The input that `input_name` named."""
    kind, _, rest = name.partition("/")
    if kind == "corpus":
        return target.corpus()[rest]()
    return target.generate(random.Random(f"{target.name}:{name}"))


def target_class(place: str) -> type[Target]:
    """The class of `module:Class`."""
    module, _, name = place.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, type) and issubclass(found, Target)
    return found
