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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.backend.base import Vocab
from infer_cli.errors import ModelInvalid, UsageError
from infer_cli.prompt.control_token_seams import Seams, seams_of
from infer_cli.prompt.control_tokens import (
    _C_SPACE,
    CONTROLS_HINT,
    Controls,
    Guards,
    HasSeam,
    controls_of,
)
from infer_cli.prompt.kept_replies import KeptReply, Splice
from infer_cli.prompt.messages import ROLES, check_message, check_role, check_unicode, map_strings, strings_in
from infer_cli.text.reasoning import TagPair, opened_pair, pairs_of
from infer_cli.types import Message

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.prompt.template import ChatTemplate


# --- reading and assembling -----------------------------------------------------------------------


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


# --- encoding -------------------------------------------------------------------------------------


class EncodedPrompt(NamedTuple):
    """`text` is the rendered prompt without an added BOS, `open_reasoning` the tag pair it leaves open."""

    ids: tuple[int, ...]
    text: str
    open_reasoning: TagPair | None


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
        check_role(message.role, f"messages[{index}]")
        check_message(message, f"messages[{index}]")
    for name, given in (("variables", variables), ("tools", tools)):
        for text, path in strings_in(given, name):
            check_unicode(text, path)

    controls = controls_of(vocab)
    texts = [text for value in (*_values(messages), variables, tools) for text, _ in strings_in(value, "")]
    kept = kept or {}
    guards = Guards(controls, [*texts, template.source], template.called, n_spare=1 if kept else 0)
    splice = Splice(kept, "".join(guards.spare), vocab, template.called)

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
        _check_rendered(rendered, template.called)
        return splice.joined(rendered)

    rendered = render(guards.guard)
    fragments = controls.partition(rendered)
    found = [fragment for fragment in fragments if isinstance(fragment, int)]
    seams = seams_of(template.source, frozenset(map(controls.text_of, found)), ROLES)
    contents = [message.text for index, message in enumerate(messages) if index not in kept]
    given_values = [*contents, *(message.extra for message in messages), variables, tools]
    if found and any(_has_seam(scalar, seams) for scalar in _scalars(given_values)):

        def guarded(has_seam: HasSeam, but: re.Pattern[str] | None) -> _Rendering:
            again = render(lambda value: guards.guard_seams(value, seams, has_seam, but))
            return _Rendering.of(again, controls, guards)

        plain = _Rendering.of(rendered, controls, guards)
        if not _has_same_controls(plain, guarded, seams.own_strings):
            raise UsageError(
                f"{template.called} would make control tokens of the text that it is given", CONTROLS_HINT
            )

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
    check_unicode(text, "the prompt")
    data = text.encode()
    ids = vocab.tokenize_special(data) if parse_special else vocab.tokenize(data)
    if vocab.add_bos and vocab.bos is not None and ids[:1] != [vocab.bos]:
        ids = [vocab.bos, *ids]
    if vocab.add_eos and vocab.eos is not None:
        ids = [*ids, vocab.eos]
    return tuple(ids)


def _values(messages: Sequence[Message]) -> Iterator[object]:
    for message in messages:
        yield message.content
        yield message.extra


def _changed_content(message: Message, change: Callable[[object], object]) -> str | None:
    return None if message.content is None else str(change(message.content))


def _changed_mapping(value: Mapping[str, object], change: Callable[[object], object]) -> dict[str, object]:
    return {str(change(name)): map_strings(item, change) for name, item in value.items()}


def _check_rendered(text: str, called: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ModelInvalid(
            f"{called} writes half a surrogate pair (U+{ord(text[error.start]):04X})",
            "give another template with --chat-template, or use `infer run --raw`",
        ) from error


class _Rendering(NamedTuple):
    """What two renderings that differ in guards alone have in common."""

    text: str
    fragments: tuple[str | int, ...]  # without white space at the ends: it is up to guards who eats that

    @classmethod
    def of(cls, rendered: str, controls: Controls, guards: Guards) -> _Rendering:
        parts = (
            part if isinstance(part, int) else guards.remove(part).strip(_C_SPACE)
            for part in controls.partition(rendered)
        )
        return cls(guards.remove(rendered), tuple(part for part in parts if part != ""))

    @property
    def controls(self) -> list[int]:
        return [part for part in self.fragments if isinstance(part, int)]


def _has_same_controls(
    plain: _Rendering,
    guarded: Callable[[HasSeam, re.Pattern[str] | None], _Rendering],
    own_strings: re.Pattern[str] | None,
) -> bool:
    """Whether the same text, cut at the same control tokens, comes of guarded input."""
    try:
        ways: tuple[HasSeam, ...] = (_has_seam, _may_be_part)
        try:
            again = guarded(_has_seam, None)
        except (UsageError, ModelInvalid):
            # The template looks at what it is given (an id's length): leave alone what is no part of a token.
            ways = (_may_be_part,)
            again = guarded(_may_be_part, None)
        if again == plain:
            return True
        # It looks for strings in the text (`</think>`): leave those alone that are no part of a token.
        return again.controls == plain.controls and any(guarded(way, own_strings) == plain for way in ways)
    except (UsageError, ModelInvalid):
        return False


def _has_seam(value: object, seams: Seams) -> bool:
    return seams.are_in(value) if isinstance(value, str) else _may_be_part(value, seams)


def _may_be_part(value: object, seams: Seams) -> bool:
    if isinstance(value, str):
        return seams.may_be_part(value)
    return any(seams.may_glue(text) for text in _written_forms(value))


def _written_forms(scalar: object) -> tuple[str, ...]:
    """How a template writes a number, a truth value or none."""
    return (str(scalar), json.dumps(scalar))


def tag_tokens(vocab: Vocab, pairs: Sequence[TagPair]) -> dict[int, bytes]:
    """Control tokens that are tags, with their text.

    A control token has no piece: feed the splitter this text instead.
    """
    tags = {tag.encode() for pair in pairs for tag in pair}
    return {token.id: token.text for token in vocab.control_tokens() if token.text in tags}
