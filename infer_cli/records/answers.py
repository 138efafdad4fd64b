"""Keeps the answers to one prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from infer_cli.records.record import adapters_of, record_of
from infer_cli.records.store import keep

if TYPE_CHECKING:
    from infer_cli.prompt.plan import PromptPlan
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.runtime.session import Session
    from infer_cli.settings.origins import Setting
    from infer_cli.types import Reply


def keep_answers(
    replies: Sequence[Reply],
    prompt_ids: tuple[int, ...],
    prompt: PromptPlan,
    session: Session,
    running: RunningEngine,
    *,
    n_window: int,
    settings: Sequence[Setting],
    private: bool,
    warn: Callable[[str], None],
) -> None:
    """Record what was answered; `prompt_ids` were evaluated before it, `n_window` is the window asked of the
    engine, in tokens. A failure is a warning: the answers are out."""
    reasoning = prompt.reasoning
    records = (
        record_of(
            reply,
            prompt_ids=prompt_ids,
            prompt_text=prompt.encoded.text,
            messages=prompt.messages,
            model_path=None if session.model.is_fake else session.model.path,
            template_sha256=prompt.template_sha256,
            settings=settings,
            width=running.policy.width,
            n_ctx=n_window,
            adapters=adapters_of(session.options.loras),
            reasoning_pairs=reasoning.pairs,
            open_reasoning=reasoning.opened,
            private=private,
        )
        for reply in replies
    )
    keep(records, warn)
