"""What `infer score CONTEXT CONTINUATION` does in its worker process."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from infer_cli.answering.likelihood import ScoredPair, as_json, scored_pair_of
from infer_cli.answering.reply import failure, json_line
from infer_cli.batch.pairs import truncation_of
from infer_cli.cli.score.options import PairCommand
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import wait_for
from infer_cli.errors import ExitStatus
from infer_cli.process.explain import explained
from infer_cli.process.worker import on_interrupt
from infer_cli.prompt.pairs import Pair, encode_pair, fit_pair
from infer_cli.runtime.session import Session
from infer_cli.system.ids import new_id
from infer_cli.types import Finished

if TYPE_CHECKING:
    from infer_cli.process.worker import Worker
    from infer_cli.runtime.running_engine import RunningEngine


def score_pair(command: PairCommand, worker: Worker) -> int:
    """Score one pair and print its likelihood; returns the exit code. Raises InferError."""
    notices = Notices(quiet=command.quiet, stats=False)
    try:
        with explained(worker):
            model = find_model(command.model, offline=command.offline, quiet=command.quiet)
            session = Session(model, command.engine, 1, worker.native_fd)
            wait_for(session, notices)
            loaded = session.loaded
            pair = fit_pair(
                encode_pair(loaded.vocab, command.context, command.continuation),
                loaded.window,
                command.overflow == "truncate-left",
            )
            if pair.n_dropped:
                notices.warn(f"the context does not fit: its first {pair.n_dropped} tokens were left out")
            request = pair.request("pair")
            with closing(session.start_scoring(len(request.ids) - 1)) as running:
                scored = _scored(command, pair, running)
            if scored.error is not None:
                if scored.error["code"] == ExitStatus.INTERRUPTED:
                    return ExitStatus.INTERRUPTED
                raise failure(str(scored.error["message"]), scored.error["code"], session.model.name)
            _print(scored, as_object=command.json)
            return ExitStatus.OK
    finally:
        notices.clear()


def _scored(command: PairCommand, pair: Pair, running: RunningEngine) -> ScoredPair:
    stream = running.service.submit([pair.request("pair")])
    on_interrupt(lambda _signal_name: stream.cancel())
    (end,) = (event for event in stream if isinstance(event, Finished))
    return scored_pair_of(
        end,
        running.provenance(),
        pair_id=new_id(),
        context=pair.context,
        continuation=pair.continuation,
        text=command.continuation,
        mode=running.policy.mode,
        promise=running.policy.promise,
        truncation=truncation_of(pair, command.overflow),
    )


def _print(scored: ScoredPair, *, as_object: bool) -> None:
    if as_object:
        sys.stdout.buffer.write(json_line(as_json(scored)))
        sys.stdout.buffer.flush()
        return
    n = len(scored.tokens)
    print(
        f"log-probability {scored.logprob:.4f}: {n} {'token' if n == 1 else 'tokens'},"
        f" {scored.logprob_per_token:.4f} a token, {scored.logprob_per_byte:.4f} a byte"
        + ("; greedy decoding gives it" if scored.greedy else "")
    )
