"""`infer run` through the real llama.cpp, on a tiny generated model: modes, damage, what would crash it."""

from __future__ import annotations

import json
import random
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from infer_cli.backend import native
from tests.cli_helpers import INFER, REPO, infer, lines_of, one_error_line
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.mark.parametrize("mode", [[], ["--fast"], ["--invariant"]])
def test_each_mode_answers_and_repeats(tiny: Path, mode: list[str]) -> None:
    arguments = ("run", "-m", tiny, "--raw", "hello", "-n", "12", "--json", *mode)
    first = infer(*arguments).json
    assert len(first["tokens"]) == 12  # type: ignore[arg-type]
    assert infer(*arguments).json["digest"] == first["digest"]
    wanted = {"--fast": "seed-only", "--invariant": "invariant"}.get("".join(mode), "canonical")
    assert first["promise"] == wanted


def test_invariant_is_one_reply_whatever_the_threads_and_the_batch(tiny: Path) -> None:
    """F16 weights: a lone row would take another kernel than two rows."""
    arguments = ("run", "-m", tiny, "--raw", "hello " * 30, "-n", "12", "--invariant", "--json", "-t", "1",
                 "--seed", "3")  # fmt: skip
    alone = infer(*arguments).json
    assert infer(*arguments, "--threads", "1").json["digest"] == alone["digest"]
    together = lines_of(infer(*arguments, "--samples", "5").out)
    assert together[0]["digest"] == alone["digest"]


def test_a_window_that_fills_up_ends_the_reply(tiny: Path) -> None:
    done = infer("run", "-m", tiny, "--raw", "x" * 250, "--json")
    usage = done.json["usage"]
    assert isinstance(usage, dict)
    assert done.json["finish_reason"] in ("context", "stop")
    assert usage["prompt_tokens"] + usage["completion_tokens"] <= 512


def test_the_window_is_what_was_asked_for_not_what_llama_cpp_rounds_it_to(tiny: Path) -> None:
    done = infer("run", "-m", tiny, "--raw", "hello", "--ctx", "300", "-n", "500", "--json")
    usage = done.json["usage"]
    assert isinstance(usage, dict)
    assert done.json["finish_reason"] == "context"
    assert usage["prompt_tokens"] + usage["completion_tokens"] == 300


def test_a_model_without_a_template_says_what_to_do(tmp_path: Path) -> None:
    base = write_tiny_gguf(tmp_path / "base.gguf", overrides={"tokenizer.chat_template": None})
    one_error_line(infer("run", "-m", base, "hi"), 2, "no chat template", "--raw")
    assert infer("run", "-m", base, "--raw", "hi", "-n", "2").code == 0


def test_a_file_cut_anywhere_is_one_line(tiny: Path, tmp_path: Path) -> None:
    data = tiny.read_bytes()
    for sixteenth in range(16):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(data[: len(data) * sixteenth // 16])
        one_error_line(infer("run", "-m", cut, "hi"), 4, "cut.gguf")


def test_random_damage_never_shows_a_traceback(tiny: Path, tmp_path: Path) -> None:
    """Header bytes replaced at random: an answer, a clear refusal, or a crash that the supervisor reports."""
    rng = random.Random(20)
    data = tiny.read_bytes()
    for i in range(12):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(4, 6000)] = rng.randrange(256)
        path = tmp_path / f"damaged{i}.gguf"
        path.write_bytes(damaged)
        done = infer("run", "-m", path, "--raw", "hi", "-n", "3")
        if done.code != 0:
            one_error_line(done, done.code)
            assert done.code in (2, 3, 4, 5, 6, 11)


def test_other_things_than_models_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("these are notes, not a model")
    one_error_line(infer("run", "-m", text, "hi"), 4, "notes.gguf")
    one_error_line(infer("run", "-m", tmp_path, "hi"), 3, "directory")
    one_error_line(infer("run", "-m", tmp_path / "absent.gguf", "hi"), 3, "absent.gguf")


def test_a_lora_that_is_none(tiny: Path) -> None:
    done = infer("run", "-m", tiny, "hi", "--raw", "--lora", tiny)
    one_error_line(done, 4, "LoRA")
    assert "  " in done.err, "llama.cpp's own last lines follow"


def test_quantized_caches_and_flash_attention(tiny: Path) -> None:
    arguments = ("run", "-m", tiny, "--raw", "hi", "-n", "3")
    assert infer(*arguments, "--cache-type-k", "q8_0", "--cache-type-v", "q8_0").code == 0
    assert infer(*arguments, "--flash-attn", "off").code == 0
    assert infer(*arguments, "--no-mmap", "--mlock").code == 0


def test_ten_megabytes_of_prompt_are_counted_and_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"some words of text\n" * 550_000)
    one_error_line(infer("run", "-m", tiny, "-f", tmp_path / "big", "q"), 5, "512")


def test_more_memory_than_there_is(tmp_path: Path) -> None:
    wide = write_tiny_gguf(tmp_path / "wide.gguf", n_ctx_train=2**31 - 1)
    one_error_line(infer("run", "-m", wide, "--raw", "hi", "-n", str(2**31 - 9)), 6, "memory")


def test_native_log_goes_to_stderr_on_request_only(tiny: Path) -> None:
    quiet = infer("run", "-m", tiny, "--raw", "hi", "-n", "3")
    loud = infer("run", "-m", tiny, "--raw", "hi", "-n", "3", "--verbose")
    assert quiet.err == ""
    assert "llama_model_loader" in loud.err
    assert loud.out == quiet.out


def test_two_processes_on_one_model(tiny: Path) -> None:
    command = [*INFER, "run", "-m", str(tiny), "--raw", "hi", "-n", "8", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPO) for _ in range(2)]
    digests = {json.loads(process.communicate(timeout=60)[0])["digest"] for process in both}
    assert len(digests) == 1


def test_a_lone_gpu_wish_is_refused_where_there_is_none(tiny: Path) -> None:
    listed = infer("devices", "--jsonl")
    kinds = {device["kind"] for device in lines_of(listed.out)}
    if not kinds & {"gpu", "igpu"}:
        one_error_line(infer("run", "-m", tiny, "hi", "--gpu-layers", "all"), 2, "--gpu-layers")
    assert "cpu" in kinds
    one_error_line(infer("run", "-m", tiny, "hi", "--gpu-layers", "all", "--device", "nosuch"), 2)


def test_doctor_finds_the_installation_in_order() -> None:
    done = infer("doctor")
    assert done.code == 0, done
    assert "llama-cpp-python" in done.text
    for name in ("models", "data", "cache", "configuration"):  # every directory that is written to
        assert f"ok    {name}: " in done.text
    assert "FAIL" not in done.text
    findings = json.loads(infer("doctor", "--json").out)
    assert len(findings) == sum(line.startswith("ok ") for line in done.text.splitlines())
    assert all(set(finding) == {"ok", "what", "hint"} and finding["ok"] for finding in findings)


def test_the_version_of_the_bindings_is_that_of_the_installed_distribution() -> None:
    assert native.versions()["llama_cpp_python"] == version("llama_cpp_python")
