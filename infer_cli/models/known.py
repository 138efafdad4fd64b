"""Whether a word of a command line names a model, for commands that could take it for text."""

from __future__ import annotations

import os
import re

from infer_cli.errors import UsageError
from infer_cli.models.catalogue import is_name, load_catalogue
from infer_cli.models.other_programs import locate
from infer_cli.models.sources import (
    OllamaModel,
    StudioFile,
    is_tagged,
    parse_hub_name,
    parse_ollama,
    parse_source,
)

_SOURCES = ("hf:", "ollama:", "lmstudio:", "https://huggingface.co/", "https://hf.co/")
# Repositories are called so; `and/or` and `km/h` are words.
_OF_A_REPOSITORY = re.compile(r"[-_.:0-9]")

# What ollama's tags are: `latest`, `7b`, `8x7b-instruct-q4_0`, `q8_0`.
_SIZE_OR_KIND = re.compile(
    r"latest|instruct|chat|(e?\d+(x\d+)?(\.\d+)?[bm]|i?q\d\w*|b?f16|fp16)(-.*)?", re.IGNORECASE
)


def model_named(word: str) -> str | None:
    """What `-m` takes for a word that names a model; None for one that names none.

    A model has a name in the catalogue, is a .gguf file here, has a path of the hub, or is ollama's. Raises
    UsageError where the catalogue is wrong.
    """
    if not word or any(c.isspace() for c in word):
        return None
    if word.endswith(".gguf") and os.path.isfile(word):
        return word
    try:
        if word.startswith(_SOURCES):
            source = parse_source(word)
            is_here = not isinstance(source, OllamaModel | StudioFile) or locate(source) is not None
            return word if is_here else None
        if parse_hub_name(word) is not None:
            is_hub = (
                "hf.co/" in word or "huggingface.co/" in word or _OF_A_REPOSITORY.search(word) is not None
            )
            return word if is_hub else None
    except UsageError:
        return None
    if is_name(word.lower()) and load_catalogue().get(word) is not None:
        return word
    return _of_ollama(f"ollama:{word}")


def model_meant(word: str) -> str | None:
    """As `model_named`, of a word that has the form of a model's name and names none here.

    It is a .gguf file, `NAME:TAG`, or a family with its number (`llama3`, `qwen3`): words of a language have
    no number in them.
    """
    if not word or any(c.isspace() for c in word):
        return None
    if word.lower().endswith(".gguf") and len(word) > len(".gguf"):
        return word
    is_family = word[0].isalpha() and any(c.isdigit() for c in word) and is_name(word.lower())
    if is_family or is_tagged(word):
        if close := load_catalogue().of_family(word):
            return close[0]
        if is_tagged(word) and _SIZE_OR_KIND.fullmatch(word.partition(":")[2]):
            return word
    return None


def _of_ollama(name: str) -> str | None:
    try:
        return name if locate(parse_ollama(name)) is not None else None
    except UsageError:
        return None
