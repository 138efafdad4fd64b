"""Begins a run: its folder has all that is asked before the first answer."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from infer_cli.answering.reply import json_line
from infer_cli.batch.job import lock_path
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import OWN_SOURCE, RunFacts, Scoring, TaskFacts, read_facts
from infer_cli.evaluation.runs.folder import COPIES, RunFolder, check_inside
from infer_cli.evaluation.runs.provenance import hardware, libraries, now
from infer_cli.evaluation.runs.source import ItemSource
from infer_cli.evaluation.tasks.item_file import write_items
from infer_cli.system.files import lock, open_regular, write_atomic

_PIECE = 1 << 20  # bytes


class Invocation(NamedTuple):
    """`command` is the command line, `infer` the program's version."""

    command: tuple[str, ...]
    infer: str


def begin_run(
    folder: RunFolder, source: ItemSource, scoring: Scoring, invocation: Invocation, *, redo: bool
) -> RunFacts:
    """Write what a run is made of, `run.json` last: where that is, the rest is whole.

    A run that goes on keeps what it has. Raises UsageError where it was begun with another task, other data
    or another selection, unless what is different is to be done again; for a folder that has someone's own
    files in the places of a run's; and for items that can't be read.
    """
    own = (folder.facts, folder.beginning, *_copies(folder), *_hashed(folder), folder.replies)
    check_inside(folder.path, *own)
    if folder.facts.exists():
        folder.beginning.unlink(missing_ok=True)
        before = read_facts(folder.facts)
        same = replace(
            before,
            task=replace(source.task, given=before.task.given),
            data=source.data,
            selection=source.selection,
            generation=source.generation,
        )
        changed = before.differences(same) or _damaged(folder, before)
        if not changed:
            if before.scoring != scoring:
                before = replace(before, scoring=scoring, command=invocation.command)
                before.write(folder.facts)
            return before
        if not redo:
            raise UsageError(
                f"{folder.path} was begun with something else: {'; '.join(changed[:4])}",
                "--redo does again what is different; -o OTHER begins another run",
            )
        return _begin_again(folder, before, source, scoring, invocation)
    if folder.path.exists() and not folder.path.is_dir():
        raise UsageError(f"{folder.path} is not a folder", "name another with -o")
    if strangers := folder.strangers():
        raise _not_ours(strangers[0])
    folder.path.mkdir(parents=True, exist_ok=True)
    is_new = not folder.beginning.exists()
    folder.beginning.touch()
    try:
        return _write(folder, source, scoring, invocation)
    except BaseException:
        if is_new:  # nothing is left that could be taken for a run's where it is someone's
            for path in (*_copies(folder), *_hashed(folder), folder.beginning):
                path.unlink(missing_ok=True)
        raise


def _begin_again(
    folder: RunFolder, before: RunFacts, source: ItemSource, scoring: Scoring, invocation: Invocation
) -> RunFacts:
    """In a folder that has a run. Raises UsageError where another process answers it, and where there is a
    file with the name of another task's copy."""
    own = _copy_name(before.task)
    if strangers := [path for path in _copies(folder) if path.name != own and os.path.lexists(path)]:
        raise _not_ours(strangers[0])
    lock_file = lock_path(folder.replies)
    lock_file.parent.mkdir(exist_ok=True)  # also where no answer was ever begun: another may begin now
    held = lock(lock_file, folder.path)
    try:
        folder.beginning.touch()
        folder.facts.unlink()
        for path in (folder.results, folder.samples, folder.report):  # of answers that are no more asked for
            path.unlink(missing_ok=True)
        return _write(folder, source, scoring, invocation)
    finally:
        held.release()


def _not_ours(path: Path) -> UsageError:
    return UsageError(
        f"{path} was not written by `infer eval`, which has a file of that name",
        "name a new folder after -o",
    )


def _write(folder: RunFolder, source: ItemSource, scoring: Scoring, invocation: Invocation) -> RunFacts:
    for path in _copies(folder):
        path.unlink(missing_ok=True)
    copy = folder.path / source.copy_name
    write_atomic(copy, [source.copy.encode()], durable=True)
    write_atomic(folder.examples, map(json_line, source.examples), durable=True)
    written = write_items(source.items(), folder.items, folder.requests)
    facts = RunFacts(
        task=source.task,
        data=source.data,
        selection=source.selection,
        generation=source.generation,
        scoring=scoring,
        files={path.name: file_sha256(path) for path in _hashed(folder)},
        n_items=written.n_items,
        command=invocation.command,
        infer=invocation.infer,
        began_at=now(),
        libraries=libraries(),
        hardware=hardware(),
    )
    facts.write(folder.facts)
    folder.beginning.unlink()
    return facts


def _copy_name(task: TaskFacts) -> str:
    if task.source != OWN_SOURCE:
        return "task.json"
    return "task.py" if task.is_code else "task.toml"


def _copies(folder: RunFolder) -> list[Path]:
    return [folder.path / name for name in COPIES]


def _hashed(folder: RunFolder) -> tuple[Path, ...]:
    return (folder.items, folder.requests, folder.examples)


def _damaged(folder: RunFolder, facts: RunFacts) -> list[str]:
    """Files that are not as they were written."""
    return [
        f"{path.name} has changed"
        for path in _hashed(folder)
        if not path.is_file() or file_sha256(path) != facts.files.get(path.name)
    ]


def file_sha256(path: Path) -> str:
    """Hex. Raises OSError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
