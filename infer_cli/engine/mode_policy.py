"""What each mode promises and the shapes that keep the promise.

    fast        no promise beyond the seed
    canonical   the same shapes whatever the neighbours: a prompt alone, in chunks of C at fixed boundaries;
                decode steps of exactly W rows, dummy rows in idle slots
    invariant   kernels whose rows do not depend on the shape: W, chunking and threads are free

Measurements behind the choices are in docs/determinism.md.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from infer_cli.backend.spec import FREE_CHUNK
from infer_cli.engine.drafting import MAX_ROWS
from infer_cli.types import Mode, Promise

CANONICAL_CHUNK = 64  # rows from which llama.cpp's tiled attention is used (GGML_FA_TILE_Q)
# For short prompts behind one beginning: each call passes over all that the others hold alone by then. The
# prefill of 48 GSM8K questions behind six examples took 0.95 of its time with 512.
JOINED_CHUNK = 256
# Rows that ggml's kernels for repacked weights take together. More than 3 rows go through gemm as far as they
# make whole groups, the others one by one through gemv, which adds in another order
# (`forward_mul_mat_one_chunk` in ggml-cpu/repack.cpp): a reply would depend on its slot.
ROW_GROUP = 4


class DefaultMode(NamedTuple):
    """The mode where none is asked for, and the one instead where the model can't keep its promise."""

    mode: Mode
    fallback: Mode | None = None


OF_TALKS = DefaultMode("canonical")
# What is cited must not depend on what was computed beside it, nor on how much of that there was.
OF_JOBS = DefaultMode("invariant", "canonical")


class ModelTraits(NamedTuple):
    """What a model's header says that decides a promise."""

    pairs_rows: bool = False  # F16/BF16/F32/IQ4_NL matrices: other kernels for one row than for two
    recurrent: bool = False
    moe: bool = False
    mla: bool = False  # latent attention: llama.cpp wants one type for K and V
    on_gpu: bool = False


class ModePolicy(NamedTuple):
    """Shapes of the decode calls, and the context settings that go with them."""

    mode: Mode
    promise: Promise
    weaker_because: str  # why the promise is weaker than the mode, or empty
    width: int  # W, slots
    chunk: int  # C, most prompt tokens a call (one more where a single token would be left)
    fixed_width: bool  # every decode call has `width` rows
    min_rows: int  # least rows of any call
    fill_holes: bool  # dummy rows in idle slots: False where a state cannot forget them
    use_extra_bufts: bool
    flash_attn: Literal["auto", "on", "off"]
    type_k: str
    type_v: str
    environment: tuple[tuple[str, str], ...] = ()  # for llama.cpp, before the first decode
    speculates: bool = False  # rows of guessed tokens may join a decode call
    kv_unified: bool = False  # one memory for all slots: what prompts begin with alike is held once
    passed_over: str = ""  # why it is not the mode that this one is the fallback of, or empty

    @property
    def interruptible(self) -> bool:
        """Whether a decode call may be aborted half-way and done again."""
        return self.fill_holes

    @property
    def scores_as_tree(self) -> bool:
        """Whether many texts are scored in one call, each beginning that they share once: where rows need no
        fixed shape, and the state can be cut."""
        return self.fill_holes and not self.fixed_width

    @property
    def n_seq_max(self) -> int:
        return max(self.width, self.min_rows)

    @property
    def n_batch(self) -> int:
        return max(self.chunk + 1, self.n_outputs_max)

    @property
    def n_outputs_max(self) -> int:
        return max(self.n_seq_max, self.min_rows, MAX_ROWS if self.speculates else 0)


def canonical_width(width: int) -> int:
    """The least W, `width` or more, whose rows all take the same kernels."""
    return width if width < ROW_GROUP else -(-width // ROW_GROUP) * ROW_GROUP


def why_width_breaks(mode: Mode, width: int) -> str:
    """Why a mode's promise does not hold at a width, as older versions took them; or empty."""
    if mode != "canonical" or width == canonical_width(width):
        return ""
    return f"a width of {width} keeps no promise, its last rows take other kernels than the first"


def choose(
    mode: Mode,
    width: int,
    traits: ModelTraits,
    *,
    type_k: str | None = None,
    type_v: str | None = None,
    flash_attn: Literal["auto", "on", "off"] | None = None,
    speculate: bool = True,
    kv_unified: bool = False,
    exact_width: bool = False,
    fallback: Mode | None = None,
) -> ModePolicy:
    """The policy of a mode for a model; of `fallback` where the model can't keep the promise of `mode`.

    None leaves a setting to the mode. Canonical shapes never speculate.

    Canonical takes the next width that keeps its promise, unless `exact_width`: to compute again what was
    computed at another one.

    `kv_unified` is for `fast` alone: where a token lies in shared memory depends on the neighbours, and so do
    the last digits of what is computed from it.

    Where the model or device cannot keep the mode's promise the policy says so and promises the seed only.
    """
    weaker = _weaker_because(mode, traits, type_k, type_v, flash_attn)
    if weaker and fallback is not None:
        other = choose(
            fallback,
            width,
            traits,
            type_k=type_k,
            type_v=type_v,
            flash_attn=flash_attn,
            speculate=speculate,
            kv_unified=kv_unified,
            exact_width=exact_width,
        )
        return other._replace(passed_over=weaker)
    if exact_width:
        weaker = weaker or why_width_breaks(mode, width)
    elif mode == "canonical":
        width = canonical_width(width)
    promise: Promise = "seed-only" if mode == "fast" or weaker else mode
    if mode == "invariant" and not weaker:
        return ModePolicy(
            mode,
            promise,
            "",
            width,
            FREE_CHUNK,
            fixed_width=False,
            min_rows=2 if traits.pairs_rows else 1,
            fill_holes=True,
            use_extra_bufts=False,
            flash_attn="on",
            # Not both F16: attention then keeps to the one code path that adds in F32.
            type_k="bf16" if traits.mla else "f16",
            type_v="bf16",
            environment=(("GGML_CPU_TILED_MM", "0"),),
            speculates=speculate,
        )
    canonical = mode == "canonical" and not traits.recurrent
    kv_unified = kv_unified and mode == "fast" and not traits.recurrent
    return ModePolicy(
        mode,
        promise,
        weaker,
        width,
        CANONICAL_CHUNK if canonical else JOINED_CHUNK if kv_unified else FREE_CHUNK,
        fixed_width=canonical,
        min_rows=1,
        fill_holes=not traits.recurrent,
        use_extra_bufts=True,
        flash_attn=flash_attn or "auto",
        type_k=type_k or "f16",
        type_v=type_v or "f16",
        speculates=speculate and mode == "fast" and not traits.recurrent,
        kv_unified=kv_unified,
    )


def _weaker_because(
    mode: Mode,
    traits: ModelTraits,
    type_k: str | None,
    type_v: str | None,
    flash_attn: str | None,
) -> str:
    if mode == "fast":
        return ""
    if traits.recurrent:
        return "a recurrent model's state depends on how the prompt was cut"
    if traits.on_gpu:
        return "GPU kernels do not keep it"
    if mode == "canonical" and traits.moe:
        return "a mixture-of-experts model groups rows by expert, so neighbours change its shapes"
    if mode == "invariant" and (type_k or type_v or flash_attn):
        return "it needs its own KV cache types and flash attention"
    return ""
