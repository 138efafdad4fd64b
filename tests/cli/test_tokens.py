"""`infer tokens` as its user meets it: counts, ids, pieces, JSON, several files, exit codes."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import pytest

from infer_cli.cli.tokens import shown_piece
from tests.cli_helpers import Outcome, infer, lines_of, one_error_line, script
from tests.tiny_gguf import gguf_bytes, metadata, write_tiny_gguf


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


def test_a_text(tiny: Path) -> None:
    done = infer("tokens", "-m", tiny, "hello", "the world")
    assert (done.code, done.err) == (0, "")
    assert done.text == "3 tokens\nfits the window of tiny (512): yes, 509 left\n"


def test_json(tiny: Path) -> None:
    done = infer("tokens", "-m", tiny, "--json", "hello the world")
    facts = done.json
    ids = facts.pop("ids")
    assert isinstance(ids, list) and len(ids) == 3
    assert facts.pop("method") == "tiktoken"
    assert facts == {"n_tokens": 3, "model": "tiny", "window": 512, "fits": True, "left": 509}
    first, *_ = infer("tokens", "-m", tiny, "--ids", "hello the world").text.splitlines()
    assert first.split() == [str(i) for i in ids]


def test_what_does_not_fit(tmp_path: Path) -> None:
    model = script(tmp_path, n_ctx_train=256)
    done = infer("tokens", "-m", model, "--json", stdin=b"x" * 300)
    assert (done.json["n_tokens"], done.json["fits"], done.json["left"]) == (300, False, -44)
    assert infer("tokens", "-m", model, stdin=b"x" * 300).text.endswith("(256): no, 44 too many\n")


def test_the_fake_model() -> None:
    done = infer("tokens", "-m", "fake", "--json", "abc")
    assert (done.json["ids"], done.json["method"]) == ([97, 98, 99], "fake")


def test_pieces_in_a_pipe(tiny: Path) -> None:
    lines = infer("tokens", "-m", tiny, "--pieces", "the é😀\n\\").text.splitlines()
    pieces = [line.split("\t")[1] for line in lines[:-2]]
    assert pieces == ["the", " ", "é", "\\xf0", "\\x9f", "\\x98", "\\x80", "\\n", "\\\\"]
    assert lines[-2] == "9 tokens"


def test_ids_are_shown_as_text(tiny: Path) -> None:
    ids, *_ = infer("tokens", "-m", tiny, "--ids", "the world é").text.splitlines()
    for given in (ids, ids.replace(" ", ","), ids.replace(" ", ", ")):
        assert infer("tokens", "-m", tiny, "--ids", given).text == "the world é\n"
    assert infer("tokens", "-m", "fake", "--ids", "104,258").text == "h<|im_end|>\n"
    one_error_line(infer("tokens", "-m", "fake", "--ids", "104,999"), 2, "no token 999")
    assert infer("tokens", "-m", "fake", "--ids", stdin=b"1,2").text.startswith("49 44 50\n3 tokens")
    assert infer("tokens", "-m", "fake", "1,2").text.startswith("3 tokens")


def test_control_tokens_are_text_unless_asked_for(tiny: Path) -> None:
    def ids(*more: str) -> list[int]:
        found = infer("tokens", "-m", tiny, "--json", *more, "<|im_end|>hello").json["ids"]
        assert isinstance(found, list)
        return found

    assert len(ids()) == len("<|im_end|>") + 1
    assert ids("--parse-special") == [2, ids()[-1]]
    lines = infer("tokens", "-m", tiny, "--pieces", "--parse-special", "<|im_end|>hello").text.splitlines()
    assert lines[0] == "2\t<|im_end|>"


def test_what_llama_cpp_does_itself_says_so(tiny: Path) -> None:
    done = infer("tokens", "-m", tiny, "--json", "--parse-special", "hello")
    assert done.json["method"] == "llama.cpp"
    done = infer("tokens", "-m", tiny, "--json", stdin=b"caf\xe9")
    assert (done.json["method"], done.code) == ("llama.cpp", 0)


def test_special_tokens_are_added_where_the_model_wants_them(tmp_path: Path) -> None:
    wants = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    model = write_tiny_gguf(tmp_path / "wants.gguf", overrides=wants)
    plain = infer("tokens", "-m", model, "--json", "hello").json["ids"]
    assert isinstance(plain, list) and len(plain) == 1
    assert infer("tokens", "-m", model, "--json", "--add-special", "hello").json["ids"] == [1, *plain, 2]
    lines = infer("tokens", "-m", model, "--pieces", "--add-special", "hello").text.splitlines()
    assert lines[:3] == ["1\t<|im_start|>", f"{plain[0]}\thello", "2\t<|im_end|>"]


def test_several_files(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    (tmp_path / "b").write_text("hello the world")
    files = ("-f", tmp_path / "a", "-f", tmp_path / "b", "-f", "-")
    done = infer("tokens", "-m", tiny, *files, stdin=b"the")
    counts = [(1, tmp_path / "a"), (3, tmp_path / "b"), (1, "stdin"), (5, "total")]
    assert done.text.splitlines()[:-1] == [f"{n}\t{name}" for n, name in counts]
    *each, last = lines_of(infer("tokens", "-m", tiny, "--json", *files, stdin=b"the").out)
    assert [(row["n_tokens"], row["name"]) for row in each] == [(n, str(name)) for n, name in counts[:-1]]
    total = last["total"]
    assert isinstance(total, dict) and (total["n_tokens"], total["n_inputs"]) == (5, 3)


def test_an_empty_text(tiny: Path) -> None:
    assert infer("tokens", "-m", tiny, "--json", stdin=b"").json["ids"] == []
    assert infer("tokens", "-m", tiny, "--ids", stdin=b"").text.startswith("\n0 tokens\n")


def test_a_long_text_is_the_sum_of_its_lines(tiny: Path) -> None:
    """Longer than a block, so that it is cut, with the last line cut off."""
    line = b"hello the world and he is of the system, 12 users\n"
    one = infer("tokens", "-m", tiny, "--json", stdin=line).json
    many = infer("tokens", "-m", tiny, "--json", stdin=line * 50_000 + b"hello").json
    assert isinstance(one["ids"], list) and isinstance(many["ids"], list)
    assert many["n_tokens"] == 50_000 * len(one["ids"]) + 1 == len(many["ids"])
    assert many["ids"][: 2 * len(one["ids"])] == one["ids"] * 2
    assert many["method"] == "tiktoken"


def test_the_weights_are_not_read(tmp_path: Path) -> None:
    """Gigabytes of weights that are not there (a hole in the file) cost neither time nor memory."""
    n_bytes = 2**24 if sys.platform == "win32" else 2**32  # where a hole takes no room
    shape, float32 = (n_bytes // 4,), 0
    head = gguf_bytes(metadata(512, None), [("token_embd.weight", shape, float32, b"")])
    path = tmp_path / "large.gguf"
    path.write_bytes(head)
    os.truncate(path, len(head) + n_bytes)
    assert infer("tokens", "-m", path, "--json", "hello").json["n_tokens"] == 1  # checks the vocabulary
    done, resident = _with_peak_memory("tokens", "-m", path, "--json", "hello")
    assert (done.json["n_tokens"], done.json["method"]) == (1, "tiktoken")
    assert resident < n_bytes // 2  # a child begins with what its parent, the test run, has resident


def _with_peak_memory(*arguments: str | Path) -> tuple[Outcome, int]:
    """The outcome, and the most bytes that a process of it had resident."""
    if sys.platform == "win32":
        return infer(*arguments), 0
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = infer(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    scale = 1 if sys.platform == "darwin" else 1024
    return done, max(before, after) * scale


def test_bytes_that_no_character_has(tiny: Path, tmp_path: Path) -> None:
    """Numbers beyond U+10FFFF end llama.cpp's process; what else is no UTF-8 it counts."""
    (tmp_path / "text").write_text("hello")
    for data in (b"hello\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf the"):
        (tmp_path / "binary").write_bytes(data)
        for flags in ((), ("--json",), ("--parse-special",)):
            done = infer("tokens", "-m", tiny, *flags, "-f", tmp_path / "binary")
            one_error_line(done, 2, "binary", "beyond the last character of Unicode")
    done = infer("tokens", "-m", tiny, "-f", tmp_path / "text", "-f", "-", stdin=b"\xf5\x80\x80\x80")
    one_error_line(done, 2, "error: stdin: the bytes f5 80 80 80")
    one_error_line(infer("tokens", "-m", tiny, stdin=b"\xf5\x80\x80\x80"), 2, "error: the text: ")
    for data in (b"\xff\xfe\xc3(", b"a\xed\xa0\x80b", b"\xf8\x88\x80\x80\x80"):
        assert infer("tokens", "-m", tiny, stdin=data).code == 0


