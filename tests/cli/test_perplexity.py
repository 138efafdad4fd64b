"""`infer perplexity` as its user meets it. What is expected of tiny models is what llama-perplexity prints
for them (llama.cpp 0.5.0, `-b` as `-c`): so both cut a text alike, and count alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli_helpers import INFER, REPO, Outcome, infer, one_error_line, script
from tests.tiny_gguf import write_tiny_gguf

_DATA = Path(os.environ.get("INFER_TEST_DATA", REPO.parent / "shared" / "data"))
_WORDS = ["hello", "the", "world", "and", "a", "user", "system", "of", "12"]
TEXT = " ".join(_WORDS[(i * i + i // 7) % len(_WORDS)] for i in range(2200)) + "\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return path


def _tiny(directory: Path, seed: int = 1, *, add_bos: bool = False, weight_type: str = "F32") -> Path:
    path = directory / f"tiny-{seed}{'-bos' if add_bos else ''}.gguf"
    added = {"tokenizer.ggml.add_bos_token": True} if add_bos else None
    return write_tiny_gguf(path, weight_type=weight_type, seed=seed, overrides=added)


def _json(*arguments: object) -> Any:
    done = infer("perplexity", *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    return done.json


# --- against llama-perplexity ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ctx", "add_bos", "ppl", "error", "n_windows"),
    [
        (256, False, 258.4489, 3.53893, 12),
        (512, False, 266.1568, 3.58179, 6),
        (256, True, 258.2356, 3.56917, 12),
        (512, True, 265.8691, 3.54729, 6),
    ],
)
def test_windows_of_llama_perplexity(
    tmp_path: Path, text: Path, ctx: int, add_bos: bool, ppl: float, error: float, n_windows: int
) -> None:
    found = _json(text, "-m", _tiny(tmp_path, add_bos=add_bos), "--ctx", ctx, "--fast")
    assert found["ppl"] == pytest.approx(ppl, abs=1e-3)
    assert found["stderr"] == pytest.approx(error, abs=1e-3)
    assert (found["n_windows"], found["n_tokens"]) == (n_windows, n_windows * (ctx // 2 - 1))
    assert (found["windows"], found["window"], found["stride"]) == ("disjoint", ctx, None)


@pytest.mark.parametrize(("add_bos", "ppl"), [(False, 269.7147), (True, 269.9873)])
def test_strided_windows_of_llama_perplexity(tmp_path: Path, text: Path, add_bos: bool, ppl: float) -> None:
    """`-c 256 --ppl-stride 64`, for which it says `n_ctx=512`."""
    model = _tiny(tmp_path, add_bos=add_bos)
    found = _json(text, "-m", model, "--ctx", 512, "--stride", 64, "--fast")
    assert found["ppl"] == pytest.approx(ppl, abs=1e-3)
    assert (found["n_windows"], found["n_tokens"], found["stride"]) == (43, 43 * 64, 64)


def test_divergence_of_llama_perplexity(tmp_path: Path, text: Path) -> None:
    """`--kl-divergence`, whose base is rounded to 16 bits."""
    model, base = _tiny(tmp_path, 2), _tiny(tmp_path, 1)
    found = _json(text, "-m", model, "--against", base, "--ctx", 256, "--fast")
    far = found["against"]
    assert found["ppl"] == pytest.approx(254.830658, abs=1e-3)
    assert found["stderr"] == pytest.approx(3.191375, abs=1e-3)
    assert far["ppl"] == pytest.approx(258.448724, abs=1e-3)
    assert far["ppl_ratio"] == pytest.approx(0.986001, abs=1e-5)
    assert far["ppl_ratio_stderr"] == pytest.approx(0.017856, abs=1e-5)
    assert far["kl_mean"] == pytest.approx(0.321414, abs=1e-5)
    assert far["kl_mean_stderr"] == pytest.approx(0.000510, abs=1e-5)
    assert far["kl_median"] == pytest.approx(0.319172, abs=1e-5)
    assert far["kl_p99"] == pytest.approx(0.366108, abs=1e-5)
    assert far["kl_max"] == pytest.approx(0.381616, abs=1e-5)
    assert (far["same_top"], far["same_top_stderr"]) == (0, 0)
    assert (found["model"]["name"], far["model"]["name"]) == ("tiny-2", "tiny-1")
    assert found["model"]["sha256"] != far["model"]["sha256"]


@pytest.mark.weights
def test_perplexity_of_the_default_model(smollm2: Path, tmp_path: Path) -> None:
    """Of the first two windows of WikiText-2's validation text; calls have other shapes here."""
    path = tmp_path / "wikitext.txt"
    path.write_bytes((_DATA / "wikitext2" / "valid.txt").read_bytes()[:8000])
    found = _json(path, "-m", smollm2, "--ctx", 256, "--limit", 2, "--fast")
    assert found["ppl"] == pytest.approx(12.4287, rel=0.01)
    assert found["n_tokens"] == 254


# --- promises -------------------------------------------------------------------------------------


def test_the_default_is_the_same_whatever_the_threads(tmp_path: Path, text: Path) -> None:
    model = _tiny(tmp_path, weight_type="Q4_1")
    one, two = (_json(text, "-m", model, "--ctx", 128, "--threads", n) for n in (1, 2))
    assert one == two
    assert (one["mode"], one["promise"]) == ("invariant", "invariant")


