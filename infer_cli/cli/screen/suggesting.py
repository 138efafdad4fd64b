"""After the first answer of the small default model, once: a better one that this machine can run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from infer_cli.errors import UsageError

if TYPE_CHECKING:
    from infer_cli.cli.screen.terminal import Notices


def suggest_once(model: str, rate: float | None, notices: Notices, *, quiet: bool) -> None:
    """Tell somebody at a terminal whom the shipped default model has just answered, and never again. `rate`:
    tokens a second of that reply; None where it was too short to say."""
    if quiet or rate is None or not (sys.stdout.isatty() and sys.stderr.isatty()):
        return
    from infer_cli.models import suggestion
    from infer_cli.models.catalogue import load_catalogue
    from infer_cli.settings.sizes import size_text
    from infer_cli.system.memory import available_memory

    try:
        catalogue = load_catalogue()
        if model != catalogue.default or model in catalogue.own or suggestion.was_told():
            return
    except UsageError:  # the answer is out: what is wrong there is told by what needs it
        return
    found = suggestion.suggested_for(catalogue, available_memory(), rate)
    if found is None or not suggestion.mark_as_told():
        return
    notices.note(
        f"{model} is small and quick. This machine can run {found.name} ({size_text(found.size)}) too,"
        f" at about {found.rate:.0f} tokens a second:"
        f" `infer models default {found.name}` makes it the default",
        dim=True,
    )
