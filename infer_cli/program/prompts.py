"""A prompt as a program gives it, messages or a text, and its ids."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import UsageError
from infer_cli.prompt.encode import EncodedPrompt, encode_prompt, encode_raw
from infer_cli.prompt.messages import build_messages
from infer_cli.prompt.thinking import thinking_variables
from infer_cli.types import Message

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.prompt.template import ChatTemplate
    from infer_cli.runtime.session import Session

Messages = str | Sequence[Message]
Ids = Sequence[int]
Prompt = str | Ids


class ProgramPrompt(NamedTuple):
    """`template` is None for a text, or ids, completed as they are."""

    encoded: EncodedPrompt
    template: ChatTemplate | None


class PromptReader:
    """Reads prompts for one model. `load_template` is called with the first that has messages. Raises
    InferError for a prompt that can't be used."""

    def __init__(self, session: Session, load_template: Callable[[], ChatTemplate]) -> None:
        self._session, self._load_template = session, load_template
        self._template: ChatTemplate | None = None
        self._switched = cache(self._thinking_variables)

    @property
    def template(self) -> ChatTemplate:
        if self._template is None:
            self._template = self._load_template()
        return self._template

    def read(
        self,
        messages: Messages,
        prompt: Prompt | None,
        deadline_s: float | None = None,
        think: bool | None = None,
    ) -> ProgramPrompt:
        """The prompt of messages, or of a text or ids in their place. It is not empty."""
        vocab = self._session.loaded.vocab
        if prompt is None:
            found = self._chat(messages, deadline_s=deadline_s, think=think)
        elif think is not None:
            raise UsageError("think has no meaning beside a prompt that is completed as it is")
        elif messages:
            raise UsageError("messages and prompt exclude each other")
        elif isinstance(prompt, str):
            found = ProgramPrompt(EncodedPrompt(encode_raw(prompt, vocab), prompt, None), None)
        else:
            ids = checked_ids("prompt", prompt, vocab)
            text = b"".join(map(vocab.token_text, ids)).decode("utf-8", "replace")
            found = ProgramPrompt(EncodedPrompt(ids, text, None), None)
        if not found.encoded.ids:
            raise UsageError("the prompt is empty")
        return found

    def render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        """What the chat template makes of messages, without a BOS that is added."""
        return self._chat(messages, add_generation_prompt=add_generation_prompt).encoded.text

    def _chat(
        self,
        messages: Messages,
        *,
        deadline_s: float | None = None,
        add_generation_prompt: bool = True,
        think: bool | None = None,
    ) -> ProgramPrompt:
        template = self.template.within(deadline_s)
        variables = None if think is None else self._switched(think)
        encoded = encode_prompt(
            template,
            _checked(messages),
            self._session.loaded.vocab,
            add_generation_prompt=add_generation_prompt,
            variables=variables,
        )
        return ProgramPrompt(encoded, template)

    def _thinking_variables(self, think: bool) -> Mapping[str, object]:
        found = thinking_variables(self.template, think, {})
        if found.unused:
            raise UsageError(f"think: {found.unused}")
        return found.variables


def checked_ids(name: str, given: Ids, vocab: Vocab) -> tuple[int, ...]:
    """Raises UsageError for what are no ids of the vocabulary."""
    try:
        ids = tuple(map(operator.index, given))
    except TypeError:
        raise UsageError(f"the {name} is not a list of ids") from None
    if wrong := [token for token in ids if not 0 <= token < vocab.n_tokens]:
        raise UsageError(f"token {wrong[0]} of the {name} is outside the vocabulary of {vocab.n_tokens}")
    return ids


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
