"""What `-f` names: a file, stdin, the text files of a folder, or a page of the web."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

from infer_cli.errors import UsageError
from infer_cli.prompt.attachments import Attachment
from infer_cli.prompt.messages import decode_input
from infer_cli.settings.sizes import size_text
from infer_cli.system.files import is_url, read_bytes
from infer_cli.text.sanitize import single_line

_MOST_NAMED = 20  # files of a folder that are listed


class Teller(Protocol):
    """Who is told what was read."""

    def status(self, text: str) -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


def read_named(name: str, teller: Teller, *, offline: bool) -> list[Attachment]:
    """The texts of one name. `teller` gets a list of what a folder has, and what of it is left out.

    Raises UsageError for what can't be read or is no text, SourceUnreachable for a page that can't be had.
    """
    if is_url(name):
        return [_page(name, teller, offline=offline)]
    if name != "-" and os.path.isdir(name):
        return _folder(name, teller)
    shown = "stdin" if name == "-" else name
    return [Attachment(shown, decode_input(read_bytes(name), shown))]


def _page(url: str, teller: Teller, *, offline: bool) -> Attachment:
    from infer_cli.models.fetch.page import fetch_text

    if offline:
        raise UsageError(
            f"--offline: {single_line(url)} is not fetched", "save it in a file, and give -f FILE"
        )
    teller.status(f"fetching {single_line(url)}")
    return Attachment(url, fetch_text(url), url)


def _folder(name: str, teller: Teller) -> list[Attachment]:
    from infer_cli.prompt.folder import texts_in

    found = texts_in(name)
    n_bytes = sum(len(item.text.encode()) for item in found.texts)
    n = len(found.texts)
    names = listed(os.path.relpath(item.name, name) for item in found.texts)
    teller.note(f"{name}: {n} {'file' if n == 1 else 'files'}, {size_text(n_bytes)}: {names}")
    if found.left_out:
        teller.warn(f"{name}: no text, left out: {listed(found.left_out)}")
    return list(found.texts)


def listed(names: Iterable[str]) -> str:
    """Names with commas between, the first few of many."""
    known = list(names)
    more = len(known) - _MOST_NAMED
    return ", ".join(known[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
