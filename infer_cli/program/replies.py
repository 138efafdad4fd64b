"""Replies to a program's requests: one as it comes, or many as they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from infer_cli.answering.feed import Feed
from infer_cli.answering.job import Job
from infer_cli.answering.job_reply import reply_to
from infer_cli.answering.reply import NOTHING_COMPUTED, reply_of
from infer_cli.answering.reply_text import whole_text
from infer_cli.batch.rows import key_of_id
from infer_cli.errors import InferError
from infer_cli.program.open_model import ModelGone, OpenModel
from infer_cli.program.prompts import PromptReader
from infer_cli.program.reply_stream import ReplyStream
from infer_cli.program.request import Request, RequestPreparer
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.settings.seeds import check_seed, row_seed
from infer_cli.types import EngineRequest, Finished, Reply


class Replies:
    """Answers requests with one model. Raises ModelGone, and what is wrong with a request is its reply's."""

    def __init__(self, model: OpenModel, reader: PromptReader) -> None:
        self._model = model
        self._preparer = RequestPreparer(model.session, reader)

    def submit(self, request: Request) -> ReplyStream:
        """Ask, and don't wait."""
        running = self._model.running
        job, end = self._prepared(request)
        if job is None:
            return ReplyStream(None, None, refused(request.id, end, running), running)
        stream = running.service.submit([job.request(0, self._model.new_id())])
        return ReplyStream(stream, job, None, running)

    def answer(self, requests: Iterable[Request], run_seed: int | None) -> Iterator[Reply]:
        """A reply to each request, as they end. Raises UsageError for what is no seed."""
        self._model.check()
        if run_seed is not None:
            check_seed(run_seed, "run_seed")
        return self._replies(requests, run_seed)

    def _replies(self, requests: Iterable[Request], run_seed: int | None) -> Iterator[Reply]:
        running = self._model.running
        feed = Feed(running.service, self._work(requests, run_seed))
        for (request, job), end in feed:
            if job is None:
                yield refused(request.id, end, running)
                continue
            text = whole_text(end.text, job.reasoning_pairs, job.open_reasoning)
            reply = reply_to(job, 0, end, text, running)
            yield replace(reply, run_seed=run_seed) if _derives(request, job, run_seed) else reply

    def _work(
        self, requests: Iterable[Request], run_seed: int | None
    ) -> Iterator[tuple[tuple[Request, Job | None], EngineRequest | Finished]]:
        for request in requests:
            job, end = self._prepared(request)
            if job is None:
                yield (request, None), end
                continue
            if run_seed is not None and _derives(request, job, run_seed):
                job = replace(job, run_seed=row_seed(run_seed, key_of_id(request.id), 0))
            yield (request, job), job.request(0, self._model.new_id(), streams=False)

    def _prepared(self, request: Request) -> tuple[Job | None, Finished]:
        """The job, or the end of a request that can't be answered."""
        try:
            with self._model.in_use():
                job, n_window = self._preparer.prepare(request)
            self._model.check_fits(n_window, "prompt and reply may take", "lower max_tokens, or ")
        except ModelGone:
            raise
        except InferError as e:
            return None, end_of(e)
        return job, NOTHING_COMPUTED


def end_of(error: InferError) -> Finished:
    """The end of what did not come to the engine."""
    return NOTHING_COMPUTED._replace(error=error.in_full, error_status=error.exit_status)


def refused(reply_id: str, end: Finished, running: RunningEngine) -> Reply:
    """The reply to what did not come to the engine."""
    return reply_of(
        end,
        running.provenance(),
        reply_id=reply_id,
        sample=0,
        text=None,
        params={},
        run_seed=None,
        seed=None,
        mode=running.policy.mode,
        promise=running.policy.promise,
        error={"code": int(end.error_status), "message": end.error},
    )


def _derives(request: Request, job: Job, run_seed: int | None) -> bool:
    """Whether a request's seed comes from that of the run."""
    return run_seed is not None and request.seed is None and job.run_seed is not None
