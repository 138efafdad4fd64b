"""What a word on a command line or in a chat can become, with a few words about each. Loads no engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from infer_cli.text.graphemes import beginning

_N_RECENT = 50  # records or conversations
_MOST_ASKED = 60  # characters of what was asked


class Candidate(NamedTuple):
    text: str
    about: str = ""


def models(*, only_installed: bool = False) -> Iterator[Candidate]:
    """Names of the catalogue and of what else is installed, with size and whether they are here."""
    from infer_cli.models.catalogue import load_catalogue
    from infer_cli.models.install_note import notes_in
    from infer_cli.settings.sizes import size_text

    entries = load_catalogue().entries
    installed = {note.name: note for note in notes_in()}
    for name, entry in sorted(entries.items()):
        if name in installed or not only_installed:
            parts = [] if entry.size is None else [size_text(entry.size)]
            yield Candidate(name, ", ".join([*parts, *(["installed"] if name in installed else [])]))
    for name, note in installed.items():
        if name not in entries:
            yield Candidate(name, f"{size_text(sum(file.size for file in note.files))}, installed")


def aliases() -> Iterator[Candidate]:
    """Of models, with what they stand for."""
    from infer_cli.models.catalogue import load_catalogue

    for alias, name in sorted(load_catalogue().names.items()):
        if alias != name:
            yield Candidate(alias, name)


def records() -> Iterator[Candidate]:
    """Ids of the newest records, as short as lists show them, and `last`."""
    from infer_cli.cli.screen.table import short_ids
    from infer_cli.records.glance import recent_records

    found = recent_records(_N_RECENT)
    if found:
        yield Candidate("last", "the newest record")
    for glance, short in zip(found, short_ids([glance.id for glance in found]), strict=True):
        yield Candidate(short, f"{_when(glance.at)} {glance.kind} {_asked(glance.asked) or glance.model}")


def conversations(*, whole_ids: bool = False) -> Iterator[Candidate]:
    """Names of conversations, and the ids of those that have none."""
    from infer_cli.cli.screen.table import short_ids
    from infer_cli.records.glance import recent_threads

    found = recent_threads(_N_RECENT)
    ids = [glance.id for glance in found]
    for glance, short in zip(found, ids if whole_ids else short_ids(ids), strict=True):
        named = short if whole_ids or glance.name is None else glance.name
        yield Candidate(named, f"{_when(glance.at)} {_asked(glance.asked) or glance.model}")


def prompt_templates() -> Iterator[Candidate]:
    from infer_cli.prompt.stored_prompts import names

    yield from map(Candidate, names())


def tasks() -> Iterator[Candidate]:
    """Names of the tasks that come with the program."""
    from infer_cli.evaluation.tasks.shipped_tasks import shipped_names

    yield from map(Candidate, shipped_names())


def _when(at: float) -> str:
    from infer_cli.cli.screen.table import when_in_short

    return when_in_short(datetime.fromtimestamp(at).astimezone(), datetime.now().astimezone())


def _asked(text: str) -> str:
    return beginning(" ".join(text.split()), _MOST_ASKED)
