"""`infer score`: likelihoods of the rows of a file, and of one pair."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infer_cli.answering.likelihood import digest
from infer_cli.backend.fake import FakeVocab
from tests.batch_helpers import by_unit, digests, lines, write_rows
from tests.cli_helpers import INFER, REPO, Outcome, infer, lines_of, one_error_line, script, verify

VOCAB = FakeVocab()
KEYS = [
    "id", "custom_id", "sample", "logprob", "n_tokens", "n_bytes", "n_chars", "logprob_per_token",
    "logprob_per_byte", "token_logprobs", "greedy", "tokens", "digest", "usage", "timings", "mode", "promise",
    "probed", "model", "engine", "truncation", "error", "row", "row_sha256",
]  # fmt: skip


def score(*arguments: object, model: str = "fake", **more: Any) -> Outcome:
    return infer("score", "-m", model, *arguments, **more)


def pair(context: str, continuation: str, **more: object) -> dict[str, object]:
    return {"context": context, "continuation": continuation, **more}


def pairs(n: int) -> list[dict[str, object]]:
    return [pair(f"question number {i}", f" answer {i % 7}") for i in range(n)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


# --- rows and lines -------------------------------------------------------------------------------


def test_a_line_has_what_was_found(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", pair("The sky is", " blué.", custom_id="a"))
    assert score(rows, "-o", out).code == 0
    (line,) = lines(out)
    assert list(line) == KEYS
    continuation = list(" blué.".encode())
    assert (line["tokens"], line["n_tokens"], line["n_bytes"], line["n_chars"]) == (continuation, 7, 7, 6)
    assert len(line["token_logprobs"]) == 7 and all(value < 0 for value in line["token_logprobs"])
    assert line["logprob"] == math.fsum(line["token_logprobs"])
    assert line["logprob_per_token"] == line["logprob_per_byte"] == line["logprob"] / 7
    assert (line["custom_id"], line["sample"], line["error"], line["greedy"]) == ("a", 0, None, False)
    assert line["digest"] == digest(list(b"The sky is"), continuation, line["token_logprobs"])
    assert (
        line["usage"]["prompt_tokens"] == len("The sky is blu..") and line["usage"]["completion_tokens"] == 0
    )


def test_messages_go_through_the_template(tmp_path: Path, out: Path) -> None:
    greedy: dict[str, object] = {
        "messages": [{"role": "user", "content": "hi"}],
        "continuation": "You said: hi",
    }
    template = tmp_path / "template.jinja"
    template.write_text("{{ greeting }}{% for m in messages %}{{ m.content }}{% endfor %}")
    rows = write_rows(tmp_path / "in.jsonl", greedy)
    assert score(rows, "-o", out).code == 0
    (line,) = lines(out)
    assert line["greedy"] is True and line["logprob"] > -4
    other = tmp_path / "other.jsonl"
    flags = ("--chat-template", template, "--var", "greeting=Hello ")
    assert score(rows, "-o", other, *flags).code == 0
    assert lines(other)[0]["usage"]["prompt_tokens"] == len("Hello hi" + "You said: hi") - 1
    assert verify(other, *flags).code == 0


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        (pair("x", ""), 2, "a continuation is empty"),
        ({"context": "x"}, 2, "a row has a continuation"),
        ({"continuation": "x"}, 2, "a row has either a context or messages"),
        ({"context": "x", "messages": [], "continuation": "x"}, 2, "either a context or messages"),
        (pair("x", "y", temperature=1), 2, "unknown key 'temperature'"),
        (pair("x", "y", prompt="z"), 2, "unknown key 'prompt'"),
        ({"context": 3, "continuation": "y"}, 2, "context must be a string"),
        ({"context": "x", "continuation": ["y"]}, 2, "continuation must be a string"),
        (pair("half \ud800", "y"), 2, "surrogate"),
        (pair("x", "half \udfff"), 2, "surrogate"),
        ({"messages": [{"role": "poet", "content": "x"}], "continuation": "y"}, 2, "poet"),
        ({"body": {"prompt": "x"}, "url": "/v1/completions"}, 2, "either a context or messages"),
        (pair("x" * 60, "y" * 60), 5, "do not fit the window of 100"),
        (pair("x", "y" * 120), 5, "does not fit the window of 100"),
    ],
)
def test_a_row_that_can_not_be_scored_is_an_error_row(
    tmp_path: Path, out: Path, row: dict[str, object], code: int, words: str
) -> None:
    rows = write_rows(tmp_path / "in.jsonl", row, pair("fine", " one"))
    assert score(rows, "-o", out, "--ctx", 100).code == 8
    bad, good = (by_unit(out)[i, 0] for i in range(2))
    assert list(bad) == KEYS
    assert bad["error"]["code"] == code and words in bad["error"]["message"]
    assert bad["logprob"] is bad["token_logprobs"] is bad["logprob_per_byte"] is bad["greedy"] is None
    assert good["error"] is None and good["logprob"] < 0
    assert verify(out).code == 0


def test_rows_without_a_template(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", {"messages": [], "continuation": "x"})
    template = tmp_path / "template.jinja"
    template.write_text("{{ raise_exception('no such luck') }}")
    done = score(rows, "-o", out, "--chat-template", template)
    assert done.code == 8 and lines(out)[0]["error"]["code"] == 2
    write_rows(rows, {"messages": [{"role": "user", "content": "x"}], "continuation": "x"})
    done = score(rows, "-o", out, "--redo", "--chat-template", template)
    assert done.code == 8 and "no such luck" in lines(out)[0]["error"]["message"]


def test_a_model_that_computes_nan(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", pair("x", " one"))
    model = script(tmp_path, nan_after=0)
    assert score(rows, "-o", out, model=model).code == 8
    (line,) = lines(out)
    assert line["error"]["code"] == 4 and line["tokens"] == list(b" one") and line["logprob"] is None
    one_error_line(score("x", " one", model=model), 4, "NaN")
    assert verify(out).code == 0


def test_a_context_is_cut_where_that_is_wanted(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", pair("a" * 50 + "b" * 60, "cc"), pair("short", "cc"))
    done = score(rows, "-o", out, "--ctx", 100, "--overflow", "truncate-left")
    assert done.code == 0 and "1 row was cut to fit the window: 11 tokens were left out" in done.err
    line = by_unit(out)[0, 0]
    assert line["usage"]["prompt_tokens"] == 100
    assert line["truncation"] == {
        "policy": "truncate-left",
        "dropped_tokens": 11,
        "dropped": [{"what": "the beginning of the context", "tokens": 11}],
    }
    assert line["digest"] == digest(b"a" * 39 + b"b" * 60, b"cc", line["token_logprobs"])
    assert verify(out).code == 0
    assert verify(out, "--input", rows).code == 0
    (tmp_path / "out.jsonl.job" / "job.json").unlink()
    assert verify(out, "--input", rows).text == "holds: 2 of 2 likelihoods\n"


@pytest.mark.parametrize(
    ("name", "text", "more"),
    [
        ("in.csv", "custom_id,context,continuation\na,x, one\nb,x, two\n", []),
        ("in.tsv", "context\tcontinuation\nx\t one\nx\t two\n", []),
        ("in.csv", "q,continuation\nx, one\nx, two\n", ["--row-template", "{q}"]),
        ("in.jsonl", '{"q": "x", "continuation": " one"}\n{"q": "x", "continuation": " two"}\n',
         ["--row-template", "{q}"]),
    ],
)  # fmt: skip
def test_tables_and_templates(tmp_path: Path, out: Path, name: str, text: str, more: list[str]) -> None:
    rows = tmp_path / name
    rows.write_text(text)
    assert score(rows, "-o", out, "--ordered", *more).code == 0
    assert [bytes(line["tokens"]) for line in lines(out)] == [b" one", b" two"]
    one = json.loads(score("x", " one", "--json").out)
    assert lines(out)[0]["digest"] == one["digest"]
    assert verify(out).code == 0


@pytest.mark.parametrize(
    ("name", "text", "more", "words"),
    [
        ("in.csv", "context,answer\nx,y\n", [], "no column 'continuation'"),
        ("in.csv", "continuation\ny\n", [], "no column 'context'"),
        ("in.csv", "q\ny\n", ["--row-template", "{q}"], "no column 'continuation'"),
        ("in.txt", "x\n", [], "a plain line has no continuation"),
        ("in.jsonl", "", ["--json"], "--json is for two texts"),
        ("in.jsonl", "", ["--overflow", "drop-oldest"], "--overflow 'drop-oldest' is not one of"),
        ("in.jsonl", "", ["--shard", "3/2"], "--shard"),
    ],
)
def test_files_that_are_refused(
    tmp_path: Path, out: Path, name: str, text: str, more: list[str], words: str
) -> None:
    rows = tmp_path / name
    rows.write_text(text)
    one_error_line(score(rows, "-o", out, *more), 2, words)


# --- one pair -------------------------------------------------------------------------------------


def test_one_pair(tmp_path: Path, out: Path) -> None:
    done = score("The sky is", " blue")
    assert done.text.startswith("log-probability -") and done.text.endswith(" a byte\n")
    assert ": 5 tokens, -" in done.text and done.err == ""
    assert score("", "a").text.count("1 token,") == 1
    value = score("The sky is", " blue", "--json").json
    assert list(value) == KEYS[:-2]
    assert score(write_rows(tmp_path / "in.jsonl", pair("The sky is", " blue")), "-o", out).code == 0
    line = lines(out)[0]
    assert (value["digest"], value["logprob"]) == (line["digest"], line["logprob"])
    assert value["mode"] == "invariant"


def test_one_pair_that_is_cut() -> None:
    done = score("a" * 120, "b", "--ctx", 100, "--overflow", "truncate-left", "--json")
    assert done.code == 0 and "its first 20 tokens were left out" in done.err
    assert done.json["truncation"]
    one_error_line(score("a" * 120, "b", "--ctx", 100), 5, "do not fit")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", ""], "a continuation is empty"),
        (["x", "y", "z"], "3 texts"),
        (["only a context"], "is no file"),
        (["x", "y", "-o", "out.jsonl"], "--output is for a file of rows"),
        (["x", "y", "--shard", "1/2"], "--shard is for a file of rows"),
        (["x", "y", "--format", "csv"], "--format is for a file of rows"),
        (["x", "y", "--no-record"], "--no-record is for a file of rows"),
        (["x", "y", "--overflow", "middle"], "--overflow"),
        ([], "Missing argument"),
    ],
)
def test_what_is_no_pair(arguments: list[str], words: str) -> None:
    one_error_line(score(*arguments), 2, words)


def test_the_mode_falls_back_as_in_a_batch(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(3))
    done = score(rows, "-o", out, "--cache-type-k", "q8_0")
    assert "mode canonical, not invariant: it needs its own KV cache types" in done.err
    assert {line["promise"] for line in lines(out)} == {"canonical"}
    assert score("x", "y", "--cache-type-k", "q8_0", "--json").json["promise"] == "canonical"
    assert score("x", "y", "--fast", "--json").json["promise"] == "seed-only"


# --- a job ----------------------------------------------------------------------------------------


def test_order_neighbours_and_shards_change_nothing(tmp_path: Path, out: Path) -> None:
    rows = [{**row, "custom_id": f"r{i}"} for i, row in enumerate(pairs(40))]
    for mode in ([], ["--canonical"], ["--fast"]):
        reference = tmp_path / f"reference{mode}"
        assert score(write_rows(tmp_path / "in.jsonl", *rows), "-o", reference, *mode).code == 0
        by_id = {line["custom_id"]: line["digest"] for line in lines(reference)}
        mixed = random.Random(7).sample(rows, len(rows))
        other = tmp_path / f"other{mode}"
        assert score(write_rows(tmp_path / "mixed.jsonl", *mixed), "-o", other, *mode).code == 0
        assert {line["custom_id"]: line["digest"] for line in lines(other)} == by_id
        parts = [tmp_path / f"part{i}{mode}" for i in (1, 2)]
        for i, part in enumerate(parts, 1):
            assert score(tmp_path / "in.jsonl", "-o", part, "--shard", f"{i}/2", *mode).code == 0
        merged = tmp_path / f"merged{mode}"
        done = infer("merge", *parts, "-o", merged)
        assert (done.code, done.err) == (0, "40 likelihoods of 40 rows\n")
        assert digests(merged) == digests(reference)
        assert [line["row"] for line in lines(merged)] == list(range(40))
        assert verify(merged).code == 0
        again = score(tmp_path / "in.jsonl", "-o", merged, *mode)
        assert again.code == 0 and "40 of 40 pairs\n" in again.err


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ordered", [(), ("--ordered",)], ids=["as they end", "ordered"])
def test_killed_at_random_moments(tmp_path: Path, out: Path, ordered: tuple[str, ...]) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(400), pair("x", ""))
    model = script(tmp_path, step_s=0.002, token_s=0.0001)
    reference = tmp_path / "reference.jsonl"
    assert score(rows, "-o", reference).code == 8
    command = [*INFER, "score", "-m", model, str(rows), "-o", str(out), "--quiet", *ordered]
    seed = random.SystemRandom().randrange(2**32)
    moments, n_kills = random.Random(seed), 0
    while n_kills < 5:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=REPO)
        try:
            process.communicate(timeout=moments.uniform(0.2, 0.9))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            n_kills += 1
            continue
        finally:
            process.kill()
        assert digests(out) == digests(reference), f"seed {seed}"
        out.unlink()  # once more
    assert score(rows, "-o", out, *ordered, model=model).code == 8
    assert digests(out) == digests(reference), f"seed {seed}"
    if ordered:
        assert [line["row"] for line in lines(out)] == list(range(401))


def test_a_row_that_crashes_the_engine_fails_alone(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(6), pair("poison" + "x" * 600, " it"))
    model = script(tmp_path, crash_signal="SIGSEGV", crash_on="poison")
    assert score(rows, "-o", out, model=model).code == 8
    assert {unit[0]: line["error"] and line["error"]["code"] for unit, line in by_unit(out).items()} == {
        **dict.fromkeys(range(6)),
        6: 11,
    }


def test_errors_are_tried_again(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(3))
    assert score(rows, "-o", out, model=script(tmp_path, nan_after=0)).code == 8
    assert score(rows, "-o", out, "--retry-errors", model=script(tmp_path)).code == 0
    assert all(line["error"] is None for line in lines(out))


def test_another_kind_of_job_is_refused(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(3))
    assert score(rows, "-o", out).code == 0
    one_error_line(infer("batch", "-m", "fake", rows, "-o", out), 2, "answers to what is different now")
    rows.write_text("")
    one_error_line(infer("batch", "-m", "fake", rows, "-o", out), 2, "answers to what is different now")
    write_rows(rows, *pairs(3))
    one_error_line(
        score(rows, "-o", out, "--overflow", "truncate-left"), 2, 'overflow was "error", is "truncate-left"'
    )


def test_an_interrupt_keeps_what_is_there(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(400))
    model = script(tmp_path, step_s=0.01, token_s=0.002)
    command = [*INFER, "score", "-m", model, str(rows), "-o", str(out)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=REPO)
    while not out.exists() or not out.stat().st_size:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and b"interrupted: what was finished is kept" in err
    assert 0 < len(lines(out)) < 400
    assert score(rows, "-o", out, model=script(tmp_path)).code == 0


def test_each_distinct_token_of_short_texts_is_evaluated_once(tmp_path: Path, out: Path) -> None:
    words = ("the cat", "a dog", "the car", "my hat")
    texts = [f"{words[i % 4]} {words[i // 4 % 4]} {i // 16 % 16}" for i in range(600)]
    random.Random(3).shuffle(texts)
    rows = write_rows(tmp_path / "in.jsonl", *(pair(text, " end") for text in texts))
    summary = tmp_path / "summary.json"
    done = score(rows, "-o", out, "--summary", summary)
    assert done.code == 0 and " that are distinct" in done.err and " pairs/s" in done.err
    found = json.loads(summary.read_text())
    distinct = {(text + " end")[:n] for text in texts for n in range(1, len(text) + 4)}
    assert found["tokens"]["distinct"] == len(distinct)
    assert found["tokens"]["asked"] == sum(len(text) + 3 for text in texts)
    assert found["repeated_factor"] < 1.1 and found["shared_factor"] > 2
    assert (found["rows"], found["pairs"], found["done"], found["failed"]) == (600, 600, 600, 0)
    canonical = tmp_path / "canonical"
    assert score(rows, "-o", canonical, "--canonical", "--summary", summary).code == 0
    assert json.loads(summary.read_text())["repeated_factor"] > 2


def test_a_dry_run_counts(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", pair("x" * 9, "yy"), pair("x", ""))
    done = score(rows, "--dry-run")
    found = dict(line.split("\t") for line in done.text.splitlines())
    assert done.code == 8
    assert (found["rows"], found["pairs"], found["tokens"], found["window"], found["failing"]) == (
        "2", "2", "10", "10", "1",
    )  # fmt: skip
    assert float(found["expected_s"]) >= 0 and "at most" in done.err


def test_the_output_may_be_a_pipe_and_the_input_too(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(3)).read_bytes()
    done = score("-", "-o", "-", "--ordered", stdin=rows)
    assert [line["row"] for line in lines_of(done.out)] == [0, 1, 2]


def test_records_show_the_run(tmp_path: Path, out: Path, own_home: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(3))
    assert score(rows, "-o", out, "--overflow", "truncate-left").code == 0
    (record,) = lines_of(infer("records", "list", "--jsonl").out)
    assert (record["kind"], record["output"]) == ("score", str(out))
    shown = infer("records", "show", record["id"], "--json").json
    assert {"name": "overflow", "value": "truncate-left", "origin": "--overflow"} in shown["settings"]  # type: ignore[operator]
    one_error_line(infer("replay", record["id"]), 2)


# --- verify ---------------------------------------------------------------------------------------


def change(out: Path, row: int, how: Callable[[dict[str, Any]], object]) -> None:
    found = lines(out)
    how(next(line for line in found if line["row"] == row))
    out.write_text("".join(json.dumps(line) + "\n" for line in found))


def fitting(line: dict[str, Any], context: str) -> None:
    """Make what follows from a line's token_logprobs fit to them."""
    logprobs = line["token_logprobs"]
    line["logprob"] = math.fsum(logprobs)
    line["logprob_per_token"] = line["logprob"] / line["n_tokens"]
    line["logprob_per_byte"] = line["logprob"] / line["n_bytes"]
    line["digest"] = digest(list(context.encode()), line["tokens"], logprobs)


