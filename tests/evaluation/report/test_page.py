"""The page: what may run in it, where data are in it, and that its bytes repeat."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.report.making import make_report, write_report
from infer_cli.evaluation.runs.folder import RunFolder
from tests.cli_helpers import REPO
from tests.evaluation.comparing.run_folders import right, write_run
from tests.evaluation.report.hostile import HOSTILE, write_hostile_run
from tests.integrations.extras import needs

pytestmark = needs("matplotlib")


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the texts of its scripts and styles."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sources: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.sources.append((self._inside, data))
        else:
            self.texts.append(data)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("runs")
    first, second = write_hostile_run(folder / "a"), write_hostile_run(folder / "b", n_wrong=4)
    return make_report(first, second)


def test_only_the_script_and_the_style_of_the_page_are_allowed(hostile_page: bytes) -> None:
    page = Elements(hostile_page)
    (policy,) = (
        attributes["content"] or ""
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    assert "unsafe" not in policy
    style, data, script = (text for _, text in page.sources)
    for name, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[name] == f"'sha256-{digest}'"
    assert isinstance(json.loads(data), dict)


def test_data_are_in_one_place_and_nowhere_in_the_markup(hostile_page: bytes) -> None:
    page = Elements(hostile_page)
    (data,) = (text for tag, text in page.sources if tag == "script" and text.startswith("{"))
    assert data.count("window.HACKED = 1") > 50
    assert hostile_page.decode().replace(data, "").count("HACKED") == 0
    assert not any("HACKED" in text for text in page.texts)


def test_nothing_is_loaded_and_nothing_has_a_style_or_a_handler(hostile_page: bytes) -> None:
    for tag, attributes in Elements(hostile_page).tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("style", "src", "srcset", "action"), (tag, name)
            if name in ("href", "xlink:href"):
                assert value and value.startswith("#")
        assert tag not in ("link", "iframe", "object", "embed", "img", "base")


def test_ids_are_not_given_twice(hostile_page: bytes) -> None:
    ids = [attributes["id"] for _, attributes in Elements(hostile_page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(rb'(?:href="|url\()#([\w-]+)', hostile_page)
    assert {name.decode() for name in used} <= set(ids)


def test_all_plots_take_their_colours_from_the_page(hostile_page: bytes) -> None:
    colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', hostile_page.decode()))
    assert colours <= {"none", "currentColor"}


def test_every_field_is_in_the_data(hostile_page: bytes) -> None:
    (data,) = (text for tag, text in Elements(hostile_page).sources if text.startswith("{"))
    value = json.loads(data)
    facts = dict(
        fact
        for section in value["sections"]
        for block in section["blocks"]
        for fact in block.get("facts", [])
    )
    for name in ("model", "begun", "licence", "citation", f"sha256 of {HOSTILE}", f"library: {HOSTILE}"):
        assert facts[name] == HOSTILE
    row = value["samples"]["rows"][0]
    titles = [title for title, _ in row["texts"]]
    assert titles == ["prompt", "answer", "extracted", "reference", "error"]
    assert row["status"] == "error"
    assert row["scores"] == [[HOSTILE, "0", HOSTILE]]
    assert [choice[0] for choice in row["choices"]] == [HOSTILE, HOSTILE]
    flips = value["flips"]["rows"]
    assert len(flips) == 2 and all(flip["status"] == "worse" for flip in flips)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """In another process too, whatever hashes are there and the user's own settings of matplotlib."""
    run = write_run(tmp_path / "run", right(1.0, 0.0, 1.0))
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 30\nsvg.fonttype: path\n")
    code = (
        "import sys; from pathlib import Path; from infer_cli.evaluation.report.making import make_report\n"
        f"sys.stdout.buffer.write(make_report(Path({str(run)!r})))"
    )
    write_report(RunFolder(run))
    before = RunFolder(run).report.read_bytes()
    again = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True).stdout
    assert again == before
    assert (REPO / "infer_cli" / "evaluation" / "report" / "report.js").read_bytes() in before


def test_runs_that_are_not_alike_are_refused(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", right(1.0, 0.0)), write_run(tmp_path / "b", right(1.0))
    with pytest.raises(UsageError, match="item 1"):
        make_report(a, b)
    page = make_report(a, b, allow_different=True)
    assert b"Items are left out as the other run has them not: 1 of A, 0 of B." in page
