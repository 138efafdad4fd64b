"""A context and what may follow it, as ids: what a likelihood is asked of.

For plain text this is lm-evaluation-harness's rule (`TemplateLM.loglikelihood`, `_encode_pair` in
`lm_eval/api/model.py`), so results can be compared: both texts are tokenized as one, and what is beyond the
context's own number of tokens is the continuation. White space that ends a context moves to the continuation,
as tokens begin with it. Where nothing is left of a context, the vocabulary's BOS (else EOS) stands for it.

All text is plain: control tokens in it stay text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import ContextOverflow, UsageError
from infer_cli.prompt.control_tokens import controls_of
from infer_cli.prompt.messages import check_unicode
from infer_cli.types import ScoreRequest

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.prompt.encode import EncodedPrompt

# Characters of a prompt's end that are tokenized with what follows them. No word is as long.
_N_TAIL = 256
# In no vocabulary, so nothing merges with it: text behind it is tokenized as if it began there, but for the
# space that SentencePiece puts before a text.
_WALL = "\ufdd0"


class Pair(NamedTuple):
    """Neither part is empty. `n_dropped`: tokens of the context's beginning that were left out to fit."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    n_dropped: int = 0

    def request(self, request_id: str, deadline_s: float | None = None) -> ScoreRequest:
        """How likely the continuation is after the context."""
        return ScoreRequest(request_id, self.context + self.continuation, len(self.context), deadline_s)


def encode_pair(vocab: Vocab, context: str, continuation: str) -> Pair:
    """Ids of two plain texts, the second after the first.

    Raises UsageError for a continuation that is empty or of which no token is left, for lone surrogates, and
    for an empty context where the vocabulary has neither BOS nor EOS.
    """
    check_unicode(context, "the context")
    _check_continuation(continuation)
    bare = context.rstrip()
    continuation = context[len(bare) :] + continuation
    if not bare:
        return _encode_alone(vocab, continuation)
    ids = _with_bos(vocab, vocab.tokenize(bare.encode()))
    whole = _with_bos(vocab, vocab.tokenize((bare + continuation).encode()))
    return _pair(ids, whole[len(ids) :], continuation)


def encode_after(vocab: Vocab, prompt: EncodedPrompt, continuation: str) -> Pair:
    """A prompt's ids as they are, and those of plain text that follows it.

    What follows is tokenized with the end of the prompt, back to its last control token, and has the ids that
    are left when the prompt's are taken away. A token that would span both can't be written any more: then
    the text is tokenized by itself, without a space before it.
    Raises UsageError for a continuation that is empty or of which no token is left, and for lone surrogates.
    """
    _check_continuation(continuation)
    if not prompt.ids:
        return _encode_alone(vocab, continuation)
    tail = _tail(vocab, prompt)
    ids = _ids_behind(vocab, tail, continuation)
    if ids is None:
        ids = _ids_behind(vocab, _WALL, continuation)
    if ids is None:
        raise UsageError(f"{_named(continuation)} has no tokens of its own after this prompt", _NOTHING_HINT)
    return _pair(prompt.ids, ids, continuation)


def fit_pair(pair: Pair, window: int, truncate: bool) -> Pair:
    """The pair, if a window of so many tokens holds it; its last token needs no place there.

    With `truncate`, the context's first tokens are left out instead of an error.
    Raises ContextOverflow; for a continuation that fills more than the window always.
    """
    n_over = len(pair.context) + len(pair.continuation) - (window + 1)
    if n_over <= 0:
        return pair
    if n_over >= len(pair.context):
        raise ContextOverflow(
            f"a continuation of {len(pair.continuation)} tokens does not fit the window of {window}",
            "shorten the continuation, or raise --ctx",
        )
    if not truncate:
        raise ContextOverflow(
            f"a context of {len(pair.context)} tokens and a continuation of {len(pair.continuation)}"
            f" do not fit the window of {window}",
            "shorten the context, raise --ctx, or have the context's beginning left out",
        )
    return pair._replace(context=pair.context[n_over:], n_dropped=pair.n_dropped + n_over)


def prefix_token(vocab: Vocab) -> int:
    """What stands before a text that nothing comes before: BOS, else EOS. Raises UsageError for neither."""
    token = vocab.eos if vocab.bos is None else vocab.bos
    if token is None:
        raise UsageError(
            "this model's vocabulary has neither BOS nor EOS: nothing can come before a text's first token",
            "give a context",
        )
    return token


_NOTHING_HINT = "give a continuation that goes on where the context ends"


def _encode_alone(vocab: Vocab, continuation: str) -> Pair:
    prefix = prefix_token(vocab)
    ids = vocab.tokenize(continuation.encode())
    if ids[:1] == [prefix]:  # not twice: the text's own stands for the context
        ids = ids[1:]
    return _pair([prefix], ids, continuation)


def _pair(context: list[int] | tuple[int, ...], continuation: list[int], text: str) -> Pair:
    if not continuation:
        raise UsageError(f"{_named(text)} has no tokens of its own after this context", _NOTHING_HINT)
    return Pair(tuple(context), tuple(continuation))


def _with_bos(vocab: Vocab, ids: list[int]) -> list[int]:
    if vocab.add_bos and vocab.bos is not None and ids[:1] != [vocab.bos]:
        return [vocab.bos, *ids]
    return ids


def _tail(vocab: Vocab, prompt: EncodedPrompt) -> str:
    """Text at the prompt's end that is tokenized as one with what follows; empty after a control token."""
    controls = controls_of(vocab)
    fragments = controls.partition(prompt.text[-_N_TAIL:])
    last = fragments[-1] if fragments else ""
    if isinstance(last, str):
        return last
    # Only the ids tell a control token from a text that looks like one.
    return "" if prompt.ids[-1] == last else controls.text_of(last)


def _ids_behind(vocab: Vocab, before: str, text: str) -> list[int] | None:
    """Ids of `text` as it goes on after `before`; None where a token spans both."""
    ids = vocab.tokenize(before.encode())
    whole = vocab.tokenize((before + text).encode())
    return whole[len(ids) :] if whole[: len(ids)] == ids else None


def _check_continuation(text: str) -> None:
    if not text:
        raise UsageError("a continuation is empty", "give text whose likelihood is asked for")
    check_unicode(text, "the continuation")


def _named(text: str) -> str:
    return f"the continuation {text[:40]!r}"
