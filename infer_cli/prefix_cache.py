"""What of a prompt is kept for other processes, and what of it they use: a policy over `prefix_store`.

Kept is what does not depend on the question: the prompt up to the last place on the store's grid at which it
is the same with another question. Under the contract of `canonical` and `invariant` a reply that begins with
a kept state has the bytes that it has without one. Reading never fails: what can't be used is evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.prefix_store import GRID, Owner, PrefixStore
from infer_cli.types import Segment

if TYPE_CHECKING:
    from infer_cli.loading import Running

MIN_TOKENS = 256  # from here on reading a state is clearly quicker than evaluating it


class Kept(NamedTuple):
    """A state in the store. `size` is bytes; `written`: it is new."""

    n_tokens: int
    size: int
    written: bool


class PrefixCache:
    """The store as one running engine may use it. `note` takes what only `--stats` shows."""

    def __init__(self, running: Running, store: PrefixStore, note: Callable[[str], None]) -> None:
        from infer_cli.fingerprint import fingerprint

        self._service, self._store, self._note = running.service, store, note
        # A state is laid out for the number of sequences, which `invariant` leaves out of its fingerprint.
        self._engine = f"{fingerprint(running.facts())}/{running.backend.n_seq_max}"
        self._cuts = running.policy.fill_holes
        self.n_restored = 0

    def restore(self, model: str, model_sha256: str, ids: tuple[int, ...]) -> int:
        """Give the engine the longest beginning of a prompt that the store has; how many tokens that is."""
        if not self._cuts:  # a state that can't be cut is of no use to another prompt
            return 0
        began = time.perf_counter()
        owner, at_most = Owner(model, model_sha256, self._engine), _most(len(ids))
        while n := self._store.longest(owner, ids, at_least=MIN_TOKENS, at_most=at_most):
            size = self._store.size(owner, ids[:n])
            if not _memory_for(size):
                self._note(f"prefix cache: no memory to read {n} tokens")
                return 0
            try:
                state = self._store.read(owner, ids[:n])
                if state is not None and self._service.adopt((Segment("prompt", ids[:n]),), state):
                    self.n_restored = n
                    self._note(f"prefix cache: {n} tokens read in {time.perf_counter() - began:.2f} s")
                    return n
            except MemoryError:
                self._note(f"prefix cache: no memory to read {n} tokens")
                return 0
            self._note(f"prefix cache: {n} tokens could not be used")
            at_most = n - 1
        return 0

    def keep(self, model: str, model_sha256: str, ids: tuple[int, ...], n_shared: int) -> Kept | None:
        """Store the state after the first `n_shared` tokens of a prompt that the idle engine has evaluated.

        None where that is too little, or not enough more than was restored. Raises OSError, ValueError (it
        is larger than the whole cache may be), MemoryError.
        """
        n = min(n_shared, _most(len(ids))) // GRID * GRID
        if not self._cuts or n - self.n_restored < MIN_TOKENS:
            return None
        owner = Owner(model, model_sha256, self._engine)
        if size := self._store.size(owner, ids[:n]):
            return Kept(n, size, written=False)
        state = self._service.snapshot((Segment("prompt", ids[:n]),))
        if state is None:
            return None
        path = self._store.write(owner, ids[:n], state)
        return Kept(n, path.stat().st_size, written=True)


def n_same(ids: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(ids, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(other)))


def _most(n_prompt: int) -> int:
    """Tokens of a prompt that a state may hold: a last chunk of one token would join the one before it."""
    return n_prompt - 2


def _memory_for(n_bytes: int) -> bool:
    from infer_cli.memory import available_memory

    available = available_memory()
    return available is None or n_bytes < available // 2
