"""One question with choices: asks the engine how likely each is, and hands the answer to a sink."""

from __future__ import annotations

from infer_cli.answering.choosing import Question, choice_reply
from infer_cli.answering.sink import Sink
from infer_cli.engine.service import Submission
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.types import Delta, Finished, Reply


class OneQuestion:
    """Asks one question, of an engine that takes requests for likelihoods."""

    def __init__(self, question: Question, running: RunningEngine, sink: Sink) -> None:
        self._question, self._running, self._sink = question, running, sink
        self._submission = Submission()

    def cancel(self) -> None:
        """End it without an answer, before it begins too. Safe in a signal handler."""
        self._submission.cancel()

    def run(self) -> list[Reply]:
        """The one reply. The sink is given all of it at the end: as one text, without tokens, as none was
        sampled."""
        question = self._question
        requests = question.requests(question.id)
        n_prompt = len(question.prompt_ids)
        self._sink.start({"id": question.id, "samples": 1, "prompt_tokens": n_prompt})
        stream = self._submission.submit(self._running.service, requests)
        ends = {event.request_id: event for event in stream if isinstance(event, Finished)}
        reply = choice_reply(question, [ends[request.id] for request in requests], self._running)
        if reply.text and self._sink.takes == "text":
            self._sink.delta(Delta(0, reply.text))
        self._sink.end(reply)
        return [reply]
