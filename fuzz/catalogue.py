"""The user's models.toml: read, merged, added to and removed from. What is written can be read again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from fuzz.mutate import TEXTS
from fuzz.target import Broken, Input, Target
from fuzz.toml_text import changed_toml, deep, setting
from infer_cli.errors import ExitStatus, InferError
from infer_cli.models.catalogue import load_catalogue, user_path
from infer_cli.models.catalogue_edit import add_entry, remove_entry, set_default
from infer_cli.models.sources import parse_source

_NAMES = ("name", "sources", "aliases", "sha256", "size", "licence", "context", "notes", "sampling")
_SOURCES = (
    "hf:a/b/c.gguf", "hf:a/b/c.gguf@main", "hf:a/b:Q4_K_M", "pypi:a==1#b/c.gguf",
    "pypi:a==1#b.part1,c==2#d.gguf",
    "https://h/x.gguf", "http://127.0.0.1:1/x.gguf", "http://h/x.gguf", "ollama:a:b",
    "lmstudio:a/b/c.gguf", "x.gguf",
    "~/x.gguf", "~nouser/x.gguf", "https://h:99999/x", "https://[::1", "https://u:p@h/x",
    "hf:a/b/../c.gguf", "a\\0b",
    "https://h/%2e%2e%2fx.gguf", "pypi:a==1#../x.gguf", "zz:x", "\\u001b[31m", "hf:a/b/x-00001-of-99999.gguf",
)  # fmt: skip


class CatalogueTarget(Target):
    name = "catalogue"
    statuses = frozenset({ExitStatus.USAGE, ExitStatus.MODEL_NOT_FOUND})

    @classmethod
    def big_inputs(cls) -> Mapping[str, Callable[[], Input]]:
        texts = {**deep(100_000), "deep-arrays-few": deep(600)["deep-arrays"]}
        texts["many-models"] = b"".join(
            b'[[model]]\nname = "m%d"\nsources = ["x.gguf"]\n' % i for i in range(3000)
        )
        return {f"{name}.toml": partial(Input, "toml", text) for name, text in texts.items()}

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        user_path().parent.mkdir(parents=True)
        self._seeds = [given.data for given in self.seed_inputs()]

    def generate(self, rng: random.Random) -> Input:
        if rng.random() < 0.5:
            return Input("toml", changed_toml(rng, rng.choice(self._seeds)))
        lines = [setting(rng, ("default",))] if rng.random() < 0.2 else []
        for i in range(rng.randrange(1, 4)):
            sources = ", ".join(f'"{rng.choice(_SOURCES)}"' for _ in range(rng.randrange(3)))
            lines += ["[[model]]\n", f'name = "m{i}"\n', f"sources = [{sources}]\n"]
            for _ in range(rng.randrange(3)):
                lines.append(
                    setting(rng, (*_NAMES[2:], "sampling.temperature", "sampling.top_k", "sampling"))
                )
        return Input("toml", "".join(lines).encode("utf-8", "surrogatepass"))

    def check(self, given: Input) -> None:
        path = user_path()
        path.write_bytes(given.data)
        catalogue = load_catalogue()
        for entry in catalogue.entries.values():
            json.dumps(asdict(entry), default=str, allow_nan=False)
            for source in entry.sources:
                if str(parse_source(str(source))) != str(source):
                    raise Broken(f"a source does not read as it is written: {source!s:.60}")
        for name in TEXTS[:8]:
            catalogue.get(name)
        before = {name: catalogue.entries[name] for name in catalogue.own - {"added-here"}}
        failure: InferError | None = None
        for edit in (
            lambda: add_entry("added-here", "https://h/x.gguf"),
            lambda: set_default("added-here"),
            lambda: set_default("smollm2"),
            lambda: remove_entry("added-here"),
        ):
            try:
                edit()
            except InferError as error:
                failure = failure or error
        after = load_catalogue()
        if {name: after.entries[name] for name in after.own - {"added-here"}} != before:
            raise Broken("an edit of one entry changed another")
        if failure is None and set(after.own) != before.keys():
            raise Broken("an entry that was added and removed has left something")
        if failure is not None:
            raise failure
