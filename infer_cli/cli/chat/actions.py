"""What the commands of a conversation may ask of the chat that they are typed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.conversation.ledger import Ledger
    from infer_cli.conversation.turns import Conversation
    from infer_cli.prompt.attachments import Attachment
    from infer_cli.settings.origins import Given, Setting


class ChatActions(Protocol):
    talk: Conversation
    ledger: Ledger
    seed: Given | None
    reasoning: Literal["show", "hide", "only"]
    max_tokens: int
    attached: list[Attachment]  # what goes before the next message
    n_replies: int
    n_evaluated: int
    n_reused: int
    n_sampled: int

    @property
    def vocab(self) -> Vocab: ...

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def settings(self) -> Sequence[Setting]: ...

    def say(self, text: str) -> None: ...

    def say_attached(self) -> None: ...

    def file(self, name: str) -> Attachment: ...

    def send(self, text: str, *files: Attachment) -> None: ...

    def regenerate(self, *, same: bool = False, seed: int | None = None) -> None: ...

    def replace_last(self, text: str) -> None: ...

    def go_on(self) -> None: ...

    def edited(self, text: str) -> str: ...

    def copy(self, text: str) -> None: ...

    def moved(self) -> None: ...

    def set_sampling(self, given: Mapping[str, Given]) -> None: ...

    def switch_model(self, name: str) -> None: ...

    def load_conversation(self, name: str) -> None: ...
