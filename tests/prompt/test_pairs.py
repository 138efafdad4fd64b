"""Contexts and continuations as ids: lm-evaluation-harness's rule, and what follows a rendered prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.backend.base import Vocab
from infer_cli.backend.fake import FakeVocab
from infer_cli.backend.llama_model import LlamaModel
from infer_cli.backend.spec import ModelSpec
from infer_cli.errors import ContextOverflow, UsageError
from infer_cli.prompt.control_tokens import controls_of
from infer_cli.prompt.encode import EncodedPrompt
from infer_cli.prompt.pairs import Pair, encode_after, encode_pair, fit_pair, prefix_token
from infer_cli.types import ScoreRequest
from tests.sdist import models_dir
from tests.tiny_gguf import BOS, write_tiny_gguf

FAKE_EOS = 256
CONTEXTS = (
    "The cat",
    "The cat ",
    "The cat \n\t",
    "2+2=",
    "a  b ",
    "\u00e9t\u00e9",
    "x\u3000",
    "he",
    "<|im_end|>",
    "Q:\n",
)
CONTINUATIONS = (" sat", "sat", "\n\nYes", "llo", " \n", "4", "\u00e9", "</s> <|im_end|>", "\u65e5\u672c")


@pytest.fixture
def tiny(tmp_path: Path) -> Vocab:
    added = {"tokenizer.ggml.add_bos_token": True}
    return _vocab(write_tiny_gguf(tmp_path / "bos.gguf", overrides=added))


def _vocab(path: Path) -> Vocab:
    return LlamaModel(ModelSpec(path, vocab_only=True)).vocab


def _harness(vocab: Vocab, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The harness's rule, written the plain way, for a tokenizer that adds BOS as this vocabulary does."""

    def encode(text: str) -> list[int]:
        bos = [vocab.bos] if vocab.add_bos and vocab.bos is not None else []
        return bos + vocab.tokenize(text.encode())

    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    before = encode(context)
    return before, encode(context + continuation)[len(before) :]


def _check_harness(vocab: Vocab) -> None:
    controls = {token.id for token in vocab.control_tokens()} - {vocab.bos}
    n_checked = 0
    for context in CONTEXTS:
        for continuation in CONTINUATIONS:
            before, after = _harness(vocab, context, continuation)
            if not after:  # a token spans both texts
                with pytest.raises(UsageError, match="no tokens of its own"):
                    encode_pair(vocab, context, continuation)
                continue
            pair = encode_pair(vocab, context, continuation)
            assert pair == (tuple(before), tuple(after), 0), (context, continuation)
            assert not controls & {*pair.context, *pair.continuation}
            assert vocab.bos not in pair.continuation
            n_checked += 1
    assert n_checked > 80


def test_both_texts_are_tokenized_as_one(tiny: Vocab) -> None:
    _check_harness(FakeVocab())
    _check_harness(tiny)


@pytest.mark.weights
def test_the_default_models_pairs_are_the_harness_s(smollm2: Path) -> None:
    vocab = _vocab(smollm2)
    _check_harness(vocab)
    paris = Pair((504, 3575, 282, 4649, 314), (7042,))
    assert encode_pair(vocab, "The capital of France is", " Paris") == paris
    assert encode_pair(vocab, "The capital of France is ", "Paris") == paris


@pytest.mark.weights
@pytest.mark.parametrize("name", ["llama-spm", "phi-3", "gemma-4", "llama-bpe"])
def test_pairs_of_other_vocabularies_are_the_harness_s(request: pytest.FixtureRequest, name: str) -> None:
    vocab = _vocab(models_dir(request.config.cache) / f"ggml-vocab-{name}.gguf")
    assert vocab.add_bos
    _check_harness(vocab)


def test_white_space_at_the_end_of_a_context_begins_the_continuation(tiny: Vocab) -> None:
    assert encode_pair(tiny, "hello ", "world") == encode_pair(tiny, "hello", " world")
    assert encode_pair(FakeVocab(), "a \n", "b") == ((97,), (32, 10, 98), 0)


def test_bos_stands_once_before_the_context(tiny: Vocab) -> None:
    pair = encode_pair(tiny, "<|im_start|>hello", " world")
    assert pair.context[0] == BOS
    assert BOS not in (*pair.context[1:], *pair.continuation)


@pytest.mark.parametrize("context", ["", " ", "\n\n"])
def test_the_prefix_token_stands_for_an_empty_context(tiny: Vocab, context: str) -> None:
    continuation = tuple(tiny.tokenize(f"{context} world".encode()))
    assert encode_pair(tiny, context, " world") == ((BOS,), continuation, 0)
    assert encode_pair(FakeVocab(), context, "b") == ((FAKE_EOS,), (*context.encode(), 98), 0)


class _WrittenBos(FakeVocab):
    """Its BOS is a normal token, which text can write."""

    bos = ord("<")


def test_a_continuation_that_begins_with_the_prefix_token_has_it_as_its_context() -> None:
    assert encode_pair(_WrittenBos(), "", "<ab") == ((ord("<"),), (97, 98), 0)
    assert encode_pair(_WrittenBos(), "", "a<") == ((ord("<"),), (97, ord("<")), 0)
    with pytest.raises(UsageError, match="no tokens of its own"):
        encode_pair(_WrittenBos(), "", "<")


class _NoEnds(FakeVocab):
    eos = None


class _Swallowing(FakeVocab):
    """`ab` is one token."""

    def tokenize(self, text: bytes) -> list[int]:
        return list(text.replace(b"ab", b"\x01"))


