"""tiktoken's own encodings from a file: the ids are tiktoken's, and other files are refused."""

from __future__ import annotations

import base64
import itertools
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.errors import ModelInvalid, ModelNotFound
from infer_cli.system.hashing import sha256_hex
from infer_cli.vocab import tiktoken_file
from infer_cli.vocab.tiktoken_tokenizer import NotText, TiktokenTokenizer
from tests.cli_helpers import infer, one_error_line

# As tiktoken_ext/openai_public.py of tiktoken 0.9 has them.
PATTERNS = {
    "cl100k_base": r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"""
    r"""| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s""",
    "o200k_base": "|".join(
        [
            r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
            r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
            r"""\p{N}{1,3}""",
            r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
            r"""\s*[\r\n]+""",
            r"""\s+(?!\S)""",
            r"""\s+""",
        ]
    ),
}
MERGED = (
    " t",
    "he",
    " the",
    "'s",
    "12",
    "123",
    "\n\n",
    "  ",
    "é",
    "ab",
    "Ab",
    " aB",
    "!\n",
    "ll",
    "'ll",
    "中",
)


def small_file(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> tiktoken.Encoding:
    """Write a file of a few tokens that counts as `name`; the encoding that tiktoken makes of it."""
    # The published files have their bytes in another order than that of their values, too.
    ranks = {bytes([byte ^ 1]): byte for byte in range(256)}
    for text in MERGED:
        ranks.setdefault(text.encode(), len(ranks))
    data = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
    path.write_bytes(data)
    (known,) = (each for each in tiktoken_file._ENCODINGS.values() if each.name == name)
    monkeypatch.setitem(tiktoken_file._ENCODINGS, sha256_hex(data), known)
    return tiktoken.Encoding("own", pat_str=PATTERNS[name], mergeable_ranks=ranks, special_tokens={})


@pytest.mark.parametrize("name", PATTERNS)
def test_ids_are_tiktokens(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "any.tiktoken"
    own = small_file(path, monkeypatch, name)
    found, tokenizer = tiktoken_file.read_encoding(path)
    assert found == name

    @settings(max_examples=300, deadline=None)
    @given(st.text("aAbB theSL'ls1234 \t\n\r!/.é\u0301中ǅʰ😀\u00a0"), st.integers(1, 9))
    def check(text: str, size: int) -> None:
        data = text.encode()
        expected = own.encode_ordinary(text)
        assert tokenizer.tokenize(data) == expected
        blocks = [data[i : i + size] for i in range(0, len(data), size)]
        assert list(itertools.chain.from_iterable(tokenizer.tokenize_blocks(blocks, 1))) == expected

    check()
    assert b"".join(map(tokenizer.piece, tokenizer.tokenize("the é中".encode()))) == "the é中".encode()


def test_what_tiktoken_cannot_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_file(tmp_path / "a.tiktoken", monkeypatch, "cl100k_base")
    tokenizer: TiktokenTokenizer = tiktoken_file.read_encoding(tmp_path / "a.tiktoken")[1]
    with pytest.raises(NotText, match="not UTF-8"):
        tokenizer.tokenize(b"caf\xe9")


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "cl100k_base.tiktoken").write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(ModelInvalid, match="is not cl100k_base or o200k_base"):
        tiktoken_file.read_encoding(tmp_path / "cl100k_base.tiktoken")
    with pytest.raises(ModelNotFound):
        tiktoken_file.read_encoding(tmp_path / "none.tiktoken")
    done = infer("tokens", "-m", tmp_path / "cl100k_base.tiktoken", "a")
    one_error_line(done, 4, "cl100k_base.tiktoken", "as tiktoken publishes them")
    one_error_line(infer("tokens", "-m", tmp_path / "none.tiktoken", "a"), 3, "none.tiktoken")
