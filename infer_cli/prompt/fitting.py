"""Makes a conversation fit the window, and says what it cost.

What is given: the messages so far, and the attachments of the message that is to be answered. Never lost
are system messages, the last message of the user and what follows it, and the caller's own part of it.

- `drop-oldest` drops whole turns, the oldest first; where that is not enough, the beginnings of attachments.
- `drop-middle` drops whole turns too, the first one last; then the middles of attachments.
- `keep-ends` drops no turn: it cuts the middles of the longest texts, attachments or earlier messages.

A turn is a message of the user with all that follows it up to the next one; what stands before the first of
them is a turn too. Texts are cut to one common length: a shorter one stays whole. Cuts fall between
paragraphs, lines or words where one is near, never inside a character, and a marker stands where they were.

It knows no engine, no tokenizer and no command line: tokens are counted by a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, Protocol, TypeVar

from infer_cli.errors import ContextOverflow
from infer_cli.prompt.attachments import Attachment
from infer_cli.settings.defaults import FIT_RESERVE
from infer_cli.types import Message

Policy = Literal["error", "drop-oldest", "drop-middle", "keep-ends"]
_Ends = Literal["tail", "both"]
POLICIES: tuple[Policy, ...] = ("error", "drop-oldest", "drop-middle", "keep-ends")
P = TypeVar("P", bound=str)

_SYSTEM_ROLES = ("system", "developer")
# A boundary is taken where it costs at most this part of what is kept.
_NEAR = 4
_BOUNDARIES = ("\n\n", "\n", " ")


def policy_named(word: object, known: Sequence[P]) -> P | None:
    """The one of these policies that is called so."""
    return next((policy for policy in known if policy == word), None)


class Dropped(NamedTuple):
    """What was lost: `tokens` of the prompt. `marker_tokens` are those of the marker in its place, and of the
    line ends around it: the prompt became shorter by the difference."""

    what: str
    tokens: int
    marker_tokens: int = 0


class Fitted(NamedTuple):
    """What is kept. `dropped` is empty where everything fits."""

    policy: Policy
    messages: tuple[Message, ...]
    attachments: tuple[Attachment, ...]
    n_tokens: int
    dropped: tuple[Dropped, ...] = ()

    def told(self) -> str:
        """What was dropped, in words."""
        return f"the prompt did not fit, so these were dropped: {listed(self.dropped)}"

    def report(self) -> dict[str, object] | None:
        """The `truncation` of a reply, None where nothing was dropped."""
        if not self.dropped:
            return None
        return report_of(self.policy, self.dropped)


def listed(dropped: Sequence[Dropped]) -> str:
    """Each part and its tokens, in words."""
    return ", ".join(f"{part.what} ({part.tokens} tokens)" for part in dropped)


def report_of(policy: str, dropped: Sequence[Dropped]) -> dict[str, object]:
    """A `truncation` as JSON has it."""
    n_marker = sum(part.marker_tokens for part in dropped)
    return {
        "policy": policy,
        "dropped_tokens": sum(part.tokens for part in dropped),
        **({"marker_tokens": n_marker} if n_marker else {}),
        "dropped": [{"what": part.what, "tokens": part.tokens} for part in dropped],
    }


class Encoded(Protocol):
    """A prompt as tokens."""

    @property
    def ids(self) -> Sequence[int]: ...


E = TypeVar("E", bound=Encoded)

# Tokens of the whole prompt made of messages and attachments.
Count = Callable[[Sequence[Message], Sequence[Attachment]], int]


def fit(
    messages: Sequence[Message],
    attachments: Sequence[Attachment],
    count: Count,
    *,
    window: int,
    reserve: int,
    policy: Policy,
    answers_last: bool = True,
) -> Fitted:
    """Drop what has to go for the prompt and `reserve` tokens of a reply to be within the window.

    `answers_last`: the last message of the user among `messages` is the one to be answered; otherwise that is
    made by `count`, of the attachments and what else it knows. With `error` nothing is dropped, whether it
    fits or not. Raises ContextOverflow where what may not be dropped does not fit; passes on what `count`
    raises.
    """
    whole = Fitted(policy, tuple(messages), tuple(attachments), count(messages, attachments))
    if policy == "error" or whole.n_tokens + reserve <= window:
        return whole
    fitting = _Fitting(count, window - reserve, answers_last)
    if policy == "keep-ends":
        fitted = fitting.cut(whole, in_messages=True)
    else:
        fitted = fitting.drop_turns(whole)
        if fitted.n_tokens > fitting.limit:
            fitted = fitting.cut(fitted, in_messages=False)
    if fitted.n_tokens > fitting.limit:
        raise ContextOverflow(
            f"the prompt is {whole.n_tokens} tokens, {fitted.n_tokens} without all that --overflow {policy}"
            f" may drop, and {reserve} are kept for the reply: they do not fit the window of {window}",
            "shorten the system prompt or the prompt, lower -n, or raise --ctx",
        )
    return fitted


def fit_encoded(
    messages: Sequence[Message],
    attachments: Sequence[Attachment],
    encode: Callable[[Sequence[Message], Sequence[Attachment]], E],
    *,
    window: int,
    reserve: int,
    policy: Policy,
    answers_last: bool = True,
) -> tuple[E, Fitted]:
    """As `fit`, for prompts that `encode` makes: the prompt of what is kept too. The whole is made once."""
    whole = encode(messages, attachments)

    def count(some: Sequence[Message], parts: Sequence[Attachment]) -> int:
        return len((whole if some is messages and parts is attachments else encode(some, parts)).ids)

    fitted = fit(
        messages,
        attachments,
        count,
        window=window,
        reserve=reserve,
        policy=policy,
        answers_last=answers_last,
    )
    return encode(fitted.messages, fitted.attachments) if fitted.dropped else whole, fitted


def cut_ends(
    texts: Sequence[Attachment],
    count: Callable[[Sequence[Attachment]], int],
    limit: int,
    changes: Callable[[int, str], bool] = lambda _, text: True,
) -> Fitted:
    """Texts cut in their middles to one common length, as long as they may be for `count` to be at most
    `limit`; as short as they get where that is not enough. `changes`: whether a text, by its index, is now to
    be shown as this one: only such a cut is told."""
    whole = Fitted("keep-ends", (), tuple(texts), count(texts))
    if whole.n_tokens <= limit:
        return whole
    fitting = _Fitting(lambda _, shown: count(shown), limit, answers_last=False, changes=changes)
    return fitting.cut(whole, in_messages=False)


def in_dropping_order(turns: Sequence[int], policy: str) -> list[int]:
    """Turns in the order in which they go."""
    return [*turns[1:], *turns[:1]] if policy == "drop-middle" else list(turns)


def fewest(n: int, fits: Callable[[int], bool]) -> int:
    """How many of `n` have to go, at least one, until the rest fits; all where it never does."""
    low, high = 0, n  # `low` does not fit; `high` does or is all
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def numbered(what: str, numbers: Sequence[int]) -> str:
    """`turn 3`, `turns 2 to 5`, `turns 1, 4 to 6`. In any order."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in ranges]
    return f"{what if len(numbers) == 1 else f'{what}s'} {', '.join(shown)}"