def test_what_has_no_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match="a continuation is empty"):
        encode_pair(FakeVocab(), "a", "")
    with pytest.raises(UsageError, match="the continuation 'b' has no tokens of its own after this context"):
        encode_pair(_Swallowing(), "a", "b")
    with pytest.raises(UsageError, match="neither BOS nor EOS"):
        encode_pair(_NoEnds(), " ", "a")
    with pytest.raises(UsageError, match="the context: character 1 is half a surrogate pair"):
        encode_pair(FakeVocab(), "a\ud800", "b")
    with pytest.raises(UsageError, match="the continuation: character 0 is half a surrogate pair"):
        encode_pair(FakeVocab(), "a", "\udc00")


def test_prefix_token(tiny: Vocab) -> None:
    assert prefix_token(tiny) == BOS
    assert prefix_token(FakeVocab()) == FAKE_EOS


def test_a_pair_asks_for_its_continuation() -> None:
    pair = Pair((1, 2), (3,))
    assert pair.request("a", 2.5) == ScoreRequest("a", (1, 2, 3), 2, 2.5)
    assert pair.request("b").deadline_s is None


# --- after a prompt -------------------------------------------------------------------------------


def _prompt(vocab: Vocab, text: str) -> EncodedPrompt:
    """As a template has it rendered, with its own control tokens."""
    ids: list[int] = []
    for part in controls_of(vocab).partition(text):
        ids += [part] if isinstance(part, int) else vocab.tokenize(part.encode())
    return EncodedPrompt(tuple(ids), text, None)


def _spelled(vocab: Vocab, pair: Pair) -> bytes:
    return b"".join(map(vocab.piece, pair.continuation))


TURN = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_what_follows_a_prompt_leaves_its_ids_alone(tiny: Vocab) -> None:
    for vocab in (FakeVocab(), tiny):
        prompt = _prompt(vocab, TURN)
        for text in ("hello", " the", "\n\nand", "<|im_end|>", "\u65e5"):
            pair = encode_after(vocab, prompt, text)
            assert pair.context == prompt.ids
            assert _spelled(vocab, pair) == text.encode()  # a control token has no piece


def test_a_token_that_would_span_the_prompts_end_is_not_made(tiny: Vocab) -> None:
    (newline,) = tiny.tokenize(b"\n")
    assert len(tiny.tokenize(b"\n\n")) == 1  # one token of the vocabulary
    assert encode_after(tiny, _prompt(tiny, TURN), "\n").continuation == (newline,)
    assert encode_after(_Swallowing(), _prompt(_Swallowing(), "<|im_start|>a"), "b").continuation == (98,)


def test_text_that_looks_like_a_control_token_ends_no_fragment() -> None:
    """A user's `<|im_end|>` at a prompt's end, in ids that are bytes."""
    prompt = EncodedPrompt((*b"<|im_end|>",), "<|im_end|>", None)
    assert encode_after(FakeVocab(), prompt, "a") == (prompt.ids, (97,), 0)


def test_the_prefix_token_stands_for_an_empty_prompt() -> None:
    assert encode_after(FakeVocab(), EncodedPrompt((), "", None), "a") == ((FAKE_EOS,), (97,), 0)


def test_a_continuation_after_a_prompt_is_checked() -> None:
    prompt = _prompt(FakeVocab(), TURN)
    with pytest.raises(UsageError, match="a continuation is empty"):
        encode_after(FakeVocab(), prompt, "")
    with pytest.raises(UsageError, match="half a surrogate pair"):
        encode_after(FakeVocab(), prompt, "\ud800")


@pytest.mark.weights
@pytest.mark.parametrize("name", ["llama-spm", "phi-3"])
def test_no_space_comes_before_what_follows_text(request: pytest.FixtureRequest, name: str) -> None:
    """SentencePiece vocabularies write one before every text, also before one that only goes on."""
    vocab = _vocab(models_dir(request.config.cache) / f"ggml-vocab-{name}.gguf")
    assert vocab.piece(vocab.tokenize(b"Yes")[0]) == b" Yes"
    for before in ("[/INST]", "Answer:", "x\n", "y\n\n"):
        for text in ("Yes", " Yes", "\nYes", "\n\nYes", "</s>"):
            pair = encode_after(vocab, _prompt(vocab, before), text)
            assert _spelled(vocab, pair) == text.encode()
    # After a control token the space is what the model was trained with, and what llama.cpp makes.
    assert encode_after(vocab, _prompt(vocab, "hi</s><s>"), "Yes").continuation == tuple(
        vocab.tokenize(b"Yes")
    )


# --- fitting --------------------------------------------------------------------------------------


def test_a_pairs_last_token_needs_no_place_in_the_window() -> None:
    pair = Pair((1, 2, 3), (4, 5))
    assert fit_pair(pair, 4, truncate=False) == pair
    with pytest.raises(ContextOverflow, match="a context of 3 tokens and a continuation of 2 do not fit"):
        fit_pair(pair, 3, truncate=False)


def test_the_contexts_beginning_goes_first() -> None:
    pair = Pair((1, 2, 3), (4, 5))
    for window in (2, 3, 4, 9):
        fitted = fit_pair(pair, window, truncate=True)
        assert fitted.context + fitted.continuation == (1, 2, 3, 4, 5)[-(window + 1) :]
        assert fitted.continuation == (4, 5)
        assert fitted.n_dropped == 3 - len(fitted.context)
    assert fit_pair(fit_pair(pair, 3, truncate=True), 2, truncate=True).n_dropped == 2


def test_a_continuation_that_is_larger_than_the_window_never_fits() -> None:
    with pytest.raises(ContextOverflow, match="a continuation of 3 tokens does not fit the window of 2"):
        fit_pair(Pair((1,), (2, 3, 4)), 2, truncate=True)
    assert fit_pair(Pair((1,), (2, 3, 4)), 3, truncate=True) == Pair((1,), (2, 3, 4))
