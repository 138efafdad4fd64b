"""A model of lm-evaluation-harness that shares no code with infer: llama.cpp's low-level functions, one
request at a time, token by token where it generates, with the settings whose results do not depend on shapes.

    python -m tests.integrations.reference_lm MODEL.gguf TASKS_DIR WINDOW OUT.json TASK...

It has a process of its own, as llama.cpp reads `GGML_CPU_TILED_MM` once.
"""

from __future__ import annotations

import os

os.environ["GGML_CPU_TILED_MM"] = "0"

import ctypes
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as L  # noqa: TID251  # this is what infer is compared with
import numpy as np
from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

_GGML_TYPE_F16, _GGML_TYPE_BF16 = 1, 30
_MAX_GEN_TOKS = 256
_MOST_ROWS = 512  # that are evaluated together


class ReferenceLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    def __init__(self, path: str, window: int) -> None:
        super().__init__()
        L.llama_log_set(_SILENT, None)
        L.llama_backend_init()
        of_model = L.llama_model_default_params()
        of_model.use_extra_bufts, of_model.n_gpu_layers = False, 0
        self._model = L.llama_model_load_from_file(path.encode(), of_model)
        self._vocab = L.llama_model_get_vocab(self._model)
        self._n_vocab = L.llama_vocab_n_tokens(self._vocab)
        self._window = window
        of_context = L.llama_context_default_params()
        of_context.n_ctx, of_context.n_batch = 2048, _MOST_ROWS
        of_context.n_ubatch, of_context.n_seq_max = _MOST_ROWS, 1
        of_context.n_threads = of_context.n_threads_batch = 2
        of_context.flash_attn_type = 1
        of_context.type_k, of_context.type_v = _GGML_TYPE_F16, _GGML_TYPE_BF16
        self._context = L.llama_init_from_model(self._model, of_context)
        self._batch = L.llama_batch_init(_MOST_ROWS, 0, 1)

    # --- text and ids ---

    @property
    def eot_token_id(self) -> int:
        return int(L.llama_vocab_eos(self._vocab))

    @property
    def prefix_token_id(self) -> int:
        bos = int(L.llama_vocab_bos(self._vocab))
        return bos if bos >= 0 else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        return "reference"

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """ChatML, with the system message that SmolLM2's template puts first."""
        turns = chat_history
        if turns[0]["role"] != "system":
            system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
            turns = [{"role": "system", "content": system}, *turns]
        text = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
        return text + "<|im_start|>assistant\n"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        data = string.encode()
        room = (ctypes.c_int32 * (len(data) + 8))()
        n = L.llama_tokenize(self._vocab, data, len(data), room, len(room), False, True)
        ids = list(room[:n])
        bos = int(L.llama_vocab_bos(self._vocab))
        if add_special_tokens is False or not L.llama_vocab_get_add_bos(self._vocab) or ids[:1] == [bos]:
            return ids
        return [bos, *ids]

    def _text(self, ids: Sequence[int]) -> str:
        data = b""
        room = ctypes.create_string_buffer(256)
        for token in ids:
            n = L.llama_token_to_piece(self._vocab, token, room, len(room), 0, False)
            data += room.raw[:n]
        return data.decode("utf-8", "replace")

    # --- logits ---

    def _rows(self, ids: Sequence[int], at: int) -> Any:
        """Logits after each of the ids, evaluated behind `at` others."""
        parts = [
            self._part(ids[start : start + _MOST_ROWS], at + start)
            for start in range(0, len(ids), _MOST_ROWS)
        ]
        return np.concatenate(parts)

    def _part(self, ids: Sequence[int], at: int) -> Any:
        batch = self._batch
        batch.n_tokens = len(ids)
        for k, token in enumerate(ids):
            batch.token[k], batch.pos[k] = token, at + k
            batch.n_seq_id[k], batch.seq_id[k][0], batch.logits[k] = 1, 0, 1
        assert L.llama_decode(self._context, batch) == 0
        logits = [
            np.ctypeslib.as_array(L.llama_get_logits_ith(self._context, k), (self._n_vocab,))
            for k in range(len(ids))
        ]
        return np.array(logits)

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        found = []
        for _, context, continuation in requests:
            ids = (list(context) + list(continuation))[-(self._window + 1) :]
            L.llama_memory_clear(L.llama_get_memory(self._context), True)
            rows = self._rows(ids[:-1], 0)[-len(continuation) :]
            logprobs = []
            for row, token in zip(rows, continuation, strict=True):
                peak = row.max()
                total = np.exp(row - peak).sum(dtype=np.float64)
                logprobs.append(float(row[token]) - float(peak) - math.log(float(total)))
            greedy = all(int(row.argmax()) == token for row, token in zip(rows, continuation, strict=True))
            found.append((math.fsum(logprobs), greedy))
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        found = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(
                self.tok_encode(text, False), self.prefix_token_id, max_seq_len=self._window, context_len=1
            )
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            found.append(sum(logprob for logprob, _ in self._loglikelihood_tokens(pairs)))
        return found

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        return [self._generate(*request.args) for request in requests]

    def _generate(self, context: str, asked: dict[str, Any]) -> str:
        until = [asked["until"]] if isinstance(asked["until"], str) else asked["until"]
        most = asked.get("max_gen_toks", _MAX_GEN_TOKS)
        ids = self.tok_encode(context)[-(self._window - most) :]
        L.llama_memory_clear(L.llama_get_memory(self._context), True)
        row = self._rows(ids, 0)[-1]
        written: list[int] = []
        while len(written) < most:
            token = int(row.argmax())
            if L.llama_vocab_is_eog(self._vocab, token):
                break
            written.append(token)
            if any(stop in self._text(written) for stop in until):
                break
            row = self._rows([token], len(ids) + len(written) - 1)[-1]
        text = self._text(written)
        for stop in until:
            text = text.split(stop)[0]
        return text


@L.llama_log_callback  # type: ignore[untyped-decorator]
def _SILENT(level: int, text: bytes, data: object) -> None:
    pass


def main() -> None:
    model, folder, window, out, *tasks = sys.argv[1:]
    chat = os.environ.get("REFERENCE_CHAT") == "1"
    found = simple_evaluate(
        ReferenceLM(model, int(window)),
        tasks=list(tasks),
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        bootstrap_iters=0,
        apply_chat_template=chat,
    )
    assert found is not None
    samples = {
        task: [[sample["doc"], sample["resps"]] for sample in items]
        for task, items in found["samples"].items()
    }
    scores = {
        task: [[sample["filter"], {name: sample[name] for name in sample["metrics"]}] for sample in items]
        for task, items in found["samples"].items()
    }
    with open(out, "w") as file:
        value = {"samples": samples, "results": found["results"], "scores": scores}
        json.dump(value, file, default=lambda value: value.tolist())


if __name__ == "__main__":
    main()
