"""A loaded model's vocabulary: tiktoken after much text, llama.cpp for little, the same ids from both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infer_cli.backend.llama_model import LlamaVocab
from infer_cli.prompt.encode import encode_prompt, encode_raw
from infer_cli.prompt.template import ChatTemplate
from infer_cli.runtime.llama_loaded import LlamaLoaded
from infer_cli.runtime.llama_loading import LlamaLoader
from infer_cli.runtime.options import EngineOptions
from infer_cli.types import Message
from infer_cli.vocab import loaded
from infer_cli.vocab.loaded import BYTES_FOR_CHECK, BYTES_FOR_TIKTOKEN, LoadedVocab
from infer_cli.vocab.tiktoken_proof import exact_tokenizer
from infer_cli.vocab.tiktoken_tokenizer import TiktokenTokenizer
from tests.cli_helpers import infer
from tests.tiny_gguf import CONTROL_TOKENS, DEFAULT_TEMPLATE, USER_TOKEN, vocabulary, write_tiny_gguf

TEXT = "  hello world, it is the system.\n\n12 é "
Count = Callable[[], int]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


@pytest.fixture
def load() -> Iterator[Callable[[Path], tuple[LlamaLoaded, LoadedVocab]]]:
    made: list[LlamaLoaded] = []

    def load(path: Path) -> tuple[LlamaLoaded, LoadedVocab]:
        loader = LlamaLoader(path, EngineOptions(threads=1), 1, os.open(os.devnull, os.O_WRONLY))
        made.append(loader.loaded())
        return made[-1], made[-1].vocab

    yield load
    for one in made:
        one.close()


Load = Callable[[Path], tuple[LlamaLoaded, LoadedVocab]]


@pytest.fixture
def n_by_tiktoken(monkeypatch: pytest.MonkeyPatch) -> Count:
    """How many texts tiktoken was given since the last call."""
    given_texts: list[bytes] = []
    tokenize = TiktokenTokenizer.tokenize

    def counted(self: TiktokenTokenizer, text: bytes) -> list[int]:
        given_texts.append(text)
        return tokenize(self, text)

    monkeypatch.setattr(TiktokenTokenizer, "tokenize", counted)

    def count() -> int:
        n = len(given_texts)
        given_texts.clear()
        return n

    return count


def llama_cpps(vocab: LoadedVocab, text: str) -> list[int]:
    assert isinstance(vocab._vocab, LlamaVocab)
    return vocab._vocab.tokenize(text.encode())


# --- when -----------------------------------------------------------------------------------------


def test_tiktoken_comes_after_much_text_of_a_vocabulary_that_was_checked(
    tiny: Path, load: Load, n_by_tiktoken: Count
) -> None:
    found, vocab = load(tiny)
    assert exact_tokenizer(found.header, lambda: vocab._vocab) is not None
    enough = BYTES_FOR_TIKTOKEN * vocab.n_tokens
    n_by_tiktoken()
    half = TEXT * (enough // 2 // len(TEXT.encode()))
    for n in (0, 0, 1, 1):  # texts of a batch add up
        assert vocab.tokenize(half.encode()) == llama_cpps(vocab, half)
        assert n_by_tiktoken() == n
        vocab.tokenize(TEXT.encode())
        n_by_tiktoken()
    found, vocab = load(tiny)
    whole = TEXT * (enough // len(TEXT))
    assert vocab.tokenize(whole.encode()) == llama_cpps(vocab, whole)  # a lone long one
    assert n_by_tiktoken() == 1


def test_a_short_text_imports_nothing_for_it(tiny: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from infer_cli.runtime.llama_loading import LlamaLoader\n"
        "from infer_cli.runtime.options import EngineOptions\n"
        f"path, log = Path({str(tiny)!r}), os.open(os.devnull, os.O_WRONLY)\n"
        "LlamaLoader(path, EngineOptions(threads=1), 1, log).loaded().vocab.tokenize(b'hello world')\n"
        "print('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "infer_cli.runtime.llama_loading" in modules
    assert not {"tiktoken", "regex", "infer_cli.vocab.tiktoken_tokenizer"} & modules


def test_an_unknown_vocabulary_is_checked_where_that_pays(
    tiny: Path, load: Load, n_by_tiktoken: Count, own_home: Path
) -> None:
    verdicts = own_home / "cache" / "vocabularies"
    vocab = load(tiny)[1]
    text = TEXT * (BYTES_FOR_CHECK * vocab.n_tokens // len(TEXT.encode()))
    assert vocab.tokenize(text.encode()) == llama_cpps(vocab, text)
    assert n_by_tiktoken() == 0 and not verdicts.exists()
    assert vocab.tokenize(text.encode()) == llama_cpps(vocab, text)
    assert n_by_tiktoken() > 1 and len(list(verdicts.iterdir())) == 1
    vocab.tokenize(b"hi")
    assert n_by_tiktoken() == 1


def test_llama_cpp_goes_on_where_tiktoken_is_not_exact(
    tmp_path: Path, load: Load, n_by_tiktoken: Count
) -> None:
    for key, value in (("merges", ["h e l"]), ("pre", "deepseek-llm")):
        path = write_tiny_gguf(tmp_path / f"{key}.gguf", overrides={f"tokenizer.ggml.{key}": value})
        vocab = load(path)[1]
        text = TEXT * (BYTES_FOR_CHECK * vocab.n_tokens // len(TEXT) + 1)
        for _ in range(2):
            assert vocab.tokenize(text.encode()) == llama_cpps(vocab, text)
        assert n_by_tiktoken() == 0


def test_llama_cpp_goes_on_where_the_file_is_gone(tiny: Path, load: Load, n_by_tiktoken: Count) -> None:
    vocab = load(tiny)[1]
    tiny.unlink()
    text = TEXT * (BYTES_FOR_CHECK * vocab.n_tokens // len(TEXT) + 1)
    for _ in range(2):
        assert vocab.tokenize(text.encode()) == llama_cpps(vocab, text)
    assert n_by_tiktoken() == 0


# --- the same ids ---------------------------------------------------------------------------------

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_FRAGMENTS = [
    *CONTROL_TOKENS,
    USER_TOKEN,
    "<|im_",
    "|>",
    "[[note",
    " ",
    "  ",
    "\n",
    "hello",
    " the",
    "12",
    "é",
]
_texts = st.lists(st.one_of(st.sampled_from(_FRAGMENTS), st.text(max_size=8)), max_size=12).map("".join)


def _check_ids(path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "BYTES_FOR_TIKTOKEN", 0)
    monkeypatch.setattr(loaded, "BYTES_FOR_CHECK", 0)
    found, vocab = load(path)
    vocab.tokenize(b"x")
    assert vocab._exact is not None
    plain = vocab._vocab
    source = found.header.chat_template or DEFAULT_TEMPLATE
    template = ChatTemplate(source, bos="", eos="", now=datetime(2026, 11, 24, tzinfo=timezone.utc))

    @quick
    @given(_texts, st.lists(_texts, min_size=1, max_size=3))
    def check(text: str, contents: list[str]) -> None:
        assert vocab.tokenize(text.encode()) == plain.tokenize(text.encode())
        assert encode_raw(text, vocab) == encode_raw(text, plain)
        assert encode_raw(text, vocab, parse_special=True) == encode_raw(text, plain, parse_special=True)
        messages = [Message("assistant" if i % 2 else "user", content) for i, content in enumerate(contents)]
        assert encode_prompt(template, messages, vocab) == encode_prompt(template, messages, plain)

    check()


def test_ids_are_llama_cpps(tiny: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    _check_ids(tiny, load, monkeypatch)


def test_ids_are_llama_cpps_where_a_bos_is_added(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    _check_ids(write_tiny_gguf(tmp_path / "bos.gguf", overrides=added), load, monkeypatch)


@pytest.mark.weights
def test_ids_are_llama_cpps_for_the_default_model(
    smollm2: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check_ids(smollm2, load, monkeypatch)


# --- the commands ---------------------------------------------------------------------------------


def test_run_and_batch_use_it_for_long_texts_only(tiny: Path, tmp_path: Path, own_home: Path) -> None:
    """A verdict that is tampered with shows who tokenizes: without ranks every byte is a token."""
    long, short = tmp_path / "long.txt", tmp_path / "short.txt"
    bytes_a_token = len(USER_TOKEN)
    long.write_text(USER_TOKEN * (BYTES_FOR_TIKTOKEN * len(vocabulary()[0]) // bytes_a_token) + TEXT, "utf-8")
    short.write_text(TEXT, "utf-8")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": long.read_text("utf-8")}) + "\n", "utf-8")

    def run(path: Path) -> tuple[object, int]:
        reply = infer("run", "-m", tiny, "-f", path, "-n", "2", "--json", "--no-cache").json
        usage = reply["usage"]
        assert isinstance(usage, dict)
        return reply["digest"], usage["prompt_tokens"]

    def batch() -> bytes:
        return infer("batch", "-m", tiny, rows, "-n", "2", "--dry-run").out

    long_reply, short_reply, counts = run(long), run(short), batch()
    assert infer("tokens", "-m", tiny, "hi").code == 0  # checks the vocabulary
    assert run(long) == long_reply
    (verdict,) = (own_home / "cache" / "vocabularies").iterdir()
    verdict.write_text(json.dumps(json.loads(verdict.read_bytes()) | {"order": []}))
    assert run(long)[1] > long_reply[1]
    assert run(short) == short_reply
    assert batch() != counts
