"""Every vocabulary that llama.cpp tests itself with: its expected ids, and ours on real text.

The files are in the sdist of llama-cpp-python (`tests.sdist`). The real text is found through
`INFER_TEST_DATA`, without it in `../shared/data` beside the checkout.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer_cli.backend import native
from infer_cli.backend.llama_model import LlamaModel
from infer_cli.backend.spec import ModelSpec
from infer_cli.models.gguf.reading import read_header
from infer_cli.vocab.tiktoken_proof import exact_tokenizer
from tests.sdist import models_dir

pytestmark = [pytest.mark.weights, pytest.mark.timeout(600)]

# By name: whether tiktoken can stand in, so that a vocabulary which no longer can is noticed.
VOCABULARIES = {
    "aquila": True,
    "baichuan": False,
    "bert-bge": False,
    "command-r": True,
    "deepseek-coder": False,
    "deepseek-llm": False,
    "falcon": True,
    "gemma-4": False,
    "gpt-2": True,
    "gpt-neox": True,
    "llama-bpe": True,
    "llama-spm": False,
    "mpt": True,
    "nomic-bert-moe": False,
    "phi-3": False,
    "qwen2": True,
    "qwen35": True,
    "refact": True,
    "starcoder": True,
}
_SEPARATOR = b"\n__ggml_vocab_test__\n"
_DATA = Path(os.environ.get("INFER_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
_TEXTS = {
    name: path
    for name, path in (
        ("WikiText-2", _DATA / "wikitext2" / "valid.txt"),
        ("MT-Bench", _DATA / "mt_bench" / "question.jsonl"),
        ("GSM8K", _DATA / "gsm8k" / "train_200.jsonl"),
    )
    if path.is_file()
}
if len(_TEXTS) < 3:
    print(f"no real text in {_DATA}: its tokenizer tests are left out (INFER_TEST_DATA names another place)")


@pytest.fixture(scope="session")
def vocab_dir(request: pytest.FixtureRequest) -> Path:
    """Where ggml-vocab-*.gguf, .inp and .out are."""
    return models_dir(request.config.cache)


@pytest.fixture(scope="module", autouse=True)
def native_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with (tmp_path_factory.mktemp("log") / "native.log").open("wb") as file:
        native.log_to(file.fileno())
        yield


def expectations(path: Path) -> list[tuple[bytes, list[int]]]:
    """The .inp/.out pair beside a vocabulary; nothing for the few that have none."""
    inputs = path.with_name(path.name + ".inp")
    if not inputs.is_file():
        return []
    texts = inputs.read_bytes().removesuffix(_SEPARATOR).split(_SEPARATOR)
    lines = path.with_name(path.name + ".out").read_text().splitlines()
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=True)]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_ids_are_llama_cpps(name: str, vocab_dir: Path) -> None:
    path = vocab_dir / f"ggml-vocab-{name}.gguf"
    model = LlamaModel(ModelSpec(path, vocab_only=True))
    try:
        vocab = model.vocab
        exact = exact_tokenizer(read_header(path), lambda: vocab)
        assert (exact is not None) == VOCABULARIES[name]
        for text, expected in expectations(path):
            assert vocab.tokenize(text) == expected
            if exact is not None:
                assert exact.tokenize(text) == expected
        if exact is not None:
            for title, file in _TEXTS.items():
                text = file.read_bytes()
                assert exact.tokenize(text) == vocab.tokenize(text), title
            assert exact.n_by_llama_cpp == 0
    finally:
        model.close()


def test_every_vocabulary_of_the_sdist_is_tested(vocab_dir: Path) -> None:
    names = {path.name.removeprefix("ggml-vocab-").removesuffix(".gguf") for path in vocab_dir.glob("*.gguf")}
    assert names == VOCABULARIES.keys()


def test_the_default_model(smollm2: Path) -> None:
    model = LlamaModel(ModelSpec(smollm2, vocab_only=True))
    try:
        exact = exact_tokenizer(read_header(smollm2), lambda: model.vocab)
        assert exact is not None
        for title, file in _TEXTS.items():
            text = file.read_bytes()
            blocks = [text[i : i + 10_007] for i in range(0, len(text), 10_007)]
            ids = [i for stretch in exact.tokenize_blocks(blocks, 2) for i in stretch]
            assert ids == model.vocab.tokenize(text), title
        assert exact.n_by_llama_cpp == 0
    finally:
        model.close()
