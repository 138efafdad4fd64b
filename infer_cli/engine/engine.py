"""Turns requests into tokens: one `step` at a time, single-threaded, no I/O, the clock passed in.

Read `Engine.step` first: expire, admit, begin, close holes, plan, prefill, decode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from infer_cli.backend.base import Backend, DecodeStatus
from infer_cli.engine import history
from infer_cli.engine.active_request import ActiveRequest, piece_of
from infer_cli.engine.admission import refusal, why_not
from infer_cli.engine.drafting import PromptLookup, StepCosts, draft_length
from infer_cli.engine.logprobs import token_logprobs
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.engine.reasoning_limit import ReasoningLimit
from infer_cli.engine.scheduler import (
    DecodeCall,
    PrefillPart,
    Scheduler,
    Sequence,
    prompt_span,
    segment_spans,
)
from infer_cli.engine.slots import Slots
from infer_cli.errors import ExitStatus, InferError
from infer_cli.text.stream import StopMatcher
from infer_cli.types import EngineRequest, Event, Finished, FinishReason, Prefilled, Segment, Token

if TYPE_CHECKING:
    from infer_cli.backend.base import Buffer, Floats, Ints

DUMMY_TOKEN = 0
FAILURES = {
    DecodeStatus.NO_KV_SLOT: "the KV cache has no room for this step",
    DecodeStatus.INVALID: "llama.cpp refused the batch",
}

T = TypeVar("T")


class Engine:
    """Continuous batching over one backend. Every submitted request gets exactly one `Finished`.

    `window` is the most tokens that a prompt and its reply may fill: the backend may round its own up.
    `load_s` is the time the model took to load, in seconds: it only passes into each reply's timings.
    `on_logits` is shown each row of logits, of shape (n_vocab,), before a token is chosen from it: a view
    that is valid during the call.
    """

    def __init__(
        self,
        backend: Backend,
        policy: ModePolicy,
        clock: Callable[[], float],
        window: int,
        load_s: float = 0.0,
        on_logits: Callable[[ActiveRequest, Floats], None] | None = None,
    ) -> None:
        self._backend = backend
        self._window = min(window, backend.n_ctx_seq)
        self._policy = policy
        self._clock = clock
        self._load_s = load_s
        self._on_logits = on_logits
        self._scheduler: Scheduler[ActiveRequest] = Scheduler(
            policy.width,
            policy.chunk,
            policy.fixed_width,
            policy.min_rows,
            fill_holes=policy.fill_holes and not policy.kv_unified,
            joins_prompts=policy.kv_unified,
        )
        self._slots = Slots(backend, policy, self._scheduler)
        self._sequences: dict[str, Sequence[ActiveRequest]] = {}
        self._refused: dict[str, Finished] = {}  # requests that can't run, until the next step says so
        self._cancelled: set[str] = set()
        self._costs = StepCosts()
        self.n_decode_rows = 0  # of all decode calls that succeeded, dummies too
        self.n_dummy_rows = 0
        self._acceptance = 0.5  # share of guesses that were right in the reply that ended last

    @property
    def n_ahead(self) -> int:
        """How many requests are best given at once: a slot that becomes free finds its next one waiting."""
        return self._policy.width + max(1, self._policy.width // 4)

    def abort(self) -> None:
        """End the decode call that runs, if that can be taken up again. Any thread."""
        if self._policy.interruptible:
            self._backend.abort()

    def resume(self) -> None:
        """Take `abort` back."""
        self._backend.resume()

    def close(self) -> None:
        """Give the context's memory back."""
        self._backend.close()

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
            n_prompt, waited_s = history.length(wanted), self._clock() - submitted
            self._refused[request.id] = refusal(request, n_prompt, waited_s, self._load_s, error)
            return
        ids = history.flat(wanted)
        active = ActiveRequest(
            request, wanted, ids, self._window - len(ids), submitted, StopMatcher(request.stop)
        )
        if request.reasoning is not None:
            active.limit = ReasoningLimit(request.reasoning)
        # Where there is no shape to keep, all of it is evaluated in large chunks.
        spans = segment_spans(wanted) if self._policy.fixed_width else prompt_span(len(ids))
        sequence = Sequence(active, spans, request.session)
        self._sequences[request.id] = sequence
        self._scheduler.submit(sequence)

    def _is_in_use(self, session: str | None) -> bool:
        return session is not None and any(session == seq.session for seq in self._sequences.values())

    def cancel(self, request_id: str) -> None:
        """End a request at the next step. Unknown ids are ignored: the reply may just have ended."""
        if request_id in self._sequences:
            self._cancelled.add(request_id)

    def n_held(self, ids: tuple[int, ...]) -> int:
        """See `Slots.n_held`."""
        return self._slots.n_held(ids)

    def adopt(self, segments: tuple[Segment, ...], data: Buffer) -> bool:
        """See `Slots.adopt`."""
        return self._slots.adopt(segments, data)

    def snapshot(self, segments: tuple[Segment, ...]) -> bytearray | None:
        """See `Slots.snapshot`."""
        return self._slots.snapshot(segments)

    def step(self) -> list[Event]:
        """Advance everything by one prefill chunk and one token each."""
        events: list[Event] = [*self._refused.values()]
        self._refused.clear()
        events += self._end_expired()
        events += self._admit()
        self._slots.begin_prompts()
        self._slots.close_holes()
        plan = self._scheduler.plan()
        if plan.prefill:
            events += self._prefill(plan.prefill)
        if plan.decode is not None:
            events += self._decode(plan.decode)
        return events

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

    def _prefill(self, parts: tuple[PrefillPart[ActiveRequest], ...]) -> list[Event]:
        tokens, positions, seqs, outputs = _prefill_rows(parts, self._policy.min_rows, self._slots)
        status = self._backend.decode(tokens, positions, seqs, outputs)
        if status is not DecodeStatus.OK:
            return self._recover([part.seq for part in parts], status)
        for part in parts:
            part.seq.n_past = part.end
        if len(tokens) > sum(part.end - part.start for part in parts):  # there were dummies
            self._slots.forget_unplanned()
        events: list[Event] = []
        for part in parts:
            seq, slot = part.seq, part.seq.slot
            events.append(Prefilled(seq.owner.request.id, seq.n_past, seq.n_prompt))
            if part.is_last:
                last = max(row for row, other in enumerate(seqs) if other == slot)
                row = sum(outputs[: last + 1]) - 1
                logits = self._backend.logits(sum(outputs))
                events += self._advance(seq, row, int(logits[row].argmax()), logits)
        return events

    def _decode(self, call: DecodeCall[ActiveRequest]) -> list[Event]:
        if self._policy.speculates and (n_drafted := self._draft_length(call.live)):
            return self._decode_ahead(call.live, n_drafted)
        n = len(call.rows)
        tokens = [DUMMY_TOKEN if seq is None else seq.owner.id_at(seq.n_past) for _slot, seq in call.rows]
        positions = [self._slots.length(slot) if seq is None else seq.n_past for slot, seq in call.rows]
        slots = [slot for slot, _seq in call.rows]
        # Dummies ask for logits too: otherwise the output head would see fewer rows.
        status = self._timed_decode(tokens, positions, slots)
        for (slot, seq), position in zip(call.rows, positions, strict=True):
            if seq is None:
                self._backend.seq_rm(slot, position)
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
            if seq.n_past >= seq.n_prompt:
                events += self._advance(seq, row, likeliest[row], logits)
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
            min(seq.owner.window_room, seq.owner.request.max_tokens - 1) - len(seq.owner.tokens)
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
                events += self._advance(seq, row, likeliest[row], logits)
                if seq.slot < 0 or draft[row - i * n + 1 :][:1] != active.tokens[-1:]:
                    break
            self._backend.seq_rm(slot, self._slots.length(slot))
        return events

    def _choose_token(self, active: ActiveRequest, row: int, likeliest: int, logits: Floats) -> int | None:
        """The next token of a reply, from output row `row`; None where the model computed NaN.

        Whatever looks at a request's logits, or changes them, before its token is chosen has its place here.
        """
        if self._on_logits is not None:
            self._on_logits(active, logits[row])
        if math.isnan(logits[row, likeliest]):  # argmax finds a NaN where there is one
            return None
        forced = None if active.limit is None else active.limit.next_token
        if forced is None:
            return likeliest if active.sampler is None else active.sampler.sample(row)
        if active.sampler is not None:
            active.sampler.accept(forced)
        return forced

    def _advance(self, seq: Sequence[ActiveRequest], row: int, likeliest: int, logits: Floats) -> list[Event]:
        """Choose a token from output row `row`, then see whether the reply goes on."""
        active, vocab = seq.owner, self._backend.vocab
        token = self._choose_token(active, row, likeliest, logits)
        if token is None:
            return [self._finish(seq, "error", "the model computed NaN", ExitStatus.MODEL_INVALID)]
        now = self._clock()
        request = active.request
        logprobs = None
        if request.n_logprobs is not None:
            logprobs = token_logprobs(logits[row], token, request.n_logprobs)
            active.logprobs.append(logprobs)
        piece, is_end = piece_of(request, token, vocab)
        released, reason = active.append(token, piece, is_end, now)
        events: list[Event] = []
        if request.streams:
            events.append(Token(request.id, token, released, logprobs))
        if reason is not None:
            events.append(self._finish(seq, reason))
        return events

    def _finish(
        self,
        seq: Sequence[ActiveRequest],
        reason: FinishReason,
        error: str | None = None,
        error_status: ExitStatus = ExitStatus.UNEXPECTED,
    ) -> Finished:
        active = seq.owner
        if active.lookup is not None:
            self._acceptance = active.lookup.acceptance
        end = active.finish(reason, self._clock(), self._load_s, error, error_status)
        self._slots.release(seq, failed=end.reason == "error")
        del self._sequences[active.request.id]
        return end

    def _recover(self, seqs: list[Sequence[ActiveRequest]], status: DecodeStatus) -> list[Event]:
        """After a decode call that did not succeed. An aborted one is simply done again at the next step."""
        self._slots.forget_unplanned()
        if status is DecodeStatus.ABORTED:
            return []
        message = FAILURES.get(status, "llama.cpp could not compute the batch")
        return [self._finish(seq, "error", message) for seq in seqs]


