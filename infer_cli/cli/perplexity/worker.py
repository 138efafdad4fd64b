"""What `infer perplexity` does in its worker process: a text is read, cut, scored and told."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from infer_cli.cli.perplexity.display import Progress
from infer_cli.cli.perplexity.options import PerplexityOptions
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import wait_for
from infer_cli.errors import ExitStatus
from infer_cli.process.explain import explained
from infer_cli.prompt.messages import decode_input
from infer_cli.runtime.session import Session
from infer_cli.system.files import read_bytes

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker
    from infer_cli.runtime.options import EngineOptions
    from infer_cli.scoring.measurement import Measurement
    from infer_cli.scoring.windowed_text import WindowedText


def measure(options: PerplexityOptions, worker: Worker) -> int:
    """Measure for one command line; returns the exit code. Raises InferError."""
    notices = Notices(quiet=options.quiet, stats=options.stats)
    try:
        with explained(worker):
            found = _PerplexityCommand(options, worker, notices).run()
    finally:
        notices.clear()
    if options.json:
        from infer_cli.answering.reply import json_line

        sys.stdout.buffer.write(json_line(found.as_json()))
    else:
        from infer_cli.cli.perplexity.view import table

        print(table(found))
    return ExitStatus.OK


class _PerplexityCommand:
    """The steps of a measurement, each with what the user is told of it."""

    def __init__(self, options: PerplexityOptions, worker: Worker, notices: Notices) -> None:
        self._options, self._worker, self._notices = options, worker, notices

    def run(self) -> Measurement:
        options = self._options
        given = decode_input(read_bytes(options.file), options.text_name)
        with closing(self._load(options.model, options.engine)) as session:
            return self._measure(self._cut(given, session), session)

    def _load(self, name: str | None, engine: EngineOptions) -> Session:
        options, notices = self._options, self._notices
        model = find_model(name, offline=options.offline, quiet=options.quiet)
        session = Session(model, engine, 1, self._worker.native_fd)
        wait_for(session, notices)
        policy = session.loaded.policy
        if policy.passed_over:
            notices.note(f"mode {policy.mode}, not {engine.mode}: {policy.passed_over}")
        return session

    def _cut(self, given: str, session: Session) -> WindowedText:
        from infer_cli.scoring.windowed_text import cut_text

        loaded = session.loaded
        self._notices.status("tokenizing the text")
        windowing = self._options.windowing(loaded.window)
        return cut_text(given, windowing, loaded.vocab, loaded.n_ctx_train)

    def _measure(self, text: WindowedText, session: Session) -> Measurement:
        from infer_cli.scoring.measurement import measure_against, measure_text

        options = self._options
        if options.against is None:
            progress = Progress(text, self._notices)
            found = measure_text(session, text, progress.show)
        else:
            with closing(self._load(options.against, options.engine_of_base)) as base:
                progress = Progress(text, self._notices)
                found = measure_against(session, base, text, progress.show)
        progress.end(session.model.name)
        return found
