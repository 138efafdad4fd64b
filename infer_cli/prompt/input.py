"""What a prompt is made of, part by part: parts are counted and cut before they are one prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from infer_cli.prompt import stored_prompts
from infer_cli.prompt.attachments import Attachment, are_several, between_tags, message_text
from infer_cli.prompt.budget import Part
from infer_cli.prompt.messages import build_messages, decode_input, parse_messages, parse_tools
from infer_cli.prompt.named_texts import Teller, read_named
from infer_cli.system.files import read_bytes
from infer_cli.types import Message


@dataclass(frozen=True)
class PromptSources:
    """Where the parts of a prompt are. Of the files, `messages` and `tools`, one may be `-`: stdin.

    `prompt_template` names a stored prompt, which `variables` fill. `raw`: the text is completed.
    `awaits_question`: the prompt is read for another one, in which a question follows. `offline`: no page is
    fetched.
    """

    words: tuple[str, ...] = ()
    system: str | None = None
    files: tuple[str, ...] = ()
    messages: str | None = None
    tools: str | None = None
    raw: bool = False
    prompt_template: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    awaits_question: bool = False
    offline: bool = False


class PromptInput(NamedTuple):
    """`messages` come before the message that attachments and words make.

    `tagged`: attachments stand in it between tags with their names. `fill` puts a stored prompt around that
    one. `raw`: there are no messages, the text is completed, and no tags. `tools` are for the chat template.
    """

    messages: tuple[Message, ...]
    attachments: tuple[Attachment, ...]
    words: tuple[str, ...]
    raw: bool
    tagged: bool
    fill: Callable[[str], str] | None = None
    tools: Sequence[Mapping[str, object]] | None = None

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

    def conversation(self, messages: Sequence[Message], attachments: Sequence[Attachment]) -> list[Message]:
        """All messages, of what is kept. Not of a text to complete, which is `text`."""
        text = self.text(attachments)
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


def read_input(sources: PromptSources, read_piped: Callable[[], bytes | None], teller: Teller) -> PromptInput:
    """Read all parts of a prompt: files, what is piped in, tools, messages, the stored prompt, in this order.

    `read_piped` is asked where no part is stdin by name; None: nothing is piped. `teller` is told what
    folders have. Raises SourceUnreachable, and UsageError for what can't be read or understood and for an
    empty prompt.
    """
    stdin_named = "-" in (*sources.files, sources.messages, sources.tools)
    attachments = [
        item for name in sources.files for item in read_named(name, teller, offline=sources.offline)
    ]
    if not stdin_named and (piped := read_piped()) is not None:
        item = Attachment("stdin", decode_input(piped, "stdin"))
        if sources.raw or item.text.strip("\r\n"):  # else nothing was piped
            attachments.append(item)
    tools = None if sources.tools is None else parse_tools(read_bytes(sources.tools))
    history = [] if sources.messages is None else parse_messages(read_bytes(sources.messages))
    fill = None
    if sources.prompt_template is not None:
        fill = partial(stored_prompts.load(sources.prompt_template).render, sources.variables)
    several = sources.awaits_question or are_several(attachments, " ".join(sources.words))
    tagged = several and not sources.raw
    given = PromptInput((), tuple(attachments), sources.words, sources.raw, tagged, fill, tools)
    if sources.raw:
        return given
    text = given.text(attachments)
    messages = build_messages(sources.system, args=(text,), history=history)
    return given._replace(messages=tuple(messages[:-1] if text.strip() else messages))


def _raw_text(files: Sequence[str], words: str) -> str:
    """Text to complete: one source as it is, to the last byte; several with a blank line between."""
    return "\n\n".join(part for part in (*files, words) if part)
