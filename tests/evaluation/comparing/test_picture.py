"""Pictures of comparisons: what is in them, and that their bytes repeat."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infer_cli.evaluation.comparing.dots import Dot, DotGroup
from infer_cli.evaluation.comparing.picture import picture
from tests.cli_helpers import REPO
from tests.integrations.extras import needs

pytestmark = needs("matplotlib")

GROUPS = [
    DotGroup("points", True, (Dot("B - A", 2.5, (0.5, 4.5), True), Dot("C <b> $x$ - A", -1.0, None, False))),
    DotGroup("bits_per_byte", False, (Dot("B - A", 0.0, (-0.1, 0.1), False),)),
]


def test_an_svg_has_the_labels_as_text_and_loads_nothing() -> None:
    text = picture(GROUPS, "svg").decode()
    for label in (
        "B - A",
        "C &lt;b&gt; $x$ - A",
        "difference in points, 95 % intervals; to the right is better",
    ):
        assert f">{label}</text>" in text
    assert "<script" not in text and "<dc:date>" not in text
    links = set(re.findall(r'(?:xlink:href|href|src)="([^"]*)"', text))
    assert all(link.startswith("#") for link in links)


@pytest.mark.parametrize("format_", ["svg", "png"])
def test_the_same_comparisons_give_the_same_bytes(tmp_path: Path, format_: str) -> None:
    """In another process too, and whatever the user's own settings of matplotlib are."""
    code = (
        "import sys; from infer_cli.evaluation.comparing.picture import picture\n"
        "from tests.evaluation.comparing.test_picture import GROUPS\n"
        f"sys.stdout.buffer.write(picture(GROUPS, {format_!r}))"
    )
    (tmp_path / "matplotlibrc").write_text(
        "lines.linewidth: 9\nfont.size: 30\nsvg.fonttype: path\nbackend: module://evil\n"
    )
    (tmp_path / "evil.py").write_text("raise SystemExit('it was run')\n")
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    pictures = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, check=True
        ).stdout
        for folder in (tmp_path, Path.cwd())
    }
    assert len(pictures) == 1
    (data,) = pictures
    assert data.startswith(b"<?xml" if format_ == "svg" else b"\x89PNG\r\n")