def _prefill_rows(
    parts: tuple[PrefillPart[ActiveRequest], ...], min_rows: int, slots: Slots
) -> tuple[list[int], list[int], list[int], list[bool]]:
    """The rows of a prefill call: tokens, positions, slots, and whether logits are wanted."""
    tokens: list[int] = []
    positions: list[int] = []
    seqs: list[int] = []
    outputs: list[bool] = []
    for part in parts:
        n = part.end - part.start
        n_outputs = min(min_rows, n) if part.is_last else 0
        tokens += part.seq.owner.ids[part.start : part.end]
        positions += range(part.start, part.end)
        seqs += [part.seq.slot] * n
        outputs += [False] * (n - n_outputs) + [True] * n_outputs
    n_dummies = max(0, min_rows - len(tokens))
    if n_dummies:  # beside a lone prompt: where prompts are joined, one row is enough
        (part,) = parts
        beside, lengths = slots.dummies_beside(part.seq.slot, n_dummies)
        above = beside[0] > part.seq.slot
        tokens = _joined(tokens, [DUMMY_TOKEN] * n_dummies, above)
        positions, seqs = _joined(positions, lengths, above), _joined(seqs, beside, above)
        outputs = _joined(outputs, [part.is_last] * n_dummies, above)
    return tokens, positions, seqs, outputs


def _joined(rows: list[T], dummies: list[T], above: bool) -> list[T]:
    return [*rows, *dummies] if above else [*dummies, *rows]