def test_a_model_against_itself_differs_by_nothing(tmp_path: Path, text: Path) -> None:
    model = _tiny(tmp_path, weight_type="Q4_1")
    found = _json(text, "-m", model, "--against", model, "--ctx", 128)
    far = found["against"]
    assert {far[key] for key in ("kl_mean", "kl_mean_stderr", "kl_median", "kl_p99", "kl_max")} == {0.0}
    assert {far[key] for key in ("ppl_ratio", "same_top")} == {1.0}
    assert {far[key] for key in ("ppl_ratio_stderr", "same_top_stderr")} == {0.0}
    assert (far["ppl"], far["stderr"]) == (found["ppl"], found["stderr"])
    alone = _json(text, "-m", model, "--ctx", 128)
    assert {key: value for key, value in found.items() if key != "against"} == alone


def test_what_can_not_be_invariant_is_canonical(tmp_path: Path, text: Path) -> None:
    model = _tiny(tmp_path)
    done = infer("perplexity", text, "-m", model, "--ctx", 128, "--cache-type-k", "f32", "--stats", "--json")
    assert (done.json["mode"], done.json["promise"]) == ("canonical", "canonical")
    assert "mode canonical, not invariant: it needs its own KV cache types" in done.err


# --- what is shown --------------------------------------------------------------------------------


def test_lines(text: Path) -> None:
    done = infer("perplexity", text, "-m", "fake", "--ctx", 256)
    assert (done.code, done.err) == (0, "")
    names = [line.split("  ")[0] for line in done.text.splitlines()]
    assert names == ["perplexity", "bits per byte", "scored", "windows", "mode"]
    assert "\nscored         4953 tokens, 4953 bytes\nwindows        39 of 256 tokens\n" in done.text
    found = _json(text, "-m", "fake", "--ctx", 256)
    assert f"perplexity     {found['ppl']:.4f} ± {found['stderr']:.4f}\n" in done.text
    assert f"bits per byte  {found['bits_per_byte']:.4f}\n" in done.text


def test_progress_is_for_stats(text: Path) -> None:
    err = infer("perplexity", text, "-m", "fake", "--ctx", 256, "--stats").err
    assert "[fake · 9945 tokens read · " in err
    quiet = infer("perplexity", text, "-m", "fake", "--ctx", 256, "--quiet")
    assert (quiet.code, quiet.err) == (0, "")


def test_a_text_from_a_pipe_in_rolling_windows() -> None:
    data = "h\u00e9llo\n".encode()
    done = infer("perplexity", "-", "-m", "fake", "--rolling", "--json", stdin=data)
    found = done.json
    assert (found["windows"], found["window"], found["n_windows"]) == ("rolling", 4096, 1)
    assert found["n_tokens"] == found["n_bytes"] == len(data)


def test_only_the_first_windows(text: Path) -> None:
    found = _json(text, "-m", "fake", "--ctx", 256, "--limit", 2)
    assert (found["n_windows"], found["n_tokens"]) == (2, 254)


# --- what is wrong --------------------------------------------------------------------------------


def _refused(*arguments: object, stdin: bytes | None = None) -> Outcome:
    return infer("perplexity", "-m", "fake", *arguments, stdin=stdin)


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    one_error_line(_refused(tmp_path / "none.txt"), 2, "no file")
    one_error_line(_refused(tmp_path), 2, "it is a directory, not a file")
    one_error_line(_refused("-", stdin=b""), 2, "the text is empty")
    one_error_line(_refused("-", stdin=b"a\xffb"), 2, "stdin is not UTF-8: byte 0xff at offset 1")
    one_error_line(_refused("-", stdin=b"a\0b"), 2, "stdin is binary")
    one_error_line(
        _refused("-", stdin=b"abc"), 2, "the text is 3 tokens, and at least 512 are needed", "--ctx"
    )
    one_error_line(_refused(), 2, "Missing argument")


def test_windows_that_cannot_be(text: Path, tmp_path: Path) -> None:
    one_error_line(_refused(text, "--ctx", 5000), 2, "--ctx 5000 is larger than the window", "4096")
    one_error_line(_refused(text, "--ctx", 2), 2, "a window of 2 tokens is not between 3 and")
    one_error_line(_refused(text, "--stride", 512), 2, "a stride of 512 tokens is not between 1 and 511")
    one_error_line(_refused(text, "--stride", 0), 2, "--stride 0 is not between")
    one_error_line(_refused(text, "--limit", 0), 2, "--limit 0 is not between")
    one_error_line(_refused(text, "--rolling", "--stride", 9), 2, "--rolling and --stride exclude each other")
    small = script(tmp_path, n_ctx_train=100)
    one_error_line(infer("perplexity", text, "-m", small), 2, "a window of 512 tokens", "(100)", "--ctx")


def test_another_vocabulary(tmp_path: Path, text: Path) -> None:
    done = infer("perplexity", text, "-m", "fake", "--against", _tiny(tmp_path), "--fast")
    one_error_line(done, 2, "fake and tiny-1 have other vocabularies", "one vocabulary")


def test_a_model_that_computes_nan(tmp_path: Path, text: Path) -> None:
    damaged = script(tmp_path, nan_after=2)
    one_error_line(infer("perplexity", text, "-m", damaged), 4, "NaN", "weights are damaged")
    one_error_line(infer("perplexity", text, "-m", "fake", "--against", damaged), 4, "NaN", "script.json")


def test_a_crash_is_one_line(tmp_path: Path, text: Path) -> None:
    crashing = script(tmp_path, crash_signal="SIGSEGV", crash_after=3)
    one_error_line(infer("perplexity", text, "-m", crashing), 11, "llama.cpp")
    one_error_line(infer("perplexity", text, "-m", "fake", "--against", crashing), 11, "llama.cpp")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_an_interrupt_ends_it(tmp_path: Path, text: Path) -> None:
    slow = script(tmp_path, step_s=0.2)
    command = [*INFER, "perplexity", str(text), "-m", slow, "--stats"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPO, env=dict(os.environ)
    )
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
