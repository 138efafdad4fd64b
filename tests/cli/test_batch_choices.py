"""Rows of `infer batch` whose answer is one of several texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.batch_helpers import batch, by_unit, digests, lines, write_rows
from tests.cli_helpers import infer, lines_of, one_error_line, script


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def question(text: str, *choices: str, **more: object) -> dict[str, object]:
    return {"prompt": text, "choices": list(choices), **more}


def test_the_reply_is_the_likeliest_choice(tmp_path: Path, out: Path) -> None:
    rows = write_rows(
        tmp_path / "in.jsonl", question("sky", "no", "You said: sky"), question("sky", "You", "no"), "plain"
    )
    assert batch(rows, "-o", out, "-n", 9).code == 0
    first, second, plain = (by_unit(out)[i, 0] for i in range(3))
    assert (first["text"], second["text"], plain["text"]) == ("You said: sky", "You", "You said:")
    assert [choice["text"] for choice in first["choices"]] == ["no", "You said: sky"]
    assert first["choices"][1]["probability"] > 0.9
    assert first["params"] == {"choices": ["no", "You said: sky"]}
    assert (first["finish_reason"], first["seed"], first["error"]) == ("stop", None, None)
    assert "choices" not in plain
    alone = infer("run", "-m", "fake", "sky", "--choices", "You,no", "--invariant", "--json").json
    assert (alone["digest"], alone["choices"]) == (second["digest"], second["choices"])
    assert infer("verify", out, "--fraction", 1).text == "holds: 3 of 3 replies\n"


def test_choices_for_all_rows(tmp_path: Path, out: Path) -> None:
    rows = tmp_path / "in.csv"
    rows.write_text("q\nsky\nsea\n")
    arguments = ("--row-template", "About the {q}.", "--choices", "You, no", "--ordered")
    assert batch(rows, "-o", out, *arguments).code == 0
    assert [line["text"] for line in lines(out)] == ["You", "You"]
    assert infer("verify", out, "--fraction", 1).code == 0
    again = batch(rows, "-o", out, "--row-template", "About the {q}.", "--choices", "You,yes", "--ordered")
    one_error_line(again, 2, 'choices was ["You", "no"], is ["You", "yes"]')
    assert batch(rows, "-o", out, *arguments).code == 0
    (out.with_name("out.jsonl.job") / "job.json").unlink()
    flags = ("--input", rows, "--row-template", "About the {q}.")
    assert infer("verify", out, "--fraction", 1, *flags).text == "holds: 2 of 2 replies\n"


def test_rows_and_neighbours_change_nothing(tmp_path: Path, out: Path) -> None:
    rows = [question(f"number {i}", f"{i}", "You said", "no", custom_id=f"r{i}") for i in range(12)]
    mixed = [row for i in range(12) for row in (rows[11 - i], {"prompt": f"plain {i}", "max_tokens": 5})]
    for mode in ([], ["--canonical"], ["--fast"]):
        ours, other = tmp_path / f"ours{mode}", tmp_path / f"other{mode}"
        assert batch(write_rows(tmp_path / "in.jsonl", *rows), "-o", ours, *mode).code == 0
        assert batch(write_rows(tmp_path / "mixed.jsonl", *mixed), "-o", other, *mode).code == 0
        found = {line["custom_id"]: line["digest"] for line in lines(other)}
        assert all(found[line["custom_id"]] == line["digest"] for line in lines(ours))
        parts = [tmp_path / f"part{i}{mode}" for i in (1, 2)]
        for i, part in enumerate(parts, 1):
            assert batch(tmp_path / "mixed.jsonl", "-o", part, "--shard", f"{i}/2", *mode).code == 0
        assert infer("merge", *parts, "-o", tmp_path / f"merged{mode}").code == 0
        assert digests(tmp_path / f"merged{mode}") == digests(other)
        assert infer("verify", other, "--fraction", 1).code == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"seed": 3}, "seed has no meaning beside choices"),
        ({"temperature": 0.5}, "temperature has no meaning beside choices"),
        ({"top_k": 3}, "top_k has no meaning beside choices"),
        ({"stop": "x"}, "stop has no meaning beside choices"),
        ({"max_tokens": 3}, "max_tokens has no meaning beside choices"),
        ({"samples": 3}, "samples has no meaning beside choices"),
        ({"logprobs": 3}, "logprobs has no meaning beside choices"),
        ({"choices": "a"}, "choices must be a list of strings"),
        ({"choices": ["a"]}, "nothing to choose from"),
        ({"choices": ["a", ""]}, "a choice is empty"),
        ({"choices": ["a", 3]}, "a choice is a int"),
        ({"choices": ["a", "a"]}, "'a' is there twice"),
        ({"choices": ["a", "\ud800"]}, "choices"),
        ({"choices": ["a", "b" * 200]}, "do not fit the window of 100"),
        ({"prompt": "p" * 95}, "do not fit the window of 100"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, out: Path, more: dict[str, object], words: str) -> None:
    rows = write_rows(
        tmp_path / "in.jsonl", {"prompt": "x", "choices": ["a", "b"], **more}, question("x", "a", "b")
    )
    assert batch(rows, "-o", out, "--ctx", 100).code == 8
    bad, good = (by_unit(out)[i, 0] for i in range(2))
    assert words in bad["error"]["message"] and bad["text"] is None
    assert good["error"] is None
    assert infer("verify", out, "--fraction", 1).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--choices", "a,b", "-t", 1], "--temperature has no meaning beside --choices"),
        (["--choices", "a,b", "--samples", 2], "--samples has no meaning beside --choices"),
        (["--choices", "a,b", "-n", 3], "--max-tokens has no meaning beside --choices"),
        (["--choices", "a,b", "--stop", "x"], "--stop has no meaning beside --choices"),
        (["--choices", "a"], "nothing to choose from"),
        (["--choices", "a,a"], "'a' is there twice"),
    ],
)
def test_flags_that_are_refused(tmp_path: Path, out: Path, arguments: list[object], words: str) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "x")
    one_error_line(batch(rows, "-o", out, *arguments), 2, words)
    assert not out.exists()


def test_a_prompt_is_cut_for_choices_too(tmp_path: Path, out: Path) -> None:
    rows = tmp_path / "in.csv"
    rows.write_text(f"q\n{'x' * 300}\n")
    arguments = ("--row-template", "Sum up: {q}", "--choices", "a,b", "--ctx", 200, "--overflow", "keep-ends")
    assert batch(rows, "-o", out, *arguments).code == 0
    assert lines(out)[0]["truncation"]["policy"] == "keep-ends"
    assert infer("verify", out, "--fraction", 1).code == 0


def test_a_forged_choice_is_found(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", question("sky", "You", "no"), question("sea", "You", "no"))
    assert batch(rows, "-o", out).code == 0

    def forged(**more: object) -> str:
        first, *others = lines(out)
        changed = tmp_path / "changed.jsonl"
        changed.write_text("".join(json.dumps(line) + "\n" for line in ({**first, **more}, *others)))
        done = infer("verify", changed, "--fraction", 1, "--input", rows)
        assert done.code == 9, done
        return done.text

    row = lines(out)[0]
    choices: list[Any] = json.loads(json.dumps(row["choices"]))
    choices[1]["probability"] = 0.4
    assert "choices[1].probability is 0.4" in forged(choices=choices)
    assert "its digest is not that of what the line says" in forged(text="no")


def test_openai_output_has_the_choice_as_its_text(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", question("sky", "You", "no"))
    assert batch(rows, "-o", out, "--output-format", "openai").code == 0
    (line,) = lines(out)
    assert line["response"]["body"]["choices"][0]["message"]["content"] == "You"
    assert infer("verify", out, "--fraction", 1).code == 0


def test_a_failure_of_one_choice_is_the_reply_s(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", question("sky", "You", "no"))
    assert batch(rows, "-o", out, model=script(tmp_path, nan_after=0)).code == 8
    assert lines(out)[0]["error"]["code"] == 4
    late = tmp_path / "late"
    model = script(tmp_path, step_s=1)
    assert batch(rows, "-o", late, "--deadline", "200ms", model=model).code == 8
    (line,) = lines(late)
    assert (line["error"]["code"], line["finish_reason"], line["text"]) == (7, "deadline", None)
    script(tmp_path)
    assert infer("verify", late, "--fraction", 1).code == 0


def test_records_show_the_choices(tmp_path: Path, out: Path, own_home: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "sky")
    assert batch(rows, "-o", out, "--choices", "You,no").code == 0
    (record,) = lines_of(infer("records", "list", "--jsonl").out)
    shown = infer("records", "show", record["id"], "--json").json
    assert {"name": "choices", "value": ["You", "no"], "origin": "--choices"} in shown["settings"]  # type: ignore[operator]
