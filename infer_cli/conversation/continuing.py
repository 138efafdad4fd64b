"""A conversation from its records: which one, its turns and its model. Knows no command line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infer_cli.conversation.codec import TurnCodec
from infer_cli.conversation.conversation import Conversation
from infer_cli.conversation.shortening import CutTurn, Summary, VisibleTurns
from infer_cli.conversation.turns import MAIN_BRANCH, Turn
from infer_cli.engine import history
from infer_cli.errors import InferError, ModelNotFound, UsageError
from infer_cli.models.installed import InstalledModel, is_fake
from infer_cli.records.record import (
    Record,
    continues,
    is_whole_reply,
    making_sense,
    model_files,
    reply_of,
    segments_of,
)
from infer_cli.records.statements import LAST
from infer_cli.records.store import Store, store_path
from infer_cli.records.thread import Thread
from infer_cli.system.ids import new_id
from infer_cli.types import Segment

# --- which conversation ---------------------------------------------------------------------------


@dataclass(frozen=True)
class KeptConversation:
    """A conversation to go on with. `last`: the record that its model and settings are those of, with the
    settings that were changed after it."""

    thread: Thread
    branches: Mapping[str, tuple[Record, ...]]  # each branch's records, oldest first
    last: Record
    has_gaps: bool = False  # records of it are gone

    @property
    def system(self) -> str | None:
        """The system prompt of the last turn, or what it was changed to after it."""
        if self.thread.told is not None:
            return self.thread.told.system
        first = (self.last.messages or ())[:1]
        return first[0].content if first and first[0].role == "system" else None


def find_conversation(name: str | None, warn: Callable[[str], None]) -> KeptConversation:
    """The user's conversation of this name or id; None is the last one. Raises UsageError."""
    with Store.open(store_path(), warn) as store:
        kept = find_latest(store) if name is None else find_named(store, name)
    if kept.has_gaps:
        warn("turns of this conversation are missing: it goes on without them")
    return kept


def find_latest(store: Store) -> KeptConversation:
    """The conversation of the newest answer that belongs to one. Raises UsageError where there is none."""
    for record in store.backwards():
        if _why_not(record) is None:
            return _kept(store, record)
    raise UsageError("no conversation yet", "`infer run` and `infer chat` begin one, unless with --no-record")


def find_named(store: Store, text: str) -> KeptConversation:
    """A conversation by its id, its name, or the id of one of its records; `last` is the latest.

    Raises UsageError.
    """
    found = store.find(text)
    if text == LAST and isinstance(found, Record):  # and not a conversation of that name
        return find_latest(store)
    if isinstance(found, Thread):
        return _of_thread(store, found)
    if (reason := _why_not(found)) is not None:
        raise UsageError(f"record {found.id} can't be continued: {reason}")
    return _kept(store, found)


def _why_not(record: Record) -> str | None:
    """Why a conversation can't go on from a record, if so."""
    if record.kind not in ("run", "chat"):
        return f"it is a {record.kind}"
    if record.private:
        return "it was kept private"
    if record.text is None or not record.tokens or not is_whole_reply(record):
        return "it has no reply"
    if record.kind == "chat":
        return None
    if record.messages is None:
        return "it was made with --raw"
    if any(setting.name == "samples" and setting.value != 1 for setting in record.settings):
        return "it is one of several samples"
    if [message.role for message in record.messages if message.role != "system"] != ["user"]:
        return "it was made of --messages"
    return None


def _kept(store: Store, record: Record) -> KeptConversation:
    if record.thread is not None and (thread := store.thread(record.thread)) is not None:
        return _of_thread(store, thread)
    thread = Thread(new_id(), MAIN_BRANCH, {MAIN_BRANCH: record.id})
    return KeptConversation(thread, {MAIN_BRANCH: (record,)}, record)


def _of_thread(store: Store, thread: Thread) -> KeptConversation:
    whole = (record for record in store.export(thread=thread.id) if is_whole_reply(record))
    records = {record.id: record for record in whole}
    if not records:
        raise UsageError(f"the records of conversation {thread.id} were removed")
    *_, newest = records.values()
    branches, has_gaps = {}, False
    for name, head in thread.heads.items():
        if head is not None and head not in records:
            head, has_gaps = newest.id, True
        chain: list[Record] = []
        while head is not None and head in records and len(chain) < len(records):
            chain.append(records[head])
            head = records[head].parent
        has_gaps = has_gaps or head is not None
        branches[name] = tuple(reversed(chain))
    if thread.branch not in branches:
        branches[thread.branch], has_gaps = (), True
    last = (branches[thread.branch] or (newest,))[-1]
    if thread.told is not None:
        last = replace(last, settings=thread.told.settings)
    return KeptConversation(thread, branches, last, has_gaps)


