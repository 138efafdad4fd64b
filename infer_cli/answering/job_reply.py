"""From the engine's last word on a request to the reply to a job."""

from __future__ import annotations

from infer_cli.answering.job import Job
from infer_cli.answering.reply import reply_of
from infer_cli.answering.reply_text import ReplyText
from infer_cli.runtime.reply_provenance import after_f16_prompt
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.types import Finished, Reply


def reply_to(
    job: Job,
    sample: int,
    end: Finished,
    text: ReplyText,
    running: RunningEngine,
    *,
    f16_prompt: bool = False,
) -> Reply:
    """`text` is the reply's, finished. One that failed has no text, and its error instead. `f16_prompt`: F16
    weights have read the prompt."""
    failed = end.reason == "error"
    came_from = running.provenance()
    return reply_of(
        end,
        after_f16_prompt(came_from) if f16_prompt else came_from,
        reply_id=job.reply_id(sample),
        sample=sample,
        text=None if failed else text.answer,
        reasoning=text.reasoning,
        params=job.params,
        run_seed=job.run_seed,
        seed=job.seed(sample),
        mode=running.policy.mode,
        promise=running.policy.promise,
        truncation=job.truncation,
        error={"code": int(end.error_status), "message": end.error} if failed else None,
        in_reasoning=text.ends_in_reasoning,
    )
