"""Run as a process of its own: answers prompts under one mode in several ways and prints what came out.

One mode a process, because llama.cpp reads its kernel settings once. Arguments: MODEL MODE TYPE_OF_RUN…
Output: one JSON line per way: {"way": …, "replies": {prompt index: [tokens, sha256 of all logits rows]},
"cached": prompt tokens that were not evaluated again}.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infer_cli.backend import native
from infer_cli.backend.llama import LlamaBackend
from infer_cli.backend.llama_model import LlamaModel
from infer_cli.backend.spec import ContextSpec, ModelSpec
from infer_cli.engine import engine as engine_module
from infer_cli.engine.active_request import ActiveRequest
from infer_cli.engine.engine import Engine
from infer_cli.engine.mode_policy import ModelTraits, ModePolicy, choose
from infer_cli.models.gguf.reading import read_header
from infer_cli.models.gguf.shape import ModelShape
from infer_cli.types import EngineRequest, Finished, Mode, SamplingParams

if TYPE_CHECKING:
    from infer_cli.backend.base import Floats

N_TOKENS = 12
N_MORE = 18  # of some replies: left alone, they move to lower slots where the policy lets them
TEXTS = [
    "The capital of France is",
    "Once upon a time there was a small model that",
    "def fibonacci(n):\n",
    "In the beginning " * 20,
    "List of planets: Mercury, Venus,",
    "مرحبا كيف حالك",
    "The quick brown fox jumps over the lazy dog. " * 9,
    # One beginning of some 200 tokens, copied from slot to slot where it is in memory.
    *("A cat sat on a mat and saw a rat. " * 18 + end for end in ("Then", "But the dog", "Then", "")),
]


def answer(
    model: LlamaModel, policy: ModePolicy, n_threads: int, order: Sequence[int]
) -> tuple[dict[int, tuple[list[int], str]], int]:
    """Replies to TEXTS in this order of arrival; odd ones sampled, even ones greedy. And tokens cached."""
    context = ContextSpec(
        512, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, n_threads,
        policy.type_k, policy.type_v, policy.flash_attn,
    )  # fmt: skip
    backend = LlamaBackend(model, context)
    hashes: dict[str, hashlib._Hash] = {}  # of the logits rows that a request's tokens were chosen from

    def hash_row(active: ActiveRequest, logits: Floats) -> None:
        hashes.setdefault(active.request.id, hashlib.sha256()).update(np.ascontiguousarray(logits).tobytes())

    engine = Engine(backend, policy, time.perf_counter, 512, on_logits=hash_row)
    for i in order:
        sampling = SamplingParams(temperature=0.8) if i % 2 else SamplingParams()
        ids = tuple(model.vocab.tokenize(TEXTS[i].encode()))
        engine.submit(EngineRequest(str(i), ids, sampling, N_TOKENS + N_MORE * (i in (4, 9)), seed=i), 0.0)
    replies, n_cached = {}, 0
    while not engine.idle:
        for event in engine.step():
            if isinstance(event, Finished):
                digest = hashes[event.request_id].hexdigest()
                replies[int(event.request_id)] = (list(event.tokens), digest)
                n_cached += event.usage.cached_tokens
    backend.close()
    return replies, n_cached


def main() -> None:
    path, mode, *ways = sys.argv[1:]
    assert mode in ("fast", "canonical", "invariant")
    header = read_header(Path(path))
    traits = ModelTraits(pairs_rows=ModelShape(header).pairs_rows)
    chosen: Mode = mode  # type: ignore[assignment]
    os.environ.update(choose(chosen, 1, traits).environment)
    native.log_to(os.open(os.devnull, os.O_WRONLY))
    model = LlamaModel(ModelSpec(Path(path), use_extra_bufts=choose(chosen, 1, traits).use_extra_bufts))
    everyone = list(range(len(TEXTS)))
    for way in ways:
        width, _, rest = way.partition(":")
        policy = choose(chosen, int(width), traits)
        threads = 1 if "1thread" in rest else 2
        if "alone" in rest or "shards" in rest:
            # Width as named, one request at a time, or each third one: the other rows are dummies.
            replies: dict[int, tuple[list[int], str]] = {}
            n_cached = 0
            n_parts = len(everyone) if "alone" in rest else 3
            for i in range(n_parts):
                replies |= answer(model, policy, threads, everyone[i::n_parts])[0]
        else:
            order = everyone[::-1] if "reversed" in rest else everyone
            replies, n_cached = answer(model, policy, threads, order)
        print(json.dumps({"way": way, "replies": replies, "cached": n_cached}), flush=True)


if __name__ == "__main__":
    assert engine_module.DUMMY_TOKEN == 0
    main()
