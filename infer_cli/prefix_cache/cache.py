"""What of a prompt is kept for other processes, and what of it they use: a policy over `prefix_store`.

Kept is what does not depend on the question: the prompt up to the last place on the store's grid at which it
is the same with another question. Under the contract of `canonical` and `invariant` a reply that begins with
a kept state has the bytes that it has without one. Reading never fails: what can't be used is evaluated.

A conversation is kept whole, as it was evaluated, for its next turn in another process. That is cheaper than
to evaluate it again wherever it is long enough to be kept: a token takes some kilobytes, and milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.engine.history import length
from infer_cli.errors import InferError
from infer_cli.prefix_cache.store import GRID, Owner, PrefixStore, What
from infer_cli.settings.defaults import MIN_PREFIX
from infer_cli.types import Segment

if TYPE_CHECKING:
    from infer_cli.runtime.running_engine import RunningEngine


class Kept(NamedTuple):
    """A state in the store. `size` is bytes; `written`: it was not there before."""

    n_tokens: int
    size: int
    written: bool

    def __str__(self) -> str:
        from infer_cli.settings.sizes import size_text

        per_token = size_text(self.size // self.n_tokens)
        return f"{self.n_tokens} tokens, {size_text(self.size)}, {per_token} a token"


class PrefixCache:
    """The store as one running engine may use it. `note` takes what is of interest to `--stats` alone.

    `model_sha256` None: not known yet; nothing is restored or kept then.
    """

    def __init__(
        self,
        running: RunningEngine,
        store: PrefixStore,
        model: str,
        model_sha256: str | None,
        note: Callable[[str], None],
    ) -> None:

        self.model_sha256 = model_sha256
        self.n_restored = 0
        self._restored_conversation: tuple[Segment, ...] = ()
        self._service, self._store, self._model, self._note = running.service, store, model, note
        # A state is laid out for the number of sequences, which `invariant` leaves out of its fingerprint.
        # Of what F16 weights have read for it, too: `fast`, which alone has them, promises the seed only.
        self._engine = f"{running.facts().fingerprint}/{running.policy.n_seq_max}"
        self._cuts = running.policy.fill_holes  # else no other prompt could use a state

    def restore(self, ids: tuple[int, ...]) -> None:
        """Give the engine the longest beginning of a prompt that the store has."""
        if not self._cuts or self.model_sha256 is None:
            return
        owner, began, at_most = self._owner(), time.perf_counter(), _most(len(ids))
        while n := self._store.longest(owner, ids, at_least=MIN_PREFIX, at_most=at_most):
            try:
                used = self._use(owner, ids[:n], (Segment("prompt", ids[:n]),))
            except MemoryError:
                self._note(f"prefix cache: no memory for {n} tokens")
                return
            if used:
                self.n_restored = n
                self._store.enforce()
                self._note(f"prefix cache: {n} tokens read in {time.perf_counter() - began:.2f} s")
                return
            self._note(f"prefix cache: {n} tokens could not be used")
            at_most = n - 1

    def _use(self, owner: Owner, what: What, segments: tuple[Segment, ...]) -> bool:
        """Raises MemoryError."""
        _check_memory(self._store.size(owner, what))
        state = self._store.read(owner, what)
        return state is not None and self._service.adopt(segments, state)

    def restore_conversation(self, evaluated: tuple[Segment, ...]) -> None:
        """Give the engine what a conversation has evaluated, where just that was kept."""
        n = length(evaluated)
        if not self._cuts or self.model_sha256 is None or n < MIN_PREFIX:
            return
        owner, began = self._owner(), time.perf_counter()
        if not self._store.size(owner, evaluated):
            return
        try:
            used = self._use(owner, evaluated, evaluated)
        except MemoryError:
            used = False
        if used:
            self._restored_conversation = evaluated
            self._store.enforce()
            self._note(
                f"prefix cache: {n} tokens of the conversation read in {time.perf_counter() - began:.2f} s"
            )
        else:
            self._note(f"prefix cache: {n} tokens of the conversation could not be used")

    def keep_conversation(self, evaluated: tuple[Segment, ...]) -> None:
        """Store what a conversation has evaluated, in place of what it began with. Never fails."""
        if not self._cuts or self.model_sha256 is None or length(evaluated) < MIN_PREFIX:
            return
        owner = self._owner()
        try:
            if not self._store.size(owner, evaluated):
                state = self._service.snapshot(evaluated)
                if state is None:
                    return
                size = self._store.write(owner, evaluated, state)
                self._note(f"prefix cache: kept {Kept(length(evaluated), size, written=True)}")
        except (InferError, OSError, ValueError, MemoryError) as e:
            self._note(f"prefix cache: nothing kept: {reason(e)}")
            return
        if self._restored_conversation and self._restored_conversation != evaluated:
            self._store.remove(owner, self._restored_conversation)

    def found(self, n_shared: int, ids: tuple[int, ...]) -> Kept | None:
        """What was restored, where there is not enough more of a prompt to keep.

        Raises ValueError where it is more than the store may be, and so is no longer there.
        """
        if not self.n_restored or self._end(n_shared, ids) - self.n_restored >= MIN_PREFIX:
            return None
        size = self._store.size(self._owner(), ids[: self.n_restored])
        if not size:
            raise ValueError(f"it is more than all that the cache may take ({self._store.limit()})")
        return Kept(self.n_restored, size, written=False)

    def _end(self, n_shared: int, ids: tuple[int, ...]) -> int:
        return min(n_shared, _most(len(ids))) // GRID * GRID

    def worth_keeping(self, ids: tuple[int, ...]) -> bool:
        """Whether a prompt may have enough that is not in the store."""
        return self._cuts and _most(len(ids)) - self.n_restored >= MIN_PREFIX

    def keep(self, ids: tuple[int, ...], n_shared: int) -> Kept | None:
        """Store the state after the first `n_shared` tokens of a prompt that the idle engine has evaluated.

        None where that is too little, or too little more than was restored. Raises OSError, MemoryError, and
        ValueError where it is larger than the whole store may be.
        """
        n = self._end(n_shared, ids)
        if not self.worth_keeping(ids) or n - self.n_restored < MIN_PREFIX or self.model_sha256 is None:
            return None
        owner = self._owner()
        if size := self._store.size(owner, ids[:n]):
            self._store.enforce()
            return Kept(n, size, written=False)
        state = self._service.snapshot((Segment("prompt", ids[:n]),))
        if state is None:
            return None
        size = self._store.write(owner, ids[:n], state)
        return Kept(n, size, written=True)

    def _owner(self) -> Owner:
        assert self.model_sha256 is not None
        return Owner(self._model, self.model_sha256, self._engine)


def reason(error: Exception) -> str:
    """Why nothing was kept, in words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or "there is no memory for it"


def _most(n_prompt: int) -> int:
    """Tokens of a prompt that a state may hold: a last chunk of one token would join the one before it."""
    return n_prompt - 2


def _check_memory(n_bytes: int) -> None:
    from infer_cli.system.memory import available_memory

    available = available_memory()
    if available is not None and n_bytes > available // 2:
        raise MemoryError
