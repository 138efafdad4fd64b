"""A model without weights behind the same interface: deterministic, scriptable, strict about the contract.

`-m fake` answers every chat prompt with `You said: …`; `-m fake:SCRIPT.json` takes its replies, speeds and
faults from a file. A token is a byte, so a character of several bytes is always split over tokens.
What llama.cpp would refuse or abort on raises here.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from infer_cli.backend.base import DecodeStatus
from infer_cli.errors import ModelInvalid, ModelNotFound
from infer_cli.system.files import MOST_INPUT, read_regular
from infer_cli.types import MAX_SEED, SamplingParams

if TYPE_CHECKING:
    from infer_cli.backend.base import Buffer, Flags, Floats, Ints
    from infer_cli.backend.spec import ContextSpec

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIALS = [b"<|endoftext|>", b"<|im_start|>", b"<|im_end|>"]
_EOS, _IM_START, _IM_END = 256, 257, 258
_LEFT_OVER = ord("~")
_RAW_TEXT = b" the quick brown fox jumps over the lazy dog and"


@dataclass(frozen=True)
class FakeScript:
    """What a fake model does. Times in seconds."""

    replies: dict[str, str] = field(default_factory=dict)  # last user text -> reply
    default_reply: str | None = None  # None: "You said: " and the user's text
    template: str = CHAT_TEMPLATE
    n_ctx_train: int = 4096
    load_s: float = 0.0
    step_s: float = 0.0  # each decode call
    token_s: float = 0.0  # each row of it
    crash_signal: str | None = None  # raised by the process itself, as a native fault would be
    crash_after: int = 0  # decode calls before it
    crash_on: str | None = None  # only while a sequence holds this text
    nan_after: int | None = None  # decode calls before all logits are NaN
    row_group: int = 1  # rows of a larger call that make no whole group get other logits, as ggml's may

    @classmethod
    def read(cls, path: Path) -> FakeScript:
        """Raises ModelNotFound or ModelInvalid, naming the key that is wrong."""
        try:
            values = json.loads(read_regular(path, MOST_INPUT))
        except FileNotFoundError:
            raise ModelNotFound(f"no script for the fake model at {path}") from None
        except OSError as e:
            raise ModelInvalid(f"{path} is not a script for the fake model: {e.strerror}") from None
        except (ValueError, RecursionError) as e:
            raise ModelInvalid(f"{path} is not a script for the fake model: {e}") from None
        known = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or (unknown := set(values) - known):
            wrong = ", ".join(sorted(unknown)) if isinstance(values, dict) else type(values).__name__
            raise ModelInvalid(f"{path}: unknown {wrong}", f"a fake model knows: {', '.join(sorted(known))}")
        for name, value in values.items():
            if not _has_type(value, str(cls.__dataclass_fields__[name].type)):
                raise ModelInvalid(f"{path}: {name} can't be {json.dumps(value)[:60]}")
        if not hasattr(signal, values.get("crash_signal") or "SIGINT"):
            raise ModelInvalid(f"{path}: crash_signal {values['crash_signal']!r} is no signal of this system")
        return cls(**values)


def _has_type(value: object, declared: str) -> bool:
    """Whether a JSON value is what a field of `FakeScript` is declared to be."""
    if value is None:
        return declared.endswith("| None")
    if declared.startswith("dict"):
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if isinstance(value, bool):
        return False
    if declared.startswith("float"):
        return isinstance(value, (int, float)) and 0 <= value < 1e9
    if declared.startswith("int"):
        return isinstance(value, int) and 0 <= value < 2**31
    return isinstance(value, str)


class FakeControlToken(NamedTuple):
    id: int
    text: bytes
    lstrip: bool = False
    rstrip: bool = False


class FakeVocab:
    """256 bytes and three control tokens."""

    n_tokens = 256 + len(_SPECIALS)
    bos: int | None = None
    eos: int | None = _EOS
    add_bos = False
    add_eos = False

    def tokenize(self, text: bytes) -> list[int]:
        return list(text)

    def tokenize_special(self, text: bytes) -> list[int]:
        ids: list[int] = []
        while text:
            for i, special in enumerate(_SPECIALS):
                if text.startswith(special):
                    ids.append(256 + i)
                    text = text[len(special) :]
                    break
            else:
                ids.append(text[0])
                text = text[1:]
        return ids

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b""

    def token_text(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else _SPECIALS[token - 256]

    def is_eog(self, token: int) -> bool:
        return token in (_EOS, _IM_END)

    def control_tokens(self) -> list[FakeControlToken]:
        tokens = [FakeControlToken(256 + i, text) for i, text in enumerate(_SPECIALS)]
        return sorted(tokens, key=lambda t: (-len(t.text), t.id))


class FakeSampler:
    """Temperature and top-k over the fake's logits, one draw a token."""

    def __init__(self, backend: FakeBackend, params: SamplingParams, seed: int) -> None:
        self._backend = backend
        self._params = params
        self._random = random.Random(seed)
        self.accepted: list[int] = []

    def sample(self, row: int) -> int:
        logits = self._backend.last_logits[row].astype(np.float64)
        if self._params.greedy:
            return int(logits.argmax())
        n = min(self._params.top_k or len(logits), len(logits))
        order = np.argsort(-logits, kind="stable")[:n]
        weights = np.exp((logits[order] - logits[order[0]]) / self._params.temperature)
        total = np.cumsum(weights)
        token = int(order[int(np.searchsorted(total, self._random.random() * total[-1]))])
        self.accepted.append(token)
        return token

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def close(self) -> None:
        self._backend.open_samplers -= 1


