"""Conversations from their records and back: which one, its turns and settings, and a new turn's record.

Knows no command line, no engine and no terminal.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from infer_cli.backend.spec import LoraSpec
from infer_cli.conversation.shortening import CutTurn, Shown, Summary
from infer_cli.conversation.turns import MAIN_BRANCH, Conversation, Plan, Turn
from infer_cli.engine import history
from infer_cli.errors import InferError, ModelNotFound, UsageError
from infer_cli.models.installed import InstalledModel, is_fake
from infer_cli.records.record import (
    Evaluated,
    Place,
    Record,
    adapters_of,
    continues,
    evaluated,
    is_whole_reply,
    making_sense,
    model_files,
    record_of,
    reply_of,
    segments_of,
)
from infer_cli.records.recorded_job import engine_options
from infer_cli.records.thread import Thread
from infer_cli.runtime.options import EngineOptions
from infer_cli.settings.origins import Given, Setting
from infer_cli.system.ids import new_id
from infer_cli.text.reasoning import TagPair
from infer_cli.types import Message, Mode, Reply, SamplingParams, Segment

if TYPE_CHECKING:
    from infer_cli.records.store import Store

ORIGIN = "conversation"  # of a setting that an earlier turn was given
_NOT_SAID = ("default", "physical cores", "model entry", "model file", "drawn", "/regen")
_SAMPLING = {f.name for f in dataclasses.fields(SamplingParams)}
# Flag -> field of the engine's options.
_ENGINE_FLAGS = {
    "ctx": "ctx", "threads": "threads", "gpu_layers": "gpu_layers", "device": "devices", "lora": "loras",
    "cache_type_k": "type_k", "cache_type_v": "type_v", "flash_attn": "flash_attn",
}  # fmt: skip


# --- which conversation ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Continued:
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


def latest(store: Store) -> Continued:
    """The conversation of the newest answer that belongs to one. Raises UsageError where there is none."""
    for record in store.backwards():
        if _why_not(record) is None:
            return _continued(store, record)
    raise UsageError("no conversation yet", "`infer run` and `infer chat` begin one, unless with --no-record")


def named(store: Store, text: str) -> Continued:
    """A conversation by its id, its name, or the id of one of its records. Raises UsageError."""
    found = store.find(text)
    if isinstance(found, Thread):
        return _of_thread(store, found)
    if (reason := _why_not(found)) is not None:
        raise UsageError(f"record {found.id} can't be continued: {reason}")
    return _continued(store, found)


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


def _continued(store: Store, record: Record) -> Continued:
    if record.thread is not None and (thread := store.thread(record.thread)) is not None:
        return _of_thread(store, thread)
    thread = Thread(new_id(), MAIN_BRANCH, {MAIN_BRANCH: record.id})
    return Continued(thread, {MAIN_BRANCH: (record,)}, record)


def _of_thread(store: Store, thread: Thread) -> Continued:
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
    return Continued(thread, branches, last, has_gaps)


# --- its turns ------------------------------------------------------------------------------------


def restore(talk: Conversation, continued: Continued, is_same_model: Callable[[Record], bool]) -> None:
    """Give a talk a conversation's turns: ids and evaluations of its own model, text of others."""
    with making_sense(continued.last):
        branches = {name: _turns(chain, talk, is_same_model) for name, chain in continued.branches.items()}
    talk.restore(branches, continued.thread.branch)


