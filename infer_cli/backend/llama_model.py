"""A model in memory and its vocabulary, through llama.cpp. No numpy: a load begins before numpy is there."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infer_cli.backend import native
from infer_cli.backend.spec import ModelSpec
from infer_cli.errors import ModelInvalid, OutOfMemory, UnexpectedFailure
from infer_cli.system.memory import available_memory

# Progress of a smaller file is not worth a call into Python for each tensor: each would have to wait
# for whatever else Python is doing meanwhile.
PROGRESS_MIN_BYTES = 2**30

# std::regex, where a pre-tokenizer is made of it, needs up to 419 bytes of stack for a character of a match
# (libstdc++, x86-64). Every thread's stack is enough for this many characters ...
_SHALLOW_CHARS = 1000
# ... and more of them are given a stack of their own.
_STACK_A_CHAR = 1024
_STACK_BASE = 1 << 20


@dataclass(frozen=True)
class LlamaControlToken:
    id: int
    text: bytes
    lstrip: bool
    rstrip: bool


class LlamaVocab:
    """`backend.base.Vocab` on a llama_vocab. Holds the model alive only by its owner's promise.

    `pre`: the name of its pre-tokenizer; None for a vocabulary that has none.
    """

    def __init__(self, vocab: Any, pre: str | None) -> None:
        self._L = native.bindings()
        self._vocab, self._pre = vocab, pre
        L = self._L

        def token_or_none(token: int) -> int | None:
            return token if 0 <= token < self.n_tokens else None

        self.n_tokens = int(L.llama_vocab_n_tokens(vocab))
        self.bos = token_or_none(L.llama_vocab_bos(vocab))
        self.eos = token_or_none(L.llama_vocab_eos(vocab))
        # llama.cpp asserts where a vocabulary wants BOS but has none.
        self.add_bos = bool(L.llama_vocab_get_add_bos(vocab)) and self.bos is not None
        self.add_eos = bool(L.llama_vocab_get_add_eos(vocab)) and self.eos is not None
        self._pieces: dict[int, bytes] = {}
        self._eog: dict[int, bool] = {}
        self._control: list[LlamaControlToken] | None = None

    def tokenize(self, text: bytes) -> list[int]:
        return self._tokenize(text, parse_special=False)

    def tokenize_special(self, text: bytes) -> list[int]:
        return self._tokenize(text, parse_special=True)

    def _tokenize(self, text: bytes, *, parse_special: bool) -> list[int]:
        if not text:
            return []
        if len(text) > 2**31 - 1 - 2:
            raise UnexpectedFailure("more than 2.15 GB of text in one piece", "split the input")
        n_deep = self._longest_match(text)
        if n_deep > _SHALLOW_CHARS:
            return _on_deep_stack(lambda: self._ids(text, parse_special), n_deep)
        return self._ids(text, parse_special)

    def _longest_match(self, text: bytes) -> int:
        """Characters of a match that llama.cpp may recurse over, at most."""
        if len(text) <= _SHALLOW_CHARS or self._pre is None:
            return 0
        from infer_cli.backend.pretokenizers import longest_stretch, recurses, splits_words

        if not recurses(self._pre):
            return 0
        return longest_stretch(text, split_words=splits_words(self._pre))

    def _ids(self, text: bytes, parse_special: bool) -> list[int]:
        room = len(text) // 2 + 16
        while True:
            buffer = (ctypes.c_int32 * room)()
            n = self._L.llama_tokenize(self._vocab, text, len(text), buffer, room, False, parse_special)
            if n >= 0:
                return buffer[:n]
            if n == -(2**31):
                raise UnexpectedFailure("the text has too many tokens for llama.cpp", "split the input")
            room = -n

    def _check(self, token: int) -> None:
        if not 0 <= token < self.n_tokens:
            raise ValueError(f"token {token} is outside the vocabulary (0..{self.n_tokens - 1})")

    def piece(self, token: int) -> bytes:
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._token_to_piece(token, special=False)
        return known

    def token_text(self, token: int) -> bytes:
        return self._token_to_piece(token, special=True)

    def _token_to_piece(self, token: int, *, special: bool) -> bytes:
        self._check(token)
        size = 32
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = self._L.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            size = -n

    def is_eog(self, token: int) -> bool:
        known = self._eog.get(token)
        if known is None:
            self._check(token)
            known = self._eog[token] = bool(self._L.llama_vocab_is_eog(self._vocab, token))
        return known

    def control_tokens(self) -> list[LlamaControlToken]:
        if self._control is None:
            L = self._L
            wanted = L.LLAMA_TOKEN_ATTR_CONTROL | L.LLAMA_TOKEN_ATTR_UNKNOWN
            get_attr, vocab = L.llama_vocab_get_attr, self._vocab
            found = []
            for token in range(self.n_tokens):
                attr = get_attr(vocab, token)
                if attr & wanted:
                    found.append(
                        LlamaControlToken(
                            token,
                            self.token_text(token),
                            bool(attr & L.LLAMA_TOKEN_ATTR_LSTRIP),
                            bool(attr & L.LLAMA_TOKEN_ATTR_RSTRIP),
                        )
                    )
            self._control = sorted(found, key=lambda t: (-len(t.text), t.id))
        return self._control


def _on_deep_stack(work: Callable[[], list[int]], n_chars: int) -> list[int]:
    """The result of `work`, on a thread whose stack is enough for a match of so many characters.

    Raises OutOfMemory where there is no room for it.
    """
    size = _STACK_BASE + n_chars * _STACK_A_CHAR
    done: list[list[int] | BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # it is raised where it was asked for
            done.append(error)

    available = available_memory()
    try:
        if size >= 2**31 or (available is not None and size > available):
            raise MemoryError
        with _stack_size_lock:
            before = threading.stack_size(size)
            try:
                thread = threading.Thread(target=run, name="infer-tokenize-deep")
                thread.start()
            finally:
                threading.stack_size(before)
    except (MemoryError, ValueError, RuntimeError):
        raise OutOfMemory(
            f"{n_chars} bytes of text without a place to cut them are too many for this model's tokenizer",
            "see whether it is a text: texts are cut between words and lines",
        ) from None
    thread.join()
    (result,) = done
    if isinstance(result, BaseException):
        raise result
    return result


_stack_size_lock = threading.Lock()  # the size is the process's


def write_f16(source: Path, target: Path, n_threads: int) -> bool:
    """Write a model with its matrices as F16 (`llama_model_quantize`); whether llama.cpp could."""
    L = native.bindings()
    params = L.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = L.LLAMA_FTYPE_MOSTLY_F16, True, n_threads
    failed: int = L.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    return not failed


class LlamaModel:
    """Loaded weights. `vocab` may be used from any thread until `close`."""

    def __init__(
        self,
        spec: ModelSpec,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Load weights. Releases the GIL while it reads. Raises ModelInvalid.

        `on_progress` is called with the fraction done, for files of `PROGRESS_MIN_BYTES` and more.
        """
        L = self._L = native.bindings()
        params = L.llama_model_default_params()
        params.n_gpu_layers = spec.gpu_layers
        params.use_extra_bufts = spec.use_extra_bufts
        params.vocab_only = spec.vocab_only
        params.load_mode = {
            (True, False): L.LLAMA_LOAD_MODE_MMAP,
            (True, True): L.LLAMA_LOAD_MODE_MMAP_MLOCK,
            (False, False): L.LLAMA_LOAD_MODE_NONE,
            (False, True): L.LLAMA_LOAD_MODE_MLOCK,
        }[spec.use_mmap, spec.use_mlock]
        self._devices = self._device_array(spec)
        if self._devices is not None:
            params.devices = ctypes.cast(self._devices, ctypes.c_void_p)

        self._progress = self._progress_callback(spec, on_progress)
        params.progress_callback = self._progress
        self._go_on = ctypes.create_string_buffer(b"1")
        params.progress_callback_user_data = ctypes.cast(self._go_on, ctypes.c_void_p)
        self.handle = L.llama_model_load_from_file(os.fsencode(spec.path), params)
        if not self.handle:
            raise ModelInvalid(f"llama.cpp could not load {spec.path}", native=True)
        self.vocab = LlamaVocab(L.llama_model_get_vocab(self.handle), self._pre_tokenizer())

    def _pre_tokenizer(self) -> str | None:
        """The name in the file, `default` for none; None where the vocabulary is split in no pieces."""
        L = self._L
        if L.llama_vocab_type(L.llama_model_get_vocab(self.handle)) != L.LLAMA_VOCAB_TYPE_BPE:
            return None
        name = ctypes.create_string_buffer(64)
        n = L.llama_model_meta_val_str(self.handle, b"tokenizer.ggml.pre", name, len(name))
        return name.value.decode("utf-8", "replace") if n > 0 else "default"

    def _progress_callback(self, spec: ModelSpec, on_progress: Callable[[float], None] | None) -> Any:
        prototype = self._L.llama_progress_callback
        if sys.platform == "win32" or (on_progress and spec.path.stat().st_size >= PROGRESS_MIN_BYTES):

            def progress(fraction: float, _user: object) -> bool:
                if on_progress is not None:
                    on_progress(fraction)
                return True

            return prototype(progress)
        # strlen(user_data): the float travels in another register, and a length above 0 is "go on".
        # (None at all would make llama.cpp print dots.)
        return ctypes.cast(ctypes.CDLL(None).strlen, prototype)

    @staticmethod
    def _device_array(spec: ModelSpec) -> ctypes.Array[ctypes.c_void_p] | None:
        if spec.gpu_layers == 0:
            # Without this a GPU build would still send large matrix products to the GPU (op_offload).
            return (ctypes.c_void_p * 1)(None)
        if not spec.devices:
            return None
        by_name = {d.name: h for d, h in zip(native.devices(), native.device_handles(), strict=True)}
        return (ctypes.c_void_p * (len(spec.devices) + 1))(*[by_name[n] for n in spec.devices], None)

    def close(self) -> None:
        if self.handle:
            self._L.llama_model_free(self.handle)
            self.handle = None
