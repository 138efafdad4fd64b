"""What llama.cpp's sampler draws with a seed, read off the sampler itself: no generator is written anew."""

from __future__ import annotations

import ctypes

from infer_cli.backend import native
from infer_cli.types import MAX_SEED, SamplingParams

N_STEPS = 4096  # of the numbers from 0 to 1 that are told apart


class LlamaDraws:
    """`Draws` of a chain that ends in `llama_sampler_init_dist`: it draws once a token, whatever the logits.

    Among `N_STEPS` tokens that are equally likely, the one that is drawn says where the number lies.
    """

    def __init__(self, params: SamplingParams, seed: int) -> None:
        L = self._L = native.bindings()
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {seed} is outside 0..{MAX_SEED}")
        self.followed = params
        self._sampler = L.llama_sampler_init_dist(seed)
        self._tokens = (L.llama_token_data * N_STEPS)()

    def draw(self) -> tuple[float, float]:
        L, tokens = self._L, self._tokens
        ctypes.memset(tokens, 0, ctypes.sizeof(tokens))  # logits too
        array = L.llama_token_data_array(tokens, N_STEPS, -1, False)
        L.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return array.selected / N_STEPS, (array.selected + 1) / N_STEPS

    def close(self) -> None:
        if self._sampler:
            self._L.llama_sampler_free(self._sampler)
            self._sampler = None
