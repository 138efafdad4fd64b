"""The page of the catalogue is made of models.toml, and every model has what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.models.catalogue import load_catalogue
from infer_cli.models.footprint import kv_bytes
from infer_cli.models.gguf.reading import read_model_header
from infer_cli.models.gguf.shape import ModelShape
from tests.project.catalogue_page import PAGE, page


def test_the_page_is_as_the_catalogue() -> None:
    assert PAGE.read_text("utf-8") == page(load_catalogue()), "python3 -m tests.project.catalogue_page"


def test_every_model_says_what_the_page_shows() -> None:
    for entry in load_catalogue().entries.values():
        assert entry.size and entry.cache and entry.licence and entry.purpose, entry.name


@pytest.mark.weights
def test_the_cache_is_what_the_file_says(smollm2: Path) -> None:
    entry = load_catalogue().entries["smollm2-135m-instruct"]
    assert entry.cache is not None
    assert kv_bytes(ModelShape(read_model_header(smollm2)), 4096, 1) == entry.cache * 4096
