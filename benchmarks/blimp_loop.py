"""Likelihoods as a careful program computes them with llama-cpp-python's low-level functions: one sentence at
a time, each after the prefix token, with the settings that make a row's result its own.

    python benchmarks/blimp_loop.py MODEL THREADS SENTENCES.json OUT.json

It stands alone: nothing of `infer_cli` is used, so that both can be held against each other. OUT.json has the
seconds without the load and, for each sentence, its ids (the prefix token first) and the sum of the
log-probabilities of all but that one.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["GGML_CPU_TILED_MM"] = "0"  # read once, before the first evaluation

import llama_cpp.llama_cpp as L  # noqa: TID251  # it stands alone
import numpy as np

N_CTX = 256  # more than any sentence
F16, BF16 = 1, 30


class Loop:
    """A model with a context for one sentence."""

    def __init__(self, path: str, n_threads: int) -> None:
        self._log = L.llama_log_callback(lambda _level, _text, _user: None)  # kept: native code holds it
        L.llama_log_set(self._log, None)
        L.llama_backend_init()
        weights = L.llama_model_default_params()
        weights.use_extra_bufts, weights.n_gpu_layers = False, 0
        model = L.llama_model_load_from_file(path.encode(), weights)
        if not model:
            raise SystemExit(f"{path} does not load")
        self._vocab = L.llama_model_get_vocab(model)
        self._n_vocab = L.llama_vocab_n_tokens(self._vocab)
        settings = L.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = N_CTX
        settings.n_threads = settings.n_threads_batch = n_threads
        settings.flash_attn_type, settings.type_k, settings.type_v = 1, F16, BF16
        settings.swa_full = True
        self._context = L.llama_init_from_model(model, settings)
        if not self._context:
            raise SystemExit(f"no context for {path}")
        self._memory = L.llama_get_memory(self._context)
        self._batch = L.llama_batch_init(N_CTX, 0, 1)

    def ids(self, text: str) -> list[int]:
        """The prefix token (BOS, else EOS), then those of the text."""
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 8))()
        n = L.llama_tokenize(self._vocab, data, len(data), room, len(room), False, False)
        prefix = L.llama_vocab_bos(self._vocab)
        return [prefix if prefix >= 0 else L.llama_vocab_eos(self._vocab), *room[:n]]

    def logprob(self, ids: list[int]) -> float:
        """Of all tokens but the first, each after those before it."""
        L.llama_memory_clear(self._memory, False)
        rows = self._logits(ids[:-1])
        peaks = rows.max(axis=1)
        sums = np.exp(rows - peaks[:, None]).sum(axis=1, dtype=np.float64)
        chosen = rows[np.arange(len(rows)), ids[1:]]
        return float((chosen.astype(np.float64) - peaks - np.log(sums)).sum())

    def _logits(self, ids: list[int]) -> Any:
        batch = self._batch
        batch.n_tokens = len(ids)
        for n, token in enumerate(ids):
            batch.token[n], batch.pos[n] = token, n
            batch.n_seq_id[n], batch.seq_id[n][0], batch.logits[n] = 1, 0, 1
        if status := L.llama_decode(self._context, batch):
            raise SystemExit(f"llama_decode: {status}")
        logits = L.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, shape=(len(ids), self._n_vocab))


def main(model: str, n_threads: str, sentences: str, out: str) -> None:
    loop = Loop(model, int(n_threads))
    texts = json.loads(Path(sentences).read_text("utf-8"))
    began = time.perf_counter()
    ids = [loop.ids(text) for text in texts]
    logprobs = [loop.logprob(one) for one in ids]
    found = {"seconds": time.perf_counter() - began, "ids": ids, "logprobs": logprobs}
    Path(out).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
