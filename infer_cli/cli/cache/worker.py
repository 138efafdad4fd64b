"""What `infer cache warm` does in its worker process: as `infer run`, but what is kept is all it is for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from infer_cli.answering.reply import failure
from infer_cli.cli.run.options import check
from infer_cli.cli.run.worker import Run
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus, UnexpectedFailure, UsageError
from infer_cli.prefix_cache.cache import Kept, reason
from infer_cli.prefix_cache.store import store_dir
from infer_cli.process.explain import explained
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.settings.defaults import MIN_PREFIX
from infer_cli.settings.origins import Given
from infer_cli.types import EngineRequest, Finished, Prefilled, SamplingParams

if TYPE_CHECKING:
    from infer_cli.answering.job import Job
    from infer_cli.prefix_cache.cache import PrefixCache
    from infer_cli.process.worker import Worker
    from infer_cli.prompt.attachments import Attachment
    from infer_cli.runtime.running import Running
    from infer_cli.runtime.session import Session


def warm(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """Evaluate files, and keep that; the command line is (value, origin) by name. Raises InferError."""
    options = check({name: Given(*value) for name, value in values.items()})
    notices = Notices(quiet=options.quiet, stats=False)
    try:
        with explained(worker), closed_at_end():
            return _Warm(replace(options, max_tokens=1), worker, notices).answer()
    finally:
        notices.clear()


class _Warm(Run):
    def _tags(self, attachments: Sequence[Attachment]) -> bool:
        """A question will stand beside them."""
        return True

    def _stream(self, session: Session, job: Job) -> int:
        n_shared = self.n_shared(session, job.prompt_ids) if self._caches else 0
        if n_shared < MIN_PREFIX:
            raise UsageError(
                f"less than {MIN_PREFIX} tokens of the prompt are the files' own",
                "reading so little again takes no longer than finding it",
            )
        running = session.start(self._n_window)
        self._notices.status("hashing the model, once")
        prefixes = self._prefixes(session, running, session.sha256())
        assert prefixes is not None
        prefixes.restore(job.prompt_ids)
        name = session.model.name
        kept = self._kept(prefixes, running, job, n_shared, name)
        self._notices.clear()
        self._tell(kept, name)
        return ExitStatus.OK

    def _kept(self, prefixes: PrefixCache, running: Running, job: Job, n_shared: int, name: str) -> Kept:
        """What the store has after this. Raises UnexpectedFailure where it takes nothing, ModelInvalid."""
        try:
            found = prefixes.found(n_shared, job.prompt_ids)
        except ValueError as e:
            raise _nothing_kept(e) from None
        if found is not None:
            return found
        request = EngineRequest(job.id, job.prompt_ids, SamplingParams(), max_tokens=1)
        for event in running.service.submit([request]):
            if isinstance(event, Prefilled):
                self._notices.status(f"reading {event.done / event.total:.0%}")
            elif isinstance(event, Finished) and event.error is not None:
                raise failure(event.error, event.error_status, name)
        try:
            kept = prefixes.keep(job.prompt_ids, n_shared)
        except (OSError, ValueError) as e:
            raise _nothing_kept(e) from None
        if kept is None:
            raise UnexpectedFailure(
                "nothing was kept: this model's states can't be used again in this mode", "see docs/cache.md"
            )
        return kept

    def _tell(self, kept: Kept, model: str) -> None:
        if self._options.format == "text":
            print(f"{'kept' if kept.written else 'kept already'}: {kept}")
            return
        shown = {
            "model": model,
            "n_tokens": kept.n_tokens,
            "bytes": kept.size,
            "bytes_per_token": round(kept.size / kept.n_tokens),
            "written": kept.written,
        }
        print(json.dumps(shown))


def _nothing_kept(error: Exception) -> UnexpectedFailure:
    hint = f"the cache is in {store_dir()}; --cache-size says how large it may be"
    return UnexpectedFailure(f"nothing was kept: {reason(error)}", hint)
