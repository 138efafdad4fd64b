"""A model that is ready for a conversation: its template, its engine, and the shape of its prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.conversation.codec import TurnCodec
from infer_cli.errors import InferError
from infer_cli.runtime.model_protocols import LoadedModel
from infer_cli.runtime.running_engine import RunningEngine
from infer_cli.runtime.session import Session

if TYPE_CHECKING:
    from infer_cli.prompt.template import ChatTemplate

CONVERSATION_WINDOW = 8192  # tokens of `--ctx auto`, where the model was trained for as much


@dataclass(frozen=True)
class ConversationModel:
    """`window` is tokens; `chunk` prompt tokens a call, 1 where shapes mean nothing."""

    session: Session
    running: RunningEngine
    template: ChatTemplate
    window: int
    chunk: int

    @property
    def name(self) -> str:
        """What the user is shown."""
        model = self.session.model
        return Path(model.name).name if model.is_fake else model.name

    def codec(self, variables: Mapping[str, object], deadline_s: float | None) -> TurnCodec:
        """How the model reads turns: with these variables of the template, and a time for each rendering."""
        vocab = self.session.loaded.vocab
        return TurnCodec(self.template, vocab, self.window, self.chunk, variables, deadline_s)

    def close(self) -> None:
        """Give the memory back, of the engine and of the model."""
        self.running.close()
        self.session.close()


def shape_of(loaded: LoadedModel, ctx: int | None) -> tuple[int, int]:
    """A conversation's window and chunk."""
    policy = loaded.policy
    return ctx or min(loaded.n_ctx_train, CONVERSATION_WINDOW), policy.chunk if policy.fixed_width else 1


def open_for_conversation(session: Session, ctx: int | None, template_file: str | None) -> ConversationModel:
    """Start a loaded model's engine for a conversation. Raises InferError; the model is closed then."""
    try:
        template = session.chat_template(template_file)
        window, chunk = shape_of(session.loaded, ctx)
        return ConversationModel(session, session.start(window), template, window, chunk)
    except InferError:
        session.close()
        raise