class FakeDraws:
    """`Draws` of `FakeSampler`, which knows temperature and top-k alone."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self.followed = SamplingParams(
            temperature=params.temperature, top_k=params.top_k, top_p=1.0, min_p=0.0
        )
        self._random = random.Random(seed)

    def draw(self) -> tuple[float, float]:
        number = self._random.random()
        return number, number

    def close(self) -> None:
        pass


class FakeCells:
    """One memory for all sequences, as llama.cpp fills it: each row takes the next free cell.

    Strict: a sequence's cells have to ascend with its positions, or attention would add up in another order.
    """

    def __init__(self, n: int, n_seqs: int) -> None:
        self._holders: list[set[int]] = [set() for _ in range(n)]
        self._of: list[list[int]] = [[] for _ in range(n_seqs)]  # the cell of each position
        self._head = 0

    def take(self, seqs: Ints) -> None:
        """A cell for one row of these sequences."""
        free = [i for i in range(self._head, len(self._holders)) if not self._holders[i]]
        if not free:
            raise ValueError("no cell is left behind those in use")
        cell = free[0]
        self._head = cell + 1
        for seq in seqs:
            if self._of[seq] and self._of[seq][-1] > cell:
                raise ValueError(f"the cells of sequence {seq} are out of order")
            self._of[seq].append(cell)
            self._holders[cell].add(seq)

    def free(self, seq: int, p0: int) -> None:
        for cell in self._of[seq][p0:]:
            self._holders[cell].discard(seq)
            if not self._holders[cell]:
                self._head = min(self._head, cell)
        del self._of[seq][p0:]

    def share(self, source: int, target: int) -> None:
        self.free(target, 0)
        self._of[target] = list(self._of[source])
        for cell in self._of[target]:
            self._holders[cell].add(target)


class FakeBackend:
    """Sequences are lists of tokens; a row's logits are a function of its own sequence alone."""

    def __init__(self, script: FakeScript, spec: ContextSpec) -> None:
        self.script = script
        self.vocab = FakeVocab()
        self.n_ctx_train = script.n_ctx_train
        self.n_ctx_seq = spec.n_ctx_seq
        self.n_seq_max = spec.n_seq_max
        self._is_unified = spec.kv_unified
        self.saves_alone = False
        self.n_batch = spec.n_batch
        self.n_outputs_max = spec.n_outputs_max
        self.n_decodes = 0
        self.row_counts: list[int] = []  # of each decode call
        self.open_samplers = 0
        self.last_logits: Floats = np.zeros((0, self.vocab.n_tokens), np.float32)
        self._held: list[list[int]] = [[] for _ in range(spec.n_seq_max)]
        self._cells = FakeCells(spec.n_cells, spec.n_seq_max) if spec.n_cells else None
        self._abort = threading.Event()

    def decode(self, tokens: Ints, positions: Ints, seqs: Ints, outputs: Flags) -> DecodeStatus:
        has_gap = set(seqs) != set(range(seqs[0], seqs[-1] + 1)) if seqs else False
        if list(seqs) != sorted(seqs) or (has_gap and not self._is_unified):
            raise ValueError(f"rows are not on ascending slots without a gap: {list(seqs)}")
        return self._decode(tokens, positions, [(seq,) for seq in seqs], outputs)

    def decode_tree(
        self, tokens: Ints, positions: Ints, seqs: Sequence[Ints], outputs: Flags
    ) -> DecodeStatus:
        if self._cells is None:
            raise ValueError("rows of several sequences need one memory for all")
        return self._decode(tokens, positions, seqs, outputs)

    def _decode(self, tokens: Ints, positions: Ints, seqs: Sequence[Ints], outputs: Flags) -> DecodeStatus:
        n = len(tokens)
        if not 0 < n <= self.n_batch:
            raise ValueError(f"{n} rows in a batch of at most {self.n_batch}")
        if sum(outputs) > self.n_outputs_max:
            raise ValueError("too many rows with logits")
        if not all(0 <= token < self.vocab.n_tokens for token in tokens):
            raise ValueError("a token is outside the vocabulary")
        if not all(0 <= seq < self.n_seq_max for row in seqs for seq in row):
            raise ValueError("a sequence id is out of range")
        if self._abort.wait(self.script.step_s + n * self.script.token_s):
            return DecodeStatus.ABORTED
        self.n_decodes += 1
        self.row_counts.append(n)
        self._fail_as_scripted()
        rows = []
        n_grouped = n - n % self.script.row_group if n >= self.script.row_group else n
        for row, (token, position, own, wanted) in enumerate(
            zip(tokens, positions, seqs, outputs, strict=True)
        ):
            for seq in own:
                held = self._held[seq]
                if position != len(held):
                    raise ValueError(f"position {position} on slot {seq}, which holds {len(held)} tokens")
                if len(held) >= self.n_ctx_seq:
                    return DecodeStatus.NO_KV_SLOT
                held.append(int(token))
            if len({tuple(self._held[seq]) for seq in own}) > 1:
                raise ValueError(f"sequences {list(own)} share a row, but not what is before it")
            if self._cells is not None:
                self._cells.take(own)
            if wanted:
                rows.append(self._logits_of(self._held[own[0]], left_over=row >= n_grouped))
        self.last_logits = np.array(rows, np.float32).reshape(len(rows), self.vocab.n_tokens)
        return DecodeStatus.OK

    def _fail_as_scripted(self) -> None:
        script = self.script
        on = script.crash_on
        if on is not None and not any(on.encode() in bytes(t & 0xFF for t in held) for held in self._held):
            return
        if script.crash_signal and self.n_decodes > script.crash_after:
            os.kill(os.getpid(), getattr(signal, script.crash_signal))
            time.sleep(60)  # the signal ends the process meanwhile

    def _logits_of(self, held: list[int], *, left_over: bool) -> Floats:
        script = self.script
        if script.nan_after is not None and self.n_decodes > script.nan_after:
            return np.full(self.vocab.n_tokens, np.nan, np.float32)
        rng = np.random.default_rng(zlib.crc32(bytes(t & 0xFF for t in held)))
        row = rng.standard_normal(self.vocab.n_tokens, np.float32)
        row[self._next(held)] += 8.0
        if left_over:
            row[_LEFT_OVER] += 16.0
        return row

    def _next(self, held: list[int]) -> int:
        if _IM_START not in held:
            return _RAW_TEXT[len(held) % len(_RAW_TEXT)] if len(held) % 97 else _EOS
        last_turn = len(held) - 1 - held[::-1].index(_IM_START)
        header = last_turn + 1 + len(b"assistant\n")
        reply = self._reply_to(held[:last_turn])
        n_given = len(held) - header
        return reply[n_given] if 0 <= n_given < len(reply) else _IM_END

    def _reply_to(self, turns: list[int]) -> bytes:
        text = b"".join(self.vocab.token_text(t) for t in turns)
        user = (
            text.rpartition(b"<|im_start|>user\n")[2].partition(b"<|im_end|>")[0].decode("utf-8", "replace")
        )
        if user in self.script.replies:
            return self.script.replies[user].encode()
        if self.script.default_reply is not None:
            return self.script.default_reply.encode()
        return f"You said: {user}".encode()

    def logits(self, n_outputs: int) -> Floats:
        if n_outputs != len(self.last_logits):
            raise ValueError(f"{n_outputs} rows of logits asked for, {len(self.last_logits)} computed")
        return self.last_logits

    def new_sampler(self, params: SamplingParams, seed: int) -> FakeSampler:
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {seed} is outside 0..{MAX_SEED}")
        self.open_samplers += 1
        return FakeSampler(self, params, seed)

    def held(self, seq: int) -> tuple[int, ...]:
        """What a sequence holds, for tests."""
        return tuple(self._held[seq])

    def seq_rm(self, seq: int, p0: int) -> bool:
        del self._held[seq][p0:]
        if self._cells is not None:
            self._cells.free(seq, p0)
        return True

    def seq_cp(self, source: int, target: int) -> None:
        self._held[target] = list(self._held[source])
        if self._cells is not None:
            self._cells.share(source, target)

    def state_save(self, seq: int) -> bytearray:
        if self.saves_alone and any(held for other, held in enumerate(self._held) if other != seq):
            return bytearray()
        return bytearray(np.array(self._held[seq], "<i4").tobytes())

    def state_load(self, seq: int, data: Buffer, n_tokens: int) -> bool:
        held = [] if len(data) % 4 else np.frombuffer(data, "<i4").tolist()
        fits = 0 < len(held) == n_tokens <= self.n_ctx_seq
        self._held[seq] = held if fits else []
        return fits

    def abort(self) -> None:
        self._abort.set()

    def resume(self) -> None:
        self._abort.clear()

    def close(self) -> None:
        self._held = []
