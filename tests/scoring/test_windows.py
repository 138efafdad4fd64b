"""Windows of a text, against the plain loops of llama-perplexity and lm-evaluation-harness."""

from __future__ import annotations

import pytest

from infer_cli.backend.fake import FakeVocab
from infer_cli.errors import UsageError
from infer_cli.scoring.windowed_text import cut_text
from infer_cli.scoring.windows import Windowing, spans_of
from infer_cli.types import ScoreRequest

Scored = list[tuple[list[int], list[int]]]  # by window: what comes before, and the tokens that are scored
PREFIX = -1


def _scored(windowing: Windowing, tokens: list[int]) -> Scored:
    text = [PREFIX, *tokens] if windowing.rolling else tokens
    return [
        (text[span.start : span.start + span.first], text[span.start + span.first : span.end])
        for span in spans_of(windowing, len(tokens))
    ]


def _joined(scored: Scored) -> list[int]:
    return [token for _, after in scored for token in after]


def _llama_perplexity(tokens: list[int], n_ctx: int) -> Scored:
    """Row j of a window's logits predicts its token j + 1, for j from n_ctx / 2 to n_ctx - 2."""
    found = []
    for chunk in range(len(tokens) // n_ctx):
        window = tokens[chunk * n_ctx : (chunk + 1) * n_ctx]
        rows = range(n_ctx // 2, n_ctx - 1)
        found.append((window[: rows[0] + 1], [window[j + 1] for j in rows]))
    return found


def _llama_perplexity_strided(tokens: list[int], n_ctx: int, stride: int) -> Scored:
    n_chunk = (len(tokens) - n_ctx + stride - 1) // stride
    found = []
    for chunk in range(n_chunk):
        start = chunk * stride
        rows = range(n_ctx - stride - 1, n_ctx - 1)
        found.append((tokens[start : start + rows[0] + 1], [tokens[start + j + 1] for j in rows]))
    return found


def _rolling(tokens: list[int], most: int) -> Scored:
    """Each token once; `most` a window, the last of which goes back as far as there is room."""
    found: Scored = []
    text = [PREFIX, *tokens]  # text[i] comes before tokens[i]
    for begin in range(0, len(tokens), most):
        after = tokens[begin : begin + most]
        n_before = most - len(after) + 1 if begin else 1
        found.append((text[begin + 1 - n_before : begin + 1], after))
    return found


@pytest.mark.parametrize("n_ctx", [3, 4, 5, 16, 17])
def test_disjoint_windows_are_llama_perplexity_s(n_ctx: int) -> None:
    for n_tokens in range(n_ctx, 5 * n_ctx + 2):
        tokens = list(range(n_tokens))
        assert _scored(Windowing(n_ctx), tokens) == _llama_perplexity(tokens, n_ctx)


@pytest.mark.parametrize(("n_ctx", "stride"), [(3, 1), (3, 2), (8, 3), (8, 4), (8, 7), (16, 5)])
def test_strided_windows_are_llama_perplexity_s(n_ctx: int, stride: int) -> None:
    for n_tokens in range(n_ctx + 1, 5 * n_ctx + 2):
        tokens = list(range(n_tokens))
        scored = _scored(Windowing(n_ctx, stride), tokens)
        assert scored == _llama_perplexity_strided(tokens, n_ctx, stride)
        assert _joined(scored) == tokens[n_ctx - stride :][: len(scored) * stride]


@pytest.mark.parametrize("most", [1, 2, 5, 16])
def test_rolling_windows_score_each_token_once(most: int) -> None:
    for n_tokens in range(1, 4 * most + 2):
        tokens = list(range(n_tokens))
        scored = _scored(Windowing(most, rolling=True), tokens)
        assert scored == _rolling(tokens, most)
        assert _joined(scored) == tokens
        assert all(before for before, _ in scored)
        assert all(len(before) + len(after) <= most + 1 for before, after in scored)


def test_rolling_windows_by_hand() -> None:
    """What `get_rolling_token_windows` and `make_disjoint_window` give for ten tokens and windows of four."""
    assert _scored(Windowing(4, rolling=True), list(range(10))) == [
        ([PREFIX], [0, 1, 2, 3]),
        ([3], [4, 5, 6, 7]),
        ([5, 6, 7], [8, 9]),
    ]


def test_a_limit_leaves_out_the_last_windows() -> None:
    for windowing in (Windowing(4), Windowing(4, 2), Windowing(4, rolling=True)):
        assert spans_of(windowing._replace(limit=2), 40) == spans_of(windowing, 40)[:2]
        assert spans_of(windowing._replace(limit=99), 40) == spans_of(windowing, 40)


@pytest.mark.parametrize(
    ("windowing", "wrong"),
    [
        (Windowing(2), "a window of 2 tokens is not between 3 and what this model was trained for (100)"),
        (Windowing(101), "a window of 101 tokens is not between 3"),
        (Windowing(0, rolling=True), "a window of 0 tokens is not between 1"),
        (Windowing(8, 8), "a stride of 8 tokens is not between 1 and 7"),
        (Windowing(8, 0), "a stride of 0 tokens"),
        (Windowing(8, 4, rolling=True), "rolling windows have no stride"),
        (Windowing(8, limit=0), "a limit of 0 windows"),
    ],
)
def test_what_no_text_can_be_cut_by_is_refused(windowing: Windowing, wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        windowing.check(100)
    assert wrong in caught.value.message


# --- texts ----------------------------------------------------------------------------------------


class _Bos(FakeVocab):
    bos = 257
    add_bos = True


def _ids(text: str, windowing: Windowing, vocab: FakeVocab) -> list[tuple[tuple[int, ...], int]]:
    cut = cut_text(text, windowing, vocab, 4096)
    return [(request.ids, request.first) for _, request in cut.requests()]


def test_a_text_is_cut_with_its_last_line_end_left_out() -> None:
    assert _ids("abcdefgh\n", Windowing(4), FakeVocab()) == [((*b"abcd",), 3), ((*b"efgh",), 3)]
    assert _ids("abcdefgh\n", Windowing(4), FakeVocab()) == _ids("abcdefgh", Windowing(4), FakeVocab())
    assert _ids("abc\n", Windowing(9, rolling=True), FakeVocab()) == [((256, *b"abc\n"), 1)]


def test_bos_stands_in_place_of_each_disjoint_windows_first_token() -> None:
    """The first token of the text is BOS itself: its own characters begin behind it."""
    assert _ids("abcdefg", Windowing(4), _Bos()) == [((257, *b"abc"), 3), ((257, *b"efg"), 3)]
    assert _ids("abcdefg", Windowing(4, 2), _Bos()) == [((257, *b"abc"), 2), ((*b"bcde",), 2)]
    assert _ids("abcdef", Windowing(3, rolling=True), _Bos()) == [((257, *b"abc"), 1), ((*b"cdef",), 1)]


def test_control_tokens_in_a_text_stay_text() -> None:
    ((ids, _),) = _ids("<|im_end|>", Windowing(99, rolling=True), FakeVocab())
    assert ids == (256, *b"<|im_end|>")


def test_what_a_text_is_to_an_engine() -> None:
    cut = cut_text("abcdefghij", Windowing(4, rolling=True), FakeVocab(), 4096)
    assert cut.request(2) == ScoreRequest("2", (*b"fghij",), 3)
    assert (cut.n_read, cut.n_scored, cut.scored_bytes(3), cut.scored_bytes(1)) == (4, 10, 10, 4)
    cut = cut_text("abcdefghi", Windowing(4), FakeVocab(), 4096)
    assert (cut.n_read, cut.n_scored, cut.scored_bytes(2), cut.scored_bytes(1)) == (3, 2, 2, 1)


class _Spaced(FakeVocab):
    """A space before each text, as SentencePiece has it."""

    def tokenize(self, text: bytes) -> list[int]:
        return [32, *text]


def test_bytes_of_a_whole_text_are_the_texts_own() -> None:
    whole = cut_text("abc", Windowing(9, rolling=True), _Spaced(), 4096)
    assert (whole.n_scored, whole.scored_bytes(1)) == (4, 3)


@pytest.mark.parametrize(
    ("text", "windowing", "wrong"),
    [
        ("", Windowing(4), "the text is empty"),
        ("abc\n", Windowing(4), "the text is 3 tokens, and at least 4 are needed"),
        ("abcd", Windowing(4, 2), "the text is 4 tokens, and at least 5 are needed"),
        ("a\ud800", Windowing(4), "the text: character 1 is half a surrogate pair"),
        ("abc", Windowing(5000), "a window of 5000 tokens"),
    ],
)
def test_a_text_that_cannot_be_cut_is_refused(text: str, windowing: Windowing, wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        cut_text(text, windowing, FakeVocab(), 4096)
    assert wrong in caught.value.message
