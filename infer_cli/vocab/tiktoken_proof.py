"""Whether tiktoken gives the same ids as llama.cpp for a vocabulary: a self-test, run once and remembered."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.backend.pretokenizers import CATEGORY_DIGESTS, PRE_TOKENIZERS, PreTokenizer, as_known
from infer_cli.system.files import MOST_INPUT, read_regular, write_atomic
from infer_cli.system.paths import cache_dir
from infer_cli.vocab.merges import NotRepresentable, rank_order, token_bytes
from infer_cli.vocab.tiktoken_tokenizer import (
    CONTROL,
    MADE_USER_DEFINED,
    MERGES,
    TOKENS,
    TYPES,
    UNKNOWN,
    USER_DEFINED,
    VERSION,
    TiktokenTokenizer,
    Verdict,
)

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.models.gguf.header import Header


def exact_tokenizer(
    header: Header, load_vocab: Callable[[], Vocab], on_check: Callable[[], None] = lambda: None
) -> TiktokenTokenizer | None:
    """A tokenizer whose ids are llama.cpp's, made without it; None where there is no such thing.

    A vocabulary that was never seen is checked first, which takes llama.cpp and some seconds: `on_check`
    is called before. Raises what `load_vocab` raises, ModelInvalid for a damaged header.
    """
    pre = _pre_tokenizer(header)
    if pre is None:
        return None
    tokens: list[bytes] = header.array(TOKENS)
    path = _verdict_path(header)
    verdict = _read_verdict(path, len(tokens))
    if verdict is None:
        on_check()
        verdict = judge(header, pre, load_vocab())
        # A cache that cannot be written costs time, nothing else.
        with contextlib.suppress(OSError):
            write_atomic(path, [_as_json(verdict)])
    if not verdict.exact:
        return None
    return TiktokenTokenizer(tokens, pre, verdict.order, verdict.added, load_vocab)


def is_checked(header: Header) -> bool:
    """Whether `exact_tokenizer` knows its answer without a check."""
    return _pre_tokenizer(header) is None or _verdict_path(header).exists()


def _pre_tokenizer(header: Header) -> PreTokenizer | None:
    """None for a vocabulary that tiktoken can't stand in for, whatever is in it."""
    if header.metadata.get("tokenizer.ggml.model") != "gpt2":
        return None
    if not {TOKENS, TYPES, MERGES} <= header.arrays.keys():
        return None
    return PRE_TOKENIZERS.get(str(header.metadata.get("tokenizer.ggml.pre") or "default"))


def judge(header: Header, pre: PreTokenizer, vocab: Vocab) -> Verdict:
    """Whether tiktoken gives llama.cpp's ids with this vocabulary. `vocab` is llama.cpp's."""
    tokens: list[bytes] = header.array(TOKENS)
    types: list[int] = header.array(TYPES)
    try:
        if category := _differing_category():
            raise NotRepresentable(f"tiktoken and llama.cpp differ in which characters are {category}")
        added = _added_tokens(tokens, types, vocab)
        order = rank_order(tokens, header.array(MERGES), ignore_merges=pre.ignore_merges)
        tokenizer = TiktokenTokenizer(tokens, pre, order, added, lambda: vocab)
        for text in probe_texts(tokens, added):
            if tokenizer.tokenize(text) != vocab.tokenize(text):
                raise NotRepresentable(f"the ids of {text[:60]!r} differ")
    except NotRepresentable as e:
        return Verdict(False, str(e))
    return Verdict(True, order=tuple(order), added=tuple(added))


def _added_tokens(tokens: Sequence[bytes], types: Sequence[int], vocab: Vocab) -> list[int]:
    """Tokens that llama.cpp finds in plain text before anything else, in its order: the longest first."""
    if len(types) < len(tokens):
        raise NotRepresentable("not every token has a type")
    control = {token.id for token in vocab.control_tokens()}
    added = [
        i
        for i, (text, kind) in enumerate(zip(tokens, types[: len(tokens)], strict=True))
        if text
        and i not in control
        and (kind in (UNKNOWN, CONTROL, USER_DEFINED) or text in MADE_USER_DEFINED)
    ]
    by_length: dict[int, list[bytes]] = {}
    for i in added:
        by_length.setdefault(len(tokens[i]), []).append(tokens[i])
    for length, texts in by_length.items():
        for n in range(1, length):
            heads = {text[:n]: text for text in texts}
            if any(heads.get(text[-n:], text) != text for text in texts):
                raise NotRepresentable("added tokens of one length may overlap: which comes first is open")
    return sorted(added, key=lambda i: -len(tokens[i]))


@functools.cache
def _differing_category() -> str | None:
    """The first category in which tiktoken's regular expressions have other characters than llama.cpp."""
    import tiktoken

    every_byte = {bytes([byte]): byte for byte in range(256)}
    text = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    for category, digest in CATEGORY_DIGESTS.items():
        encoding = tiktoken.Encoding(
            "category", pat_str=as_known(category), mergeable_ranks=every_byte, special_tokens={}
        )
        matched = bytes(encoding.encode_ordinary(text))  # what does not match is dropped
        if hashlib.sha256(matched).hexdigest() != digest:
            return category
    return None


