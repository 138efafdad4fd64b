"""The page of the catalogue, made of models.toml: `python3 -m tests.project.catalogue_page` writes it."""

from __future__ import annotations

from infer_cli.models.catalogue import Catalogue, ModelEntry, load_catalogue
from infer_cli.settings.sizes import size_text
from tests.cli_helpers import REPO

PAGE = REPO / "docs" / "catalogue.md"
WINDOWS = (4096, 8192)
_HEAD = """\
# The catalogue

The models that `infer` knows by name, the smallest first. `infer run -m NAME` fetches one and uses it,
`infer models default NAME` makes it the default ([infer models](models.md)). Any other GGUF file works too.

Memory is the file and the keys and values of one conversation of 4,096 or 8,192 tokens. What is computed
with takes some 100 MB more. `infer models show NAME` computes all of it from the file, once it is here. Free
memory should be about twice that, for other programs. A dash: the model was trained for fewer tokens.

| Model | Size | At 4k | At 8k | Licence | For |
| --- | ---: | ---: | ---: | --- | --- |
"""
_TAIL = """
The sizes are those of the published files, which are pinned by their sha256. The licences are the
publishers': read one before you use its model for more than trying it out.
"""


def page(catalogue: Catalogue) -> str:
    """The whole page."""
    entries = sorted(catalogue.entries.values(), key=lambda entry: entry.size or 0)
    rows = [_row(entry, entry.name == catalogue.default) for entry in entries]
    noted = [f"- `{entry.name}`: {entry.notes}\n" for entry in entries if entry.notes]
    return _HEAD + "".join(rows) + "\n" + "".join(noted) + _TAIL


def _row(entry: ModelEntry, is_default: bool) -> str:
    names = ", ".join(f"`{name}`" for name in (entry.name, *entry.aliases))
    memory = [entry.memory(window) for window in WINDOWS]
    cells = [
        names + (" (the default)" if is_default else ""),
        _size(entry.size),
        *map(_size, memory),
        entry.licence or "",
        entry.purpose or "",
    ]
    return f"| {' | '.join(cells)} |\n"


def _size(n_bytes: int | None) -> str:
    return "–" if n_bytes is None else size_text(n_bytes)


if __name__ == "__main__":
    PAGE.write_text(page(load_catalogue()), "utf-8")
