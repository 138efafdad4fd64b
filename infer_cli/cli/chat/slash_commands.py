"""The commands of a chat: `/name arguments`. Data and short handlers; the work is the dialogue's."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from infer_cli.cli.flags.shared import REASONING_VIEWS, Reasoning
from infer_cli.cli.flags.values import check_between
from infer_cli.cli.foreign_words import CHAT_COMMANDS, OTHER_CHAT_COMMANDS
from infer_cli.cli.screen.table import Column, short_ids, when_in_short
from infer_cli.cli.screen.terminal import settings_table
from infer_cli.conversation.shortening import OVERFLOW_POLICIES
from infer_cli.errors import UsageError
from infer_cli.settings.defaults import MOST_TOKENS
from infer_cli.settings.origins import RunSeed
from infer_cli.settings.sampling import SAMPLING_NAMES, parse_set
from infer_cli.settings.seeds import check_seed

if TYPE_CHECKING:
    from infer_cli.conversation.dialogue import Dialogue
    from infer_cli.conversation.shortening import OverflowPolicy
    from infer_cli.prompt.attachments import Attachment
    from infer_cli.settings.origins import Setting

_COMMAND = re.compile(r"/([a-z]+|\?)(?:\s+(.*))?\s*", re.DOTALL)
N_LISTED = 10  # conversations
# What `/set` changes, with the words that a value can be.
SETTINGS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(SAMPLING_NAMES, ()),
    "temperature": ("model",),
    "max_tokens": (),
    "overflow": OVERFLOW_POLICIES,
    "reasoning": REASONING_VIEWS,
}
_MOST_DIGITS = 20  # of a number; Python refuses to read thousands


class CommandHost(Protocol):
    """What the commands may ask of the chat that they are typed in."""

    dialogue: Dialogue
    attached: list[Attachment]  # what goes before the next message
    reasoning: Reasoning

    @property
    def settings(self) -> Sequence[Setting]: ...

    def say(self, text: str) -> None: ...

    def say_table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None: ...

    def say_attached(self) -> None: ...

    def files(self, name: str) -> list[Attachment]: ...

    def send(self, text: str, *files: Attachment) -> None: ...

    def edited(self, text: str) -> str: ...

    def copy(self, text: str) -> None: ...

    def load_conversation(self, name: str) -> None: ...


class Command(NamedTuple):
    usage: str
    help: str
    run: Callable[[CommandHost, str], None]


def parse(line: str) -> tuple[str, str] | None:
    """(name, argument) of a command; None for a message. `//` begins a message with a slash."""
    match = _COMMAND.fullmatch(line)
    return (match[1], (match[2] or "").strip()) if match else None


def turns_of(n: int) -> str:
    return "1 turn" if n == 1 else f"{n} turns"


def find(name: str) -> Command:
    """Raises UsageError for a name that no command has."""
    name = CHAT_COMMANDS.get(name, name)
    if name in COMMANDS:
        return COMMANDS[name]
    if name in OTHER_CHAT_COMMANDS:
        raise UsageError(f"no command /{name}", OTHER_CHAT_COMMANDS[name])
    close = get_close_matches(name, COMMANDS, n=1)
    raise UsageError(
        f"no command /{name}",
        f"did you mean /{close[0]}?" if close else "/help lists them; // begins a message with a slash",
    )


def _help(chat: CommandHost, argument: str) -> None:
    width = max(len(command.usage) for command in COMMANDS.values())
    chat.say("\n".join(f"{command.usage:<{width}}  {command.help}" for command in COMMANDS.values()))
    chat.say("Enter sends, Alt-Enter begins a new line, Ctrl-X Ctrl-E opens the editor, Ctrl-D leaves.")


def _exit(chat: CommandHost, argument: str) -> None:
    raise EOFError


def _clear(chat: CommandHost, argument: str) -> None:
    chat.dialogue.clear()
    chat.say("a new conversation")


def _system(chat: CommandHost, argument: str) -> None:
    if argument:
        chat.dialogue.set_system(None if argument == "none" else argument)
    chat.say(f"system prompt: {chat.dialogue.conversation.system or 'none'}")


def _params(chat: CommandHost, argument: str) -> None:
    chat.say(settings_table(chat.settings))


def _set(chat: CommandHost, argument: str) -> None:
    name, _, value = argument.replace("=", " ", 1).partition(" ")
    name, value = name.strip().replace("-", "_"), value.strip()
    if not name or not value:
        raise UsageError("/set takes a name and a value", "e.g. /set temperature 0.7; /params lists them")
    if name == "max_tokens":
        n = check_between(_number(value, "number of tokens"), 1, MOST_TOKENS, "max_tokens")
        chat.dialogue.set_max_tokens(n)
    elif name == "think":
        chat.dialogue.set_think(_think_of(value))
    elif name == "reasoning_budget":
        chat.dialogue.set_reasoning_budget(_budget_of(value))
    elif name == "reasoning":
        chat.reasoning = _reasoning_of(value)
    elif name == "overflow":
        chat.dialogue.set_overflow(_overflow_of(value))
    else:
        chat.dialogue.set_sampling(parse_set([f"{name}={value}"]))
    chat.say(f"{name} = {value}")


def _reasoning_of(text: str) -> Reasoning:
    for view in REASONING_VIEWS:
        if view == text:
            return view
    raise UsageError(f"reasoning {text!r} is not show, hide or only")


def _think_of(text: str) -> bool | None:
    known = {"on": True, "off": False, "model": None}
    if text not in known:
        raise UsageError(f"think {text!r} is not on, off or model")
    return known[text]


def _budget_of(text: str) -> int | None:
    if text == "none":
        return None
    return check_between(_number(text, "number of tokens"), 0, MOST_TOKENS, "reasoning_budget")


def _overflow_of(text: str) -> OverflowPolicy:
    from infer_cli.prompt.fitting import policy_named

    policy = policy_named(text, OVERFLOW_POLICIES)
    if policy is None:
        raise UsageError(f"overflow {text!r} is not one of {', '.join(OVERFLOW_POLICIES)}")
    return policy


def _say_if_greedy(chat: CommandHost) -> None:
    """Why another seed changes nothing."""
    if chat.dialogue.reply_settings.sampling.greedy:
        chat.say("greedy: every seed gives the same reply; /set temperature 0.8 samples")


def _seed(chat: CommandHost, argument: str) -> None:
    if argument in ("new", "none"):
        chat.dialogue.set_seed(None)
    elif argument:
        chat.dialogue.set_seed(RunSeed(_seed_of(argument), "/seed"))
    seed = chat.dialogue.reply_settings.seed
    chat.say("each reply draws its own seed" if seed is None else f"seed {seed.value} for every reply")
    _say_if_greedy(chat)


def _seed_of(text: str) -> int:
    return check_seed(_number(text, "seed"), "seed")


def _number(text: str, what: str) -> int:
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise UsageError(f"{text!r} is no {what}", "it is a whole number")
    return int(text)


def _model(chat: CommandHost, argument: str) -> None:
    if argument:
        chat.dialogue.change_model(argument)
    chat.say(f"model: {chat.dialogue.model_name}")


def _regen(chat: CommandHost, argument: str) -> None:
    if argument == "same":
        chat.dialogue.ask_again(same=True)
    else:
        chat.dialogue.ask_again(seed=_seed_of(argument) if argument else None)
        _say_if_greedy(chat)


def _undo(chat: CommandHost, argument: str) -> None:
    message = chat.dialogue.undo()
    chat.say(f"undone: {_preview(message, 60)}")


def _edit(chat: CommandHost, argument: str) -> None:
    turns = chat.dialogue.conversation.turns
    if not turns:
        raise UsageError("there is no message yet")
    before = turns[-1].user
    text = argument or chat.edited(before)
    if not text.strip() or text == before:
        chat.say("the message is as it was")
        return
    chat.dialogue.replace_last(text)


def _continue(chat: CommandHost, argument: str) -> None:
    chat.dialogue.go_on()


def _branch(chat: CommandHost, argument: str) -> None:
    branches = chat.dialogue.conversation.branches
    if not argument:
        for name, n_turns in branches.sizes.items():
            chat.say(f"{'*' if name == branches.current else ' '} {name} ({turns_of(n_turns)})")
        return
    is_new = chat.dialogue.switch_branch(argument)
    chat.say(f"{'a new branch' if is_new else 'branch'}: {argument} ({turns_of(len(branches.turns))})")


def _list(chat: CommandHost, argument: str) -> None:
    found = chat.dialogue.ledger.recent(N_LISTED)
    ids = short_ids([thread.id for thread, *_ in found])
    now = datetime.now().astimezone()
    rows = []
    for (thread, last_at, n_turns, begins), short in zip(found, ids, strict=True):
        when = when_in_short(datetime.fromtimestamp(last_at).astimezone(), now)
        name = f"{thread.name}: " if thread.name is not None else ""
        here = "(this one) " if thread.id == chat.dialogue.ledger.thread_id else ""
        rows.append((short, when, turns_of(n_turns), f"{here}{name}{_preview(begins, 200)}"))
    columns = (
        Column("id"),
        Column("when", rank=1, right=True),
        Column("turns", rank=2),
        Column("conversation", is_text=True),
    )
    chat.say_table(columns, rows)
    if not found:
        chat.say("no conversation is kept")


def _load(chat: CommandHost, argument: str) -> None:
    if not argument:
        raise UsageError("/load takes the id or the name of a conversation", "/list shows them")
    chat.load_conversation(argument)


def _rename(chat: CommandHost, argument: str) -> None:
    if not argument:
        raise UsageError("/rename takes a name")
    chat.dialogue.ledger.rename(argument)
    chat.say(f"this conversation is {argument}")


def _read(chat: CommandHost, argument: str) -> None:
    chat.send("", *chat.files(argument))


def _attach(chat: CommandHost, argument: str) -> None:
    if argument == "none":
        chat.attached.clear()
    elif argument:
        chat.attached.extend([item for name in _file_names(argument) for item in chat.files(name)])
    chat.say_attached()


def _file_names(argument: str) -> list[str]:
    """Names of files with spaces between; one that has some is quoted, or stands alone."""
    if Path(argument).expanduser().exists():
        return [argument]
    lexer = shlex.shlex(argument, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    lexer.escape = "" if os.sep == "\\" else lexer.escape
    try:
        return list(lexer)
    except ValueError:
        raise UsageError(f"{argument}: a quote is not closed", "quote names that have spaces") from None


def _export(chat: CommandHost, argument: str) -> None:
    path = Path(argument).expanduser()
    if not argument or path.suffix not in (".md", ".json"):
        raise UsageError("/export takes a file that ends in .md or .json")
    conversation = chat.dialogue.conversation
    if not conversation.turns:
        raise UsageError("there is no turn yet")
    if path.suffix == ".json":
        # As `infer run --messages` reads it.
        messages = [{"role": m.role, "content": m.content} for m in conversation.messages()]
        text = json.dumps(messages, ensure_ascii=False, indent=1) + "\n"
    else:
        text = "\n".join(f"## {m.role.capitalize()}\n\n{m.text}\n" for m in conversation.messages())
    try:
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already", "choose another name") from None
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}") from None
    chat.say(f"wrote {path}")


def _context(chat: CommandHost, argument: str) -> None:
    conversation = chat.dialogue.conversation
    visible = conversation.visible
    summary = visible.summary
    if conversation.system:
        chat.say(f"system: {_preview(conversation.system, 60)}")
    if summary is not None:
        chat.say(f"summary: {_preview(summary.text, 60)}")
    for i, turn in enumerate(conversation.turns):
        n = "text of another model" if turn.ids is None else f"{len(turn.ids)} tokens sampled"
        if i in visible.gone:
            n = "dropped" if summary is None or i not in summary.turns else "summarized"
        elif i in visible.cuts:
            n = "cut"
        chat.say(f"{i + 1}  {_preview(turn.user, 60)}  ({n})")
    chat.say(f"{conversation.n_tokens} of {conversation.window} tokens are in use")


def _preview(text: str, n_chars: int) -> str:
    from infer_cli.text.graphemes import beginning

    return beginning(" ".join(text.split()), n_chars)


def _tokens(chat: CommandHost, argument: str) -> None:
    conversation = chat.dialogue.conversation
    vocab = conversation.codec.vocab
    if argument:
        ids = vocab.tokenize(argument.encode())
    else:
        last = conversation.turns[-1] if conversation.turns else None
        if last is None or last.ids is None:
            what = "there is no reply yet" if last is None else "another model wrote the last reply"
            raise UsageError(what, "/tokens TEXT counts the tokens of a text")
        ids = list(last.ids)
    pieces = " ".join(f"{i}:{vocab.token_text(i).decode('utf-8', 'replace')!r}" for i in ids)
    chat.say(f"{len(ids)} tokens: {pieces}")


def _stats(chat: CommandHost, argument: str) -> None:
    turns, totals = chat.dialogue.conversation.turns, chat.dialogue.totals
    if turns:
        reply = turns[-1].reply
        usage, timings = reply.usage, reply.timings
        chat.say(
            f"last reply: {usage.prompt_tokens - usage.cached_tokens} prompt tokens evaluated,"
            f" {usage.cached_tokens} reused, {usage.completion_tokens} sampled, {timings.total_s:.2f} s,"
            f" {reply.finish_reason}, {reply.digest}"
        )
    replies = "1 reply" if totals.n_replies == 1 else f"{totals.n_replies} replies"
    chat.say(
        f"so far: {replies}, {totals.n_evaluated} tokens evaluated, {totals.n_reused} reused,"
        f" {totals.n_sampled} sampled"
    )


def _copy(chat: CommandHost, argument: str) -> None:
    turns = chat.dialogue.conversation.turns
    if not turns:
        raise UsageError("there is no reply yet")
    chat.copy(turns[-1].text)


COMMANDS: dict[str, Command] = {
    "help": Command("/help", "These commands.", _help),
    "exit": Command("/exit", "Leave.", _exit),
    "clear": Command("/clear", "Begin anew; the system prompt stays.", _clear),
    "system": Command("/system [TEXT|none]", "Show or change the system prompt.", _system),
    "params": Command("/params", "The parameters and where each came from.", _params),
    "set": Command("/set NAME VALUE", "Change one, also max_tokens, think, reasoning_budget, …", _set),
    "seed": Command("/seed [N|new]", "One seed for all replies, or a new one for each.", _seed),
    "model": Command("/model [NAME]", "Go on with another model.", _model),
    "regen": Command("/regen [same|SEED]", "Another reply: new seed, the same, or this one.", _regen),
    "undo": Command("/undo", "Take the last turn back.", _undo),
    "edit": Command("/edit [TEXT]", "Change the last message, in the editor without TEXT.", _edit),
    "continue": Command("/continue", "Let a cut reply go on.", _continue),
    "branch": Command("/branch [NAME]", "List branches, go to one or begin one here.", _branch),
    "list": Command("/list", "The last conversations.", _list),
    "load": Command("/load ID|NAME", "Go on with another conversation.", _load),
    "rename": Command("/rename NAME", "Name this conversation.", _rename),
    "read": Command("/read FILE", "Send a file as a message.", _read),
    "attach": Command("/attach [FILE…|none]", "Put files before the next message.", _attach),
    "export": Command("/export FILE", "Write the conversation as .md or .json.", _export),
    "context": Command("/context", "What is in the window, and what was dropped.", _context),
    "tokens": Command("/tokens [TEXT]", "Tokens of a text, or of the last reply.", _tokens),
    "stats": Command("/stats", "Counts and times.", _stats),
    "copy": Command("/copy", "The last reply to the clipboard (OSC 52).", _copy),
}
