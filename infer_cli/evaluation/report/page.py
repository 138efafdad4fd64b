"""A report as one HTML file: its script, style and plots are in it, and nothing else may run or be loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from infer_cli.evaluation.report.embedding import script_json, source_hash

_FOLDER = Path(__file__).parent


def html_page(data: Mapping[str, object], pictures: Sequence[str]) -> bytes:
    """`data`: what the script draws; it is nowhere else in the page. `pictures`: inline SVG of our own."""
    script, style = _source("report.js"), _source("report.css")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {source_hash(script)}",
            f"style-src {source_hash(style)}",
            "base-uri 'none'",
            "form-action 'none'",
            # Where a browser knows these, no script can make markup of a text at all.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    figures = "\n".join(
        f'<div class="plot" id="plot-{number}">{picture}</div>' for number, picture in enumerate(pictures)
    )
    page = Template(_source("report.html")).substitute(
        policy=policy, style=style, script=script, figures=figures, data=script_json(data)
    )
    return page.encode()


def _source(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")
