"""CITATION.cff names the version and the licence that there are."""

from __future__ import annotations

import re

from infer_cli import __version__
from tests.cli_helpers import REPO


def test_the_citation_file_is_of_this_version() -> None:
    text = (REPO / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^cff-version: 1\.2\.0$", text, re.MULTILINE)
    assert re.search(rf"^version: {re.escape(__version__)}$", text, re.MULTILINE)
    licence = re.search(r"^license: (.*)$", text, re.MULTILINE)
    assert licence and f'license = "{licence[1]}"' in (REPO / "pyproject.toml").read_text("utf-8")
