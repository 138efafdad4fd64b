"""What `infer chat` does in its worker process: the loop of a talk."""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.answering.job import Job
from infer_cli.answering.oneshot import OneShot
from infer_cli.answering.reply import failure_of
from infer_cli.cli.chat import commands as chat_commands
from infer_cli.cli.chat import resumed
from infer_cli.cli.chat.line import EditorLine, LineSource, PlainLines, edit_text
from infer_cli.cli.chat.options import ChatOptions, check
from infer_cli.cli.flags.shared import PRIVATE_HINT
from infer_cli.cli.screen.keyboard import keys_for_another, keys_wait
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import StatusSink, wait_for
from infer_cli.conversation import continuing
from infer_cli.conversation.dialogue import ConversationModel, open_for_conversation
from infer_cli.conversation.ledger import Ledger
from infer_cli.conversation.turns import Conversation, Plan
from infer_cli.errors import ExitStatus, InferError, UsageError
from infer_cli.models.installed import FAKE
from infer_cli.process.explain import explained
from infer_cli.process.report import report
from infer_cli.process.stream_filter import styled, write_sequence
from infer_cli.process.worker import SAME_PRESS_S, on_interrupt
from infer_cli.prompt.attachments import Attachment, are_several, message_text
from infer_cli.prompt.messages import decode_input
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.prompt.template import template_variables
from infer_cli.prompt.trusted_templates import begin_for
from infer_cli.records.thread import Told
from infer_cli.runtime.session import Session
from infer_cli.settings.defaults import MIN_PREFIX
from infer_cli.settings.origins import Given, Setting
from infer_cli.settings.sampling import effective_params, resolve_sampling
from infer_cli.settings.seeds import draw_seed
from infer_cli.sinks.silent import SilentSink
from infer_cli.system.files import read_file
from infer_cli.system.ids import new_id
from infer_cli.text.sanitize import single_line
from infer_cli.types import Reply, SamplingParams

if TYPE_CHECKING:
    from infer_cli.answering.sink import Sink
    from infer_cli.backend.base import Vocab
    from infer_cli.conversation.continuing import Continued, NewTurn
    from infer_cli.models.installed import InstalledModel
    from infer_cli.prefix_cache.cache import PrefixCache
    from infer_cli.process.worker import Worker
    from infer_cli.prompt.encode import EncodedPrompt
    from infer_cli.records.record import Record

SESSION = "chat"
N_SHOWN_TURNS = 2  # of a conversation that goes on


