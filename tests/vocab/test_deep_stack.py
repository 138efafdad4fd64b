"""Texts that llama.cpp's regular expressions overflow the stack with, had they none of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infer_cli.backend import llama_model
from infer_cli.backend.llama_model import LlamaModel
from infer_cli.backend.pretokenizers import PRE_TOKENIZERS, longest_stretch, recurses
from infer_cli.backend.spec import ModelSpec
from infer_cli.errors import OutOfMemory
from tests.cli_helpers import infer
from tests.sdist import models_dir
from tests.tiny_gguf import write_tiny_gguf

N = 70_000
RUNS = ["a", " ", "1", "\n", "-", "中", "😀"]


def _tiny(directory: Path, pre: str) -> Path:
    return write_tiny_gguf(directory / f"{pre}.gguf", overrides={"tokenizer.ggml.pre": pre})


@pytest.mark.parametrize("pre", ["deepseek-llm", "deepseek-coder", "tekken"])
def test_a_long_run_is_counted(pre: str, tmp_path: Path) -> None:
    """The defect: a native crash. In children, so that one is a failure of this test alone."""
    model = _tiny(tmp_path, pre)
    runs = RUNS if pre == "deepseek-llm" else ["a"]
    files = [tmp_path / f"{i}.txt" for i in range(len(runs))]
    for file, run in zip(files, runs, strict=True):
        file.write_text("x" + run * N + "y", "utf-8")
    done = infer("tokens", "-m", model, *(arg for file in files for arg in ("-f", file)))
    assert done.code == 0, done.err
    counts = [int(line.split()[0]) for line in done.text.splitlines()[: len(files)]]
    assert all(count > 500 for count in counts)


def test_run_refuses_or_answers_but_does_not_crash(tmp_path: Path) -> None:
    done = infer("run", "-m", _tiny(tmp_path, "deepseek-llm"), "-n", "1", stdin=b"a" * N)
    assert done.code == 5, done.err  # the prompt is longer than the window


def test_ids_are_those_of_any_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LlamaModel(ModelSpec(_tiny(tmp_path, "deepseek-llm"), vocab_only=True))
    text = ("x" + "a" * 900 + " ab" * 300 + "中" * 300).encode()
    deep: list[int] = []
    on_deep_stack = llama_model._on_deep_stack

    def counted(work: Callable[[], list[int]], n_chars: int) -> list[int]:
        deep.append(n_chars)
        return on_deep_stack(work, n_chars)

    monkeypatch.setattr(llama_model, "_on_deep_stack", counted)
    plain = model.vocab.tokenize(text)
    assert not deep
    monkeypatch.setattr(llama_model, "_SHALLOW_CHARS", 100)
    assert model.vocab.tokenize(text) == plain == model.vocab.tokenize_special(text)
    assert deep == [longest_stretch(text, split_words=True)] * 2
    model.close()


def test_without_room_for_the_stack_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LlamaModel(ModelSpec(_tiny(tmp_path, "deepseek-llm"), vocab_only=True))
    monkeypatch.setattr(llama_model, "available_memory", lambda: 1 << 20)
    with pytest.raises(OutOfMemory, match=f"{N} bytes of text without a place to cut"):
        model.vocab.tokenize(b"a" * N)
    assert len(model.vocab.tokenize(b"a word and " * 9000)) > 9000  # words need no deep stack
    model.close()


def test_which_pre_tokenizers_recurse() -> None:
    by_hand = {name for name in PRE_TOKENIZERS if not recurses(name)}
    assert {"gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35"} <= by_hand
    assert all(
        recurses(name) for name in ("default", "falcon", "tekken", "gpt-4o", "deepseek-llm", "unknown")
    )


@pytest.mark.weights
@pytest.mark.timeout(300)
def test_every_vocabulary_of_the_sdist(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    paths = sorted(models_dir(request.config.cache).glob("ggml-vocab-*.gguf"))
    assert len(paths) > 15
    for path in paths:
        for run in RUNS if "deepseek" in path.name else ["a", "1", "-"]:
            done = infer("tokens", "-m", path, stdin=("x" + run * N + "y").encode(), timeout=120)
            assert done.code == 0, (path.name, run, done.err)
