"""Ids by tiktoken against llama.cpp's own tokenizer, on vocabularies made for what could tell them apart."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infer_cli.backend import native
from infer_cli.backend.base import Vocab
from infer_cli.backend.llama_model import LlamaModel
from infer_cli.backend.pretokenizers import CATEGORY_DIGESTS, PRE_TOKENIZERS
from infer_cli.backend.spec import ModelSpec
from infer_cli.models.gguf.header import Header
from infer_cli.models.gguf.reading import read_header
from infer_cli.vocab.merges import BYTE_CHARACTERS, MAX_TOKEN_CHARS, NotRepresentable, rank_order, token_bytes
from infer_cli.vocab.tiktoken_proof import exact_tokenizer, judge
from infer_cli.vocab.tiktoken_tokenizer import NotText, TiktokenTokenizer, TooLongAtOnce, check_text, joined
from tests.tiny_gguf import CONTROL, CONTROL_TOKENS, NORMAL, USER_DEFINED, gguf_bytes, metadata

quick = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Characters at which pre-tokenizers differ: cases, contractions, white space of all kinds, digits of several
# scripts, punctuation and symbols, Han, Kana, stops, joiners, unassigned and newer characters.
LETTERS = "aeZsStTdDlLrRvVeEmM'\"éßЖאع中文ーあア"
SPACES = "     \n\n\r\t\x0b\xa0\u3000\u2028\x85\x1c"
OTHERS = (
    "0123456789٣५①!?.,-/$+<=>^~|`()[]_・゛゠\u3040。،।，、ก้\u0301\u20dd\u200d\ufe0f😀🏽"
    "\x00\x7f\u00ad\ue000\U00010d40\U00011f5a\U0001fae9\u1c89\U0010ffff\ufffd"
)
texts = st.one_of(
    st.text(st.sampled_from(LETTERS + SPACES + OTHERS), max_size=40),
    st.lists(st.sampled_from(LETTERS + SPACES + OTHERS), min_size=2, max_size=5, unique=True).flatmap(
        lambda few: st.text(st.sampled_from(few), max_size=40)
    ),
)


class Case:
    """A vocabulary in a file, with llama.cpp's tokenizer for it. Closed by the fixture."""

    def __init__(
        self, path: Path, tokens: Sequence[str], merges: Sequence[str], pre: str, user: Sequence[str]
    ) -> None:
        tokens = [*CONTROL_TOKENS, *tokens, *user]
        types = [CONTROL] * 3 + [NORMAL] * (len(tokens) - 3 - len(user)) + [USER_DEFINED] * len(user)
        entries = metadata(512, None) | {
            "llama.vocab_size": len(tokens),
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.merges": list(merges) or ["\u0100 \u0100"],
        }
        path.write_bytes(gguf_bytes(entries, []))
        self.pre = PRE_TOKENIZERS[pre]
        self.header: Header = read_header(path)
        self.model = LlamaModel(ModelSpec(path, vocab_only=True))
        self.vocab: Vocab = self.model.vocab

    def tokenizer(self) -> TiktokenTokenizer:
        """Made without the self-test: what a test compares must not have passed it already."""
        tokens = self.header.array("tokenizer.ggml.tokens")
        types = self.header.array("tokenizer.ggml.token_type")
        order = rank_order(
            tokens, self.header.array("tokenizer.ggml.merges"), ignore_merges=self.pre.ignore_merges
        )
        added = sorted(
            (i for i, kind in enumerate(types) if kind == USER_DEFINED), key=lambda i: -len(tokens[i])
        )
        return TiktokenTokenizer(tokens, self.pre, order, added, lambda: self.vocab)

    def same(self, text: bytes) -> bool:
        return self.tokenizer().tokenize(text) == self.vocab.tokenize(text)


class Cases:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "vocab.gguf"
        self._open: list[Case] = []

    def __call__(
        self,
        merges: Sequence[str] = (),
        *,
        tokens: Sequence[str] = (),
        pre: str = "gpt-2",
        user: Sequence[str] = (),
        without: str = "",
    ) -> Case:
        """A vocabulary of all bytes (but `without`), the results of `merges`, and `tokens` no merge makes."""
        results = [merge.replace(" ", "") for merge in merges]
        known = [c for c in BYTE_CHARACTERS if c not in without]
        case = Case(self._path, list(dict.fromkeys([*known, *results, *tokens])), merges, pre, user)
        self._open.append(case)
        return case

    def close(self) -> None:
        for case in self._open:
            case.model.close()


@pytest.fixture(scope="module", autouse=True)
def native_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with (tmp_path_factory.mktemp("log") / "native.log").open("wb") as file:
        native.log_to(file.fileno())
        yield


