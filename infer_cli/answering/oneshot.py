"""One prompt, one or several replies: submits to the engine and hands what comes to a sink.

Knows no command line, no files and no model format.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from infer_cli.answering.job import Job
from infer_cli.answering.reply import reply_of
from infer_cli.answering.sink import Sink
from infer_cli.backend.base import Vocab
from infer_cli.engine.service import Stream
from infer_cli.runtime.running import Running
from infer_cli.text.reasoning import ReasoningSplitter
from infer_cli.text.stream import Utf8Stream
from infer_cli.types import (
    Delta,
    EngineRequest,
    Finished,
    Prefilled,
    Reply,
    Token,
)


@dataclass
class _Text:
    """One reply's text on its way from bytes to shown characters."""

    utf8: Utf8Stream
    reasoning: ReasoningSplitter
    answer: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)

    def feed(self, data: bytes) -> list[tuple[str, bool]]:
        return self._keep(self.reasoning.feed(self.utf8.feed(data)))

    def finish(self, data: bytes) -> list[tuple[str, bool]]:
        parts = self.reasoning.feed(self.utf8.feed(data) + self.utf8.finish())
        return self._keep(parts + self.reasoning.finish())

    def _keep(self, parts: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        for text, is_reasoning in parts:
            (self.thoughts if is_reasoning else self.answer).append(text)
        return parts


class OneShot:
    """Runs one job."""

    def __init__(
        self,
        job: Job,
        running: Running,
        vocab: Vocab,
        sink: Sink,
    ) -> None:
        self._job, self._running, self._vocab, self._sink = job, running, vocab, sink
        self._ids = [job.id if job.n_samples == 1 else f"{job.id}-{i}" for i in range(job.n_samples)]
        self._texts = [
            _Text(Utf8Stream(), ReasoningSplitter(job.reasoning_pairs, job.open_reasoning)) for _ in self._ids
        ]
        self._stream: Stream | None = None
        self._is_cancelled = False

    def cancel(self) -> None:
        """End the replies with what they have, before they begin too. Safe in a signal handler."""
        self._is_cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    def run(self) -> list[Reply]:
        """Stream all replies to the sink; returns them in sample order."""
        job = self._job
        requests = [
            EngineRequest(
                request_id,
                job.prompt_ids,
                job.sampling,
                job.max_tokens,
                job.seed(sample),
                tuple(text.encode() for text in job.stop),
                job.n_logprobs,
                job.deadline_s,
                job.tag_tokens,
                job.history,
                job.session,
                streams=self._sink.takes != "reply",
            )
            for sample, request_id in enumerate(self._ids)
        ]
        samples = {request_id: sample for sample, request_id in enumerate(self._ids)}
        replies: dict[int, Reply] = {}
        self._sink.start({"id": job.id, "samples": job.n_samples, "prompt_tokens": len(job.prompt_ids)})
        self._stream = self._running.service.submit(requests)
        if self._is_cancelled:
            self._stream.cancel()
        with contextlib.closing(self._stream.parcels()) as parcels:
            for events in parcels:
                tokens: dict[int, list[Token]] = {sample: [] for sample in samples.values()}
                for event in events:
                    sample = samples[event.request_id]
                    if isinstance(event, Token):
                        tokens[sample].append(event)
                        if self._sink.takes == "token":
                            self._show_tokens(sample, tokens[sample])
                    elif isinstance(event, Prefilled):
                        self._sink.prefill(sample, event.done, event.total)
                    else:
                        self._show_tokens(sample, tokens[sample])
                        rest = event.tail if self._sink.takes != "reply" else event.text
                        for text, is_reasoning in self._texts[sample].finish(rest):
                            self._sink.delta(Delta(sample, text, is_reasoning))
                        reply = replies[sample] = self._reply(sample, event)
                        self._sink.end(reply)
                for sample, unshown in tokens.items():
                    self._show_tokens(sample, unshown)
        return [replies[sample] for sample in sorted(replies)]

    def _show_tokens(self, sample: int, events: list[Token]) -> None:
        """Hand tokens that came together to the sink, and forget them: as one where nothing has to be told
        apart any more, for each step wakes whatever is slow."""
        texts = self._texts[sample]
        while events:
            n = len(events) if texts.reasoning.is_over and self._sink.takes == "text" else 1
            taken, events[:n] = events[:n], []
            # A token has exactly one delta that names it, whether or not text came with it.
            (first, is_reasoning), *rest = texts.feed(b"".join(event.text for event in taken)) or [
                ("", False)
            ]
            ids = tuple(event.token for event in taken)
            logprobs = taken[0].logprobs if n == 1 else None
            self._sink.delta(Delta(sample, first, is_reasoning, ids, logprobs))
            for text, is_reasoning in rest:
                self._sink.delta(Delta(sample, text, is_reasoning))

    def _reply(self, sample: int, end: Finished) -> Reply:
        job, texts = self._job, self._texts[sample]
        failed = end.reason == "error"
        return reply_of(
            end,
            self._running.provenance(),
            reply_id=self._ids[sample],
            sample=sample,
            text=None if failed else "".join(texts.answer),
            reasoning="".join(texts.thoughts) or None,
            params=job.params,
            run_seed=job.run_seed,
            seed=job.seed(sample),
            mode=self._running.policy.mode,
            promise=self._running.policy.promise,
            truncation=job.truncation,
            error={"code": int(end.error_status), "message": end.error} if failed else None,
        )
