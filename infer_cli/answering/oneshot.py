"""One prompt, one or several replies: submits to the engine and hands what comes to a sink.

Knows no command line, no files and no model format.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from infer_cli.answering.job import Job
from infer_cli.answering.job_reply import reply_to
from infer_cli.answering.reply_text import ReplyText
from infer_cli.answering.sink import Sink
from infer_cli.backend.base import Vocab
from infer_cli.engine import history
from infer_cli.engine.service import Submission
from infer_cli.runtime.long_prompt import PromptReader, Reading
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.types import Finished, Prefilled, Reply, Segment, Token


class OneShot:
    """Runs one job. `reader` may read the prompt in place of the engine."""

    def __init__(
        self,
        job: Job,
        running: RunningEngine,
        vocab: Vocab,
        sink: Sink,
        reader: PromptReader | None = None,
    ) -> None:
        self._job, self._running, self._vocab, self._sink = job, running, vocab, sink
        self._reader = reader
        self._ids = [job.reply_id(sample) for sample in range(job.n_samples)]
        self._texts = [
            ReplyText(job.reasoning_pairs, job.open_reasoning, sample) for sample in range(job.n_samples)
        ]
        self._submission = Submission()

    def cancel(self) -> None:
        """End the replies with what they have, before they begin too. Safe in a signal handler."""
        self._submission.cancel()
        if self._reader is not None:
            self._reader.cancel()

    def run(self) -> list[Reply]:
        """Stream all replies to the sink; returns them in sample order."""
        job = self._job
        streams = self._sink.takes != "reply"
        samples = {request_id: sample for sample, request_id in enumerate(self._ids)}
        replies: dict[int, Reply] = {}
        self._sink.start({"id": job.id, "samples": job.n_samples, "prompt_tokens": len(job.prompt_ids)})
        reading = self._read(job)
        if job.deadline_s is not None:
            job = replace(job, deadline_s=max(0.0, job.deadline_s - reading.seconds))
        requests = [
            job.request(sample, request_id, streams=streams) for sample, request_id in enumerate(self._ids)
        ]
        stream = self._submission.submit(self._running.service, requests)
        with contextlib.closing(stream.parcels()) as parcels:
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
                        unshown_text = event.tail if streams else event.text
                        replies[sample] = self._end(sample, event, unshown_text, reading)
                for sample, unshown in tokens.items():
                    self._show_tokens(sample, unshown)
        return [replies[sample] for sample in sorted(replies)]

    def _read(self, job: Job) -> Reading:
        if self._reader is None:
            return Reading()
        ids = history.flat((*job.history, Segment("prompt", job.prompt_ids)))
        return self._reader.read(ids, job.deadline_s, lambda n_read: self._sink.prefill(0, n_read, len(ids)))

    def _show_tokens(self, sample: int, events: list[Token]) -> None:
        """Hand tokens that came together to the sink, and forget them: as one where nothing has to be told
        apart any more, for each step wakes whatever is slow."""
        text = self._texts[sample]
        while events:
            n = len(events) if text.reasoning_is_over and self._sink.takes == "text" else 1
            taken, events[:n] = events[:n], []
            for delta in text.show(taken):
                self._sink.delta(delta)

    def _end(self, sample: int, end: Finished, unshown: bytes, reading: Reading) -> Reply:
        text = self._texts[sample]
        for delta in text.finish(unshown):
            self._sink.delta(delta)
        reply = reply_to(
            self._job,
            sample,
            reading.counted_in(end, sample),
            text,
            self._running,
            f16_prompt=reading.n_before is not None,
        )
        self._sink.end(reply)
        return reply
