"""Chat templates: from messages to the text a model was trained on.

A template comes with a GGUF file and is untrusted: `infer_cli.prompt.renderer` renders it, within bounds. It
sees what transformers shows it: `messages`, `tools`, `add_generation_prompt`, `bos_token`, `eos_token`,
`raise_exception`, `strftime_now`, `tojson`, loop controls and `{% generation %}`. It knows no tokens.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from infer_cli.errors import DeadlineExceeded, InferError, ModelInvalid, UsageError
from infer_cli.prompt.renderer import CeilingReached, TemplateSource
from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised
from infer_cli.prompt.trusted_templates import TemplateRenderer, renderer_of
from infer_cli.system.files import read_bytes
from infer_cli.system.hashing import sha256_hex
from infer_cli.types import Message

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab

# What a template raises is shown on one line of a terminal.
MAX_RAISED_CHARS = 300
# A deadline is for replies. One that is shorter than this is left to the engine, which ends a reply cleanly.
LEAST_SECONDS = 1.0
_SYSTEM_ROLES = ("system", "developer")


class GivenTemplateInvalid(UsageError):
    """A template that the user gave fails, where a model's own would be a ModelInvalid."""


class ChatTemplate:
    """A chat template that compiles. Safe to render from several threads.

    `bos` and `eos` are the texts of these tokens. `now` is the only clock a template sees: with the same
    `now` the same messages give the same text. `file` is where the user has it from, None for a model's own:
    what goes wrong with it is a GivenTemplateInvalid then, and a ModelInvalid otherwise.

    Raises either where the source does not compile.
    """

    def __init__(
        self,
        source: str,
        *,
        bos: str,
        eos: str,
        now: datetime,
        file: str | None = None,
        renderer: TemplateRenderer | None = None,
    ) -> None:
        self.source = source
        self._bos = bos
        self._eos = eos
        self._file = file
        self._end = float("inf")
        self._template = TemplateSource(source, now=now)
        self._renderer = renderer_of(source) if renderer is None else renderer
        try:
            self._renderer.compile(self._template)
        except TemplateFailed as error:
            raise self._invalid(error) from error

    def within(self, seconds: float | None) -> ChatTemplate:
        """The same template, whose renderings must be done so many seconds from now, all together, but never
        in less than `LEAST_SECONDS`. What is late is a DeadlineExceeded. None: there is no such limit."""
        limited = copy.copy(self)
        limited._end = float("inf") if seconds is None else time.monotonic() + max(seconds, LEAST_SECONDS)
        return limited

    @property
    def sha256(self) -> str:
        """Hex digest of the source."""
        return sha256_hex(self.source.encode("utf-8", "surrogatepass"))

    @property
    def called(self) -> str:
        """What an error that blames it begins with."""
        return "the model's chat template" if self._file is None else f"the chat template {self._file}"

    def mentions(self, text: str) -> bool:
        """Whether the source contains `text`."""
        return text in self.source

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, object] | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> str:
        """The conversation as the model's own text. `variables` are further names the template may read.

        Raises UsageError where the template refuses the conversation (`raise_exception`), leaves the system
        message, the tools or a message's tool calls out or a variable has a reserved name; ModelInvalid where
        it fails.
        """
        names = self._names(add_generation_prompt, variables, tools)
        text = self._render(messages, names)
        self._check_system(messages, text, names)
        self._check_tools(messages, text, names)
        self._check_calls(messages, text, names)
        return text

    def text(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, object] | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> str:
        """As `render`, whether or not the template leaves something out."""
        return self._render(messages, self._names(add_generation_prompt, variables, tools))

    def _names(
        self,
        add_generation_prompt: bool,
        variables: Mapping[str, object] | None,
        tools: Sequence[Mapping[str, object]] | None,
    ) -> dict[str, object]:
        """What the template is given beside the messages. Raises UsageError for a reserved name."""
        standard: dict[str, object] = {
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self._bos,
            "eos_token": self._eos,
        }
        for name in variables or {}:
            if name in standard or name == "messages":
                raise UsageError(
                    f"the template variable {name!r} is set by infer itself",
                    "choose another name, or leave it out",
                )
        return {**(variables or {}), **standard}

    def _render(self, messages: Sequence[Message], names: Mapping[str, object]) -> str:
        """Null content is none for a template that knows it; one that fails then, or writes the word None,
        sees an empty text."""
        if all(message.content is not None for message in messages):
            return self._rendered(messages, names)
        emptied = [replace(message, content=message.text) for message in messages]
        try:
            text = self._rendered(messages, names)
        except (ModelInvalid, GivenTemplateInvalid) as error:
            try:
                return self._rendered(emptied, names)
            except (UsageError, ModelInvalid):
                raise error from None
        if "None" not in text:
            return text
        try:
            other = self._rendered(emptied, names)
        except (UsageError, ModelInvalid):
            return text
        return other if other.count("None") < text.count("None") else text

    def _rendered(self, messages: Sequence[Message], names: Mapping[str, object]) -> str:
        shown = [{**message.extra, "role": message.role, "content": message.content} for message in messages]
        left = self._end - time.monotonic()
        if left <= 0:
            raise _late()
        try:
            return self._renderer.render(self._template, {**names, "messages": shown}, seconds=left)
        except CeilingReached as error:
            if error.of_time and self._end <= time.monotonic():
                raise _late() from error
            raise self._invalid(error) from error
        except TemplateRaised as error:
            said = " ".join(str(error).split())[:MAX_RAISED_CHARS]
            raise UsageError(
                f"{self.called} refuses this conversation: {said}",
                "change the messages, or give another template with --chat-template",
            ) from error
        except TemplateFailed as error:
            raise self._invalid(error) from error

    def _check_system(self, messages: Sequence[Message], text: str, names: Mapping[str, object]) -> None:
        """A system message that has no effect on the prompt is an error, not a silent loss."""
        for index, message in enumerate(messages):
            wanted = message.text.strip()
            if message.role not in _SYSTEM_ROLES or not wanted or wanted in text:
                continue
            # It may be there in another form (escaped, upper case): see whether other words change the text.
            other = Message(message.role, f"{wanted} {wanted}", message.extra)
            changed = [*messages[:index], other, *messages[index + 1 :]]
            if self._render(changed, names) == text:
                raise UsageError(
                    f"{self.called} ignores the {message.role} message",
                    "put its text into the prompt, or give another template with --chat-template",
                )

    def _check_tools(self, messages: Sequence[Message], text: str, names: Mapping[str, object]) -> None:
        """Tools that have no effect on the prompt are an error too."""
        if not names["tools"]:
            return
        try:
            without = self._render(messages, {**names, "tools": None})
        except (UsageError, ModelInvalid):  # a template that needs tools does not ignore them
            return
        if without == text:
            raise UsageError(
                f"{self.called} ignores the tools",
                "leave them out, or give another template with --chat-template",
            )

    def _check_calls(self, messages: Sequence[Message], text: str, names: Mapping[str, object]) -> None:
        """So are tool calls."""
        for index, message in enumerate(messages):
            if not message.extra.get("tool_calls"):
                continue
            extra = {key: value for key, value in message.extra.items() if key != "tool_calls"}
            changed = [*messages[:index], Message(message.role, message.text, extra), *messages[index + 1 :]]
            try:
                without = self._render(changed, names)
            except (UsageError, ModelInvalid):  # one that needs them does not ignore them
                continue
            if without == text:
                raise UsageError(
                    f"{self.called} ignores the tool calls of messages[{index}]",
                    "write them into the content and leave tool_calls out, or give another template with"
                    " --chat-template",
                )

    def _invalid(self, error: TemplateFailed) -> InferError:
        where = f" in line {error.line}" if error.line is not None else ""
        reason = " ".join(error.reason.split())[:MAX_RAISED_CHARS]
        said = f"{self.called} fails{where}: {reason}"
        if self._file is not None:
            return GivenTemplateInvalid(said, "correct the file, or use `infer run --raw`")
        return ModelInvalid(said, "give another template with --chat-template, or use `infer run --raw`")


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline came while the chat template was rendered")


def compiled_template(own: str | None, vocab: Vocab, source: str | None) -> ChatTemplate:
    """As `chat_template`, of a model whose template is `own`, which need not be loaded."""
    from datetime import datetime

    from infer_cli.prompt.messages import decode_input

    text = own if source is None else decode_input(read_bytes(source), source)
    if text is None:
        raise UsageError(
            "this model has no chat template: it is a base model",
            "`infer run --raw` completes its text; --chat-template FILE gives it a template",
        )

    def token(token_id: int | None) -> str:
        return "" if token_id is None else vocab.token_text(token_id).decode("utf-8", "replace")

    now = datetime.now().astimezone()
    return ChatTemplate(text, bos=token(vocab.bos), eos=token(vocab.eos), now=now, file=source)


def template_variables(variables: Mapping[str, str]) -> dict[str, object]:
    """`--var` values for a chat template: `true`, `false` and numbers as such, anything else as text."""
    import json

    values: dict[str, object] = {}
    for name, text in variables.items():
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        values[name] = value if isinstance(value, (bool, int, float)) else text
    return values
