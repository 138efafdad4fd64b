"""`infer verify`: a batch's results hold, or which rows do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infer_cli.reply import digest
from tests.batch_helpers import batch, lines, prompts, write_rows
from tests.cli_helpers import Outcome, infer, one_error_line, script
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", *prompts(20))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def verify(out: Path, *arguments: object, **more: Any) -> Outcome:
    return infer("verify", out, "--fraction", 1, *arguments, **more)


def change(out: Path, row: int, how: Callable[[dict[str, Any]], object]) -> None:
    found = lines(out)
    how(next(line for line in found if line["row"] == row))
    out.write_text("".join(json.dumps(line) + "\n" for line in found))


def redigested(line: dict[str, Any]) -> None:
    values = (line[name] for name in ("tokens", "text", "finish_reason", "seed", "params"))
    line["digest"] = digest(*values)


@pytest.mark.parametrize("mode", [[], ["--fast"], ["--invariant", "--parallel", 3]])
@pytest.mark.parametrize("how", [[], ["-t", 2, "--seed", 4, "--samples", 2, "--stop", "qu", "--top-k", 9]])
@pytest.mark.parametrize("form", ["infer", "openai"])
def test_a_batch_holds(rows: Path, out: Path, mode: list[object], how: list[object], form: str) -> None:
    write_rows(
        rows,
        *prompts(4),
        {"prompt": "own", "temperature": 1, "seed": 8, "max_tokens": 3},
        {"prompt": "system", "system": "Be brief.", "custom_id": "s", "stop": "y"},
    )
    assert batch(rows, "-o", out, "-n", 9, "--system", "Hi.", "--output-format", form, *mode, *how).code == 0
    done = verify(out)
    n = 12 if how else 6
    assert (done.code, done.text) == (0, f"holds: {n} of {n} replies\n")
    assert ("only the seed" in done.err) == (mode == ["--fast"])


def test_a_sample_is_the_same_each_time(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    assert infer("verify", out).text == "holds: 1 of 1 replies\n"
    assert infer("verify", out, "--fraction", 0.3).text == "holds: 6 of 6 replies\n"
    found = infer("verify", out, "--fraction", 0.3, "--json").json
    assert found == {
        "holds": True, "replies": 6, "same": 6, "rows": 6, "rows_in_all": 20, "differences": [],
        "reasons": [],
    }  # fmt: skip
    for row in range(20):
        change(out, row, lambda line: line.update(text="no"))
    chosen = [infer("verify", out, "--fraction", 0.3, "--json").json["differences"] for _ in range(2)]
    assert chosen[0] == chosen[1]


def test_what_was_changed_is_named(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out, "-t", 0.1, "--seed", 2).code == 0
    change(out, 1, lambda line: line.update(text="no"))
    change(out, 2, lambda line: line.update(digest="sha256:" + "0" * 64))

    def other_token(line: dict[str, Any]) -> None:
        line["tokens"][3] = 65
        redigested(line)

    def other_text(line: dict[str, Any]) -> None:
        line["text"] += "!"
        redigested(line)

    def other_seed(line: dict[str, Any]) -> None:
        line["seed"] += 1
        redigested(line)

    def other_params(line: dict[str, Any]) -> None:
        line["params"]["surprise"] = 1
        redigested(line)

    for row, how in enumerate((other_token, other_text, other_seed, other_params), 3):
        change(out, row, how)
    done = verify(out)
    assert done.code == 9
    assert done.text.splitlines() == [
        "row 1: its digest is not that of what the line says",
        "row 2: its digest is not that of what the line says",
        "row 3: differs at token 3: 'A' (65), now ' ' (32)",
        "row 4: its text is 'You said: question number 4!', now 'You said: question number 4'",
        *[line for line in done.text.splitlines() if line.startswith("row 5: its seed is ")],
        "row 6: its surprise is 1, the row asks for None",
        "does not hold: 6 of 20 replies differ",
    ]
    (third,) = (d for d in verify(out, "--json").json["differences"] if d["row"] == 3)  # type: ignore[attr-defined]
    assert third == {
        "row": 3, "custom_id": "3", "sample": 0, "what": "differs", "token": 3, "was": 65, "now": 32,
    }  # fmt: skip


def test_openai_form_is_held_to_its_text_and_digest(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out, "--output-format", "openai").code == 0
    found = lines(out)
    found[0]["response"]["body"]["choices"][0]["message"]["content"] = "no"
    found[1]["infer"]["digests"] = ["sha256:0"]
    out.write_text("".join(json.dumps(line) + "\n" for line in found))
    done = verify(out)
    assert done.code == 9
    assert "its text is 'no'" in done.text
    assert "its digest is another" in done.text
    shutil.rmtree(f"{out}.job")
    one_error_line(verify(out, "--input", rows), 2, "job's file is not there")


def test_rows_that_changed_or_went(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    write_rows(rows, "another", *prompts(19)[1:])
    done = verify(out)
    assert done.code == 9
    assert done.text == (
        "row 0: the row of the input says something else\n"
        "row 19: the input has no such row\n"
        "does not hold: 2 of 20 replies differ\n"
    )
    write_rows(rows, *prompts(22))
    done = verify(out)
    assert (done.code, done.text) == (0, "holds: 20 of 20 replies\n")
    assert "no reply to rows 20, 21 of the input" in done.err


def test_another_model(rows: Path, out: Path, tmp_path: Path) -> None:
    one, other = (write_tiny_gguf(tmp_path / f"{seed}.gguf", seed=seed) for seed in (1, 2))
    assert batch(rows, "-o", out, "--raw", "-n", 5, model=str(one)).code == 0
    one_error_line(verify(out), 3, "-m")
    assert verify(out, "-m", one).text == "holds: 20 of 20 replies\n"
    done = verify(out, "-m", other)
    assert done.code == 9
    assert "  the model's sha256 was " in done.text


def test_another_engine_is_named_as_the_likely_reason(rows: Path, out: Path, tmp_path: Path) -> None:
    model = script(tmp_path, default_reply="before")
    assert batch(rows, "-o", out, model=model).code == 0
    assert verify(out).code == 0
    script(tmp_path, default_reply="after")
    for row in range(20):
        change(out, row, lambda line: line["engine"].update(fingerprint="0" * 16))
        change(out, row, lambda line: line["engine"]["facts"].update(llama_cpp="0.1"))
    done = verify(out)
    assert done.code == 9
    assert "row 7: differs at token 0: 'b' (98), now 'a' (97)" in done.text
    assert "fingerprint was 0000000000000000, is " in done.text
    assert "llama_cpp was 0.1, is fake" in done.text


def test_lines_are_enough_without_the_job(rows: Path, out: Path) -> None:
    write_rows(rows, *prompts(6), {"prompt": "own", "temperature": 2, "seed": 3})
    arguments = ("-t", 1, "--seed", 5, "--parallel", 3, "--system", "Hi.", "--ctx", 400, "-n", 390)
    assert batch(rows, "-o", out, *arguments).code == 0
    shutil.rmtree(f"{out}.job")
    one_error_line(verify(out), 2, "--input")
    assert verify(out, "--input", rows, "--system", "Hi.").text == "holds: 7 of 7 replies\n"
    done = verify(out, "--input", rows)
    assert done.code == 9
    assert "its prompt had " in done.text


def test_a_reply_that_filled_its_window_ends_there_again(rows: Path, out: Path, tmp_path: Path) -> None:
    model = script(tmp_path, default_reply="word " * 100)
    assert batch(rows, "-o", out, "--ctx", 300, "-n", 290, model=model).code == 0
    assert {line["finish_reason"] for line in lines(out)} == {"context"}
    assert verify(out).code == 0
    shutil.rmtree(f"{out}.job")
    assert verify(out, "--input", rows).code == 0


def test_a_reply_that_a_deadline_cut_is_compared_as_a_prefix(rows: Path, out: Path, tmp_path: Path) -> None:
    write_rows(rows, {"prompt": "slow", "deadline": "700ms"}, {"prompt": "bad", "temprature": 1}, "good")
    model = script(tmp_path, step_s=0.05, default_reply="word " * 10)
    assert batch(rows, "-o", out, model=model).code == 8
    assert [line["finish_reason"] for line in sorted(lines(out), key=lambda line: line["row"])][:2] == [
        "deadline",
        "error",
    ]
    script(tmp_path, default_reply="word " * 10)
    assert verify(out).text == "holds: 2 of 2 replies\n"
    script(tmp_path, default_reply="other " * 10)
    assert verify(out).text.startswith("row 0: differs at token 0")


def test_what_is_no_results_file(rows: Path, out: Path, tmp_path: Path) -> None:
    one_error_line(verify(tmp_path / "none"), 2, "none")
    one_error_line(verify(rows, "--input", rows), 2, "line 1")
    assert batch(rows, "-o", out, "--canonical").code == 0
    for fraction in ("0", "1.5", "-1", "nan"):
        one_error_line(infer("verify", out, "--fraction", fraction), 2, "--fraction")
    whole = out.read_bytes()
    out.write_bytes(whole[:-20])
    done = verify(out)
    assert (done.code, done.text) == (0, "holds: 19 of 19 replies\n")
    assert "torn" in done.err
    out.write_bytes(whole + whole[: whole.index(b"\n") + 1])
    one_error_line(verify(out), 2, "answered twice")
    first = lines(out)[0]
    for name, bad in (
        ("tokens", "x"), ("tokens", [-1]), ("params", None), ("digest", 3), ("seed", -1), ("sample", -1),
        ("finish_reason", "x"), ("engine", {}), ("model", None), ("usage", {}), ("custom_id", 5), ("text", 5),
    ):  # fmt: skip
        out.write_text(json.dumps({**first, name: bad}) + "\n")
        one_error_line(verify(out), 2)
    facts = first["engine"]["facts"]
    wrong: list[tuple[str, object]] = [
        ("mode", "x"), ("width", 0), ("threads", "x"), ("type_k", "x"), ("flash_attn", 1), ("devices", 1),
        ("gpu_layers", "x"), ("adapters", {"ab": 1.0}),
    ]  # fmt: skip
    for name, fact in wrong:
        out.write_text(
            json.dumps({**first, "engine": {**first["engine"], "facts": {**facts, name: fact}}}) + "\n"
        )
        one_error_line(verify(out), 2)
    for params in ({"temperature": "x"}, {"temperature": float("nan")}, {"stop": 1}, {"stop": [""]}):
        out.write_text(json.dumps({**first, "params": {**first["params"], **params}}) + "\n")
        assert verify(out).code == 9


@pytest.mark.weights
def test_a_batch_of_the_real_model_holds_in_another_process(smollm2: Path, tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "Name a colour.", "What is rain?", "Tell a joke.", "2+2?")
    for sampled in ((), ("-t", 1, "--seed", 3)):
        arguments = ("-n", 12, "--parallel", 3, "--redo", *sampled)
        assert batch(rows, "-o", out, *arguments, model=str(smollm2)).code == 0
        assert verify(out, "-m", smollm2).text == "holds: 4 of 4 replies\n"
