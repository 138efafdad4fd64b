"""What `infer run` is asked, part by part: parts are counted and cut before they are one prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infer_cli.prompt.attachments import Attachment, between_tags, message_text
from infer_cli.prompt.budget import Part
from infer_cli.types import Message


@dataclass(frozen=True)
class RunInput:
    """`messages` come before the message that attachments and words make.

    `tagged`: attachments stand in it between tags with their names. `fill` puts a stored prompt around that
    one. `raw`: there are no messages, the text is completed, and no tags.
    """

    messages: tuple[Message, ...]
    attachments: tuple[Attachment, ...]
    words: tuple[str, ...]
    raw: bool
    tagged: bool
    fill: Callable[[str], str] | None = None

    @property
    def has_text(self) -> bool:
        """Whether there is a message beyond `messages`."""
        return bool(self.text(self.attachments).strip())

    def text(self, attachments: Sequence[Attachment]) -> str:
        """The text of the message, with these attachments in place of its own."""
        words = " ".join(self.words)
        if self.raw and self.fill is None:
            return _raw_text([item.text for item in attachments], words)
        text = message_text(attachments, words, tagged=self.tagged)
        if self.fill is None:
            return text
        return self.fill(text) if self.raw else self.fill(text).rstrip("\r\n")

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
        """Tokens of each text by itself, with its tags. `prompt`: the words, or the user's last message."""
        history, prompt = list(messages), " ".join(self.words)
        if not self.raw and not self.has_text and history and history[-1].role == "user":
            prompt = history.pop().text
        system = [message.text for message in history if message.role in ("system", "developer")]
        earlier = [message.text for message in history if message.role not in ("system", "developer")]
        files = [Part(item.name, count(self._shown(item))) for item in attachments]
        n_prompt = count(prompt)
        if self.fill is not None:
            n_prompt = max(count(self.text(attachments)) - sum(part.tokens for part in files), 0)
        return [
            Part("system", sum(map(count, system))),
            Part("history", sum(map(count, earlier))),
            *files,
            Part("prompt", n_prompt),
        ]

    def _shown(self, item: Attachment) -> str:
        if self.tagged:
            return between_tags(item)
        return item.text if self.raw else item.text.rstrip("\r\n")


def _raw_text(files: Sequence[str], words: str) -> str:
    """Text to complete: one source as it is, to the last byte; several with a blank line between."""
    return "\n\n".join(part for part in (*files, words) if part)
