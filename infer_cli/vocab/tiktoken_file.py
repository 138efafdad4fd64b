"""tiktoken's own encodings, where the user has the file: `cl100k_base.tiktoken` or `o200k_base.tiktoken`.

tiktoken itself would download what it does not find. Here a file is read where it is and told by its hash,
and nothing is fetched. The patterns are written here because tiktoken's come with the download only.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.backend.pretokenizers import PreTokenizer
from infer_cli.errors import ModelInvalid, ModelNotFound
from infer_cli.system.files import MOST_INPUT, read_regular
from infer_cli.system.hashing import sha256_hex
from infer_cli.vocab.merges import BYTE_CHARACTERS
from infer_cli.vocab.tiktoken_tokenizer import NotText, TiktokenTokenizer

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab

SUFFIX = ".tiktoken"


class _Encoding(NamedTuple):
    name: str
    pattern: str


_LOWER, _UPPER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}", r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_HEAD, _CONTRACTION = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# By the SHA-256 of the file.
_ENCODINGS = {
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": _Encoding(
        "cl100k_base",
        rf"{_CONTRACTION}|{_HEAD}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+",
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": _Encoding(
        "o200k_base",
        rf"{_HEAD}[{_UPPER}]*[{_LOWER}]+{_CONTRACTION}?|{_HEAD}[{_UPPER}]+[{_LOWER}]*{_CONTRACTION}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}


def read_encoding(path: Path) -> tuple[str, TiktokenTokenizer]:
    """The encoding's name, and its tokenizer. Raises ModelNotFound, and ModelInvalid for another file."""
    try:
        data = read_regular(path, MOST_INPUT)
    except OSError as e:
        raise ModelNotFound(f"{path}: {e.strerror}", f"give the path of a {SUFFIX} file") from None
    encoding = _ENCODINGS.get(sha256_hex(data))
    if encoding is None:
        names = " or ".join(each.name for each in _ENCODINGS.values())
        raise ModelInvalid(
            f"{path} is not {names} as tiktoken publishes them", "get that file, or name a model"
        )
    # A line is a token and its id, which is the line's number.
    meanings = [base64.b64decode(line.split()[0]) for line in data.splitlines()]
    order = [token for token, meaning in enumerate(meanings) if len(meaning) > 1]
    in_gguf = ["".join(BYTE_CHARACTERS[byte] for byte in meaning).encode() for meaning in meanings]
    return encoding.name, TiktokenTokenizer(in_gguf, PreTokenizer(encoding.pattern), order, (), _no_vocab)


def _no_vocab() -> Vocab:
    raise NotText("it is not UTF-8, or endless white space: tiktoken can't take it", "give a text file")
