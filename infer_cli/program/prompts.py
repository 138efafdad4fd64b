"""A prompt as a program gives it, messages, a text or ids, and its ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import UsageError
from infer_cli.prompt.encode import EncodedPrompt, encode_prompt, encode_raw
from infer_cli.prompt.messages import build_messages
from infer_cli.types import Message

if TYPE_CHECKING:
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.runtime.session import Session

Messages = str | Sequence[Message]


class ProgramPrompt(NamedTuple):
    """`template` is None for a text that is completed as it is."""

    encoded: EncodedPrompt
    template: ChatTemplate | None


class PromptReader:
    """Reads prompts for one model. `load_template` is called with the first that has messages. Raises
    InferError for a prompt that can't be used."""

    def __init__(self, session: Session, load_template: Callable[[], ChatTemplate]) -> None:
        self._session, self._load_template = session, load_template
        self._template: ChatTemplate | None = None

    def read(
        self,
        messages: Messages,
        prompt: str | Sequence[int] | None,
        *,
        parse_special: bool = False,
        deadline_s: float | None = None,
    ) -> ProgramPrompt:
        """The prompt of messages, or of a text in their place, in which `parse_special` lets control tokens
        be, or of ids, to which nothing is added. None is empty."""
        if prompt is None:
            if parse_special:
                raise UsageError(
                    "parse_special needs a prompt", "a chat template places control tokens itself"
                )
            found = self._chat(messages, deadline_s=deadline_s)
        elif messages:
            raise UsageError("messages and prompt exclude each other")
        elif not isinstance(prompt, str):
            found = ProgramPrompt(EncodedPrompt(_checked_ids(prompt), "", None), None)
        else:
            ids = encode_raw(prompt, self._session.loaded.vocab, parse_special=parse_special)
            found = ProgramPrompt(EncodedPrompt(ids, prompt, None), None)
        if not found.encoded.ids:
            raise UsageError("the prompt is empty")
        return found

    def render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        """What the chat template makes of messages, without a BOS that is added."""
        return self._chat(messages, add_generation_prompt=add_generation_prompt).encoded.text

    def _chat(
        self, messages: Messages, *, deadline_s: float | None = None, add_generation_prompt: bool = True
    ) -> ProgramPrompt:
        if self._template is None:
            self._template = self._load_template()
        template = self._template.within(deadline_s)
        encoded = encode_prompt(
            template,
            _checked(messages),
            self._session.loaded.vocab,
            add_generation_prompt=add_generation_prompt,
        )
        return ProgramPrompt(encoded, template)


def _checked(asked: Messages) -> list[Message]:
    if isinstance(asked, str):
        return build_messages(None, args=[asked])
    messages = list(asked)
    if not messages:
        raise UsageError("there is nothing to answer: give messages or a prompt")
    for index, message in enumerate(messages):
        if not isinstance(message, Message):
            raise UsageError(f"messages[{index}] is a {type(message).__name__}, not a Message")
        if message.content is None and not (message.role == "assistant" and message.extra.get("tool_calls")):
            raise UsageError(f"messages[{index}] has no content")
        if not isinstance(message.content, str | None):
            raise UsageError(f"messages[{index}].content is a {type(message.content).__name__}, not a str")
    return messages


def _checked_ids(asked: Sequence[int]) -> tuple[int, ...]:
    if not all(isinstance(token, int) for token in asked):
        raise UsageError("the prompt is neither a text nor ids")
    return tuple(asked)
