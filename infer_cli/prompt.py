"""From messages to token ids: assembling prompts, reading messages, and encoding that can't be injected into.

**Text never becomes a control token.** Rendering mixes the template's own control tokens (`<|im_end|>`) with
text of users, files and models. So before rendering, every control token's text inside such text is broken up
by a guard: a Unicode noncharacter that occurs nowhere in the input, put after its first character. After
rendering, control tokens are cut out as llama.cpp does with `parse_special`, the guards are taken out of what
is left, and that is tokenized as plain text. For text without control tokens the ids are llama.cpp's own.

A template may also *make* a control token of harmless text (`|lower` of `<|IM_END|>`, two messages that
touch, `<` + name + `>`). Therefore, where any text (contents, what stands beside them, tools, variables, keys
too) holds a character at which input could begin or end in one of the control tokens found (`seams`), the
conversation is rendered again with all these characters guarded. No text of the input is in a control token
of that rendering; where it is the same text as the first, cut at the same places, none is in the first. Any
difference is an error, not a guess. A template may look for a string of its own in the text (`</think>`),
which guards would hide: then one more rendering leaves those alone of which no token can have a part, and the
first guarded one must hold the same control tokens. What that proves rests on what `seams` assumes, and on
templates not cutting their own strings up when they find them in the input. Roles, of which templates make
tokens, are restricted to `ROLES`.

**A reply's tokens are never made anew of its text.** Where a message's sampled ids are known (`KeptReply`), a
placeholder is rendered instead of its content, and the ids take its place in the result. A reasoning block
has a placeholder of its own between its tags, so a template that drops it drops its ids.

It reads no files and knows no command line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from infer_cli.errors import ModelInvalid, UsageError
from infer_cli.reasoning import TagPair, opened_pair, pairs_of
from infer_cli.seams import Seams, seams_of
from infer_cli.types import Message

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.template import ChatTemplate

# Templates compose control tokens from roles, so a role is never free text.
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
# Of JSON beside the content (tool calls, schemas): deeper than any in use, shallow enough to recurse over.
MAX_DEPTH = 64
_NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
_HasSeam: TypeAlias = Callable[[object, Seams], bool]
_C_SPACE = " \t\n\v\f\r"  # isspace() of the C locale, as llama.cpp strips


# --- reading and assembling -----------------------------------------------------------------------


def decode_input(data: bytes, name: str) -> str:
    """Text of a file or of standard input, without a byte order mark. `name` is for errors.

    Raises UsageError for bytes that are not UTF-8 and for NUL bytes (a binary file).
    """
    nul = data.find(b"\0")
    if nul >= 0:
        raise UsageError(f"{name} is binary: a NUL byte at offset {nul}", "Give a text file.")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            "Convert it first, for example with iconv.",
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
        raise UsageError("the prompt is empty", "Give it as an argument, with -f FILE, or on standard input.")
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
        raise UsageError(f"the tools are {_kind(value)}, not a list", 'Give [{"type": "function", …}].')
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
            f"the messages are {_kind(value)}, not a list", 'Give [{"role": "user", "content": "…"}].'
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
    _check_role(role, where)
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
    _check_message(message, where)
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
            raise UsageError(f"{where}[{index}] has the type {part.get('type')!r}", "Only text is supported.")
        text = part.get("text")
        if not isinstance(text, str):
            raise UsageError(f"{where}[{index}].text is {_kind(text)}, not a string")
        texts.append(text)
    return "\n".join(texts)


_ROLE_HINT = f"Roles are {', '.join(sorted(ROLES))}."


def _check_role(role: object, where: str) -> None:
    if not isinstance(role, str) or role not in ROLES:
        raise UsageError(f"{where} has the role {role!r}", _ROLE_HINT)


def _check_message(message: Message, where: str) -> None:
    for text, path in _strings(message.content, f"{where}.content"):
        _check_unicode(text, path)
    for text, path in _strings(message.extra, where):
        _check_unicode(text, path)


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{where}: character {error.start} is half a surrogate pair (U+{ord(text[error.start]):04X})",
            "Write the character itself, or both halves of its escape.",
        ) from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _strings(value: object, where: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every string inside, keys included, with its path."""
    if depth > MAX_DEPTH:
        raise UsageError(f"{where[:40]}… is nested over {MAX_DEPTH} deep")
    if isinstance(value, str):
        yield value, where
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key, where, depth + 1)
            yield from _strings(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _strings(item, f"{where}[{index}]", depth + 1)


def _scalars(value: object) -> Iterator[object]:
    """Everything inside, keys included, that holds nothing itself."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _scalars(key)
            yield from _scalars(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _scalars(item)
    else:
        yield value


def _mapped(value: object, change: Callable[[object], object]) -> object:
    """The same value with everything changed that holds nothing itself, keys included."""
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    return change(value)


# --- encoding -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncodedPrompt:
    """`text` is the rendered prompt without an added BOS, `open_reasoning` the tag pair it leaves open."""

    ids: tuple[int, ...]
    text: str
    open_reasoning: TagPair | None

    @property
    def opens_reasoning(self) -> bool:
        return self.open_reasoning is not None


@dataclass(frozen=True)
class KeptReply:
    """A reply's sampled ids without its end token, to stand in a prompt as they are.

    `n_reasoning` of them, from the start, are its reasoning block up to and with the closing tag; `pair` is
    that block's, `pair_opened` whether the opening tag is among the ids (and not the prompt's own end).
    """

    ids: tuple[int, ...]
    n_reasoning: int = 0
    pair: TagPair | None = None
    pair_opened: bool = True


def encode_prompt(
    template: ChatTemplate,
    messages: Sequence[Message],
    vocab: Vocab,
    *,
    kept: Mapping[int, KeptReply] | None = None,
    add_generation_prompt: bool = True,
    variables: Mapping[str, object] | None = None,
    tools: Sequence[Mapping[str, object]] | None = None,
) -> EncodedPrompt:
    """Ids of a conversation. BOS is added where the vocabulary wants it and the template did not write it;
    EOS never. `kept` has the ids of messages, by their index.

    Raises UsageError for a role that is not in `ROLES`, text with lone surrogates, a conversation that the
    template refuses, or one that it turns into control tokens; ModelInvalid for a template that fails.
    """
    for index, message in enumerate(messages):
        _check_role(message.role, f"messages[{index}]")
        _check_message(message, f"messages[{index}]")
    for name, given in (("variables", variables), ("tools", tools)):
        for text, path in _strings(given, name):
            _check_unicode(text, path)

    controls = _controls_of(vocab)
    texts = [text for value in (*_values(messages), variables, tools) for text, _ in _strings(value, "")]
    kept = kept or {}
    guards = _Guards(controls, [*texts, template.source], n_spare=1 if kept else 0)
    splice = _Splice(kept, "".join(guards.spare), vocab)

    def render(change: Callable[[object], object]) -> str:
        guarded = [
            Message(
                message.role,
                splice.content(index) if index in kept else _changed_content(message, change),
                _changed_mapping(message.extra, change),
            )
            for index, message in enumerate(messages)
        ]
        rendered = template.render(
            guarded,
            add_generation_prompt=add_generation_prompt,
            variables=None if variables is None else _changed_mapping(variables, change),
            tools=None if tools is None else [_changed_mapping(tool, change) for tool in tools],
        )
        _check_rendered(rendered)
        return splice.joined(rendered)

    rendered = render(guards.guard)
    fragments = controls.partition(rendered)
    found = [fragment for fragment in fragments if isinstance(fragment, int)]
    seams = seams_of(template.source, frozenset(map(controls.text_of, found)), ROLES)
    contents = [message.text for index, message in enumerate(messages) if index not in kept]
    given_values = [*contents, *(message.extra for message in messages), variables, tools]
    if found and any(_has_seam(scalar, seams) for scalar in _scalars(given_values)):

        def guarded(has_seam: _HasSeam, but: re.Pattern[str] | None) -> _Rendering:
            again = render(lambda value: guards.guard_seams(value, seams, has_seam, but))
            return _Rendering.of(again, controls, guards)

        _check_same_controls(_Rendering.of(rendered, controls, guards), guarded, seams.own_strings)

    ids: list[int] = []
    for fragment in fragments:
        if isinstance(fragment, int):
            ids.append(fragment)
        else:
            for part in splice.parts(guards.remove(fragment)):
                ids.extend(part if isinstance(part, tuple) else vocab.tokenize(part.encode()))
    if vocab.add_bos and vocab.bos is not None and ids[:1] != [vocab.bos]:
        ids.insert(0, vocab.bos)
    text = splice.text(guards.remove(rendered))
    return EncodedPrompt(tuple(ids), text, opened_pair(pairs_of(template.source), text))


def encode_raw(text: str, vocab: Vocab, *, parse_special: bool = False) -> tuple[int, ...]:
    """Ids of text as it is, with BOS and EOS as the vocabulary wants them (llama.cpp's `add_special`).

    Control tokens are recognized with `parse_special` only; a BOS that the text then begins with is not
    doubled.
    """
    _check_unicode(text, "the prompt")
    data = text.encode()
    ids = vocab.tokenize_special(data) if parse_special else vocab.tokenize(data)
    if vocab.add_bos and vocab.bos is not None and ids[:1] != [vocab.bos]:
        ids = [vocab.bos, *ids]
    if vocab.add_eos and vocab.eos is not None:
        ids = [*ids, vocab.eos]
    return tuple(ids)


class _Splice:
    """Puts replies' ids where the template put their messages' contents.

    A whole reply is the placeholder `MARK index MARK`; one with reasoning is two of them, for the block (`r`)
    and for the answer (`a`), the first one between its tags, so that templates find the block.
    """

    def __init__(self, kept: Mapping[int, KeptReply], mark: str, vocab: Vocab) -> None:
        """`mark`: a character that is in no text here."""
        self._kept, self._mark, self._vocab = kept, mark, vocab
        self._placeholder = re.compile(f"{mark}([0-9]+)([ra]?){mark}" if kept else "(?!)")

    def content(self, index: int) -> str:
        reply = self._kept[index]
        if reply.pair is None:
            return self._place(index)
        opening, closing = reply.pair
        return f"{opening}{self._place(index, 'r')}{closing}{self._place(index, 'a')}"

    def _place(self, index: int, part: str = "") -> str:
        return f"{self._mark}{index}{part}{self._mark}"

    def joined(self, text: str) -> str:
        """The rendering with every block that stands whole before its answer become one placeholder.

        Raises ModelInvalid where the template took a placeholder apart.
        """
        for index, reply in self._kept.items():
            if reply.pair is not None:
                opening = re.escape(reply.pair.opening) + r"\s*" if reply.pair_opened else ""
                block = self._place(index, "r") + r"\s*" + re.escape(reply.pair.closing) + r"\s*"
                text = re.sub(f"{opening}{block}{self._place(index, 'a')}", self._place(index), text)
        left = self._placeholder.sub("", text) if self._kept else ""
        if self._kept and any(form in left for form in (self._mark, *_escapes(self._mark))):
            raise ModelInvalid(
                "the model's chat template takes earlier replies apart",
                "give another one with --chat-template",
            )
        return text

    def parts(self, text: str) -> Iterator[str | tuple[int, ...]]:
        """Text to be tokenized, and ids, in order."""
        done = 0
        for match in self._placeholder.finditer(text):
            ids = self._ids(match)
            before = text[done : match.start()]
            # Some templates put a space before a reply whose first token brings its own.
            if before.endswith(" ") and ids and self._vocab.piece(ids[0]).startswith(b" "):
                before = before[:-1]
            if before:
                yield before
            yield ids
            done = match.end()
        if text[done:]:
            yield text[done:]

    def text(self, rendered: str) -> str:
        """The rendering as it reads."""

        def pieces(match: re.Match[str]) -> str:
            return b"".join(map(self._vocab.piece, self._ids(match))).decode("utf-8", "replace")

        return self._placeholder.sub(pieces, rendered)

    def _ids(self, match: re.Match[str]) -> tuple[int, ...]:
        reply = self._kept[int(match[1])]
        if match[2] == "r":
            return reply.ids[: reply.n_reasoning]
        if match[2] == "a":
            answer = reply.ids[reply.n_reasoning :]
            n_space = 0
            while n_space < len(answer) and not self._vocab.piece(answer[n_space]).strip():
                n_space += 1
            return answer[n_space:]
        return reply.ids


def _values(messages: Sequence[Message]) -> Iterator[object]:
    for message in messages:
        yield message.content
        yield message.extra


def _changed_content(message: Message, change: Callable[[object], object]) -> str | None:
    changed = None if message.content is None else change(message.content)
    assert changed is None or isinstance(changed, str)
    return changed


def _changed_mapping(value: Mapping[str, object], change: Callable[[object], object]) -> dict[str, object]:
    changed = _mapped(value, change)
    assert isinstance(changed, dict)
    return changed


def _check_rendered(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ModelInvalid(
            f"the model's chat template writes half a surrogate pair (U+{ord(text[error.start]):04X})",
            "Give another template with --chat-template, or use --raw.",
        ) from error


@dataclass(frozen=True)
class _Rendering:
    """What two renderings that differ in guards alone have in common."""

    text: str
    fragments: tuple[str | int, ...]  # without white space at the ends: it is up to guards who eats that

    @classmethod
    def of(cls, rendered: str, controls: _Controls, guards: _Guards) -> _Rendering:
        parts = (
            part if isinstance(part, int) else guards.remove(part).strip(_C_SPACE)
            for part in controls.partition(rendered)
        )
        return cls(guards.remove(rendered), tuple(part for part in parts if part != ""))

    @property
    def controls(self) -> list[int]:
        return [part for part in self.fragments if isinstance(part, int)]


def _check_same_controls(
    plain: _Rendering,
    guarded: Callable[[_HasSeam, re.Pattern[str] | None], _Rendering],
    own_strings: re.Pattern[str] | None,
) -> None:
    """Raises UsageError unless the same text, cut at the same control tokens, comes of guarded input."""
    try:
        ways: tuple[_HasSeam, ...] = (_has_seam, _may_be_part)
        try:
            again = guarded(_has_seam, None)
        except (UsageError, ModelInvalid):
            # The template looks at what it is given (an id's length): leave alone what is no part of a token.
            ways = (_may_be_part,)
            again = guarded(_may_be_part, None)
        if again == plain:
            return
        # It looks for strings in the text (`</think>`): leave those alone that are no part of a token.
        if again.controls == plain.controls and any(guarded(way, own_strings) == plain for way in ways):
            return
    except (UsageError, ModelInvalid) as error:
        raise _made_of_text() from error
    raise _made_of_text()


def _has_seam(value: object, seams: Seams) -> bool:
    return seams.are_in(value) if isinstance(value, str) else _may_be_part(value, seams)


def _may_be_part(value: object, seams: Seams) -> bool:
    if isinstance(value, str):
        return seams.may_be_part(value)
    return any(seams.may_glue(text) for text in _written_forms(value))


_CONTROLS_HINT = (
    "Take what looks like the model's markup out of messages, tools and variables (names too),"
    " or give another --chat-template."
)


def _made_of_text() -> UsageError:
    return UsageError(
        "the model's chat template would make control tokens of the text that it is given", _CONTROLS_HINT
    )


@dataclass(frozen=True)
class _Control:
    """As `ControlToken`, hashable and decoded."""

    text: str
    id: int
    lstrip: bool
    rstrip: bool


def _controls_of(vocab: Vocab) -> _Controls:
    # A text that is not UTF-8 can't be guarded in a `str`, so such a token is never recognized.
    return _build_controls(
        tuple(
            _Control(token.text.decode(), token.id, token.lstrip, token.rstrip)
            for token in vocab.control_tokens()
            if token.text and _is_utf8(token.text)
        )
    )


@lru_cache(
    maxsize=4
)  # compiling hundreds of tokens for every prompt of a batch would cost more than the prompts
def _build_controls(tokens: tuple[_Control, ...]) -> _Controls:
    return _Controls(tokens)


class _Controls:
    """Control tokens of a vocabulary, found in text as llama.cpp's `tokenizer_st_partition` finds them."""

    def __init__(self, tokens: Sequence[_Control]) -> None:
        # By descending length in bytes; of equal texts the first.
        self._tokens: dict[str, _Control] = {}
        for token in sorted(tokens, key=lambda token: -len(token.text.encode())):
            self._tokens.setdefault(token.text, token)
        self.texts = tuple(self._tokens)
        self._texts_by_id = {token.id: text for text, token in self._tokens.items()}
        self.pattern = _longest_of(self.texts)

    def text_of(self, token: int) -> str:
        return self._texts_by_id[token]

    def partition(self, text: str) -> list[str | int]:
        """Ids of control tokens and the text between them, in order."""
        spans: list[tuple[int, int] | int] = [(0, len(text))] if text else []
        for token in self._present(text):
            split: list[tuple[int, int] | int] = []
            for span in spans:
                if isinstance(span, int):
                    split.append(span)
                else:
                    split.extend(_split(text, *span, token))
            spans = split
        return [span if isinstance(span, int) else text[span[0] : span[1]] for span in spans]

    def _present(self, text: str) -> list[_Control]:
        """Tokens whose text occurs, overlapped or not, longest first."""
        found = {match.group() for match in _occurrences(self.pattern, text)}
        # The pattern gives the longest text at a place; shorter ones there are its beginnings.
        begun = {text[:size] for text in found for size in range(1, len(text) + 1)}
        return [token for text, token in self._tokens.items() if text in begun]


def _split(text: str, start: int, end: int, token: _Control) -> Iterator[tuple[int, int] | int]:
    """One raw fragment, cut at every occurrence of a token; its attributes eat white space beside it."""
    while (match := text.find(token.text, start, end)) >= 0:
        left_end = match
        while token.lstrip and left_end > start and text[left_end - 1] in _C_SPACE:
            left_end -= 1
        if left_end > start:
            yield start, left_end
        yield token.id
        start = match + len(token.text)
        while token.rstrip and start < end and text[start] in _C_SPACE:
            start += 1
    if start < end:
        yield start, end


class _Guards:
    """Breaks up control tokens' texts in user text, reversibly.

    Raises UsageError where the input uses up Unicode's 32 noncharacters.
    """

    def __init__(self, controls: _Controls, inputs: Sequence[str], n_spare: int = 0) -> None:
        used = (*inputs, *controls.texts)
        free = (
            char
            for char in _NONCHARACTERS
            if not any(form in text for form in (char, *_escapes(char)) for text in used)
        )
        # A token of one character can't be broken up: another noncharacter stands in for it.
        singles = [text for text in controls.texts if len(text) == 1]
        chosen = list(islice(free, 1 + len(singles) + n_spare))
        if len(chosen) < 1 + len(singles) + n_spare:
            raise UsageError(
                "the messages hold too many of Unicode's noncharacters (U+FDD0 to U+FDEF)",
                "Remove them: they are not for text.",
            )
        self._guard = chosen[0]
        self._stand_ins = list(zip(singles, chosen[1 : 1 + len(singles)], strict=True))
        # What their escapes mean. How a character is escaped that is no plain one, nobody knows: None.
        meant = {stand_in: char if _is_plain(char) else None for char, stand_in in self._stand_ins}
        meant[self._guard] = ""
        self._meant = {form: text for char, text in meant.items() for form in _escapes(char)}
        self._escaped = re.compile(rf"(?<!\\)(\\*)({'|'.join(self._meant)})")
        self.spare = chosen[1 + len(singles) :]  # noncharacters for other uses
        self._pattern = controls.pattern

    def guard(self, text: object) -> object:
        """Text without any control token's text: a guard follows the first character of each occurrence."""
        if not isinstance(text, str):
            return text
        parts: list[str] = []
        done = 0
        for match in _occurrences(self._pattern, text):
            cut = match.start() + 1
            parts += (text[done:cut], self._guard)
            done = cut
        return self._stand_in("".join((*parts, text[done:])) if parts else text)

    def guard_seams(
        self, value: object, seams: Seams, has_seam: _HasSeam, but: re.Pattern[str] | None
    ) -> object:
        """Text with guards around every seam, `but` what that matches; so is what else the template may write
        into a token."""
        if not has_seam(value, seams):
            return self.guard(value)
        text = str(self.guard(str(value)))
        parts: list[str] = []
        done = 0
        for match in but.finditer(text) if but is not None else ():
            parts += (self._around(text[done : match.start()], seams.chars), match.group())
            done = match.end()
        text = "".join((*parts, self._around(text[done:], seams.chars)))
        if seams.join or not isinstance(value, str):
            text = self._guard + text + self._guard
        return text

    def _around(self, text: str, chars: Iterable[str]) -> str:
        for char in chars:
            text = text.replace(char, self._guard + char + self._guard)
        return text

    def remove(self, text: str) -> str:
        """Raises UsageError where the template wrote a guard as an escape that can't be taken back."""
        if any(form in text for form in self._meant):
            text = self._escaped.sub(self._unescaped, text)
        text = text.replace(self._guard, "")
        for char, stand_in in self._stand_ins:
            text = text.replace(stand_in, char)
        return text

    def _unescaped(self, match: re.Match[str]) -> str:
        slashes, code = match.groups()
        meant = self._meant[code]
        # Text that is escaped once has an odd number of them there: pairs that are its own, and one.
        if len(slashes) % 2 == 0 or meant is None:
            raise UsageError(
                "the model's chat template escapes text with control tokens in a way that can't be undone",
                _CONTROLS_HINT,
            )
        return slashes[:-1] + meant

    def _stand_in(self, text: str) -> str:
        for char, stand_in in self._stand_ins:
            text = text.replace(char, stand_in)
        return text


def _escapes(char: str) -> tuple[str, ...]:
    """How JSON and `repr` write a noncharacter, the backslashes apart."""
    code = f"u{ord(char):04x}"
    return code, code.upper()


def _is_plain(char: str) -> bool:
    return char.isascii() and char.isprintable() and char not in "\"'\\"


def _written_forms(scalar: object) -> tuple[str, ...]:
    """How a template writes a number, a truth value or none."""
    return (str(scalar), json.dumps(scalar))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _occurrences(pattern: re.Pattern[str] | None, text: str) -> Iterator[re.Match[str]]:
    """Matches at every place, overlapping ones included."""
    position = 0
    while pattern is not None and (match := pattern.search(text, position)):
        yield match
        position = match.start() + 1


class _Tree(dict[str, "_Tree"]):
    """Texts by their characters."""

    ends = False  # a text ends here


def _longest_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Matches the longest of some texts that occurs at a place; None where there are none.

    A tree of common beginnings: vocabularies have hundreds of `<|reserved_special_token_N|>`.
    Raises ModelInvalid where the texts nest deeper than Python's regular expressions can.
    """
    root = _Tree()
    for text in texts:
        node = root
        for char in text:
            node = node.setdefault(char, _Tree())
        node.ends = True
    try:
        return re.compile(_branches(root)) if root else None
    except (RecursionError, OverflowError) as error:
        raise ModelInvalid("the vocabulary's control tokens begin each other too deeply") from error


def _branches(node: _Tree) -> str:
    written: list[str] = []
    for char, child in node.items():
        literal = char
        while len(child) == 1 and not child.ends:
            ((char, child),) = child.items()
            literal += char
        written.append(re.escape(literal) + _branches(child))
    if not written:
        return ""
    return f"(?:{'|'.join(written)}){'?' if node.ends else ''}"
