"""An SVG of matplotlib as one that stands in a page: without styles, scripts, links, and names of its own.

A page's policy forbids style attributes. Colours become the page's own, so that they change with its theme.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
# Colours that matplotlib is given, and classes of the page's style that stand for them. Black is the text's.
SERIES = {"#0b5fa5": "a", "#b5540b": "b"}
_TEXT_COLOUR = "#000000"
# Elements that pictures consist of, with the attributes that stay. Of others nothing stays, nor of what is
# in them: `metadata`, `style`.
_KEPT: Mapping[str, frozenset[str]] = {
    "svg": frozenset({"viewBox"}),
    "g": frozenset({"clip-path"}),
    "defs": frozenset(),
    "clipPath": frozenset({"id"}),
    "rect": frozenset({"x", "y", "width", "height"}),
    "path": frozenset({"id", "d", "clip-path"}),
    "use": frozenset({"x", "y", "clip-path"}),
    "text": frozenset({"x", "y", "transform"}),
}
_PROPERTIES = ("stroke-width", "stroke-dasharray", "stroke-dashoffset", "stroke-opacity", "fill-opacity",
               "opacity", "text-anchor")  # fmt: skip
_FONT = re.compile(r"([\d.]+)px")
_LABEL = re.compile(r"@@(\d+)@@")


def label_mark(number: int) -> str:
    """Stands in a picture for a text that the page's script puts there."""
    return f"@@{number}@@"


def inline_svg(picture: str, prefix: str) -> str:
    """`prefix`: of its ids, which no other picture of the page has. The text of a label is left empty."""
    root = ElementTree.fromstring(picture)
    made = _made(root, prefix)
    assert made is not None
    made.attrib.update({"aria-hidden": "true", "focusable": "false"})
    return ElementTree.tostring(made, encoding="unicode", short_empty_elements=False)


def _made(element: ElementTree.Element, prefix: str) -> ElementTree.Element | None:
    name = element.tag.removeprefix(_SVG)
    kept = _KEPT.get(name)
    if kept is None:
        return None
    made = ElementTree.Element(name, dict(_attributes(element, kept, prefix)))
    if name == "text":
        text = element.text or ""
        if label := _LABEL.fullmatch(text):
            made.attrib["data-label"] = label[1]
        else:
            made.text = text
    made.extend(child for each in element if (child := _made(each, prefix)) is not None)
    return made


def _attributes(element: ElementTree.Element, kept: frozenset[str], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in element.attrib.items():
        if name in kept:
            yield name, prefix + value if name == "id" else value.replace("url(#", f"url(#{prefix}")
    if href := element.get(_HREF):
        yield "href", f"#{prefix}{href.removeprefix('#')}"
    yield from _presentation(element.get("style", ""))


def _presentation(style: str) -> Iterator[tuple[str, str]]:
    """Attributes and classes for the declarations of a style."""
    declared = dict(part.strip().split(": ", 1) for part in style.split(";") if part.strip())
    classes = []
    for name in ("fill", "stroke"):
        colour = declared.get(name)
        if colour in SERIES:
            classes.append(f"{name}-{SERIES[colour]}")
        elif colour == _TEXT_COLOUR:
            yield name, "currentColor"
        elif colour is not None:
            assert colour == "none", f"{colour} has no meaning in the page's theme"
            yield name, colour
    if classes:
        yield "class", " ".join(classes)
    for name in _PROPERTIES:
        if name in declared:
            yield name, declared[name]
    # Older versions write one declaration for all of a font.
    if size := _FONT.search(declared.get("font-size", declared.get("font", ""))):
        yield "font-size", size[1]
