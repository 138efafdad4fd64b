"""llama.cpp behind `backend.base.Backend`: one context over a model, and sampler chains.

Everything that llama.cpp would abort on is checked before the call (see `LlamaBackend.decode`).
Knows no requests and no scheduling.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_cli.backend import native
from infer_cli.backend.base import DecodeStatus
from infer_cli.backend.ggml_types import KV_TYPES
from infer_cli.backend.spec import ContextSpec
from infer_cli.errors import ModelInvalid, OutOfMemory, UnexpectedFailure
from infer_cli.types import MAX_SEED, SamplingParams

if TYPE_CHECKING:
    from infer_cli.backend.base import Buffer, Flags, Floats, Ints
    from infer_cli.backend.llama_model import LlamaModel

_STATUS = {
    0: DecodeStatus.OK,
    1: DecodeStatus.NO_KV_SLOT,
    2: DecodeStatus.ABORTED,
    -1: DecodeStatus.INVALID,
}
_INT_P = ctypes.POINTER(ctypes.c_int32)
_BYTE_P = ctypes.POINTER(ctypes.c_uint8)


class LlamaSampler:
    """One request's sampler chain, in the order of llama.cpp's `common_sampler_init`:
    penalties, DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature, then the draw."""

    def __init__(self, backend: LlamaBackend, params: SamplingParams, seed: int) -> None:
        L = self._L = native.bindings()
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {seed} is outside 0..{MAX_SEED}")
        self._backend = backend
        n_vocab = backend.vocab.n_tokens
        self._chain = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())

        def add(sampler: Any) -> None:
            if not sampler:  # a NULL in the chain would crash at the first token
                raise UnexpectedFailure("llama.cpp refused a sampler's parameters")
            L.llama_sampler_chain_add(self._chain, sampler)

        p = params
        if p.repeat_penalty != 1.0 or p.frequency_penalty != 0.0 or p.presence_penalty != 0.0:
            last_n = backend.n_ctx_train if p.repeat_last_n < 0 else p.repeat_last_n
            add(
                L.llama_sampler_init_penalties(
                    n_vocab, last_n, p.repeat_penalty, p.frequency_penalty, p.presence_penalty
                )
            )
        if p.dry_multiplier != 0.0:
            breakers = (ctypes.c_char_p * 4)(b"\n", b":", b'"', b"*")  # llama.cpp's defaults
            # "all" is the trained window, not this context's: a reply must not depend on --ctx.
            last_n = backend.n_ctx_train if p.dry_penalty_last_n < 0 else p.dry_penalty_last_n
            add(
                L.llama_sampler_init_dry(
                    backend.vocab_handle,
                    p.dry_multiplier,
                    p.dry_base,
                    p.dry_allowed_length,
                    last_n,
                    breakers,
                    4,
                )
            )
        if p.greedy:
            add(L.llama_sampler_init_greedy())
            return
        if p.mirostat:
            self._add_temperature(add, p)
            if p.mirostat == 1:
                m = 100  # as in llama.cpp's common_sampler_init
                add(L.llama_sampler_init_mirostat(n_vocab, seed, p.mirostat_tau, p.mirostat_eta, m))
            else:
                add(L.llama_sampler_init_mirostat_v2(seed, p.mirostat_tau, p.mirostat_eta))
            return
        if p.top_n_sigma > 0:
            add(L.llama_sampler_init_top_n_sigma(p.top_n_sigma))
        if p.top_k > 0:
            add(L.llama_sampler_init_top_k(p.top_k))
        if p.typical_p < 1.0:
            add(L.llama_sampler_init_typical(p.typical_p, 1))
        if p.top_p < 1.0:
            add(L.llama_sampler_init_top_p(p.top_p, 1))
        if p.min_p > 0.0:
            add(L.llama_sampler_init_min_p(p.min_p, 1))
        if p.xtc_probability > 0.0:
            add(L.llama_sampler_init_xtc(p.xtc_probability, p.xtc_threshold, 1, seed))
        self._add_temperature(add, p)
        add(L.llama_sampler_init_dist(seed))

    def _add_temperature(self, add: Callable[[Any], None], p: SamplingParams) -> None:
        add(self._L.llama_sampler_init_temp_ext(p.temperature, p.dynatemp_range, p.dynatemp_exponent))

    def sample(self, row: int) -> int:
        return int(
            self._L.llama_sampler_sample(self._chain, self._backend.handle, self._backend.batch_row(row))
        )

    def accept(self, token: int) -> None:
        self._L.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        if self._chain:
            self._L.llama_sampler_free(self._chain)
            self._chain = None


class BatchBuffers:
    """A llama_batch of up to `n_rows` rows, with the arrays that it points to.

    Python's own arrays: a few rows are written faster than numpy would convert them.
    """

    def __init__(self, n_rows: int, n_seq_max: int) -> None:
        self._tokens = (ctypes.c_int32 * n_rows)()
        self._positions = (ctypes.c_int32 * n_rows)()
        self._flags = (ctypes.c_int8 * n_rows)()
        self._seq_ids = (ctypes.c_int32 * n_seq_max)(*range(n_seq_max))
        start, size = ctypes.addressof(self._seq_ids), ctypes.sizeof(ctypes.c_int32)
        self._seq_addresses = [start + size * seq for seq in range(n_seq_max)]
        self._seq_pointers = (ctypes.c_size_t * n_rows)()
        self._n_seq = (ctypes.c_int32 * n_rows)(*[1] * n_rows)
        self._batch = native.bindings().llama_batch()
        self._batch.token = ctypes.cast(self._tokens, _INT_P)
        self._batch.pos = ctypes.cast(self._positions, _INT_P)
        self._batch.n_seq_id = ctypes.cast(self._n_seq, _INT_P)
        self._batch.seq_id = ctypes.cast(self._seq_pointers, ctypes.POINTER(_INT_P))
        self._batch.logits = ctypes.cast(self._flags, ctypes.POINTER(ctypes.c_int8))
        self._shared_ids = (ctypes.c_int32 * 0)()  # of the last tree, which points to them

    def filled(self, tokens: Ints, positions: Ints, seqs: Ints, outputs: Flags) -> Any:
        """The llama_batch with these rows; valid until the next call."""
        self._fill(tokens, positions, outputs)
        self._seq_pointers[: len(tokens)] = [self._seq_addresses[seq] for seq in seqs]
        return self._batch

    def filled_tree(self, tokens: Ints, positions: Ints, seqs: Sequence[Ints], outputs: Flags) -> Any:
        """The same for rows that are part of several sequences. A batch has only trees, or none."""
        self._fill(tokens, positions, outputs)
        ids = [seq for row in seqs for seq in row]
        self._shared_ids = (ctypes.c_int32 * len(ids))(*ids)
        start, size = ctypes.addressof(self._shared_ids), ctypes.sizeof(ctypes.c_int32)
        ends = list(accumulate(len(row) for row in seqs))
        self._n_seq[: len(seqs)] = [len(row) for row in seqs]
        self._seq_pointers[: len(seqs)] = [start + size * begin for begin in (0, *ends[:-1])]
        return self._batch

    def _fill(self, tokens: Ints, positions: Ints, outputs: Flags) -> None:
        n = len(tokens)
        self._tokens[:n] = list(tokens)
        self._positions[:n] = list(positions)
        self._flags[:n] = list(outputs)
        self._batch.n_tokens = n


class LlamaBackend:
    """One llama_context over a model, with its batch buffers. Not thread-safe, `abort` excepted."""

    def __init__(self, model: LlamaModel, spec: ContextSpec) -> None:
        """Make a context. Raises OutOfMemory where llama.cpp cannot allocate it."""
        L = self._L = native.bindings()
        if spec.n_seq_max > L.llama_max_parallel_sequences():
            raise UnexpectedFailure(
                f"{spec.n_seq_max} sequences asked for, llama.cpp takes {L.llama_max_parallel_sequences()}",
                "choose a smaller --parallel",
            )
        if spec.n_outputs_max < spec.n_seq_max or spec.n_batch < spec.n_seq_max:
            raise ValueError("n_outputs_max and n_batch must be at least n_seq_max")
        self._model = model
        self.vocab = model.vocab
        self.vocab_handle = L.llama_model_get_vocab(model.handle)
        self.n_ctx_train = int(L.llama_model_n_ctx_train(model.handle))

        params = L.llama_context_default_params()
        params.n_ctx = spec.n_cells or spec.n_ctx_seq * spec.n_seq_max
        params.n_batch = params.n_ubatch = spec.n_batch
        params.n_seq_max = spec.n_seq_max
        params.n_outputs_max = spec.n_outputs_max
        params.n_threads = params.n_threads_batch = spec.n_threads
        params.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[spec.flash_attn]
        params.type_k, params.type_v = KV_TYPES[spec.type_k], KV_TYPES[spec.type_v]
        params.kv_unified = spec.kv_unified
        params.swa_full = True  # a windowed cache reuses cells out of order
        # The abort callback runs after every graph node: libc's strlen over a flag byte needs no GIL.
        self._abort_flag = ctypes.create_string_buffer(2)
        libc = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
        params.abort_callback = ctypes.cast(libc.strlen, type(params.abort_callback))
        params.abort_callback_data = ctypes.cast(self._abort_flag, ctypes.c_void_p)
        self.handle = L.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise OutOfMemory(
                f"llama.cpp could not make a context of {spec.n_seq_max} x {spec.n_ctx_seq} tokens",
                "use a smaller --ctx or --parallel, or a smaller KV cache (--cache-type-k q8_0)",
                native=True,
            )
        self._adapters = self._apply_loras(spec)
        # Of one memory for all llama.cpp tells its whole size.
        self.n_ctx_seq = spec.n_ctx_seq if spec.kv_unified else int(L.llama_n_ctx_seq(self.handle))
        self.n_seq_max = spec.n_seq_max
        self._is_unified = spec.kv_unified
        # One sequence's state leaves out what its sliding windows have passed (llama_kv_cache::state_write):
        # loaded, the rest lies elsewhere in memory, which changes logits. The whole context's is complete.
        self.saves_alone = L.llama_model_n_swa(model.handle) > 0
        self.n_batch = int(L.llama_n_batch(self.handle))
        self.n_outputs_max = spec.n_outputs_max
        self._memory = L.llama_get_memory(self.handle)
        if not self._memory:
            raise ModelInvalid(
                "this model keeps no context (an encoder)", "choose a model that generates text"
            )
        self._get_logits = native.function("llama_get_logits", ctypes.c_void_p, ctypes.c_void_p)
        self._logits_address = 0
        self._logits_n = 0
        self._logits_view: Floats = np.empty((0, self.vocab.n_tokens), np.float32)
        self._buffers = BatchBuffers(self.n_batch, spec.n_seq_max)
        self._output_rows: list[int] = []  # of the last batch, those with logits

    def _apply_loras(self, spec: ContextSpec) -> list[Any]:
        L = self._L
        adapters = []
        for lora in spec.loras:
            adapter = L.llama_adapter_lora_init(self._model.handle, os.fsencode(lora.path))
            if not adapter:
                raise ModelInvalid(f"{lora.path} is not a LoRA adapter for this model", native=True)
            adapters.append(adapter)
        if adapters:
            n = len(adapters)
            handles = (L.llama_adapter_lora_p_ctypes * n)(*adapters)
            scales = (ctypes.c_float * n)(*[lora.scale for lora in spec.loras])
            if L.llama_set_adapters_lora(self.handle, handles, n, scales) != 0:
                raise ModelInvalid("llama.cpp refused the LoRA adapters", native=True)
        return adapters

    def decode(self, tokens: Ints, positions: Ints, seqs: Ints, outputs: Flags) -> DecodeStatus:
        """Evaluate rows (`llama_decode`). Raises ValueError on what llama.cpp would abort on."""
        self._check_rows(tokens, seqs, outputs)
        return self._decode(self._buffers.filled(tokens, positions, seqs, outputs))

    def decode_tree(
        self, tokens: Ints, positions: Ints, seqs: Sequence[Ints], outputs: Flags
    ) -> DecodeStatus:
        if not self._is_unified:
            raise ValueError("rows of several sequences need one memory for all")
        self._check_rows(tokens, [seq for row in seqs for seq in row], outputs)
        return self._decode(self._buffers.filled_tree(tokens, positions, seqs, outputs))

    def _check_rows(self, tokens: Ints, seqs: Ints, outputs: Flags) -> None:
        n = len(tokens)
        if not 0 < n <= self.n_batch:
            raise ValueError(f"{n} rows in a batch of at most {self.n_batch}")
        rows = [row for row, wanted in enumerate(outputs) if wanted]
        if len(rows) > self.n_outputs_max:
            raise ValueError(f"{len(rows)} rows with logits, at most {self.n_outputs_max}")
        if min(seqs) < 0 or max(seqs) >= self.n_seq_max:
            raise ValueError("a sequence id is out of range")
        if min(tokens) < 0 or max(tokens) >= self.vocab.n_tokens:
            raise ValueError("a token is outside the vocabulary")
        self._output_rows = rows

    def _decode(self, batch: Any) -> DecodeStatus:
        return _STATUS.get(self._L.llama_decode(self.handle, batch), DecodeStatus.FAILED)

    def logits(self, n_outputs: int) -> Floats:
        address = self._get_logits(self.handle)
        if not address or n_outputs > len(self._output_rows):
            raise ValueError(f"{n_outputs} rows of logits asked for, {len(self._output_rows)} computed")
        if address != self._logits_address or n_outputs != self._logits_n:
            size = n_outputs * self.vocab.n_tokens
            memory = (ctypes.c_float * size).from_address(address)
            self._logits_view = np.ctypeslib.as_array(memory).reshape(n_outputs, self.vocab.n_tokens)
            self._logits_address, self._logits_n = address, n_outputs
        return self._logits_view

    def batch_row(self, output_row: int) -> int:
        """Index in the last batch of an output row."""
        return self._output_rows[output_row]

    def new_sampler(self, params: SamplingParams, seed: int) -> LlamaSampler:
        return LlamaSampler(self, params, seed)

    def _check_seq(self, seq: int) -> None:
        if not 0 <= seq < self.n_seq_max:
            raise ValueError(f"sequence {seq} is outside 0..{self.n_seq_max - 1}")

    def seq_rm(self, seq: int, p0: int) -> bool:
        self._check_seq(seq)
        return bool(self._L.llama_memory_seq_rm(self._memory, seq, p0, -1))

    def seq_cp(self, source: int, target: int) -> None:
        self._check_seq(source)
        self._check_seq(target)
        if self._is_unified:  # there a copy only adds the sequence to cells
            self.seq_rm(target, 0)
        # Between streams llama.cpp copies whole buffers and aborts on a part (llama_kv_cache::seq_cp).
        self._L.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def state_save(self, seq: int) -> bytearray:
        self._check_seq(seq)
        L = self._L
        if self.saves_alone and not self._is_alone(seq):
            return bytearray()
        L.llama_synchronize(self.handle)
        data = _filled(L.llama_state_seq_get_size, L.llama_state_seq_get_data, self.handle, seq)
        if not data or not self.saves_alone:
            return data
        whole = _filled(L.llama_state_get_size, L.llama_state_get_data, self.handle)
        if whole:
            # With one sequence in it, behind a name it goes on as that one's does behind its header.
            whole[: 4 + int.from_bytes(whole[:4], sys.byteorder)] = data[:_SEQ_HEADER]
        return whole

    def state_load(self, seq: int, data: Buffer, n_tokens: int) -> bool:
        self._check_seq(seq)
        size = len(data)
        if 0 < n_tokens <= self.n_ctx_seq and size:
            read = self._L.llama_state_seq_set_data(self.handle, _address(data), size, seq)
            first = self._L.llama_memory_seq_pos_min(self._memory, seq)
            last = self._L.llama_memory_seq_pos_max(self._memory, seq)
            if (read, first, last) == (size, 0, n_tokens - 1):
                return True
        self.seq_rm(seq, 0)
        return False

    def _is_alone(self, seq: int) -> bool:
        """Whether no other sequence holds anything."""
        last = self._L.llama_memory_seq_pos_max
        return all(last(self._memory, other) < 0 for other in range(self.n_seq_max) if other != seq)

    def abort(self) -> None:
        self._abort_flag[0] = b"\x01"

    def resume(self) -> None:
        self._abort_flag[0] = b"\x00"

    def close(self) -> None:
        if self.handle:
            self._L.llama_free(self.handle)
            self.handle = None


_SEQ_HEADER = 8  # bytes, a magic number and the sequence's id (llama_context::state_seq_get_data)


def _filled(size: Callable[..., int], fill: Callable[..., int], handle: Any, *which: int) -> bytearray:
    """What `fill` writes of a context, all of it; else empty."""
    data = bytearray(int(size(handle, *which)))
    return data if data and fill(handle, _address(data), len(data), *which) == len(data) else bytearray()


def _address(data: Buffer) -> Any:
    """Where the bytes are, for llama.cpp. Not copied: `data` has to outlive the call."""
    return ctypes.cast(np.frombuffer(data, np.uint8).ctypes.data, _BYTE_P)