class _Fitting:
    def __init__(
        self,
        count: Count,
        limit: int,
        answers_last: bool,
        changes: Callable[[int, str], bool] = lambda _, text: True,
    ) -> None:
        self._count, self.limit, self._answers_last, self._changes = count, limit, answers_last, changes

    # --- turns ---------------------------------------------------------------------------------

    def drop_turns(self, whole: Fitted) -> Fitted:
        """Without as few turns as need be; without all of them where that is not enough."""
        turns = self._turns(whole.messages)
        order = in_dropping_order(range(len(turns)), whole.policy)

        def without(n: int) -> Fitted:
            gone = {index for number in order[:n] for index in turns[number]}
            kept = tuple(message for i, message in enumerate(whole.messages) if i not in gone)
            return whole._replace(messages=kept, n_tokens=self._count(kept, whole.attachments))

        if not turns:
            return whole
        n_gone = fewest(len(turns), lambda n: without(n).n_tokens <= self.limit)
        best = without(n_gone)
        what = numbered("turn", [number + 1 for number in order[:n_gone]])
        return best._replace(dropped=(Dropped(what, whole.n_tokens - best.n_tokens),))

    def _turns(self, messages: Sequence[Message]) -> list[list[int]]:
        """Indices of the messages of each turn that may be dropped."""
        turns: list[list[int]] = []
        for index, message in enumerate(messages):
            if message.role in _SYSTEM_ROLES:
                continue
            if not turns or message.role == "user":
                turns.append([])
            turns[-1].append(index)
        return turns[:-1] if self._answers_last else turns

    # --- texts ---------------------------------------------------------------------------------

    def cut(self, before: Fitted, *, in_messages: bool) -> Fitted:
        """With every text that may be cut at most as long as need be."""
        turns = self._turns(before.messages) if in_messages else []
        cuttable = [i for turn in turns for i in turn if before.messages[i].content is not None]
        texts = [
            *(before.messages[i].text for i in cuttable),
            *(item.text for item in before.attachments),
        ]
        names = [*(f"message {i + 1}" for i in cuttable), *(item.name for item in before.attachments)]
        ends: _Ends = "tail" if before.policy == "drop-oldest" else "both"

        def put(shown: Sequence[str]) -> Fitted:
            messages = list(before.messages)
            for index, text in zip(cuttable, shown, strict=False):
                messages[index] = replace(messages[index], content=text)
            rest = shown[len(cuttable) :]
            attachments = tuple(
                item._replace(text=text) for item, text in zip(before.attachments, rest, strict=True)
            )
            return before._replace(
                messages=tuple(messages),
                attachments=attachments,
                n_tokens=self._count(messages, attachments),
            )

        def shortened(length: int) -> list[_Cut]:
            return [_cut(text, length, ends) for text in texts]

        longest = max(map(len, texts), default=0)
        cuts = shortened(0)
        best = put([cut.text for cut in cuts])
        low, high = 0, longest  # `low` fits; `high` does not
        guess = longest * max(self.limit, 0) // max(before.n_tokens, 1)
        while best.n_tokens <= self.limit and high - low > 1 + low // 100:
            # Small steps up from what fits: a text can be far longer than the window.
            middle = guess if low < guess < high else min((low + high) // 2, low + max(low // 8, 64))
            guess = 0
            candidates = shortened(middle)
            candidate = put([cut.text for cut in candidates])
            if candidate.n_tokens <= self.limit:
                low, cuts, best = middle, candidates, candidate
            else:
                high = middle
        return best._replace(dropped=(*before.dropped, *self._told(before, names, texts, cuts, put)))

    def _told(
        self,
        before: Fitted,
        names: Sequence[str],
        texts: Sequence[str],
        cuts: Sequence[_Cut],
        put: Callable[[Sequence[str]], Fitted],
    ) -> list[Dropped]:
        """What each cut takes away and puts in, one after the other, so that the sums are those of all."""
        told: list[Dropped] = []
        shown, n_tokens = list(texts), before.n_tokens
        for index, (name, cut) in enumerate(zip(names, cuts, strict=True)):
            if cut.what and self._changes(index, cut.text):
                # Twice, where nothing else is left: a message without text is another prompt.
                shown[index] = cut.kept or cut.text + cut.text
                other = put(shown).n_tokens
                shown[index] = cut.text
                left = put(shown).n_tokens
                n_marker = left - other if cut.kept else other - left
                told.append(Dropped(f"{cut.what} of {name}", n_tokens - left + n_marker, n_marker))
                n_tokens = left
        return told


# --- one text -------------------------------------------------------------------------------------


class _Cut(NamedTuple):
    """A text as it is kept; `what` went, empty for none. `kept` is the text without the marker."""

    text: str
    what: str = ""
    kept: str = ""


def _cut(text: str, length: int, ends: _Ends) -> _Cut:
    """`text` with about `length` characters of it at most, and a marker."""
    if len(text) <= length:
        return _Cut(text)
    n_head = length // 2 if ends == "both" else 0
    start = _boundary_before(text, n_head, n_head // _NEAR) if n_head else 0
    n_tail = length - n_head
    end = _boundary_after(text, len(text) - n_tail, n_tail // _NEAR) if n_tail else len(text)
    whole_lines = (start == 0 or text[start - 1] == "\n") and (end == len(text) or text[end - 1] == "\n")
    if whole_lines:
        first = text.count("\n", 0, start) + 1
        last = first + text.count("\n", start, end) - (text[end - 1] == "\n")
        n, what = last - first + 1, f"line {first}" if first == last else f"lines {first} to {last}"
        marker = f"[… {n} {'line' if n == 1 else 'lines'} left out …]"
    else:
        what = f"characters {start + 1} to {end}"
        marker = f"[… {end - start} characters left out …]"
    if len(marker) + 2 >= end - start:  # it would save nothing
        return _Cut(text)
    head, tail = text[:start], text[end:]
    before = "\n" if head and not head.endswith("\n") else ""
    after = "\n" if tail and not tail.startswith("\n") else ""
    return _Cut(f"{head}{before}{marker}{after}{tail}", what, head + tail)


def _boundary_before(text: str, index: int, near: int) -> int:
    """The best place to cut at or at most `near` characters before `index`."""
    from infer_cli.text.graphemes import grapheme_start

    for boundary in _BOUNDARIES:
        found = text.rfind(boundary, index - near, index)
        if found >= 0:
            index = found + len(boundary)
            break
    return grapheme_start(text, index)


def _boundary_after(text: str, index: int, near: int) -> int:
    """The best place to cut at or at most `near` characters after `index`."""
    from infer_cli.text.graphemes import grapheme_end

    for boundary in _BOUNDARIES:
        found = text.find(boundary, max(index - len(boundary), 0), index + near)
        if found >= 0:
            index = max(found + len(boundary), index)
            break
    return grapheme_end(text, index)


def needed_window(n_prompt: int, max_tokens: int, window: int, n_ctx_train: int) -> int:
    """Tokens that a prompt and its reply will fill, at most the window.

    Raises ContextOverflow where prompt + min(max_tokens, 256) is more than the window.
    """
    can_grow = window < n_ctx_train
    reserve = min(max_tokens, FIT_RESERVE)
    if n_prompt + reserve > window:
        raise ContextOverflow(
            f"the prompt is {n_prompt} tokens and {reserve} are kept for the reply: "
            f"{n_prompt + reserve} do not fit the window of {window}"
            + ("" if can_grow else ", all that the model was trained for"),
            f"shorten the prompt, lower -n, or raise --ctx (up to {n_ctx_train})"
            if can_grow
            else "shorten the prompt, lower -n, or choose a model with a larger window",
        )
    return min(n_prompt + max_tokens, window)
