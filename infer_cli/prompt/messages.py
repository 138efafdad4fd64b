"""Messages from what a user gave: JSON, files, arguments, checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from infer_cli.errors import UsageError
from infer_cli.types import Message

# Templates compose control tokens from roles, so a role is never free text.
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})

# Of JSON beside the content (tool calls, schemas): deeper than any in use, shallow enough to recurse over.
MAX_DEPTH = 64


def decode_input(data: bytes, name: str) -> str:
    """Text of a file or of standard input, without a byte order mark. `name` is for errors.

    Raises UsageError for bytes that are not UTF-8 and for NUL bytes (a binary file).
    """
    nul = data.find(b"\0")
    if nul >= 0:
        raise UsageError(f"{name} is binary: a NUL byte at offset {nul}", "give a text file")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            "convert it first, for example with iconv",
        ) from error


def build_messages(
    system: str | None,
    args: Sequence[str] = (),
    history: Sequence[Message] = (),
) -> list[Message]:
    """The conversation: system message, earlier turns, one user message of the arguments, joined by spaces.

    `system` replaces the system message of `history`; without new text a history stands alone.
    Raises UsageError where there is nothing to answer.
    """
    text = " ".join(args).rstrip("\r\n")
    if not text.strip() and not history:
        raise UsageError("the prompt is empty", "give it as an argument, with -f FILE, or on standard input")
    turns = list(history)
    if system is not None:
        if turns and turns[0].role in ("system", "developer"):
            del turns[0]
        turns.insert(0, Message("system", system))
    return [*turns, Message("user", text)] if text.strip() else turns


def parse_messages(data: bytes) -> list[Message]:
    """Messages from JSON in OpenAI's form. Content is a string, text parts (joined by line ends), or null
    where an assistant's message has tool calls.

    Keys beside `role` and `content` are kept in `Message.extra`. Raises UsageError naming message and field.
    """
    return messages_from(_json_of(data, "the list of messages"))


def parse_tools(data: bytes) -> list[dict[str, object]]:
    """Tools from JSON: a list of objects, whose form is the template's business. Raises UsageError."""
    value = _json_of(data, "the list of tools")
    if not isinstance(value, list):
        raise UsageError(f"the tools are {_kind(value)}, not a list", 'give [{"type": "function", …}]')
    for index, tool in enumerate(value):
        if not isinstance(tool, dict):
            raise UsageError(f"tools[{index}] is {_kind(tool)}, not an object")
    return value


def _json_of(data: bytes, what: str) -> object:
    text = decode_input(data, what)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{what} is not JSON: {reason}") from error


def messages_from(value: object) -> list[Message]:
    """As `parse_messages`, from JSON that is already parsed."""
    if not isinstance(value, list):
        raise UsageError(
            f"the messages are {_kind(value)}, not a list", 'give [{"role": "user", "content": "…"}]'
        )
    if not value:
        raise UsageError("the list of messages is empty")
    return [_message(item, f"messages[{index}]") for index, item in enumerate(value)]


def _message(item: object, where: str) -> Message:
    if not isinstance(item, dict):
        raise UsageError(f"{where} is {_kind(item)}, not an object")
    role = item.get("role")
    if role is None:
        raise UsageError(f"{where} has no role", _ROLE_HINT)
    check_role(role, where)
    content = item.get("content")
    if content is None and not (role == "assistant" and item.get("tool_calls")):
        raise UsageError(
            f"{where} has no content", "only a message of the assistant that has tool_calls may do without"
        )
    message = Message(
        str(role),
        _content(content, f"{where}.content"),
        {key: value for key, value in item.items() if key not in ("role", "content")},
    )
    check_message(message, where)
    return message


def _content(content: object, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UsageError(f"{where} is {_kind(content)}, not a string or a list of text parts")
    texts: list[str] = []
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            raise UsageError(f"{where}[{index}] is {_kind(part)}, not an object")
        if part.get("type") != "text":
            raise UsageError(f"{where}[{index}] has the type {part.get('type')!r}", "only text is supported")
        text = part.get("text")
        if not isinstance(text, str):
            raise UsageError(f"{where}[{index}].text is {_kind(text)}, not a string")
        texts.append(text)
    return "\n".join(texts)


_ROLE_HINT = f"roles are {', '.join(sorted(ROLES))}"


def check_role(role: object, where: str) -> None:
    if not isinstance(role, str) or role not in ROLES:
        raise UsageError(f"{where} has the role {role!r}", _ROLE_HINT)


def check_message(message: Message, where: str) -> None:
    for text, path in strings_in(message.content, f"{where}.content"):
        check_unicode(text, path)
    for text, path in strings_in(message.extra, where):
        check_unicode(text, path)


def check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{where}: character {error.start} is half a surrogate pair (U+{ord(text[error.start]):04X})",
            "write the character itself, or both halves of its escape",
        ) from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def strings_in(value: object, where: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every string inside, keys included, with its path."""
    if depth > MAX_DEPTH:
        raise UsageError(f"{where[:40]}… is nested over {MAX_DEPTH} deep")
    if isinstance(value, str):
        yield value, where
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings_in(key, where, depth + 1)
            yield from strings_in(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from strings_in(item, f"{where}[{index}]", depth + 1)


def map_strings(value: object, change: Callable[[object], object]) -> object:
    """The same value with everything changed that holds nothing itself, keys included."""
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_strings(item, change) for item in value]
    return change(value)