def nudge(line: dict[str, Any]) -> None:
    line["token_logprobs"][1] = math.nextafter(line["token_logprobs"][1], 0)
    fitting(line, "question number 2")


def other_token(line: dict[str, Any]) -> None:
    line["tokens"][0] = 65
    fitting(line, "question number 2")


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (lambda line: line.update(logprob=-1.0), "its logprob is not that of its token_logprobs"),
        (lambda line: line.update(logprob_per_byte=-1.0), "its logprob is not that"),
        (lambda line: line["token_logprobs"].pop(), "its token_logprobs are not as many as its tokens"),
        (lambda line: line.update(n_tokens=3), "its n_tokens is 3"),
        (lambda line: line.update(n_chars=3), "its n_bytes or n_chars"),
        (lambda line: line.update(digest="sha256:0"), "its digest is not that of what the line says"),
        (other_token, "its tokens are not those of the row's continuation"),
        (lambda line: line["usage"].update(prompt_tokens=3), "its prompt had 3 tokens"),
        (lambda line: line.update(truncation={"policy": "truncate-left", "dropped_tokens": 1, "dropped": []}),
         "what was left out of its context"),
        (lambda line: line.update(error={"code": 7, "message": "late"}), "it has an error and a likelihood"),
        (lambda line: line.update(error={"code": 7, "message": "late"}, token_logprobs=None, logprob=None,
                                  logprob_per_token=None, logprob_per_byte=None, tokens=[], n_tokens=0),
         "it failed with code 7, and the row can be scored"),
        (nudge, "its token_logprobs[1] is"),
        (lambda line: line.update(greedy=True), "its greedy is True, now False"),
        (lambda line: line.update(mode="canonical"), "its mode is 'canonical', now 'invariant'"),
        (lambda line: line.update(more=1), "its more is 1, now None"),
    ],
)  # fmt: skip
def test_a_forgery_is_found(
    tmp_path: Path, out: Path, forge: Callable[[dict[str, Any]], object], words: str
) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(4))
    assert score(rows, "-o", out).code == 0
    assert verify(out).text == "holds: 4 of 4 likelihoods\n"
    change(out, 2, forge)
    done = verify(out)
    assert done.code == 9, done
    assert f"row 2: {words}" in done.text, done.text
    assert "does not hold: 1 of 4 likelihoods differ" in done.text