_PROBES = (
    "def f(x):\n\treturn {'a': x[0]**2, \"b\": -1.5e-3}  # it's we'll I'VE they'Re don'T\r\n\r\n",
    '    if (a != b && c <= 0x1F) {\n        std::cout << "\\n";\n    }\n\n\n/* … */\n',
    "我想在apple工作1314151天～ 日本語のテキスト、カタカナ・ひらがな゛。한국어 문장입니다. \u3000全角　スペ",
    "👨‍👩‍👧‍👦 👩🏽‍💻 🏳️‍🌈 ☕️ 😀😁 1️⃣ 🇩🇪",
    "שלום עולם، مرحبا بالعالم ١٢٣٤٥ ۱۲۳ हिन्दी १२३ ภาษาไทย ไก่ Việt Cửa e\u0301 à\u0323\u0307 កាន់តែ",
    "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 ²³ ½ Ⅷ ①② ٣٤ 2٣4٥67",
    " a  b   c    d\te\t\tf \t g\n\nh\r\ni \n j\n \n\n  k\u00a0l\u2003\u2028m\u0085n\u000b\u000co \u200b p",
    "x \n y  \n\n z\t\n1 \n2  3   4 ! ? .  -- ... !!\n\n?\n/ //\n///n !\r\n",
    "<|im_start|> <s></s> [INST] <unk> <|endoftext|>",
    "\x00\x01\x1b\x7f\u00ad\u200e\u202e\ufeff\ufffd\ufffe\ue000\U000f0000\U0010ffff\U00010d40\U0001fae9\u0378",
    "''' 's 'S 'll'LL 'x 'ſ '\u212a \u0130's O'Reilly's l'été",
)

_RUN_LENGTH = 1000  # longer runs may overflow the stack of llama.cpp's regular expressions

_RUNS = ("a", " ", "\n", "\t", "1", "-", "é", "中", "あ", "😀", "ab", " a", "\n ", "\r\n", "a1", "'s", ".\n")


def probe_texts(tokens: Sequence[bytes], added: Sequence[int]) -> Iterator[bytes]:
    """Texts whose ids must be equal: scripts, white space, long runs, every token, added tokens."""
    for text in _PROBES:
        yield text.encode()
    yield "\n".join(_PROBES).encode()
    for run in _RUNS:
        yield (run * _RUN_LENGTH).encode()
        yield f"x{run * 7}y {run * 50}1".encode()
    meanings = [meaning for meaning in token_bytes(tokens) if meaning is not None]
    for start in range(0, len(meanings), 1000):
        some = meanings[start : start + 1000]
        for joint in (b"", b"\n"):
            yield joint.join(some).decode("utf-8", "ignore").encode()
    texts = [tokens[i] for i in added]
    for start in range(0, len(texts), 200):
        some = texts[start : start + 200]
        for joint in (b"", b" ", b"a", b"\n", b" \n b"):
            yield b"x" + joint + joint.join(some) + joint + b"y"


def _verdict_path(header: Header) -> Path:
    return cache_dir() / "vocabularies" / f"{_vocabulary_hash(header)}.json"


def _vocabulary_hash(header: Header) -> str:
    """Of all in the header that ids depend on, and of the versions that the verdict holds for."""
    from importlib.metadata import version

    digest = hashlib.sha256()
    facts = {
        key: value
        for key, value in header.metadata.items()
        if key in ("general.name", "general.architecture")
        or (key.startswith("tokenizer.") and not key.startswith("tokenizer.chat_template"))
    }
    digest.update(
        json.dumps(
            [VERSION, version("tiktoken"), version("llama_cpp_python"), sorted(facts.items())]
        ).encode()
    )
    with header.path.open("rb") as file:
        for key in (TOKENS, TYPES, MERGES):
            array = header.arrays[key]
            file.seek(array.offset)
            digest.update(f"{key} {array.count} {array.n_bytes}\n".encode())
            digest.update(file.read(array.n_bytes))
    return digest.hexdigest()


def _as_json(verdict: Verdict) -> bytes:
    data = {
        "exact": verdict.exact,
        "reason": verdict.reason,
        "order": verdict.order,
        "added": verdict.added,
    }
    return json.dumps(data, separators=(",", ":")).encode()


def _read_verdict(path: Path, n_tokens: int) -> Verdict | None:
    """The kept verdict; None if there is none that can be read."""
    try:
        data = json.loads(read_regular(path, MOST_INPUT))
        verdict = Verdict(
            bool(data["exact"]),
            str(data["reason"]),
            tuple(map(int, data["order"])),
            tuple(map(int, data["added"])),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    ids = (*verdict.order, *verdict.added)
    return verdict if not ids or (min(ids) >= 0 and max(ids) < n_tokens) else None
