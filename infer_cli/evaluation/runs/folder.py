"""The folder of a run: which file of it holds what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from infer_cli.batch.job import job_dir
from infer_cli.errors import UsageError

# A task's copy: a file of ours, one that is code, another program's.
COPIES = ("task.toml", "task.py", "task.json")


def check_inside(folder: Path, *paths: Path) -> None:
    """Raises UsageError for a path that leads out of a folder, which may be anyone's: through a link too."""
    inside = folder.resolve()
    for path in paths:
        if path.parent != folder or path.resolve().parent != inside:
            raise UsageError(
                f"{path} leads out of {folder}, and nothing is written there", "put a file in its place"
            )


class RunFolder(NamedTuple):
    """One run of one task with one model. All but the last five are what the rest is made of."""

    path: Path

    @property
    def facts(self) -> Path:
        """What the run was begun with, and when."""
        return self.path / "run.json"

    @property
    def task(self) -> Path:
        """The task's copy: its file byte for byte, or what another program calls a task."""
        paths = [self.path / name for name in COPIES]
        return next((path for path in paths if path.exists()), paths[0])

    @property
    def beginning(self) -> Path:
        """Is there while the run is begun, so that what is left of one that was killed is told from
        the user's own files."""
        return self.path / ".infer-eval-begins"

    @property
    def items(self) -> Path:
        return self.path / "items.jsonl"

    @property
    def examples(self) -> Path:
        """The rows of the data that were shown as examples."""
        return self.path / "fewshot.jsonl"

    @property
    def requests(self) -> Path:
        """The items' rows: the input of `infer batch` or `infer score`."""
        return self.path / "requests.jsonl"

    @property
    def replies(self) -> Path:
        """The output of `infer batch` or `infer score`."""
        return self.path / "replies.jsonl"

    @property
    def judge_requests(self) -> Path:
        return self.path / "judge_requests.jsonl"

    @property
    def judge_replies(self) -> Path:
        return self.path / "judge.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def strangers(self) -> list[Path]:
        """Files with names of a run's in a folder that has no run: someone's own."""
        if self.facts.exists() or self.beginning.exists():
            return []
        names = (
            self.items, self.examples, self.requests, self.replies, job_dir(self.replies),
            self.judge_requests, self.judge_replies, job_dir(self.judge_replies), self.samples, self.results,
            self.report,
        )  # fmt: skip
        return [path for path in (*map(self.path.joinpath, COPIES), *names) if os.path.lexists(path)]

    def no_job(self) -> UsageError:
        """Of a run without the file that says how its replies were made."""
        if self.replies.exists():
            return UsageError(
                f"{self.replies}.job is missing: it says how the replies were made",
                "put it back, from a copy",
            )
        return UsageError(f"{self.path} has no reply yet", "go on with the `infer eval` that began it")
