"""`infer batch --overflow` on the fake model, where a token is a byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.batch_helpers import batch, by_unit, lines, write_rows
from tests.cli_helpers import infer, one_error_line

TURNS = [
    {"role": "system", "content": "S" * 10},
    {"role": "user", "content": "a" * 100},
    {"role": "assistant", "content": "b" * 100},
    {"role": "user", "content": "c" * 100},
    {"role": "assistant", "content": "d" * 100},
    {"role": "user", "content": "what?"},
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def run(tmp_path: Path, messages: list[dict[str, str]], *arguments: object) -> dict[str, object]:
    path = tmp_path / "messages.json"
    path.write_text(json.dumps(messages))
    return infer("run", "-m", "fake", "--messages", path, "--json", *arguments).json


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-middle", "keep-ends"])
@pytest.mark.parametrize("form", ["infer", "openai"])
def test_a_conversation_is_cut_as_run_cuts_it(tmp_path: Path, out: Path, policy: str, form: str) -> None:
    rows = write_rows(tmp_path / "in.jsonl", {"messages": TURNS}, "short")
    arguments = ("--ctx", 400, "-n", 20, "--overflow", policy)
    done = batch(rows, "-o", out, "--ordered", "--output-format", form, *arguments)
    assert done.code == 0
    alone = run(tmp_path, TURNS, *arguments)
    cut, whole = lines(out)
    if form == "openai":
        assert cut["response"]["body"]["choices"][0]["message"]["content"] == alone["text"]
        assert (cut["infer"]["truncation"], whole["infer"]["truncation"]) == (alone["truncation"], None)
    else:
        assert (cut["text"], cut["tokens"], cut["usage"]["prompt_tokens"]) == (
            alone["text"], alone["tokens"], alone["usage"]["prompt_tokens"],  # type: ignore[index]
        )  # fmt: skip
        assert (cut["truncation"], whole["truncation"]) == (alone["truncation"], None)
    n_dropped = alone["truncation"]["dropped_tokens"]  # type: ignore[index]
    assert f"warning: 1 row was cut to fit the window: {n_dropped} tokens were left out\n" in done.err


def test_without_a_policy_the_row_is_an_error(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", {"messages": TURNS})
    for name, arguments in (("a", ()), ("b", ("--overflow", "error"))):
        assert batch(rows, "-o", tmp_path / name, "--ctx", 400, *arguments).code == 8
        (line,) = lines(tmp_path / name)
        assert (line["error"]["code"], line["truncation"]) == (5, None)
        assert "do not fit the window of 400" in line["error"]["message"]


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-middle", "keep-ends"])
def test_what_a_row_says_itself_is_never_cut(tmp_path: Path, out: Path, policy: str) -> None:
    texts = ["x" * 500, {"messages": [{"role": "user", "content": "x" * 500}]}]
    rows = write_rows(tmp_path / "in.jsonl", *texts)  # type: ignore[arg-type]
    arguments = ("--ctx", 300, "--overflow", policy)
    assert batch(rows, "-o", out, "--ordered", *arguments, "--raw").code == 8
    alone = infer("run", "-m", "fake", "x" * 500, *arguments, "--raw")
    message = alone.err.splitlines()[0].removeprefix("error: ")
    prompt, conversation = lines(out)
    assert prompt["error"]["code"] == conversation["error"]["code"] == 5
    assert prompt["error"]["message"].startswith(message)
    assert f"--overflow {policy} may drop" in conversation["error"]["message"]


@pytest.mark.parametrize("raw", [[], ["--raw"]])
def test_fields_of_a_row_template_are_cut_as_files_are(tmp_path: Path, out: Path, raw: list[str]) -> None:
    rows = tmp_path / "in.csv"
    rows.write_text(f"id,text\n1,{'x' * 600}\n2,short\n")
    arguments = ("--ctx", 300, "-n", 9, "--row-template", "Sum up {id}: {text} In a word.")
    assert batch(rows, "-o", out, *arguments, "--overflow", "keep-ends", *raw).code == 0
    found = by_unit(out)
    (dropped,) = found[0, 0]["truncation"]["dropped"]
    assert dropped["what"].startswith("characters ")
    assert dropped["what"].endswith(" of text")
    assert found[1, 0]["truncation"] is None
    assert 280 < found[0, 0]["usage"]["prompt_tokens"] <= 291
    if not raw:
        text = batch(rows, "-o", "-", *arguments[:2], "-n", 200, *arguments[4:], "--overflow", "keep-ends")
        assert json.loads(text.out.splitlines()[0])["text"].startswith("You said: Sum up ")
    oldest = ("--overflow", "drop-oldest", *raw)
    assert batch(rows, "-o", tmp_path / "oldest", *arguments, *oldest).code == 0
    (dropped,) = by_unit(tmp_path / "oldest")[0, 0]["truncation"]["dropped"]
    assert dropped["what"].startswith("characters 1 to ")


def test_a_row_has_its_own_policy(tmp_path: Path, out: Path) -> None:
    rows = write_rows(
        tmp_path / "in.jsonl",
        {"messages": TURNS, "overflow": "drop-oldest"},
        {"messages": TURNS, "overflow": "error"},
        {"messages": TURNS},
        {"messages": TURNS, "overflow": "guess"},
        {"messages": TURNS, "overflow": ["error"]},
    )
    done = batch(rows, "-o", out, "--ctx", 400, "-n", 20, env={"INFER_OVERFLOW": "keep-ends"})
    assert done.code == 8
    found = by_unit(out)
    assert [found[row, 0]["truncation"] and found[row, 0]["truncation"]["policy"] for row in range(5)] == [
        "drop-oldest", None, "keep-ends", None, None,
    ]  # fmt: skip
    assert [found[row, 0]["error"] and found[row, 0]["error"]["code"] for row in range(5)] == [
        None, 5, None, 2, 2,
    ]  # fmt: skip
    assert "2 rows were cut" in done.err
    one_error_line(batch(rows, "-o", out, "--overflow", "guess"), 2, "'guess'", "keep-ends")


def test_it_belongs_to_the_job_and_is_counted_when_it_goes_on(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", {"messages": TURNS})
    arguments = ("-o", out, "--ctx", 400, "-n", 20, "-t", 1, "--samples", 2)
    assert batch(rows, *arguments, "--overflow", "drop-oldest").code == 0
    one_error_line(
        batch(rows, *arguments, "--overflow", "keep-ends"), 2, 'overflow was "drop-oldest", is "keep-ends"'
    )
    write_rows(rows, {"messages": TURNS}, {"messages": [TURNS[0], *TURNS]})
    summary = tmp_path / "summary.json"
    done = batch(rows, *arguments, "--overflow", "drop-oldest", "--summary", summary)
    assert done.code == 0
    assert "warning: 2 rows were cut" in done.err
    dropped = {row: line["truncation"]["dropped_tokens"] for (row, _), line in by_unit(out).items()}
    found = json.loads(summary.read_text())["truncated"]
    assert found == {"rows": 2, "dropped_tokens": sum(dropped.values())}


def test_a_dry_run_counts_what_would_be_cut(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", {"messages": TURNS}, "short", "x" * 500)
    done = batch(rows, "--dry-run", "--ctx", 400, "-n", 20, "--overflow", "keep-ends")
    found = dict(line.split("\t") for line in done.text.splitlines())
    assert (found["truncated"], found["does_not_fit"], found["reply_tokens"]) == ("1", "1", "40")


@pytest.mark.parametrize("form", ["infer", "openai"])
def test_verify_cuts_again(tmp_path: Path, out: Path, form: str) -> None:
    rows = write_rows(
        tmp_path / "in.jsonl", {"messages": TURNS}, "short", {"messages": TURNS, "overflow": "drop-middle"}
    )
    arguments = ("--ctx", 400, "-n", 20, "--overflow", "keep-ends", "--output-format", form)
    assert batch(rows, "-o", out, *arguments).code == 0
    done = infer("verify", out, "--fraction", 1)
    assert (done.code, done.text) == (0, "holds: 3 of 3 replies\n")
    found = lines(out)
    for line in found:
        truncation = line["infer"]["truncation"] if form == "openai" else line["truncation"]
        if truncation is not None and truncation["policy"] == "keep-ends":
            truncation["dropped"][0]["what"] = "nothing"
    out.write_text("".join(json.dumps(line) + "\n" for line in found))
    done = infer("verify", out, "--fraction", 1)
    assert (done.code, done.text.splitlines()[0]) == (
        9, "row 0: what was left out of its prompt is not what its line says",
    )  # fmt: skip


def test_results_that_came_alone_say_how_they_were_cut(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", {"messages": [*TURNS, *TURNS[1:] * 12]}, "short")
    assert batch(rows, "-o", out, "-n", 20, "--overflow", "drop-oldest").code == 0
    assert by_unit(out)[0, 0]["truncation"] is not None
    shutil.rmtree(f"{out}.job")
    done = infer("verify", out, "--input", rows, "--fraction", 1)
    assert (done.code, done.text) == (0, "holds: 2 of 2 replies\n")
    out.write_text(out.read_text().replace('"policy": "drop-oldest"', '"policy": 3'))
    one_error_line(infer("verify", out, "--input", rows, "--fraction", 1), 2, "truncation")
