"""Shows a download on stderr: a bar with speed and time left on a terminal, one line a step otherwise."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from infer_cli.cli.screen.terminal import console
from infer_cli.errors import SourceUnreachable
from infer_cli.models.fetch.base import Chosen, Failed, FetchEvent, Progress, Trying, Waiting
from infer_cli.settings.sizes import size_text
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from infer_cli.models.store import FetchNotice


class PullProgress:
    """Context manager whose `notice` and `event` are what `store.resolve` and `store.pull` call.

    Failures of a source are always shown, unless the error says them anyway, as all have failed; `quiet`
    drops everything else. A source is named once something comes from it: if nothing does, the error names
    it.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._name = ""
        self._held: list[str] = []  # lines to show once something comes
        self._is_trying = False
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> PullProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if kind is None or not issubclass(kind, SourceUnreachable):
            self._release()

    def notice(self, notice: FetchNotice) -> None:
        self._name = notice.name
        size = f" ({size_text(notice.size)})" if notice.size else ""
        line = f"fetching {notice.name}{size}"
        if notice.name == notice.source:
            self._hold(line)
        else:
            self._say(line)

    def event(self, event: FetchEvent) -> None:
        match event:
            case Trying(source):
                self._stop()
                self._is_trying = True
                if source != self._name:
                    self._hold(f"from {_short(source)}")
            case Chosen(source, file):
                self._release()
                self._say(f"taking {single_line(file)} of {source}")
            case Progress(done, total):
                self._release()
                self._advance(done, total)
            case Failed(source, reason):
                self._stop()
                self._held.append(f"warning: {_short(source)}: {reason}")
                if not self._is_trying:
                    self._release()
            case Waiting(name):
                self._say(f"waiting: another process is fetching {name}")

    def _hold(self, line: str) -> None:
        if not self._quiet:
            self._held.append(line)

    def _release(self) -> None:
        for line in self._held:
            print(line, file=sys.stderr)
        self._held.clear()

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, file=sys.stderr)

    def _advance(self, done: int, total: int | None) -> None:
        if self._quiet or not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = _new_bar()
            self._task = self._bar.add_task(self._name, total=total)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def _new_bar() -> Bar:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console(sys.stderr),
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _short(source: str) -> str:
    """The first of several wheels speaks for all."""
    first, *rest = source.split(",")
    return f"{first} (and {len(rest)} more parts)" if rest and source.startswith("pypi:") else source