@pytest.fixture
def cases(tmp_path: Path) -> Iterator[Cases]:
    made = Cases(tmp_path)
    yield made
    made.close()


# --- pre-tokenizers -------------------------------------------------------------------------------

_DISTINCT = list({pre.pattern: name for name, pre in reversed(PRE_TOKENIZERS.items())}.values())
_USED_BYTES = sorted(set((LETTERS + SPACES + OTHERS).encode()))
# Every pair of bytes merges, so that any two ways to cut a text show in its ids.
_ALL_PAIRS = [
    f"{BYTE_CHARACTERS[a]} {BYTE_CHARACTERS[b]}" for a, b in itertools.product(_USED_BYTES, repeat=2)
]


_WORDS = ["a", " b", "word", " word", "\n", "x\n", "\nx", " ", "1", ".\n", "/", "中\n中", "\r\n", "'s"]


@pytest.mark.parametrize("name", _DISTINCT)
def test_ids_are_llama_cpps_whole_and_in_blocks(name: str, cases: Cases) -> None:
    case = cases(_ALL_PAIRS, pre=name)
    tokenizer = case.tokenizer()

    @quick
    @given(st.one_of(texts, st.lists(st.sampled_from(_WORDS), max_size=20).map("".join)), st.integers(1, 30))
    def check(text: str, size: int) -> None:
        data = text.encode()
        expected = case.vocab.tokenize(data)
        assert tokenizer.tokenize(data) == expected
        blocks = [data[i : i + size] for i in range(0, len(data), size)]
        assert list(itertools.chain.from_iterable(tokenizer.tokenize_blocks(blocks, 1))) == expected
        assert tokenizer.count_blocks(blocks, 1) == tokenizer.count(data) == len(expected)

    check()
    assert tokenizer.n_by_llama_cpp == 0


def test_blocks_are_cut_where_there_are_words(cases: Cases) -> None:
    tokenizer = cases(["a b"]).tokenizer()
    assert len(list(tokenizer.tokenize_blocks([b"some words and more", b" of them here"], 1))) > 1
    assert len(list(tokenizer.tokenize_blocks([b"1234", b"5678"], 1))) == 1