# --- its turns ------------------------------------------------------------------------------------


def restore(
    conversation: Conversation, kept: KeptConversation, is_same_model: Callable[[Record], bool]
) -> None:
    """Give a conversation the turns of a kept one: ids and evaluations of its own model, text of others."""
    with making_sense(kept.last):
        branches = {
            name: _turns(chain, conversation.codec, is_same_model) for name, chain in kept.branches.items()
        }
    conversation.branches.restore(branches, kept.thread.branch)


def _turns(
    records: Sequence[Record], codec: TurnCodec, is_same_model: Callable[[Record], bool]
) -> list[Turn]:
    groups: list[list[Record]] = []
    for record in records:
        if continues(record) and groups:
            groups[-1].append(record)
        else:
            groups.append([record])
    turns: list[Turn] = []
    for group in groups:
        own = all(is_same_model(record) for record in group)
        turns.append(_turn(group, codec, len(turns)) if own else _turn_as_text(group))
    # As in a conversation that went on: whoever came to another model left its own ids behind.
    other = max((n for n, turn in enumerate(turns) if turn.ids is None), default=-1)
    return [turn.as_text() if n < other else turn for n, turn in enumerate(turns)]


def _turn(group: Sequence[Record], codec: TurnCodec, n_before: int) -> Turn:
    first, last = group[0], group[-1]
    ids = tuple(token for record in group for token in record.tokens or ())
    text, reasoning = first.text or "", first.reasoning or ""
    if len(group) > 1:
        n_last = len(last.tokens or ())
        stop = tuple(map(str, _list(last.params["stop"])))
        text, reasoning = codec.reply_text(ids[:-n_last], ids[-n_last:], first.open_reasoning, stop)
    return Turn(
        _asked(first),
        text,
        reasoning,
        ids,
        history.normalized((*segments_of(last), Segment("decoded", (last.tokens or ())[:-1]))),
        _visible(last, n_before),
        first.open_reasoning,
        tuple(map(reply_of, group)),
    )


def _turn_as_text(group: Sequence[Record]) -> Turn:
    text = "".join(record.text or "" for record in group)
    reasoning = "".join(record.reasoning or "" for record in group)
    return Turn(
        _asked(group[0]), text, reasoning, None, (), VisibleTurns(), None, tuple(map(reply_of, group))
    )


def _visible(record: Record, n_before: int) -> VisibleTurns:
    """What of the `n_before` turns that are left before a record was in its prompt."""
    n_lost = (record.turn or 1) - 1 - n_before  # the oldest ones, whose records are gone
    if record.shortened is None:
        return VisibleTurns(frozenset(range(record.dropped_turns - n_lost)))
    said: dict[str, Any] = dict(record.shortened)

    def numbers(turns: Sequence[int]) -> tuple[int, ...]:
        return tuple(turn - 1 - n_lost for turn in turns if turn > n_lost)

    summary = said["summary"]
    return VisibleTurns(
        frozenset(numbers(said["dropped"])),
        None if summary is None else Summary(summary["text"], numbers(summary["turns"])),
        {i: CutTurn(cut["user"], cut["reply"]) for cut in said["cuts"] for i in numbers([cut["turn"]])},
    )


def _asked(record: Record) -> str:
    said = (message.text for message in reversed(record.messages or ()) if message.role == "user")
    return next(said, "")


# --- its model ------------------------------------------------------------------------------------


def is_by(record: Record, model: InstalledModel) -> bool:
    """Whether a model wrote a record. The fake is known by its name."""
    if model.is_fake or is_fake(record.model):
        return model.is_fake and record.model == model.name
    if model.sha256 is not None and record.model_sha256 is not None:
        return model.sha256 == record.model_sha256
    with contextlib.suppress(OSError):
        return record.model_files == model_files(model.path)
    return False


def model_of(record: Record) -> str:
    """What `-m` would name the record's model with. Raises ModelNotFound where its file is gone."""
    if is_fake(record.model):
        assert record.model is not None
        return record.model
    path = Path(record.model_files[0].path) if record.model_files else None
    if path is None or not path.exists():
        raise ModelNotFound(
            f"the conversation's model is gone: {path or record.model}", "choose another one with -m"
        )
    return handle(record.model, path)


def handle(name: str | None, path: Path) -> str:
    """What `-m` would name an installed model with: its name where that leads to it, else its path."""
    if name is not None:
        from infer_cli.models.store import look

        with contextlib.suppress(InferError):
            found = look(name)
            if isinstance(found, InstalledModel) and found.path.absolute() == path.absolute():
                return name  # with the sampling that its entry recommends
    return str(path.absolute())


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()