@pytest.mark.parametrize(
    "forge",
    [
        lambda line: line.update(token_logprobs="none"),
        lambda line: line.update(token_logprobs=[1, 2]),
        lambda line: line.update(logprob=float("nan")),
        lambda line: line.update(tokens=[-1]),
        lambda line: line.update(n_bytes=True),
        lambda line: line.update(truncation={"policy": "drop-oldest"}),
        lambda line: line.pop("usage"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(
    tmp_path: Path, out: Path, forge: Callable[[dict[str, Any]], object]
) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(2))
    assert score(rows, "-o", out).code == 0
    change(out, 1, forge)
    one_error_line(verify(out), 2, "row 1", "is not as it should be")


def test_replies_among_likelihoods_are_refused(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(2))
    assert score(rows, "-o", out).code == 0
    prompts, replies = write_rows(tmp_path / "prompts.jsonl", "a", "b", "c"), tmp_path / "replies"
    assert infer("batch", "-m", "fake", prompts, "-o", replies).code == 0
    with out.open("ab") as file:
        file.writelines(line for line in replies.read_bytes().splitlines(True) if b'"row": 2,' in line)
    one_error_line(verify(out), 2, "row 2 is not one of the likelihoods")


def test_fast_likelihoods_hold_where_they_are_near(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *pairs(2))
    assert score(rows, "-o", out, "--fast").code == 0

    def move(line: dict[str, Any], by: float) -> None:
        line["token_logprobs"][0] -= by
        fitting(line, "question number 1")

    change(out, 1, lambda line: move(line, 0.05))
    done = verify(out)
    assert done.code == 0 and "only the seed was promised" in done.err
    change(out, 1, lambda line: move(line, 0.5))
    assert verify(out).code == 9
