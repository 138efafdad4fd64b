"""A recorded request as a job again, and how two replies to it differ. Knows no store and no terminal."""

from __future__ import annotations

from infer_cli.engine.mode_policy import why_width_breaks
from infer_cli.records.compare import Comparison
from infer_cli.records.record import Record
from infer_cli.records.recorded_job import was_cut
from infer_cli.types import ChoiceScore, Reply


def is_same(record: Record, reply: Reply) -> bool:
    """Equal digests, and likelihoods of the choices where there were any; for a reply that was cut from
    outside, equal tokens as far as it came."""
    if was_cut(record):
        old = record.tokens or ()
        return reply.tokens[: len(old)] == old
    return reply.digest == record.digest and reply.choices == record.choices


def choices_that_differ(record: Record, reply: Reply) -> list[tuple[ChoiceScore, ChoiceScore]]:
    """As recorded, and as they are now."""
    pairs = zip(record.choices or (), reply.choices or (), strict=False)
    return [(before, now) for before, now in pairs if before.logprob != now.logprob]


def logprobs_at(reply: Reply, index: int) -> dict[int, float]:
    """Natural-log probabilities of the likeliest tokens at one step, the chosen one among them."""
    if reply.logprobs is None or index >= len(reply.logprobs):
        return {}
    step = reply.logprobs[index]
    return {**dict(step.top), step.token: step.logprob}


def reasons(record: Record, comparison: Comparison) -> list[str]:
    """What may explain a difference, the likeliest first."""
    wanted = [d for d in comparison.differences if d.what == "model_sha256" or d.what.startswith("engine.")]
    found = [f"{d.what.removeprefix('engine.')} was {d.a}, is {d.b}" for d in wanted]
    if record.mode is not None and (why := why_width_breaks(record.mode, record.width or 1)):
        found.append(why)
    if record.promise == "seed-only":
        found.append("only the seed was promised")
    return found
