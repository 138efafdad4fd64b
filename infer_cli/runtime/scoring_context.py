"""What a context for likelihoods holds: how many rows and logits at a time, and of how many texts. Pure."""

from __future__ import annotations

from infer_cli.backend.spec import FREE_CHUNK, ContextSpec
from infer_cli.engine.mode_policy import ModePolicy

LOGITS_BYTES = 64 << 20  # of logits at a time, where rows need no fixed shape
MAX_SEQS = 256  # llama.cpp's LLAMA_MAX_SEQ
_LEAST_ROWS = 2  # with logits
_PAD = 256  # tokens, as llama.cpp pads its memory (llama_context)


def scoring_context(
    context: ContextSpec, policy: ModePolicy, window: int, n_vocab: int, n_rows: int | None = None
) -> ContextSpec:
    """The context of a policy, made into one for likelihoods of texts of up to `window` tokens.

    `n_rows`: most rows with logits of a call, where their number is free; None: as many as `LOGITS_BYTES`
    hold.
    """
    most = min(n_rows or FREE_CHUNK, FREE_CHUNK, LOGITS_BYTES // (4 * n_vocab))
    n_outputs = max(most, _LEAST_ROWS)
    if not policy.scores_as_tree:
        n_batch = policy.chunk + 1  # a tail of one token joins the chunk before it
        n_outputs = n_batch if policy.fixed_width else n_outputs
        return context._replace(n_seq_max=1, n_batch=n_batch, n_outputs_max=n_outputs, kv_unified=False)
    n_cells = -(-(window + FREE_CHUNK) // _PAD) * _PAD
    return context._replace(
        n_ctx_seq=n_cells,
        n_seq_max=min(MAX_SEQS, n_outputs),
        n_batch=FREE_CHUNK,
        n_outputs_max=n_outputs,
        kv_unified=True,
        n_cells=n_cells,
    )
