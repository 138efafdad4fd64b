"""Whether a word of a command line names a model, for commands that could take it for text."""

from __future__ import annotations

import os
import re

from infer_cli.errors import UsageError
from infer_cli.models.catalogue import is_name, load_catalogue
from infer_cli.models.other_programs import locate
from infer_cli.models.sources import OllamaModel, StudioFile, has_scheme, parse_hub_name, parse_source

_SOURCES = ("hf:", "ollama:", "lmstudio:", "https://huggingface.co/", "https://hf.co/")
# Repositories are called so; `and/or` and `km/h` are words.
_OF_A_REPOSITORY = re.compile(r"[-_.:0-9]")


def names_model(word: str) -> bool:
    """Whether it is a name of the catalogue, a .gguf file here, a path of the hub, or a model of ollama's.

    Raises UsageError where the catalogue is wrong.
    """
    if not word or any(c.isspace() for c in word):
        return False
    if word.endswith(".gguf") and os.path.isfile(word):
        return True
    if has_scheme(word) and not word.startswith(_SOURCES):
        return _ollama_has(f"ollama:{word}")
    try:
        if word.startswith(_SOURCES):
            source = parse_source(word)
            return not isinstance(source, OllamaModel | StudioFile) or locate(source) is not None
        if parse_hub_name(word) is not None:
            return "hf.co/" in word or "huggingface.co/" in word or _OF_A_REPOSITORY.search(word) is not None
    except UsageError:
        return False
    return is_name(word.lower()) and (load_catalogue().get(word) is not None or _ollama_has(f"ollama:{word}"))


def _ollama_has(name: str) -> bool:
    try:
        source = parse_source(name)
    except UsageError:
        return False
    return isinstance(source, OllamaModel) and locate(source) is not None
