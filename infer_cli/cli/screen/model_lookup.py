"""Finds the model that a command names, and shows how it is fetched if need be."""

from __future__ import annotations

from infer_cli.models.installed import InstalledModel, fake_model, is_fake, named_by_path


def find_model(name: str | None, *, offline: bool, quiet: bool) -> InstalledModel:
    """A model, fetched if need be. Raises ModelNotFound, ModelInvalid, SourceUnreachable, UsageError."""
    if name is not None and is_fake(name):
        return fake_model(name)
    if name is not None and (model := named_by_path(name)) is not None:
        return model
    from infer_cli.cli.screen.pull_progress import PullProgress
    from infer_cli.models.store import resolve

    with PullProgress(quiet) as progress:
        return resolve(name, offline=offline, on_fetch=progress.notice, on_event=progress.event)