def talk(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """Talk until the input ends, by a command line given as (value, origin) by name; returns the exit code.

    Raises InferError.
    """
    options = check({name: Given(*value) for name, value in values.items()})
    notices = Notices(quiet=options.quiet, stats=options.stats)
    try:
        keys = keys_wait() if _has_editor_line() else contextlib.nullcontext()
        with explained(worker), closed_at_end(), keys:
            return Chat(options, worker, notices).run()
    finally:
        notices.clear()


class Chat:
    """A talk with its model. Public names are what the commands use."""

    def __init__(self, options: ChatOptions, worker: Worker, notices: Notices) -> None:
        continued = None
        if options.continues or options.resume is not None:
            continued = resumed.conversation(options.resume, notices.warn)
            options = resumed.as_before(options, continued)
        self._options, self._worker, self._notices = options, worker, notices
        self._typed = sys.stdin is not None and sys.stdin.isatty()
        self._on_terminal = sys.stdout.isatty()
        self._smart = _is_smart()
        self._given = dict(options.sampling)
        self._shot: OneShot | None = None
        self._stopped = False  # Ctrl-C ended the reply
        self._leaving = False  # SIGTERM or SIGHUP came
        self.seed = options.seed
        self._own = {setting.name: setting for setting in options.settings}
        self.reasoning = options.reasoning or ("show" if self._on_terminal else "hide")
        self.attached = [self.file(name) for name in options.files]
        self._n_late = 0  # replies that the deadline ended
        self.n_replies = self.n_evaluated = self.n_reused = self.n_sampled = 0
        self._summaries: dict[tuple[int, ...], str] = {}  # by the ids that ask for them
        model = self._in_use = self._load(options.model)
        self._sampling, self._sampling_settings = self._resolved(self._given, model.session)
        variables = template_variables(options.variables)
        self.talk = Conversation(
            model.template,
            model.vocab,
            model.window,
            model.chunk,
            options.system,
            variables,
            options.overflow,
            options.deadline_s,
        )
        self.ledger = Ledger(notices.warn, off=options.no_record)
        if options.private and not options.no_record:
            notices.note("private: the records hold hashes only, so they can't be replayed or continued")
        self._caches = not (options.no_cache or options.no_record or options.private)
        self._prefixes: PrefixCache | None = None
        if continued is not None:
            self._take_up(continued)
            if self._caches:
                self._prefixes = self._cache()
                self._prefixes.restore_talk(self.talk.evaluated)
            if self._typed:
                self._show_last()
        if self._typed and self.attached:
            self.say_attached()

    # --- the model -----------------------------------------------------------------------------

    def _load(self, name: str | None) -> ConversationModel:
        options = self._options
        model = find_model(name, offline=options.offline, quiet=options.quiet)
        session = Session(model, options.engine, 1, self._worker.native_fd)
        begin_for(None if options.chat_template else session.own_template)
        wait_for(session, self._notices)
        self._notices.clear()
        return open_for_conversation(session, options.engine.ctx, options.chat_template)

    @property
    def _model(self) -> InstalledModel:
        return self._in_use.session.model

    @property
    def vocab(self) -> Vocab:
        return self._in_use.vocab

    @property
    def name(self) -> str:
        return Path(self._model.name).name if self._model.is_fake else self._model.name

    def switch_model(self, name: str) -> None:
        """Load another model and go on with the same talk; the old one stays where that fails."""
        new = self._load(name)
        sampling = self._resolved(self._given, new.session)
        old, self._in_use = self._in_use, new
        old.close()
        self._sampling, self._sampling_settings = sampling
        self._summaries.clear()
        self.talk.switch(new.template, new.vocab, new.window, new.chunk)
        self._prefixes = None

    def _cache(self) -> PrefixCache:
        from infer_cli.prefix_cache.cache import PrefixCache
        from infer_cli.prefix_cache.store import PrefixStore

        store = PrefixStore(most_bytes=self._options.cache_bytes)
        sha256 = FAKE if self._model.is_fake else self._in_use.session.sha256()
        return PrefixCache(self._in_use.running, store, self.name, sha256, self._notices.detail)

    def _restore(self, ids: tuple[int, ...]) -> None:
        """Begin a talk with what another command has kept of its first message's files."""
        # Else the model's file would have to be read whole first.
        if self._model.is_fake or self._model.sha256 is not None:
            self._prefixes = self._prefixes or self._cache()
            self._prefixes.restore(ids)

    def load_conversation(self, name: str) -> None:
        """Go on with another conversation, and with the model that it had."""
        if self._options.private:
            raise UsageError("this talk is private", PRIVATE_HINT)
        continued = resumed.conversation(name, self._notices.warn)
        if not continuing.is_by(continued.last, self._model):
            self.switch_model(continuing.model_of(continued.last))
        self.talk.system = continued.system
        self._take_up(continued)
        self._show_last()

    def _take_up(self, continued: Continued) -> None:
        continuing.restore(self.talk, continued, lambda record: continuing.is_by(record, self._model))
        self.ledger.go_on(continued.thread)
        last = continued.last
        is_own = continuing.is_by(last, self._model)
        if is_own and last.template_sha256 != self._in_use.template.sha256:
            self._notices.warn("the chat template is not the one that this conversation had")

    def _show_last(self) -> None:
        name = f" {self.ledger.name}" if self.ledger.name is not None else ""
        turns = chat_commands.turns_of(len(self.talk.turns))
        self.say(f"conversation {self.ledger.thread_id}{name}: {turns}")
        for turn in self.talk.turns[-N_SHOWN_TURNS:]:
            self.say(f"> {turn.user}\n{turn.text}")

    def _resolved(self, given: Mapping[str, Given], session: Session) -> tuple[SamplingParams, list[Setting]]:
        """What the user said about sampling, merged with what the model recommends. Raises UsageError."""
        sampling, settings = resolve_sampling(given, *session.recommended, default_temperature="model")
        if sampling.greedy and self._options.seed is not None and self._options.seed.by_flag:
            raise UsageError("--seed has no meaning without sampling: the reply is greedy", "leave out -t 0")
        return sampling, settings

    def set_sampling(self, given: Mapping[str, Given]) -> None:
        """Change sampling parameters from the next reply on. Raises UsageError and changes nothing."""
        changed = {**self._given, **given}
        self._sampling, self._sampling_settings = self._resolved(changed, self._in_use.session)
        self._given = changed

    @property
    def max_tokens(self) -> int:
        return int(str(self._own["max_tokens"].value))

    @max_tokens.setter
    def max_tokens(self, n: int) -> None:
        self._own["max_tokens"] = Setting("max_tokens", n, "/set")

    @property
    def settings(self) -> list[Setting]:
        seed = "drawn for each reply" if self.seed is None else self.seed.value
        shown = [
            Setting("window", self.talk.window, "in use"),
            Setting("reasoning", self.reasoning, "in use"),
            Setting("seed", "none: greedy" if self._sampling.greedy else seed, "in use"),
        ]
        return [*self._own.values(), *self._sampling_settings, *shown]

    # --- the loop ------------------------------------------------------------------------------

    def run(self) -> int:
        on_interrupt(self._interrupted)
        lines = self._lines()
        while not self._leaving:
            try:
                text = lines.read()
                if text.strip():
                    self._take(text)
            except EOFError:
                break
            except KeyboardInterrupt:
                self._carry_on()
            except InferError as e:
                if not self._typed:
                    raise
                self._notices.clear()
                report(e, sys.stderr, self._worker.log_tail() if e.native else ())
        if self._leaving:
            return ExitStatus.INTERRUPTED
        if self.attached and not self._typed:
            self._notices.warn(f"no message came after {self.attached_names}: not sent")
        if self._caches and self.n_replies and self.talk.n_tokens >= MIN_PREFIX:
            (self._prefixes or self._cache()).keep_talk(self.talk.evaluated)
        return ExitStatus.DEADLINE if self._n_late and not self._typed else ExitStatus.OK

    def _lines(self) -> LineSource:
        if not _has_editor_line():
            return PlainLines("> " if self._typed else "")
        return EditorLine(
            vi=self._options.keys == "vi",
            private=self._options.private,
            toolbar=self._toolbar,
            complete=chat_commands.completions,
        )

    def _take(self, line: str) -> None:
        command = chat_commands.parse(line)
        if command is not None:
            name, argument = command
            chat_commands.find(name).run(self, argument)
        else:
            self.send(line[1:] if line.startswith("//") else line)

    def _interrupted(self, signal_name: str) -> None:
        # From a pipe the next line would be answered at once: Ctrl-C means all of them.
        self._leaving = self._leaving or signal_name != "SIGINT" or not self._typed
        if self._shot is None:
            raise KeyboardInterrupt(signal_name)
        self._stopped = True
        self._shot.cancel()

    def _carry_on(self) -> None:
        """Tell the supervisor that an interrupt is over, once it has surely seen it itself."""
        timer = threading.Timer(2 * SAME_PRESS_S, self._worker.carry_on)
        timer.daemon = True
        timer.start()

    # --- replies -------------------------------------------------------------------------------

    def send(self, text: str, *files: Attachment) -> None:
        """A message of the attached files, these files and a text, and its reply."""
        attachments = [*self.attached, *files]
        message = message_text(attachments, text, tagged=are_several(attachments, text))
        if self._answer_to(message):
            self.attached.clear()

    def regenerate(self, *, same: bool = False, seed: int | None = None) -> None:
        """Another reply to the last message; `same`: with the seed that it had."""
        if not self.talk.turns:
            raise UsageError("there is no reply yet")
        turn = self.talk.turns[-1]
        if same:
            seed = turn.replies[0].seed
        self._instead(turn.user, Given(draw_seed() if seed is None else seed, "/regen"))

    def replace_last(self, text: str) -> None:
        """Another last message."""
        self._instead(text, None)

    def _instead(self, text: str, seed: Given | None) -> None:
        before = self.talk.undo()  # in the talk alone: what is kept moves with the reply
        done = False
        try:
            done = self._answer_to(text, seed)
        finally:
            if not done:
                self.talk.turns.append(before)

    def go_on(self) -> None:
        """Let the last reply go on."""
        self._reply(self.talk.plan_more())

    def _answer_to(self, message: str, seed: Given | None = None) -> bool:
        """Compute and show a reply to a message; whether both became part of the talk."""
        try:
            return self._reply(self._plan(message), seed)
        except KeyboardInterrupt:  # while the prompt was made, a summary included
            self.say("stopped: the message was not taken")
            raise

    def _plan(self, message: str) -> Plan:
        return self.talk.plan(message, self.max_tokens, self._summary)

    def _summary(self, prompt: EncodedPrompt, max_tokens: int) -> str:
        """A summary by the model, greedy. Raises KeyboardInterrupt where it is stopped."""
        if prompt.ids in self._summaries:
            return self._summaries[prompt.ids]
        greedy = SamplingParams()
        job = Job(
            id=new_id(),
            prompt_ids=prompt.ids,
            sampling=greedy,
            params=effective_params(greedy, max_tokens, ()),
            max_tokens=max_tokens,
            run_seed=None,
            reasoning_pairs=self.talk.pairs,
            open_reasoning=prompt.open_reasoning,
            tag_tokens=self.talk.tag_tokens,
        )
        self._notices.status("summarizing the oldest turns")
        with self._answered(job, SilentSink()) as reply:
            if self._stopped:
                raise KeyboardInterrupt
        text = self._summaries[prompt.ids] = reply.text or ""
        return text

    def _reply(self, plan: Plan, seed: Given | None = None) -> bool:
        """Compute and show a reply; whether it became part of the talk."""
        if plan.truncation is not None:
            self._notices.warn(plan.truncation.told())
        seed_used = self._seed_setting(seed)
        if self._caches and not self.n_replies and not plan.past and len(plan.prompt_ids) >= MIN_PREFIX:
            self._restore(plan.prompt_ids)  # later on, the engine itself holds more
        with self._answered(self._job(plan, seed_used), StatusSink(self._sink(), self._notices)) as reply:
            return self._take_in(plan, reply, seed_used)

    @contextlib.contextmanager
    def _answered(self, job: Job, sink: Sink) -> Iterator[Reply]:
        """The reply to a job, counted. Ctrl-C ends it, and does nothing more until it is dealt with."""
        shot = OneShot(job, self._in_use.running, self.vocab, sink)
        self._stopped = False
        self._shot = shot
        try:
            try:
                (reply,) = shot.run()
            finally:
                sink.close()
                self._notices.clear()
            if reply.error is not None:
                raise failure_of(reply, self.name)
            self._count(reply)
            yield reply
        finally:
            self._shot = None
            if self._stopped:
                self._carry_on()

    def _take_in(self, plan: Plan, reply: Reply, seed: Sequence[Setting]) -> bool:
        """Make a reply part of the talk and of the records; whether it has become so."""
        self.n_replies += 1
        is_late = reply.finish_reason == "deadline"
        self._n_late += is_late
        if not reply.tokens:
            if is_late:
                self._notices.warn("the deadline came while the prompt was read: the message was not taken")
            else:
                self.say("stopped while reading the prompt: the message was not taken")
            return False
        turn = continuing.new_turn(self.talk, plan, self.ledger.thread_id)
        self.talk.add(plan, reply, self._options.stop)
        self._line_after(reply)
        if is_late:
            more = ": /continue lets it go on" if self._typed else ""
            self._notices.warn(f"the deadline ended the reply after {len(reply.tokens)} tokens{more}")
        settings = [*self._own.values(), *self._sampling_settings, *seed]
        self.ledger.keep(lambda: self._record(reply, turn, settings), self.talk)
        return True

    def _seed_setting(self, given: Given | None) -> list[Setting]:
        """The next reply's seed: this one, that of all replies, or a drawn one; none where it is greedy."""
        if self._sampling.greedy:
            return []
        return [Setting("seed", *(given or self.seed or Given(draw_seed(), "drawn")))]

    def _record(self, reply: Reply, turn: NewTurn, settings: list[Setting]) -> Record:
        return continuing.record_of_turn(
            reply,
            turn,
            model_path=None if self._model.is_fake else self._model.path,
            template_sha256=self._in_use.template.sha256,
            settings=settings,
            width=self._in_use.running.policy.width,
            loras=self._options.engine.loras,
            private=self._options.private,
        )

    def _job(self, plan: Plan, seed: Sequence[Setting]) -> Job:
        return Job(
            id=new_id(),
            prompt_ids=plan.prompt_ids,
            sampling=self._sampling,
            params=effective_params(self._sampling, self.max_tokens, self._options.stop),
            max_tokens=self.max_tokens,
            run_seed=int(str(seed[0].value)) if seed else None,
            stop=self._options.stop,
            deadline_s=self._options.deadline_s,
            reasoning_pairs=() if plan.continues else self.talk.pairs,
            open_reasoning=plan.open_reasoning,
            tag_tokens=self.talk.tag_tokens,
            history=plan.past,
            session=SESSION,
            truncation=plan.report,
        )

    def _sink(self) -> Sink:
        if (self._options.markdown or self._smart) and not self._options.plain:
            from infer_cli.sinks.markdown import MarkdownSink

            return MarkdownSink(styled(sys.stdout), reasoning=self.reasoning, n_samples=1)
        from infer_cli.sinks.plain import PlainSink

        return PlainSink(
            sys.stdout.buffer, raw=False, sanitize=self._on_terminal, reasoning=self.reasoning, n_samples=1
        )

    def _count(self, reply: Reply) -> None:
        usage = reply.usage
        self.n_evaluated += usage.prompt_tokens - usage.cached_tokens + max(len(reply.tokens) - 1, 0)
        self.n_reused += usage.cached_tokens
        self.n_sampled += usage.completion_tokens

    def moved(self) -> None:
        """Keep where the talk stands, and what it was told, after something changed without a new reply."""
        turns, model = self.talk.turns, None
        if turns and turns[-1].ids is None:  # another one gave the last answer
            own = self._model
            model = own.name if own.is_fake else continuing.handle(own.name, own.path)
        settings = (*self._own.values(), *self._sampling_settings, *self._seed_setting(None))
        self.ledger.move(self.talk, Told(model, self.talk.system, settings))

    # --- what is shown -------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """What a command answers: beside the replies, on stderr."""
        self._notices.clear()
        for line in text.splitlines():
            print(single_line(line), file=sys.stderr)

    def _line_after(self, reply: Reply) -> None:
        timings = reply.timings
        parts = [self.name, f"{self.talk.n_tokens}/{self.talk.window} tokens"]
        if timings.ttft_s is not None:
            parts.append(f"TTFT {timings.ttft_s:.2f} s")
        if timings.decode_tps is not None:
            parts.append(f"{timings.decode_tps:.1f} tok/s")
        if reply.seed is not None:
            parts.append(f"seed {reply.seed}")
        if reply.finish_reason != "stop":
            parts.append("stopped" if self._stopped else reply.finish_reason)
        line = single_line(" · ".join(parts))
        self._notices.note(line, dim=self._smart)
        if reply.finish_reason == "length":
            self._notices.note("the token limit ended the reply: /continue lets it go on", dim=self._smart)

    def _toolbar(self) -> str:
        parts = [f"{self.talk.n_tokens}/{self.talk.window}", self.name]  # a narrow terminal cuts the end off
        if self.attached:
            parts.append(f"{len(self.attached)} attached")
        if self._sampling.greedy:
            parts.append("greedy")
        else:
            parts.append(f"t {self._sampling.temperature:g}")
            if self.seed is not None:
                parts.append(f"seed {self.seed.value}")
        if len(self.talk.branches) > 1:
            parts.append(self.talk.branch)
        return single_line(" · ".join(parts))

    def edited(self, text: str) -> str:
        """What the user's editor makes of a text. Raises UsageError where there is none."""
        if not self._typed:
            raise UsageError(
                "there is no terminal for an editor", "/edit TEXT changes the message without one"
            )
        with keys_for_another() if _has_editor_line() else contextlib.nullcontext():
            return edit_text(text)

    def copy(self, text: str) -> None:
        """Text to the clipboard of the terminal's own machine (OSC 52)."""
        if not self._smart:
            raise UsageError("there is no terminal to copy to")
        code = base64.b64encode(text.encode("utf-8", "replace")).decode()
        write_sequence(sys.stdout, f"\x1b]52;c;{code}\x07")
        sys.stdout.flush()
        self.say(f"copied {len(text)} characters")

    @property
    def attached_names(self) -> str:
        return ", ".join(item.name for item in self.attached)

    def say_attached(self) -> None:
        self.say(
            f"goes before the next message: {self.attached_names}" if self.attached else "nothing is attached"
        )

    def file(self, name: str) -> Attachment:
        """A text file. Raises UsageError where it can't be read."""
        if not name:
            raise UsageError("which file?", "give its name after the command")
        return Attachment(name, decode_input(read_file(Path(name).expanduser(), name), name))


def _is_smart() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _has_editor_line() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and _is_smart()
