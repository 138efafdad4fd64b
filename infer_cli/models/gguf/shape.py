"""What llama.cpp makes of a GGUF header: layers, heads, windows, and which layers keep a running state."""

from __future__ import annotations

import re
from functools import cached_property

from infer_cli.models.gguf.header import MAX_DIM, Header, TensorInfo

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS

# llm_arch_is_recurrent and llm_arch_is_hybrid of llama-arch.cpp.
RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
HYBRID = frozenset(
    {
        "jamba", "falcon-h1", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe",
        "qwen3next", "kimi-linear", "bailingmoe3", "kimi-k3", "glm5-next", "qwen35", "qwen35moe", "qwen4exp",
        "deepseek4", "minimax-01",
    }
)  # fmt: skip

# Hybrids whose recurrent layers follow `full_attention_interval` where they are not listed.
_INTERVAL_HYBRIDS = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01"})
_DEFAULT_INTERVAL = 4

# Types whose CPU kernels compute one row and two rows differently.
_PAIRED_TYPES = frozenset({"F16", "BF16", "F32", "IQ4_NL"})
# Tensors that are looked up by row. The rest are multiplied as matrices, but for elementwise ones.
_LOOKED_UP = re.compile(r"^(token_embd|per_layer_token_embd|position_embd|token_types)\.|tid2eid")


class ModelShape:
    """The model that a header describes. What is read of its file is read once.

    Raises ModelInvalid where the metadata lacks or garbles what is asked for.
    """

    def __init__(self, header: Header) -> None:
        self.header = header

    @property
    def n_layer(self) -> int:
        """All blocks, next-token-prediction ones included (llama.cpp's n_layer_all)."""
        return self._required("block_count", MAX_LAYERS)

    @property
    def n_layer_nextn(self) -> int:
        """Blocks at the end that only predict further tokens (MTP); no cache is kept for them."""
        value = self.header.hyperparameter("nextn_predict_layers") or 0
        if value > self.n_layer:
            raise self.header.invalid(f"{value} next-token-prediction layers of {self.n_layer} layers")
        return value

    @property
    def n_ctx_train(self) -> int:
        """Window the model was trained for, tokens."""
        return self._required("context_length")

    @property
    def n_embd(self) -> int:
        return self._required("embedding_length")

    @cached_property
    def n_ff_by_layer(self) -> tuple[int, ...]:
        return self.per_layer("feed_forward_length") or (0,) * self.n_layer

    @cached_property
    def n_head_by_layer(self) -> tuple[int, ...]:
        """Query heads; 0 where a layer has no attention."""
        return self.per_layer("attention.head_count") or (0,) * self.n_layer

    @cached_property
    def n_head_kv_by_layer(self) -> tuple[int, ...]:
        """Key/value heads; as many as query heads unless the metadata says otherwise."""
        return self.per_layer("attention.head_count_kv") or self.n_head_by_layer

    @property
    def n_head(self) -> int:
        return max(self.n_head_by_layer)

    @property
    def n_head_kv(self) -> int:
        return max(self.n_head_kv_by_layer)

    @property
    def key_length(self) -> int:
        """Elements of one head's key; 0 without attention."""
        return self._head_length("attention.key_length")

    @property
    def value_length(self) -> int:
        """Elements of one head's value; 0 without attention."""
        return self._head_length("attention.value_length")

    def _head_length(self, name: str) -> int:
        value = self.header.hyperparameter(name)
        if value is not None:
            return value
        first = self.n_head_by_layer[0]
        return self.n_embd // first if first else 0

    @property
    def sliding_window(self) -> int | None:
        """Tokens that sliding-window layers look back, None without such layers."""
        return self.header.hyperparameter("attention.sliding_window") or None

    @property
    def n_vocab(self) -> int | None:
        tokens = self.header.arrays.get("tokenizer.ggml.tokens")
        return tokens.count if tokens else self.header.hyperparameter("vocab_size")

    @property
    def is_moe(self) -> bool:
        return (self.header.hyperparameter("expert_count") or 0) > 0

    @property
    def is_hybrid(self) -> bool:
        """Whether some layers are recurrent and others have attention."""
        return self.header.architecture in HYBRID

    @property
    def is_recurrent(self) -> bool:
        """Whether any layer keeps a running state, so that a sequence cannot be cut back to a position."""
        return self.header.architecture in RECURRENT or self.is_hybrid

    @cached_property
    def recurrent_by_layer(self) -> tuple[bool, ...]:
        """Which layers keep a running state (the `load_arch_hparams` of llama.cpp's src/models/)."""
        arch, n = self.header.architecture, self.n_layer
        if not self.is_recurrent or arch == "deepseek4":
            return (False,) * n
        if arch in RECURRENT or arch == "falcon-h1":
            return (True,) * n
        last = n - self.n_layer_nextn
        if arch not in _INTERVAL_HYBRIDS:
            heads, n_ff = self.n_head_kv_by_layer, self.n_ff_by_layer
            mixers = arch.startswith("nemotron_h")  # its feed-forward blocks are layers of their own
            return tuple(i < last and heads[i] == 0 and not (mixers and n_ff[i]) for i in range(n))
        listed = self.per_layer("attention.recurrent_layers")
        if listed is not None:
            return tuple(bool(value) for value in listed)
        interval = self.header.hyperparameter("full_attention_interval") or _DEFAULT_INTERVAL
        return tuple(i < last and (i + 1) % interval != 0 for i in range(n))

    @cached_property
    def has_output_tensor(self) -> bool:
        """False where the token embedding serves as the output head too."""
        return any(tensor.name == "output.weight" for tensor in self.header.tensors)

    @cached_property
    def pairs_rows(self) -> bool:
        """Whether a weight matrix has a type whose CPU kernels differ between one row and two."""
        return any(
            tensor.type in _PAIRED_TYPES and len(tensor.shape) >= 2 and self._is_multiplied(tensor)
            for tensor in self.header.tensors
        )

    def _is_multiplied(self, tensor: TensorInfo) -> bool:
        if tensor.name == "token_embd.weight":
            return not self.has_output_tensor
        return _LOOKED_UP.search(tensor.name) is None and not tensor.is_elementwise

    def per_layer(self, name: str) -> tuple[int, ...] | None:
        """A hyperparameter that is one number for all layers or an array of one a layer."""
        header = self.header
        key = f"{header.architecture}.{name}"
        if key not in header.arrays:
            value = header.get_int(key)
            return None if value is None else (value,) * self.n_layer
        if header.arrays[key].count != self.n_layer:
            raise header.invalid(f"{key!r} has {header.arrays[key].count} elements for {self.n_layer} layers")
        values = header.array(key)
        if not all(isinstance(value, int) and 0 <= value <= MAX_DIM for value in values):
            raise header.invalid(f"{key!r} must hold counts")
        return tuple(int(value) for value in values)

    def _required(self, name: str, most: int = MAX_DIM) -> int:
        header = self.header
        value = header.hyperparameter(name)
        if value is None:
            raise header.missing(f"{header.architecture}.{name}")
        if not 1 <= value <= most:
            raise header.invalid(f"'{header.architecture}.{name}' is {value}, expected 1 to {most}")
        return value