def test_a_text_without_a_cut_is_held_as_long_as_there_is_memory(
    cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infer_cli.vocab.tiktoken_tokenizer._ALWAYS_HELD", 1000)
    monkeypatch.setattr("infer_cli.vocab.tiktoken_tokenizer.available_memory", lambda: 100_000)
    tokenizer = cases(["a b"]).tokenizer()
    uncut, words = [bytes(500)] * 4, [b"some words and more " * 50] * 10
    assert tokenizer.count_blocks(uncut, 1) == 2000
    assert tokenizer.count_blocks(words, 1) == tokenizer.count(b"".join(words))
    with pytest.raises(TooLongAtOnce, match="at once"):
        tokenizer.count_blocks(uncut * 2, 1)
    with pytest.raises(TooLongAtOnce):
        joined(words)  # llama.cpp needs all of it
    monkeypatch.setattr("infer_cli.vocab.tiktoken_tokenizer.available_memory", lambda: None)  # not known
    assert tokenizer.count_blocks(uncut * 2, 1) == 4000


def test_no_cut_through_an_added_token(cases: Cases) -> None:
    case = cases(_ALL_PAIRS, user=["end of", "\nab"])
    tokenizer = case.tokenizer()
    for text in (b"the end of it", b"x\nabc d\nab"):
        blocks = [text[i : i + 3] for i in range(0, len(text), 3)]
        ids = itertools.chain.from_iterable(tokenizer.tokenize_blocks(blocks, 1))
        assert list(ids) == case.vocab.tokenize(text)


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_every_name_is_llama_cpps(name: str, cases: Cases) -> None:
    """llama.cpp knows the name and takes a piece that is a token whole exactly where the table says so."""
    case = cases(["b c"], tokens=["abcd"], pre=name)
    whole = case.vocab.tokenize(b"abcd")
    assert (len(whole) == 1) == PRE_TOKENIZERS[name].ignore_merges
    assert case.same(b"abcd 12'S x  \n y")


def test_categories_are_llama_cpps() -> None:
    if sys.platform == "win32":  # its library does not export the function
        assert set(CATEGORY_DIGESTS) == {r"\p{L}", r"\p{M}", r"\p{N}", r"\p{P}", r"\p{S}", r"\s"}
        return
    flags_of = native.function("_Z26unicode_cpt_flags_from_cptj", ctypes.c_uint16, ctypes.c_uint32)
    bits = {r"\p{N}": 0x2, r"\p{L}": 0x4, r"\p{M}": 0x10, r"\p{P}": 0x20, r"\p{S}": 0x40, r"\s": 0x100}
    flags = [
        (chr(c), flags_of(c)) for c in (*range(0xD800), *range(0xE000, 0x33000), *range(0xE0000, 0xE0200))
    ]
    for category, bit in bits.items():
        members = "".join(char for char, flag in flags if flag & bit)
        assert hashlib.sha256(members.encode()).hexdigest() == CATEGORY_DIGESTS[category], category


# --- merges ---------------------------------------------------------------------------------------


@st.composite
def merge_lists(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Merges of symbols that earlier or later ones make, in any order, some tokens made in several ways or in
    none: more tangled than any training leaves them."""
    symbols = list("abc")
    merges: list[str] = []
    for _ in range(draw(st.integers(1, 14))):
        left, right = draw(st.sampled_from(symbols)), draw(st.sampled_from(symbols))
        if len(left + right) > 8:
            continue
        merges.append(f"{left} {right}")
        symbols.append(left + right)
    merges = draw(st.permutations(list(dict.fromkeys(merges))))
    return list(merges), draw(st.lists(st.text("abc", min_size=2, max_size=5), max_size=3))


@quick
@given(merge_lists(), st.lists(st.text("abc", max_size=30), min_size=1, max_size=8))
def test_any_merges_give_llama_cpps_ids(
    tmp_path: Path, merges_and_tokens: tuple[list[str], list[str]], words: list[str]
) -> None:
    merges, tokens = merges_and_tokens
    for pre in ("gpt-2", "llama-bpe"):
        made = Cases(tmp_path)
        case = made(merges, tokens=tokens, pre=pre)
        try:
            tokenizer = case.tokenizer()
            for word in (*words, *tokens):
                assert tokenizer.tokenize(word.encode()) == case.vocab.tokenize(word.encode()), word
        except NotRepresentable as e:
            assert pre == "llama-bpe" and "stop short" in str(e)
        finally:
            made.close()


def test_a_pair_that_is_not_listed_does_not_merge(cases: Cases) -> None:
    """`bc` comes before `ab`, so "abc" is `a` and `bc`: not a listed pair, though "abc" is a token."""
    case = cases(["b c", "a b", "ab c"])
    assert len(case.vocab.tokenize(b"abc")) == 2
    assert case.same(b"abc") and case.same(b"abcabc ab abc")
    with pytest.raises(NotRepresentable, match="stop short"):
        cases(["b c", "a b", "ab c"], pre="llama-bpe").tokenizer()


def test_refused_vocabularies() -> None:
    letters = [c.encode() for c in BYTE_CHARACTERS]
    with pytest.raises(NotRepresentable, match="not a token"):
        rank_order(letters, [b"a b"], ignore_merges=False)
    with pytest.raises(NotRepresentable, match="not a pair"):
        rank_order(letters, [b"a b c"], ignore_merges=False)
    with pytest.raises(NotRepresentable, match="longer than"):
        rank_order([*letters, b"a" * (MAX_TOKEN_CHARS + 1)], [], ignore_merges=False)
    with pytest.raises(NotRepresentable, match="too long"):
        rank_order([b"%d" % i + b"a" * 1000 for i in range(500)], [], ignore_merges=False)


def test_token_bytes() -> None:
    assert token_bytes(["Ġthe".encode(), "Ã©".encode(), b"<s> x", b"\xff", b""]) == [
        b" the",
        "é".encode(),
        None,  # a space is no byte character
        None,
        None,
    ]


# --- added tokens ---------------------------------------------------------------------------------


@quick
@given(
    st.lists(st.text("<>| a", min_size=1, max_size=5), min_size=1, max_size=5, unique_by=len),
    st.lists(st.text("<>| ab\n", max_size=30), max_size=5),
)
def test_added_tokens_come_first_the_longest_before_all(
    tmp_path: Path, user: list[str], words: list[str]
) -> None:
    made = Cases(tmp_path)
    user = [text for text in user if text not in BYTE_CHARACTERS]
    case = made(["a b", "< |"], user=[text for text in user if text != "<|"])
    try:
        tokenizer = case.tokenizer()
        for text in (*words, "".join(user), "a".join(user), " ".join(user)):
            ids = case.vocab.tokenize(text.encode())
            assert tokenizer.tokenize(text.encode()) == ids, text
            assert tokenizer.count(text.encode()) == len(ids)
    finally:
        made.close()


def test_the_self_test_finds_the_added_tokens(cases: Cases) -> None:
    case = cases(["a b"], user=["[[x]]", "   ", "<|end|>"])
    verdict = judge(case.header, case.pre, case.vocab)
    tokens = case.header.array("tokenizer.ggml.tokens")
    # llama.cpp makes a control token of the last.
    assert verdict.exact and [tokens[i] for i in verdict.added] == [b"[[x]]", b"   "]


def test_added_tokens_of_one_length_that_may_overlap_are_refused(cases: Cases) -> None:
    case = cases(user=["<ab>", "><ab"])
    verdict = judge(case.header, case.pre, case.vocab)
    assert not verdict.exact and "overlap" in verdict.reason


# --- what tiktoken can't do -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"caf\xe9 \xff\xfe au lait",  # not UTF-8
        b"x" + b" " * 1_000_000 + b"y",  # the regular expression gives up
        "ends in half a character é".encode()[:-1],
    ],
)
def test_llama_cpp_takes_over(text: bytes, cases: Cases) -> None:
    case = cases(["a b", "Ġ Ġ"])
    tokenizer = case.tokenizer()
    assert tokenizer.tokenize(text) == case.vocab.tokenize(text)
    assert tokenizer.n_by_llama_cpp == 1
    assert tokenizer.count(text) == len(case.vocab.tokenize(text))


def test_a_byte_without_a_token(cases: Cases) -> None:
    case = cases(["a b"], without="zé")
    tokenizer = case.tokenizer()
    for text in (b"abz", "鿿".encode(), b"ab"):
        assert tokenizer.tokenize(text) == case.vocab.tokenize(text)
    assert tokenizer.n_by_llama_cpp == 2


@quick
@given(data=st.binary(max_size=40))
def test_any_bytes(data: bytes, tmp_path: Path) -> None:
    made = Cases(tmp_path)
    try:
        case = made(["a b", "Ġ a"])
        try:
            check_text(data)
        except NotText:  # llama.cpp would end the process
            with pytest.raises(NotText):
                case.tokenizer().tokenize(data)
        else:
            assert case.same(data)
    finally:
        made.close()


# --- the verdict ----------------------------------------------------------------------------------


def test_a_wrong_pre_tokenizer_is_found_out(cases: Cases) -> None:
    case = cases(_ALL_PAIRS, pre="gpt-2")
    for name in ("llama-bpe", "qwen2", "smollm", "default"):
        verdict = judge(case.header, PRE_TOKENIZERS[name], case.vocab)
        assert not verdict.exact and "differ" in verdict.reason
    assert judge(case.header, PRE_TOKENIZERS["gpt-2"], case.vocab).exact


def test_the_verdict_is_kept(cases: Cases, own_home: Path) -> None:
    case = cases(["a b"], user=["[[x]]"])
    loads = []

    def load() -> Vocab:
        loads.append(1)
        return case.vocab

    text = b"ab [[x]] abc"
    for _ in range(2):
        tokenizer = exact_tokenizer(case.header, load)
        assert tokenizer is not None and tokenizer.tokenize(text) == case.vocab.tokenize(text)
    assert len(loads) == 1
    (kept,) = (own_home / "cache" / "vocabularies").iterdir()
    for broken in (b"", b"{}", b'{"exact": true, "reason": "", "order": [99999], "added": []}'):
        kept.write_bytes(broken)
        assert exact_tokenizer(case.header, load) is not None
        assert json.loads(kept.read_bytes())["exact"] is True
    assert len(loads) == 4


def test_another_vocabulary_has_a_verdict_of_its_own(cases: Cases, own_home: Path) -> None:
    for user in (["[[x]]"], ["[[y]]"]):
        case = cases(["a b"], user=user)
        assert exact_tokenizer(case.header, lambda case=case: case.vocab) is not None  # type: ignore[misc]
    assert len(list((own_home / "cache" / "vocabularies").iterdir())) == 2


def test_a_refusal_is_kept_too(cases: Cases) -> None:
    case = cases(user=["<ab>", "><ab"])
    assert exact_tokenizer(case.header, lambda: case.vocab) is None
    assert exact_tokenizer(case.header, _never) is None


def test_no_such_thing_without_looking(tmp_path: Path) -> None:
    for change in ({"tokenizer.ggml.model": "llama"}, {"tokenizer.ggml.pre": "deepseek-llm"}):
        path = tmp_path / "other.gguf"
        path.write_bytes(gguf_bytes(metadata(512, None) | change, []))
        assert exact_tokenizer(read_header(path), _never) is None


def _never() -> Vocab:
    raise AssertionError("llama.cpp was asked")


def test_pieces(cases: Cases) -> None:
    case = cases(["a b", "Ġ ab"], user=["[[x]]"])
    tokenizer = case.tokenizer()
    text = "ab [[x]] ab é".encode()
    assert b"".join(tokenizer.piece(i) for i in tokenizer.tokenize(text)) == text
