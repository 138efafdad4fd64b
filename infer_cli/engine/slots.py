"""What the slots hold, and how much of it the next prompts begin with. No clock, no I/O.

A slot is the backend's sequence of the same number. It holds what the request in it has evaluated by now, or
what the one before has left there. The scheduler says which slot a request takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_cli.backend.base import Backend
from infer_cli.engine import history
from infer_cli.engine.active_request import ActiveRequest
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.engine.scheduler import Scheduler, Sequence
from infer_cli.types import Segment

if TYPE_CHECKING:
    from infer_cli.backend.base import Buffer

MIN_COPIED = 16  # tokens; 1/128 of the window where a copy moves a whole slot's memory, as much as they cost


class Slots:
    """The slots of one backend, and all changes of what they hold but those of a decode call.

    A prompt begins with what its slot or another one holds already, as far as that was evaluated in the
    shapes that the policy wants: neighbours with the same beginning compute it once.
    """

    def __init__(self, backend: Backend, policy: ModePolicy, scheduler: Scheduler[ActiveRequest]) -> None:
        self._backend = backend
        self._policy = policy
        self._scheduler = scheduler
        # What the slots hold that no begun sequence advances: replies that have ended.
        self._residents: dict[int, tuple[Segment, ...]] = {}
        self._chunk = policy.chunk if policy.fixed_width else None  # None: shapes do not matter
        self._min_copied = MIN_COPIED if policy.kv_unified else max(MIN_COPIED, backend.n_ctx_seq // 128)

    def length(self, slot: int) -> int:
        """Tokens that a slot holds."""
        seq = self._scheduler.slots[slot] if slot < self._policy.width else None
        if seq is not None and seq.begun:
            return seq.n_past
        return history.length(self._residents.get(slot, ()))

    def dummies_beside(self, slot: int, n: int) -> tuple[list[int], list[int]]:
        """`n` slots next to this one, in ascending order, for dummy rows, and the tokens that they hold."""
        above = slot + 1 < self._policy.n_seq_max
        slots = [slot + 1 + i if above else slot - n + i for i in range(n)]
        return slots, [self.length(other) for other in slots]

    def forget_unplanned(self) -> None:
        """Bring every slot back to the length that we count: dummies and half-done calls go."""
        for slot in range(self._policy.n_seq_max):
            self._backend.seq_rm(slot, self.length(slot))

    # --- requests come, move and go ------------------------------------------------------------------

    def begin_prompts(self) -> None:
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

    def close_holes(self) -> None:
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

    def release(self, seq: Sequence[ActiveRequest], *, failed: bool) -> None:
        """Take a request out. What it has evaluated stays in its slot for others, unless it `failed`."""
        keep = False
        if seq.begun:
            keep = seq.session is not None and seq.n_past > 0 and not failed
            # A state that can't be cut serves its own session only, and a dummy row would spoil it.
            if keep or (self._policy.fill_holes and not failed):
                self._residents[seq.slot] = seq.owner.evaluated(seq.n_past)
            else:
                self._backend.seq_rm(seq.slot, 0)
        self._scheduler.release(seq, keep=keep)

    def _waits_for(
        self, joined: list[Sequence[ActiveRequest]], seq: Sequence[ActiveRequest], n_held: int
    ) -> bool:
        """Whether prompts that are about to be evaluated begin as this one does, beyond the `n_held` tokens
        that are in memory."""
        n_common = max(history.reusable(other.owner.wanted, seq.owner.wanted, None) for other in joined)
        return n_common >= n_held + self._min_copied

    def _in_memory(self, seq: Sequence[ActiveRequest]) -> tuple[int, int]:
        """The most tokens that begin this request and are in memory, and the slot that holds them."""
        wanted = seq.owner.wanted
        best, source = history.reusable(self._residents.get(seq.slot, ()), wanted, self._chunk), seq.slot
        if self._policy.fill_holes:  # else a state that can't be cut
            for slot in range(self._policy.width):
                n = 0 if slot == seq.slot else history.reusable(self._held(slot), wanted, self._chunk)
                if n >= best + self._min_copied:
                    best, source = n, slot
        return best, source

    def _held(self, slot: int) -> tuple[Segment, ...]:
        """What a slot holds, as it was evaluated."""
        seq = self._scheduler.slots[slot]
        if seq is not None and seq.begun:
            return seq.owner.evaluated(seq.n_past)
        return self._residents.get(slot, ())

    def _reuse(self, seq: Sequence[ActiveRequest], best: int, source: int) -> int:
        """Put into the slot what `_in_memory` has found; how many tokens that is."""
        self._residents.pop(seq.slot, None)
        if source != seq.slot:
            self._backend.seq_cp(source, seq.slot)
        if best and self._backend.seq_rm(seq.slot, best):
            return best
        self._backend.seq_rm(seq.slot, 0)
        return 0

    # --- states that go to other engines -------------------------------------------------------------

    def n_held(self, ids: tuple[int, ...]) -> int:
        """Tokens that begin a prompt and are in memory, in an idle slot; less than all of it."""
        wanted = (Segment("prompt", ids),)
        return max(
            (history.reusable(held, wanted, self._chunk) for held in self._residents.values()), default=0
        )

    def adopt(self, segments: tuple[Segment, ...], data: Buffer) -> bool:
        """Let an idle slot hold a saved evaluation, for the next prompts that begin with it.

        False where no slot is idle, or `data` is no state of such a context.
        """
        idle = [slot for slot, seq in enumerate(self._scheduler.slots) if seq is None]
        if not idle or not self._policy.fill_holes:
            return False
        kept = self._scheduler.kept.values()  # for sessions: where nothing else is free
        slot = min(idle, key=lambda slot: (slot in kept, self.length(slot)))
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
        for slot, held in self._residents.items():
            if history.begins_with(held, wanted, self._chunk):
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