def _turns(
    records: Sequence[Record], talk: Conversation, is_same_model: Callable[[Record], bool]
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
        turns.append(_turn(group, talk, len(turns)) if own else _turn_as_text(group))
    # As in a talk that went on: whoever came to another model left its own ids behind.
    other = max((n for n, turn in enumerate(turns) if turn.ids is None), default=-1)
    return [
        replace(turn, ids=None, evaluated=(), shown=Shown()) if n < other else turn
        for n, turn in enumerate(turns)
    ]


def _turn(group: Sequence[Record], talk: Conversation, n_before: int) -> Turn:
    first, last = group[0], group[-1]
    ids = tuple(token for record in group for token in record.tokens or ())
    text, reasoning = first.text or "", first.reasoning or ""
    if len(group) > 1:
        n_last = len(last.tokens or ())
        stop = tuple(map(str, _list(last.params["stop"])))
        text, reasoning = talk.text_of(ids[:-n_last], ids[-n_last:], first.open_reasoning, stop)
    return Turn(
        _asked(first),
        text,
        reasoning,
        ids,
        history.normalized((*segments_of(last), Segment("decoded", (last.tokens or ())[:-1]))),
        _shown(last, n_before),
        first.open_reasoning,
        tuple(map(reply_of, group)),
    )


def _turn_as_text(group: Sequence[Record]) -> Turn:
    text = "".join(record.text or "" for record in group)
    reasoning = "".join(record.reasoning or "" for record in group)
    return Turn(_asked(group[0]), text, reasoning, None, (), Shown(), None, tuple(map(reply_of, group)))


def _shown(record: Record, n_before: int) -> Shown:
    """What of the `n_before` turns that are left before a record was in its prompt."""
    n_lost = (record.turn or 1) - 1 - n_before  # the oldest ones, whose records are gone
    if record.shortened is None:
        return Shown(frozenset(range(record.dropped_turns - n_lost)))
    said: dict[str, Any] = dict(record.shortened)

    def numbers(turns: Sequence[int]) -> tuple[int, ...]:
        return tuple(turn - 1 - n_lost for turn in turns if turn > n_lost)

    summary = said["summary"]
    return Shown(
        frozenset(numbers(said["dropped"])),
        None if summary is None else Summary(summary["text"], numbers(summary["turns"])),
        {i: CutTurn(cut["user"], cut["reply"]) for cut in said["cuts"] for i in numbers([cut["turn"]])},
    )


def _shortened(shown: Shown) -> dict[str, object] | None:
    """As a record has it: None where the oldest turns are gone and nothing else."""
    if shown == Shown(frozenset(range(len(shown.gone)))):
        return None
    summary = shown.summary
    return {
        "dropped": [i + 1 for i in sorted(shown.gone)],
        "summary": None
        if summary is None
        else {"text": summary.text, "turns": [i + 1 for i in summary.turns]},
        "cuts": [{"turn": i + 1, **cut._asdict()} for i, cut in sorted(shown.cuts.items())],
    }


def _asked(record: Record) -> str:
    said = (message.text for message in reversed(record.messages or ()) if message.role == "user")
    return next(said, "")


# --- its model and settings -----------------------------------------------------------------------


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


def engine_as_before(record: Record, now: EngineOptions, flags: frozenset[str]) -> EngineOptions:
    """The engine that answered, but for what the user gave `flags` for. Raises UsageError."""
    said = {setting.name: setting.value for setting in record.settings}
    ctx = said.get("ctx", "auto")
    before = replace(
        engine_options(record),
        ctx=None if ctx == "auto" else int(str(ctx)),
        gpu_layers=str(said.get("gpu_layers", "auto")),
        use_mmap=now.use_mmap,
        use_mlock=now.use_mlock,
        exact_width=now.exact_width,
    )
    if flags & set(get_args(Mode)) and now.mode != before.mode:  # it chooses its own cache types
        before = replace(before, mode=now.mode, type_k=None, type_v=None, flash_attn=None)
    given = {name: getattr(now, name) for flag, name in _ENGINE_FLAGS.items() if flag in flags}
    options = replace(before, **given)
    options.check()
    return options


def sampling_as_before(record: Record, now: Mapping[str, Given]) -> dict[str, Given]:
    """Sampling parameters that the conversation was told, but for those that the user gave flags for."""
    said = {s.name: Given(s.value, ORIGIN) for s in _told(record) if s.name in _SAMPLING}
    return {**now, **said, **{name: given for name, given in now.items() if given.by_flag}}


def told(record: Record, name: str) -> object:
    """The value of a setting that the conversation was told; None where it had its default."""
    return next((setting.value for setting in _told(record) if setting.name == name), None)


def settings_as_before(
    record: Record, now: Sequence[Setting], values: Mapping[str, object]
) -> tuple[Setting, ...]:
    """Settings with the `values` that are in use, and where those came from: a flag, or the conversation."""
    before = {setting.name: setting for setting in record.settings}

    def with_value(setting: Setting) -> Setting:
        was = before.get(setting.name)
        if setting.origin.startswith("-") or was is None or setting.name not in values:
            return setting
        origin = was.origin if was.origin in _NOT_SAID else ORIGIN
        return Setting(setting.name, values[setting.name], origin)

    return tuple(map(with_value, now))


def _told(record: Record) -> list[Setting]:
    return [setting for setting in record.settings if setting.origin not in _NOT_SAID]


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


# --- a new turn -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewTurn:
    """What the record of a turn has that one of a lone answer has not. Made before the talk takes it in."""

    prompt_ids: tuple[int, ...]
    prompt_text: str
    messages: tuple[Message, ...]
    history: tuple[Evaluated, ...]
    place: Place
    reasoning_pairs: tuple[TagPair, ...]
    open_reasoning: TagPair | None
    window: int


def new_turn(talk: Conversation, plan: Plan, thread_id: str) -> NewTurn:
    """The turn that a talk would have with the reply to `plan`."""
    segments = history.normalized((*plan.past, Segment("prompt", plan.prompt_ids)))
    messages = [Message("system", talk.system)] if talk.system else []
    messages.append(Message("user", plan.user))
    if plan.continues:
        messages.append(Message("assistant", talk.turns[-1].text))
    place = Place(
        thread_id,
        talk.turns[-1].reply.id if talk.turns else None,
        len(talk.turns) + (not plan.continues),
        len(plan.shown.gone),
        _shortened(plan.shown),
    )
    return NewTurn(
        history.flat(segments),
        talk.text_read(plan.prompt_ids),
        tuple(messages),
        evaluated(segments),
        place,
        talk.pairs,
        plan.open_reasoning,
        talk.window,
    )


def record_of_turn(
    reply: Reply,
    turn: NewTurn,
    *,
    model_path: Path | None,
    template_sha256: str | None,
    settings: Sequence[Setting],
    width: int,
    loras: Sequence[LoraSpec],
    private: bool,
) -> Record:
    """The record of a turn whose reply has just ended. Raises OSError where the model's files are gone."""
    return record_of(
        reply,
        kind="chat",
        prompt_ids=turn.prompt_ids,
        prompt_text=turn.prompt_text,
        messages=turn.messages,
        model_path=model_path,
        template_sha256=template_sha256,
        settings=settings,
        width=width,
        n_ctx=turn.window,
        adapters=adapters_of(loras),
        reasoning_pairs=turn.reasoning_pairs,
        open_reasoning=turn.open_reasoning,
        history=turn.history,
        place=turn.place,
        private=private,
    )
