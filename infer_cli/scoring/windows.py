"""A tokenized text cut into windows, of each of which the last tokens are scored. Pure.

    disjoint   llama-perplexity's own: windows of n tokens, one after the other; the tokens behind the middle
               of each are scored, so that each of them has half a window before it
    strided    its `--ppl-stride`: a window begins every `stride` tokens, its last `stride` ones are scored
    rolling    lm-evaluation-harness's `loglikelihood_rolling`: every token is scored once, the first after a
               prefix token, each other after the one before it at least

Sources: `perplexity` and `perplexity_v2` in tools/perplexity/perplexity.cpp of llama.cpp; in
lm-evaluation-harness `get_rolling_token_windows` with `context_len` 1, and `make_disjoint_window`, of
`lm_eval/utils.py`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from infer_cli.errors import UsageError

DEFAULT_WINDOW = 512  # llama-perplexity's
_LEAST_WINDOW = 3  # of fewer tokens, none is behind the middle

Kind = Literal["disjoint", "strided", "rolling"]


class Windowing(NamedTuple):
    """How a text is cut. `window`: tokens (rolling: those that are read). `limit`: most windows."""

    window: int = DEFAULT_WINDOW
    stride: int | None = None
    rolling: bool = False
    limit: int | None = None

    @property
    def kind(self) -> Kind:
        if self.rolling:
            return "rolling"
        return "disjoint" if self.stride is None else "strided"

    def check(self, n_ctx_train: int) -> None:
        """Raises UsageError for what no text can be cut by, or the model was not trained for."""
        if self.rolling and self.stride is not None:
            raise UsageError("rolling windows have no stride")
        least = 1 if self.rolling else _LEAST_WINDOW
        if not least <= self.window <= n_ctx_train:
            raise UsageError(
                f"a window of {self.window} tokens is not between {least} and what this model was trained for"
                f" ({n_ctx_train})",
                "choose the window with --ctx",
            )
        if self.stride is not None and not 1 <= self.stride < self.window:
            raise UsageError(
                f"a stride of {self.stride} tokens is not between 1 and {self.window - 1}: the window has"
                f" {self.window}"
            )
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"a limit of {self.limit} windows leaves nothing to score")

    @property
    def least_tokens(self) -> int:
        """Of a text that can be scored."""
        if self.rolling:
            return 1
        return self.window + (self.stride is not None)


class Span(NamedTuple):
    """Tokens from `start` to `end`, of which those from `start + first` on are scored."""

    start: int
    end: int
    first: int

    @property
    def n_scored(self) -> int:
        return self.end - self.start - self.first


def spans_of(windowing: Windowing, n_tokens: int) -> list[Span]:
    """All windows of a text of at least `least_tokens`, in order. Rolling: of the text with the prefix token
    before it, which `n_tokens` does not count."""
    size, stride = windowing.window, windowing.stride
    if windowing.rolling:
        # Each ends where its last token is predicted. The last one has more before its first than the others.
        ends = [*range(size, n_tokens, size), n_tokens]
        done = [0, *ends[:-1]]
        spans = [
            Span(max(0, end - size), end + 1, before + 1 - max(0, end - size))
            for before, end in zip(done, ends, strict=True)
        ]
    elif stride is not None:
        spans = [Span(start, start + size, size - stride) for start in range(0, n_tokens - size, stride)]
    else:
        starts = range(0, n_tokens - size + 1, size)
        spans = [Span(start, start + size, size // 2 + 1) for start in starts]
    return spans[: windowing.limit]
