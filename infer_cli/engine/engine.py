"""Turns requests into tokens: one `step` at a time, single-threaded, no I/O, the clock passed in.

Read `Engine.step` first: expire, admit, begin, close holes, plan, prefill, decode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from infer_cli.backend.base import Backend, DecodeStatus
from infer_cli.engine import history
from infer_cli.engine.active_request import ActiveRequest
from infer_cli.engine.admission import why_not
from infer_cli.engine.drafting import PromptLookup, StepCosts, draft_length
from infer_cli.engine.logprobs import token_logprobs
from infer_cli.engine.policy import Policy
from infer_cli.engine.scheduler import DecodeCall, PrefillPart, Scheduler, Sequence, Span, prompt_span
from infer_cli.errors import ExitStatus, InferError
from infer_cli.text.stream import StopMatcher
from infer_cli.types import (
    EngineRequest,
    Event,
    Finished,
    FinishReason,
    Prefilled,
    Segment,
    Timings,
    Token,
    Usage,
)

if TYPE_CHECKING:
    from infer_cli.backend.base import Buffer, Floats, Ints

DUMMY_TOKEN = 0
MIN_COPIED = 16  # tokens; 1/128 of the window where a copy moves a whole slot's memory, as much as they cost

T = TypeVar("T")


class Engine:
    """Continuous batching over one backend. Every submitted request gets exactly one `Finished`.

    A prompt begins with what its slot or another one holds already, as far as that was evaluated in the
    shapes that the policy wants: neighbours with the same beginning compute it once.

    `window` is the most tokens that a prompt and its reply may fill: the backend may round its own up.
    `load_s` is the time the model took to load, in seconds: it only passes into each reply's timings.
    """

    def __init__(
        self,
        backend: Backend,
        policy: Policy,
        clock: Callable[[], float],
        window: int,
        load_s: float = 0.0,
    ) -> None:
        self._backend = backend
        self._window = min(window, backend.n_ctx_seq)
        self._policy = policy
        self._clock = clock
        self._load_s = load_s
        self._scheduler: Scheduler[ActiveRequest] = Scheduler(
            policy.width,
            policy.chunk,
            policy.fixed_width,
            policy.min_rows,
            fill_holes=policy.fill_holes and not policy.kv_unified,
            joins_prompts=policy.kv_unified,
        )
        self._sequences: dict[str, Sequence[ActiveRequest]] = {}
        self._refused: dict[str, Finished] = {}  # requests that can't run, until the next step says so
        # What the slots hold that no begun sequence advances: replies that have ended.
        self._residents: dict[int, tuple[Segment, ...]] = {}
        self._min_copied = MIN_COPIED if policy.kv_unified else max(MIN_COPIED, backend.n_ctx_seq // 128)
        self._cancelled: set[str] = set()
        self._costs = StepCosts()
        self.n_decode_rows = 0  # of all decode calls that succeeded, dummies too
        self.n_dummy_rows = 0
        self._acceptance = 0.5  # share of guesses that were right in the reply that ended last

    @property
    def idle(self) -> bool:
        return not self._sequences and not self._refused

    @property
    def prefilling(self) -> bool:
        """Whether a prompt is still to be evaluated: the next step may be long."""
        return self._scheduler.prefilling

    def submit(self, request: EngineRequest, submitted: float) -> None:
        """Queue a request that came at clock time `submitted`. One that can't run ends with the next step,
        alone, with reason "error".

        Raises ValueError where its id is in use: its end could not be told from the other's.
        """
        if request.id in self._sequences or request.id in self._refused:
            raise ValueError(f"request id {request.id!r} is in use")
        wanted = history.normalized((*request.history, Segment("prompt", request.prompt_ids)))
        error = why_not(request, wanted, self._window, self._backend.vocab.n_tokens)
        if error is None and self._is_in_use(request.session):
            error = f"session {request.session!r} is in use"
        if error is not None:
            self._refused[request.id] = self._refusal(request, history.length(wanted), submitted, error)
            return
        ids = history.flat(wanted)
        active = ActiveRequest(request, wanted, ids, submitted, StopMatcher(request.stop))
        sequence = Sequence(active, self._spans(wanted), request.session)
        self._sequences[request.id] = sequence
        self._scheduler.submit(sequence)

    def _is_in_use(self, session: str | None) -> bool:
        return session is not None and any(session == seq.session for seq in self._sequences.values())

    def _refusal(self, request: EngineRequest, n_prompt: int, submitted: float, error: str) -> Finished:
        """The end of a request that never took part."""
        waited = self._clock() - submitted
        return Finished(
            request.id,
            "error",
            b"",
            (),
            b"",
            None if request.n_logprobs is None else (),
            Usage(n_prompt, 0, 0),
            Timings(
                self._load_s, queue_s=waited, ttft_s=None, total_s=waited, prefill_tps=None, decode_tps=None
            ),
            error,
        )

    def _spans(self, wanted: tuple[Segment, ...]) -> tuple[Span, ...]:
        if not self._policy.fixed_width:  # no shape to keep: all of it in large chunks
            return prompt_span(history.length(wanted))
        spans: list[Span] = []
        for segment in wanted:
            start = spans[-1].end if spans else 0
            spans.append(Span(start, start + len(segment.ids), segment.kind == "decoded"))
        return tuple(spans)

    def cancel(self, request_id: str) -> None:
        """End a request at the next step. Unknown ids are ignored: the reply may just have ended."""
        if request_id in self._sequences:
            self._cancelled.add(request_id)

    def step(self) -> list[Event]:
        """Advance everything by one prefill chunk and one token each."""
        events: list[Event] = [*self._refused.values()]
        self._refused.clear()
        events += self._end_expired()
        events += self._admit()
        self._begin()
        self._close_holes()
        plan = self._scheduler.plan()
        if plan.prefill:
            events += self._prefill(plan.prefill)
        if plan.decode is not None:
            events += self._decode(plan.decode)
        return events

    # --- states that outlive the process ---------------------------------------------------------

    def adopt(self, segments: tuple[Segment, ...], data: Buffer) -> bool:
        """Let an idle slot hold a saved evaluation, for the next prompts that begin with it.

        False where no slot is idle, or `data` is no state of such a context.
        """
        kept = self._scheduler.kept.values()
        idle = [i for i, seq in enumerate(self._scheduler.slots) if seq is None and i not in kept]
        if not idle or not self._policy.fill_holes:
            return False
        slot = min(idle, key=self._length)
        self._residents.pop(slot, None)
        if not self._backend.state_load(slot, data, history.length(segments)):
            return False
        self._residents[slot] = history.normalized(segments)
        return True

    def snapshot(self, segments: tuple[Segment, ...]) -> bytearray | None:
        """The state after `segments`, of an idle slot that has evaluated them just so; None where none has.

        What the slot held beyond them is forgotten; where a state is only saved alone, other idle slots' too.
        """
        if not self._policy.fill_holes:
            return None
        wanted = history.normalized(segments)
        chunk = self._policy.chunk if self._policy.fixed_width else None
        for slot, held in self._residents.items():
            if history.begins_with(held, wanted, chunk):
                n = history.length(wanted)
                if not self._backend.seq_rm(slot, n):
                    return None
                if self._backend.saves_alone:
                    for other in self._residents.keys() - {slot}:
                        self._backend.seq_rm(other, 0)
                    self._residents.clear()
                self._residents[slot] = history.first(held, n)
                return self._backend.state_save(slot) or None
        return None

    # --- the parts of a step -------------------------------------------------------------------

    def _end_expired(self) -> list[Event]:
        now = self._clock()
        events: list[Event] = []
        for request_id in list(self._sequences):
            seq = self._sequences[request_id]
            if request_id in self._cancelled:
                events.append(self._finish(seq, "cancelled"))
            elif seq.owner.expired(now):
                events.append(self._finish(seq, "deadline"))
        self._cancelled.clear()
        return events

    def _admit(self) -> list[Event]:
        now = self._clock()
        events: list[Event] = []
        for seq in self._scheduler.admit():
            active = seq.owner
            active.admitted = now
            params = active.request.sampling
            if not params.greedy or params.penalized:
                try:
                    active.sampler = self._backend.new_sampler(params, active.request.seed or 0)
                except (InferError, ValueError) as e:  # this request's alone
                    events.append(self._finish(seq, "error", str(e)))
                    continue
                if params.penalized:
                    for token in active.ids:
                        active.sampler.accept(token)
            if self._policy.speculates:
                active.lookup = PromptLookup(active.ids, self._acceptance)
        return events

    def _begin(self) -> None:
        """Let the prompts whose turn has come begin with what is in memory by now."""
        joined: list[Sequence[ActiveRequest]] = []  # the prompts of the coming call
        room = self._policy.chunk
        for seq in self._scheduler.prompts():
            if joined and (not self._policy.kv_unified or room <= 0):
                break
            if not seq.begun:
                n_held, source = self._in_memory(seq)
                if joined and self._waits_for(joined, seq, n_held):
                    break
                seq.n_past = seq.owner.n_cached = self._reuse(seq, n_held, source)
                seq.begun = True
                if seq.decodes:
                    continue
            joined.append(seq)
            room -= seq.span.end - seq.n_past

    def _close_holes(self) -> None:
        """Towards the end of a job, let the replies that are left move together: each free slot below one of
        them costs a dummy row a step."""
        if self._policy.fixed_width or self._policy.kv_unified or not self._policy.fill_holes:
            return
        while (found := self._scheduler.hole()) is not None:
            slot, seq = found
            n_left = seq.owner.request.max_tokens - len(seq.owner.tokens)
            if n_left < self._min_copied:
                return
            self._backend.seq_cp(seq.slot, slot)
            self._backend.seq_rm(seq.slot, 0)
            self._residents.pop(slot, None)
            self._scheduler.move(seq, slot)

    def _waits_for(
        self, joined: list[Sequence[ActiveRequest]], seq: Sequence[ActiveRequest], n_held: int
    ) -> bool:
        """Whether prompts that are about to be evaluated begin as this one does, beyond the `n_held` tokens
        that are in memory."""
        n_common = max(history.reusable(other.owner.wanted, seq.owner.wanted, None) for other in joined)
        return n_common >= n_held + self._min_copied

    def _in_memory(self, seq: Sequence[ActiveRequest]) -> tuple[int, int]:
        """The most tokens that begin this request and are in memory, and the slot that holds them."""
        chunk = self._policy.chunk if self._policy.fixed_width else None
        wanted = seq.owner.wanted
        best, source = history.reusable(self._residents.get(seq.slot, ()), wanted, chunk), seq.slot
        if self._policy.fill_holes:  # else a state that can't be cut
            for slot in range(self._policy.width):
                n = 0 if slot == seq.slot else history.reusable(self._held(slot), wanted, chunk)
                if n >= best + self._min_copied:
                    best, source = n, slot
        return best, source

    def _reuse(self, seq: Sequence[ActiveRequest], best: int, source: int) -> int:
        """Put into the slot what `_in_memory` has found; how many tokens that is."""
        self._residents.pop(seq.slot, None)
        if source != seq.slot:
            self._backend.seq_cp(source, seq.slot)
        if best and self._backend.seq_rm(seq.slot, best):
            return best
        self._backend.seq_rm(seq.slot, 0)
        return 0

    def _prefill(self, parts: tuple[PrefillPart[ActiveRequest], ...]) -> list[Event]:
        tokens: list[int] = []
        positions: list[int] = []
        seqs: list[int] = []
        outputs: list[bool] = []
        for part in parts:
            n = part.end - part.start
            n_outputs = min(self._policy.min_rows, n) if part.is_last else 0
            tokens += part.seq.owner.ids[part.start : part.end]
            positions += range(part.start, part.end)
            seqs += [part.seq.slot] * n
            outputs += [False] * (n - n_outputs) + [True] * n_outputs
        n_dummies = max(0, self._policy.min_rows - len(tokens))
        if n_dummies:  # beside a lone prompt: where prompts are joined, one row is enough
            (part,) = parts
            slots, lengths = self._dummies_beside(part.seq.slot, n_dummies)
            above = slots[0] > part.seq.slot
            tokens = _joined(tokens, [DUMMY_TOKEN] * n_dummies, above)
            positions, seqs = _joined(positions, lengths, above), _joined(seqs, slots, above)
            outputs = _joined(outputs, [part.is_last] * n_dummies, above)
        status = self._backend.decode(tokens, positions, seqs, outputs)
        if status is not DecodeStatus.OK:
            return self._recover([part.seq for part in parts], status)
        for part in parts:
            part.seq.n_past = part.end
        if n_dummies:
            self._forget_unplanned()
        events: list[Event] = []
        for part in parts:
            seq, slot = part.seq, part.seq.slot
            events.append(Prefilled(seq.owner.request.id, seq.n_past, seq.n_prompt))
            if part.is_last:
                last = max(row for row, other in enumerate(seqs) if other == slot)
                row = sum(outputs[: last + 1]) - 1
                logits = self._backend.logits(sum(outputs))
                events += self._commit(seq, row, int(logits[row].argmax()), logits)
        return events

    def _dummies_beside(self, slot: int, n: int) -> tuple[list[int], list[int]]:
        """Slots, in ascending order, for dummy rows to a too short prompt, and what their sequences hold."""
        above = slot + 1 < self._policy.n_seq_max
        slots = [slot + 1 + i if above else slot - n + i for i in range(n)]
        return slots, [self._length(other) for other in slots]

    def _decode(self, call: DecodeCall[ActiveRequest]) -> list[Event]:
        if self._policy.speculates and (n_drafted := self._draft_length(call.live)):
            return self._decode_ahead(call.live, n_drafted)
        n = len(call.rows)
        tokens = [DUMMY_TOKEN if seq is None else seq.owner.id_at(seq.n_past) for _slot, seq in call.rows]
        positions = [self._length(slot) if seq is None else seq.n_past for slot, seq in call.rows]
        slots = [slot for slot, _seq in call.rows]
        # Dummies ask for logits too: otherwise the output head would see fewer rows.
        status = self._timed_decode(tokens, positions, slots)
        for slot, seq in call.rows:
            if seq is None:
                self._backend.seq_rm(slot, self._length(slot))
        if status is not DecodeStatus.OK:
            return self._recover(call.live, status)
        self.n_decode_rows += n
        self.n_dummy_rows += n - len(call.live)
        logits = self._backend.logits(n)
        likeliest: list[int] = logits.argmax(axis=1).tolist()
        events: list[Event] = []
        for row, (_slot, seq) in enumerate(call.rows):
            if seq is None:
                continue
            seq.n_past += 1
            if seq.n_past <= seq.n_prompt:
                events.append(Prefilled(seq.owner.request.id, seq.n_past, seq.n_prompt))
            if seq.prefilled:
                events += self._commit(seq, row, likeliest[row], logits)
        return events

    def _timed_decode(self, tokens: Ints, positions: Ints, slots: Ints) -> DecodeStatus:
        """A decode call with logits for every row."""
        n = len(tokens)
        if not self._policy.speculates:
            return self._backend.decode(tokens, positions, slots, [True] * n)
        start = self._clock()
        status = self._backend.decode(tokens, positions, slots, [True] * n)
        self._costs.note(n, self._clock() - start)
        return status

    def _draft_length(self, live: list[Sequence[ActiveRequest]]) -> int:
        """Tokens to guess in this step, for each live sequence; 0 where guessing does not pay or can't be."""
        lookups = [seq.owner.lookup for seq in live if seq.owner.lookup is not None]
        if not any(lookup.has_guess for lookup in lookups):
            return 0
        if [seq.slot for seq in live] != list(range(len(live))):  # llama.cpp would cut the batch at a hole
            return 0
        room = [
            min(
                self._window - seq.owner.n_total,
                seq.owner.request.max_tokens - len(seq.owner.tokens) - 1,
            )
            for seq in live
        ]
        return draft_length(lookups, self._costs, min(room))

    def _decode_ahead(self, live: list[Sequence[ActiveRequest]], n_drafted: int) -> list[Event]:
        """A decode call with guessed tokens after each sequence's own; as many are kept as were right.

        All sequences have equally many rows: llama.cpp would split the call into such parts otherwise.
        """
        drafts: list[list[int]] = []
        for seq in live:
            own = seq.owner.id_at(seq.n_past)
            assert seq.owner.lookup is not None
            drafts.append([own, *(seq.owner.lookup.draft(n_drafted) or [own] * n_drafted)])
        n = 1 + n_drafted
        tokens = [token for draft in drafts for token in draft]
        positions = [position for seq in live for position in range(seq.n_past, seq.n_past + n)]
        slots = [seq.slot for seq in live for _ in range(n)]
        status = self._timed_decode(tokens, positions, slots)
        if status is not DecodeStatus.OK:
            return self._recover(live, status)
        self.n_decode_rows += len(tokens)
        logits = self._backend.logits(len(tokens))
        likeliest: list[int] = logits.argmax(axis=1).tolist()
        events: list[Event] = []
        for i, (seq, draft) in enumerate(zip(live, drafts, strict=True)):
            slot, active = seq.slot, seq.owner
            for row in range(i * n, (i + 1) * n):
                seq.n_past += 1
                events += self._commit(seq, row, likeliest[row], logits)
                if seq.slot < 0 or draft[row - i * n + 1 :][:1] != active.tokens[-1:]:
                    break
            self._backend.seq_rm(slot, self._length(slot))
        return events

    def _commit(self, seq: Sequence[ActiveRequest], row: int, likeliest: int, logits: Floats) -> list[Event]:
        """Choose a token from output row `row`, then see whether the reply goes on."""
        active, vocab = seq.owner, self._backend.vocab
        if math.isnan(logits[row, likeliest]):  # argmax finds a NaN where there is one
            return [self._finish(seq, "error", "the model computed NaN", ExitStatus.MODEL_INVALID)]
        token = likeliest if active.sampler is None else active.sampler.sample(row)
        now = active.last_token = self._clock()
        if active.first_token is None:
            active.first_token = now
        active.tokens.append(token)
        if active.lookup is not None:
            active.lookup.append(token)
        logprobs = None
        if active.request.n_logprobs is not None:
            logprobs = token_logprobs(logits[row], token, active.request.n_logprobs)
            active.logprobs.append(logprobs)
        is_end = vocab.is_eog(token)
        piece = b"" if is_end else active.request.shown_tokens.get(token) or vocab.piece(token)
        released, matched = active.stops.feed(piece)
        active.text += released
        events: list[Event] = []
        if active.request.streams:
            events.append(Token(active.request.id, token, released, logprobs))
        if is_end:
            events.append(self._finish(seq, "stop"))
        elif matched is not None:
            events.append(self._finish(seq, "stop_string"))
        elif len(active.tokens) >= active.request.max_tokens:
            events.append(self._finish(seq, "length"))
        elif active.n_total >= self._window:
            events.append(self._finish(seq, "context"))
        return events

    def _finish(
        self,
        seq: Sequence[ActiveRequest],
        reason: FinishReason,
        error: str | None = None,
        error_status: ExitStatus = ExitStatus.UNEXPECTED,
    ) -> Finished:
        active = seq.owner
        request = active.request
        tail, matched = active.stops.finish()
        active.text += tail
        if matched is not None:
            reason = "stop_string"
        if active.sampler is not None:
            active.sampler.close()
        if active.lookup is not None:
            self._acceptance = active.lookup.acceptance
        keep = False
        if seq.begun:
            keep = seq.session is not None and seq.n_past > 0 and reason != "error"
            # A state that can't be cut serves its own session only, and a dummy row would spoil it.
            if keep or (self._policy.fill_holes and reason != "error"):
                self._residents[seq.slot] = active.evaluated(seq.n_past)
            else:
                self._backend.seq_rm(seq.slot, 0)
        self._scheduler.release(seq, keep=keep)
        del self._sequences[request.id]
        return Finished(
            request.id,
            reason,
            tail,
            tuple(active.tokens),
            bytes(active.text),
            tuple(active.logprobs) if request.n_logprobs is not None else None,
            Usage(len(active.ids), active.n_cached, len(active.tokens)),
            self._timings(active),
            error,
            error_status,
        )

    def _timings(self, active: ActiveRequest) -> Timings:
        now = self._clock()
        admitted = active.admitted if active.admitted is not None else now
        first, last, n = active.first_token, active.last_token, len(active.tokens)
        prefill_tps = decode_tps = None
        if first is not None and first > admitted:
            prefill_tps = (len(active.ids) - active.n_cached) / (first - admitted)
        if first is not None and last is not None and last > first:
            decode_tps = (n - 1) / (last - first)
        return Timings(
            load_s=self._load_s,
            queue_s=admitted - active.submitted,
            ttft_s=None if first is None else first - active.submitted,
            total_s=now - active.submitted,
            prefill_tps=prefill_tps,
            decode_tps=decode_tps,
        )

    # --- memory --------------------------------------------------------------------------------

    def _length(self, slot: int) -> int:
        """Tokens that a slot's sequence holds."""
        seq = self._scheduler.slots[slot] if slot < self._policy.width else None
        if seq is not None and seq.begun:
            return seq.n_past
        return history.length(self._residents.get(slot, ()))

    def _held(self, slot: int) -> tuple[Segment, ...]:
        """What a slot's sequence has evaluated."""
        seq = self._scheduler.slots[slot]
        if seq is not None and seq.begun:
            return seq.owner.evaluated(seq.n_past)
        return self._residents.get(slot, ())

    def _forget_unplanned(self) -> None:
        """Bring every sequence back to the length that we count: dummies and half-done calls go."""
        for slot in range(self._policy.n_seq_max):
            self._backend.seq_rm(slot, self._length(slot))

    def _recover(self, seqs: list[Sequence[ActiveRequest]], status: DecodeStatus) -> list[Event]:
        """After a decode call that did not succeed. An aborted one is simply done again at the next step."""
        self._forget_unplanned()
        if status is DecodeStatus.ABORTED:
            return []
        message = {
            DecodeStatus.NO_KV_SLOT: "the KV cache has no room for this step",
            DecodeStatus.INVALID: "llama.cpp refused the batch",
        }.get(status, "llama.cpp could not compute the batch")
        return [self._finish(seq, "error", message) for seq in seqs]


def _joined(rows: list[T], dummies: list[T], above: bool) -> list[T]:
    return [*rows, *dummies] if above else [*dummies, *rows]
