"""What a model reads of an item's row: the text with its chat template, and how many tokens that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import InferError
from infer_cli.evaluation.tasks.task import Task
from infer_cli.prompt.encode import encode_prompt, encode_raw
from infer_cli.prompt.messages import build_messages, messages_from
from infer_cli.prompt.pairs import encode_after, encode_pair
from infer_cli.settings.defaults import FIT_RESERVE, MAX_TOKENS
from infer_cli.types import Message

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.prompt.template import ChatTemplate


class AskedPrompt(NamedTuple):
    """`continuation` is what a likelihood is asked of, empty where a reply is asked for. `n_tokens` of both;
    `n_window`: tokens that a window must have for them."""

    text: str
    continuation: str
    n_tokens: int
    n_window: int


class PromptReader:
    """Rows of a task as a model reads them, without an engine. `load_template` is called for a row that needs
    a chat template; `chat`: prompts go through it."""

    def __init__(
        self, task: Task, chat: bool, vocab: Vocab, load_template: Callable[[], ChatTemplate]
    ) -> None:
        self._chat, self._vocab, self._load_template = chat, vocab, load_template
        self._reserve = min(task.generation.max_tokens or MAX_TOKENS, FIT_RESERVE)

    def read(self, row: Mapping[str, object]) -> AskedPrompt:
        """Raises an InferError that names the row, for one that the model can't be asked."""
        try:
            if "continuation" in row:
                return self._pair(row, str(row["continuation"]))
            return self._prompt(row)
        except InferError as e:
            raise type(e)(f"row {row['custom_id']!r:.60}: {e.message}", e.hint) from None

    def _prompt(self, row: Mapping[str, object]) -> AskedPrompt:
        if self._chat:
            messages = _messages(row)
            encoded = encode_prompt(self._load_template(), messages, self._vocab)
            text, n = encoded.text, len(encoded.ids)
        else:
            text = str(row["prompt"])
            n = len(encode_raw(text, self._vocab))
        return AskedPrompt(text, "", n, n + self._reserve)

    def _pair(self, row: Mapping[str, object], continuation: str) -> AskedPrompt:
        if "messages" in row:
            encoded = encode_prompt(self._load_template(), _messages(row), self._vocab)
            text = encoded.text
            pair = encode_after(self._vocab, encoded, continuation)
        else:
            text = str(row["context"])
            pair = encode_pair(self._vocab, text, continuation)
        n = len(pair.context) + len(pair.continuation)
        return AskedPrompt(text, continuation, n, n - 1)  # nothing follows the last token


def _messages(row: Mapping[str, object]) -> list[Message]:
    if "messages" in row:
        return build_messages(None, history=messages_from(row["messages"]))
    return build_messages(None, args=[str(row["prompt"])])
