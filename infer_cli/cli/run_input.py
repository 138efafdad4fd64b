"""What `infer run` is asked, part by part: parts are counted and cut before they are one prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infer_cli.context_budget import Part
from infer_cli.overflow import Attachment
from infer_cli.prompt import assemble_text
from infer_cli.types import Message


@dataclass(frozen=True)
class RunInput:
    """`messages` come before the message that attachments and words make.

    `fill` puts a stored prompt around that one. `raw`: there are no messages, the text is completed.
    """

    messages: tuple[Message, ...]
    attachments: tuple[Attachment, ...]
    words: tuple[str, ...]
    raw: bool
    fill: Callable[[str], str] | None = None

    @property
    def has_text(self) -> bool:
        """Whether there is a message beyond `messages`."""
        return bool(self.text(self.attachments).strip())

    def text(self, attachments: Sequence[Attachment]) -> str:
        """The text of the message, with these attachments in place of its own."""
        files = [item.text for item in attachments]
        if self.fill is not None:
            filled = self.fill(assemble_text(files, None, self.words))
            return filled if self.raw else assemble_text((), None, (filled,))
        if self.raw:
            return _raw_text(files, self.words)
        return assemble_text(files, None, self.words)

    def built(self, messages: Sequence[Message], attachments: Sequence[Attachment]) -> list[Message] | str:
        """The conversation, or the text to complete, of what is kept."""
        text = self.text(attachments)
        if self.raw:
            return text
        return [*messages, Message("user", text)] if text.strip() else list(messages)

    def parts(
        self,
        messages: Sequence[Message],
        attachments: Sequence[Attachment],
        count: Callable[[str], int],
    ) -> list[Part]:
        """Tokens of each text by itself. `prompt` is the arguments, or the last message of the user."""
        history, prompt = list(messages), " ".join(self.words)
        if not self.raw and not self.has_text and history and history[-1].role == "user":
            prompt = history.pop().content
        system = [message.content for message in history if message.role in ("system", "developer")]
        earlier = [message.content for message in history if message.role not in ("system", "developer")]
        files = [
            Part(item.name, count(item.text if self.raw else item.text.rstrip("\r\n")))
            for item in attachments
        ]
        n_prompt = count(prompt)
        if self.fill is not None:
            n_prompt = max(count(self.text(attachments)) - sum(part.tokens for part in files), 0)
        return [
            Part("system", sum(map(count, system))),
            Part("history", sum(map(count, earlier))),
            *files,
            Part("prompt", n_prompt),
        ]


def _raw_text(files: Sequence[str], words: Sequence[str]) -> str:
    """Text to complete: one source as it is, to the last byte; several with a blank line between."""
    return "\n\n".join(part for part in (*files, " ".join(words)) if part)
