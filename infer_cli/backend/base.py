"""What the engine needs of a model runtime. Implemented by `backend.llama` and `backend.fake`.

The engine addresses memory by sequence id (one per slot); a `decode` call carries rows in ascending
sequence order, without a gap between them unless all sequences share one memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from infer_cli.types import SamplingParams

    Ints = Sequence[int]
    Flags = Sequence[bool]
    Buffer = bytes | bytearray | memoryview
    Floats = npt.NDArray[np.float32]


class DecodeStatus(Enum):
    """Outcome of one decode call (`llama_decode`'s return codes, llama.h)."""

    OK = "ok"
    NO_KV_SLOT = "no_kv_slot"  # 1: memory unchanged
    ABORTED = "aborted"  # 2: whole ubatches may have been kept
    INVALID = "invalid"  # -1: memory unchanged
    FAILED = "failed"  # -2, -3: whole ubatches may have been kept


class Vocab(Protocol):
    """Tokens of one model. Safe to call from any thread."""

    @property
    def n_tokens(self) -> int: ...

    @property
    def bos(self) -> int | None: ...

    @property
    def eos(self) -> int | None: ...

    @property
    def add_bos(self) -> bool: ...

    @property
    def add_eos(self) -> bool: ...

    def tokenize(self, text: bytes) -> list[int]:
        """Ids of plain text: no control token is added or recognized; USER_DEFINED ones match."""
        ...

    def tokenize_special(self, text: bytes) -> list[int]:
        """Ids of text in which control tokens are recognized; nothing is added."""
        ...

    def piece(self, token: int) -> bytes:
        """Bytes that a token stands for; empty for control tokens."""
        ...

    def token_text(self, token: int) -> bytes:
        """The token's own text, control tokens included (`<|im_end|>`)."""
        ...

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a reply."""
        ...

    def control_tokens(self) -> Sequence[ControlToken]:
        """CONTROL and UNKNOWN tokens: what plain text must never yield. Longest text first."""
        ...


class ControlToken(Protocol):
    """A control token: its id, its text, and whether it swallows white space beside it (phi-3's do)."""

    @property
    def id(self) -> int: ...

    @property
    def text(self) -> bytes: ...

    @property
    def lstrip(self) -> bool: ...

    @property
    def rstrip(self) -> bool: ...


class SamplerHandle(Protocol):
    """One request's sampler chain with its own RNG: one draw a token."""

    def sample(self, row: int) -> int:
        """Choose from output row `row` of the last decode, and accept it. Call once a token."""
        ...

    def accept(self, token: int) -> None:
        """Tell the chain of a token that was not sampled by it (a prompt token, for penalties)."""
        ...

    def close(self) -> None: ...


class Draws(Protocol):
    """The numbers that a sampler draws with its seed, without its logits: one a token, between 0 and 1."""

    @property
    def followed(self) -> SamplingParams:
        """What the sampler makes of its parameters: those that it does not know are as if they were off."""
        ...

    def draw(self) -> tuple[float, float]:
        """Bounds of the next number, near each other."""
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """A loaded model with one context. Used by one thread; `abort` may be called from any."""

    n_ctx_seq: int  # window of each sequence, tokens
    n_seq_max: int
    saves_alone: bool  # a sequence's state can only be saved while no other one holds anything
    n_batch: int  # most rows of one decode call
    n_outputs_max: int  # most rows with logits of one decode call

    @property
    def vocab(self) -> Vocab: ...

    def decode(self, tokens: Ints, positions: Ints, seqs: Ints, outputs: Flags) -> DecodeStatus:
        """Evaluate n rows. `outputs[i]` asks for logits of row i."""
        ...

    def decode_tree(
        self, tokens: Ints, positions: Ints, seqs: Sequence[Ints], outputs: Flags
    ) -> DecodeStatus:
        """Evaluate n rows of which row i is part of each sequence in `seqs[i]`: what they begin with alike
        is computed once. Only where all sequences share one memory, in any order of sequences."""
        ...

    def logits(self, n_outputs: int) -> Floats:
        """(n_outputs, n_vocab) view of the last decode's logits, in row order, until the next decode."""
        ...

    def new_sampler(self, params: SamplingParams, seed: int) -> SamplerHandle: ...

    def seq_rm(self, seq: int, p0: int) -> bool:
        """Forget positions >= p0 of a sequence. False where the memory can't (recurrent models)."""
        ...

    def seq_cp(self, source: int, target: int) -> None:
        """Let a sequence hold what another one holds, all of it, in place of its own."""
        ...

    def state_save(self, seq: int) -> bytearray:
        """All that a sequence holds, for `state_load` of a context like this one. Raises MemoryError.

        Empty where it can't be had.
        """
        ...

    def state_load(self, seq: int, data: Buffer, n_tokens: int) -> bool:
        """Let a sequence hold what was saved, positions 0 to `n_tokens`. False, and an empty sequence, where
        that is not what `data` is."""
        ...

    def abort(self) -> None:
        """Make the decode call now running, or the next, return ABORTED. Any thread."""
        ...

    def resume(self) -> None:
        """Take `abort` back."""
        ...

    def close(self) -> None: ...