def test_nothing_is_written_of_a_file_that_cannot_be_read(tiny: Path, tmp_path: Path) -> None:
    for model in (tiny, "fake"):
        assert infer("tokens", "-m", model, "--json", "-f", tmp_path / "none").out == b""
        assert infer("tokens", "-m", model, "--ids", "-f", tmp_path / "none").out == b""


def test_usage_errors(tiny: Path, tmp_path: Path) -> None:
    one_error_line(infer("tokens", "-m", tiny, "--ids", "--json", "x"), 2, "--json", "exclude")
    one_error_line(infer("tokens", "-m", tiny, "-f", tmp_path / "none"), 2, "none", "No such file")
    (tmp_path / "empty").mkdir()
    one_error_line(infer("tokens", "-m", tiny, "-f", tmp_path / "empty"), 2, "directory")
    one_error_line(infer("tokens", "-m", tiny, "-f", "-", "-f", "-", stdin=b"x"), 2, "-f -", "twice")
    one_error_line(infer("tokens", "-m", tmp_path / "no.gguf", "x"), 3, "no.gguf")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(struct.pack("<4sI", b"GGUF", 3))
    one_error_line(infer("tokens", "-m", path, "x"), 4, "bad.gguf")


def test_a_vocabulary_that_only_llama_cpp_reads(tmp_path: Path) -> None:
    """Its pre-tokenizer has no single pattern."""
    path = write_tiny_gguf(tmp_path / "other.gguf", overrides={"tokenizer.ggml.pre": "deepseek-llm"})
    done = infer("tokens", "-m", path, "--json", "hello the world")
    assert (done.code, done.json["method"]) == (0, "llama.cpp")


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (b" the", " the"),
        ("é中😀".encode(), "é中😀"),
        (b"\xe4\xb8", "\\xe4\\xb8"),
        (b"\n\t\r", "\\n\\t\\r"),
        (b"\x1b[31m", "\\x1b[31m"),
        ("\u202e\u200d".encode(), "\\u202e\\u200d"),
        (b"\\n", "\\\\n"),
    ],
)
def test_shown_piece(piece: bytes, shown: str) -> None:
    assert shown_piece(piece) == shown


@pytest.mark.weights
def test_the_default_model_counts_as_llama_cpp_does(smollm2: Path) -> None:
    text = "The quick brown fox, 12 345 日本語 😀\n\n  jumps."
    ours = infer("tokens", "-m", smollm2, "--json", text).json
    theirs = infer("tokens", "-m", smollm2, "--json", "--parse-special", text).json
    assert (ours["method"], theirs["method"]) == ("tiktoken", "llama.cpp")
    assert ours["ids"] == theirs["ids"]
    assert json.dumps(ours["window"]) == "8192"


def test_ids_as_json_prints_them() -> None:
    known = infer("tokens", "-m", "fake", "--ids", "1,2,3")
    assert infer("tokens", "-m", "fake", "--ids", "[1, 2, 3]").out == known.out != b""


def test_one_token_is_one() -> None:
    ids = infer("tokens", "-m", "fake", "--json", "a").json["n_tokens"]
    assert ids == 1
    assert infer("tokens", "-m", "fake", "a").text.splitlines()[0] == "1 token"
