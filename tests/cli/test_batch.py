"""`infer batch` as its user meets it, on the fake model: output, resuming, failures, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from infer_cli.batch.neighbours import neighbours_together
from tests.batch_helpers import batch, by_unit, digests, lines, prompts, write_rows
from tests.cli_helpers import INFER, REPO, Outcome, infer, one_error_line, script
from tests.hanging import HANG


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", *prompts(20))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def copy_output(out: Path, to: Path, n_bytes: int | None = None) -> Path:
    """An output and its job, cut off after some bytes."""
    to.write_bytes(out.read_bytes()[:n_bytes])
    shutil.copytree(f"{out}.job", f"{to}.job")
    return to


# --- the output -----------------------------------------------------------------------------------


def test_a_line_a_row(rows: Path, out: Path) -> None:
    done = batch(rows, "-o", out)
    assert (done.code, done.out) == (0, b"")
    found = by_unit(out)
    assert len(found) == 20
    assert all(line["text"] == f"You said: question number {row}" for (row, _), line in found.items())
    line = found[3, 0]
    assert (line["custom_id"], line["sample"], line["finish_reason"], line["seed"]) == ("3", 0, "stop", None)
    assert list(line)[-3:] == ["error", "row", "row_sha256"]
    assert "20 of 20 replies" in done.err


def test_a_reply_is_that_of_run(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out, "-n", 9, "--parallel", 1, "--canonical").code == 0
    alone = infer("run", "-m", "fake", "question number 4", "-n", 9, "--json").json
    line = by_unit(out)[4, 0]
    assert (line["digest"], line["tokens"]) == (alone["digest"], alone["tokens"])
    assert line["engine"]["fingerprint"] == alone["engine"]["fingerprint"]  # type: ignore[index]


def test_width_is_16_unless_told(rows: Path, tmp_path: Path) -> None:
    for arguments, width in (((), 16), (("--parallel", 3), 3), (("--parallel", 256), 256)):
        assert batch(rows, "-o", tmp_path / f"{width}", "--canonical", *arguments).code == 0
        assert lines(tmp_path / f"{width}")[0]["engine"]["facts"]["width"] == width


def test_a_sampled_reply_depends_on_seed_row_and_sample_alone(rows: Path, tmp_path: Path) -> None:
    shuffled = write_rows(tmp_path / "shuffled.jsonl", *reversed(prompts(20)))
    for name, source, seed in (("a", rows, 1), ("b", shuffled, 1), ("c", rows, 2)):
        arguments = (source, "-o", tmp_path / name, "-t", 2, "--seed", seed, "--samples", 2, "-n", 8)
        assert batch(*arguments).code == 0
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert len(a) == 40
    assert a == {(19 - row, sample): digest for (row, sample), digest in b.items()}
    assert not set(a.values()) & set(c.values())


@pytest.mark.parametrize(
    ("arguments", "share"),
    [(["--parallel", 4, "--canonical"], 0.75), (["--parallel", 1], 0), (["--parallel", 4, "--fast"], 0)],
)
def test_padding_is_counted(tmp_path: Path, out: Path, arguments: list[object], share: float) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "alone")
    done = batch(rows, "-o", out, "--summary", tmp_path / "summary.json", *arguments)
    assert json.loads((tmp_path / "summary.json").read_text())["padding_share"] == share
    assert ("75% of the decode rows padding" in done.err) == (share > 0)


def test_ordered(rows: Path, out: Path) -> None:
    write_rows(rows, {"prompt": "x" * 300}, *prompts(40), "bye")
    assert batch(rows, "-o", out, "--ordered").code == 0
    assert [line["row"] for line in lines(out)] == list(range(42))
    assert sorted(path.name for path in Path(f"{out}.job").iterdir()) == ["job.json", "lock"]
    piped = batch(rows, "-o", "-", "--ordered", "--quiet")
    assert [json.loads(line)["row"] for line in piped.out.splitlines()] == list(range(42))


def test_the_openai_form(tmp_path: Path, out: Path) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 2, "temperature": 1}
    rows = write_rows(
        tmp_path / "in.jsonl",
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body},
        {"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": {"prompt": "the"}},
        {"custom_id": "c", "method": "POST", "url": "/v1/completions", "body": {"prompt": "the", "x": 1}},
    )
    done = batch(rows, "-o", out, "--output-format", "openai", "--ordered", "-n", 6)
    assert done.code == 8
    chat, completion, failed = lines(out)
    assert [line["custom_id"] for line in (chat, completion, failed)] == ["a", "b", "c"]
    answer = chat["response"]["body"]
    assert chat["response"]["status_code"] == 200
    assert answer["object"] == "chat.completion"
    assert abs(answer["created"] - time.time()) < 100
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert all(choice["message"]["role"] == "assistant" for choice in answer["choices"])
    assert answer["usage"]["completion_tokens"] == 12
    assert completion["response"]["body"]["choices"][0]["text"]
    assert completion["response"]["body"]["choices"][0]["finish_reason"] == "length"
    assert (failed["response"], failed["error"]["code"]) == (None, "2")
    again = batch(rows, "-o", out, "--output-format", "openai", "--ordered", "-n", 6)
    assert again.code == 8
    assert len(lines(out)) == 3


def test_log_probabilities_in_the_openai_form_are_of_texts(tmp_path: Path, out: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "é"}], "logprobs": True, "top_logprobs": 1}
    rows = write_rows(
        tmp_path / "in.jsonl",
        {"url": "/v1/chat/completions", "body": chat},
        {"url": "/v1/completions", "body": {"prompt": "the", "logprobs": 2, "max_tokens": 3}},
    )
    assert batch(rows, "-o", out, "--output-format", "openai", "--ordered").code == 0
    answers = [line["response"]["body"]["choices"][0] for line in lines(out)]
    content = answers[0]["logprobs"]["content"]
    assert "".join(item["token"] for item in content[:4]) == "You "
    assert (
        bytes(byte for item in content for byte in item["bytes"]).decode() == answers[0]["message"]["content"]
    )
    first = content[0]
    assert first["top_logprobs"] == [{key: first[key] for key in ("token", "logprob", "bytes")}]
    assert all(item["token"] == "bytes:\\xc3" for item in content if item["bytes"] == [0xC3])
    logprobs = answers[1]["logprobs"]
    assert "".join(logprobs["tokens"]) == answers[1]["text"]
    assert logprobs["text_offset"] == [0, 1, 2]
    assert [top[token] for token, top in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True)] == (
        logprobs["token_logprobs"]
    )
    assert all(len(top) == 2 for top in logprobs["top_logprobs"])


def test_stdin_and_stdout(rows: Path, out: Path) -> None:
    done = batch("-", "-o", out, stdin=rows.read_bytes())
    assert done.code == 0
    assert len(by_unit(out)) == 20
    piped = batch("-", "-o", "-", stdin=rows.read_bytes())
    assert (piped.code, piped.out.count(b"\n")) == (0, 20)
    assert piped.err.count("warning: ") == 1
    assert "can't be resumed" in piped.err


def test_tables_and_plain_lines(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,custom_id\nthe sky,a\nthe sea,b\n")
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    table = batch(tmp_path / "in.csv", "-o", "-", "--row-template", "About {text}", "--quiet")
    assert sorted((v["custom_id"], v["text"]) for v in map(json.loads, table.out.splitlines())) == [
        ("a", "You said: About the sky"),
        ("b", "You said: About the sea"),
    ]
    plain = batch(tmp_path / "in.txt", "-o", "-", "--quiet")
    assert sorted(json.loads(line)["text"] for line in plain.out.splitlines()) == [
        "You said: one",
        "You said: two",
    ]


def test_the_summary(rows: Path, out: Path, tmp_path: Path) -> None:
    done = batch(rows, "-o", out, "--canonical", "--summary", tmp_path / "summary.json", "--quiet")
    assert (done.code, done.err) == (0, "")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["rows"], summary["done"], summary["failed"]) == (20, 20, 0)
    assert summary["finish_reasons"] == {"stop": 20}
    usage = [line["usage"] for line in lines(out)]
    assert summary["tokens"]["prompt"] == sum(u["prompt_tokens"] for u in usage)
    assert summary["tokens"]["generated"] == sum(u["completion_tokens"] for u in usage)
    assert set(summary["latency_s"]) == {"queue", "ttft", "inter_token", "total"}
    assert 0 < summary["latency_s"]["total"]["p50"] <= summary["latency_s"]["total"]["p99"]
    assert 0 < summary["slot_occupancy"] <= 1
    assert 0 < summary["padding_share"] < 1


def test_one_record_a_job(rows: Path, out: Path, tmp_path: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    assert batch(rows, "-o", out).code == 0  # nothing was left to answer
    assert batch(rows, "-o", tmp_path / "other", "--no-record").code == 0
    (record,) = [json.loads(line) for line in infer("records", "list", "--jsonl").out.splitlines()]
    assert (record["kind"], record["output"]) == ("batch", str(out))
    assert record["digest"] is None


# --- going on -------------------------------------------------------------------------------------


def test_nothing_is_answered_twice(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    before = out.read_bytes()
    again = batch(rows, "-o", out)
    assert again.code == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize("ordered", [(), ("--ordered",)])
def test_a_torn_output_goes_on(rows: Path, out: Path, tmp_path: Path, ordered: tuple[str, ...]) -> None:
    arguments = ("-t", 1, "--seed", 3, "--samples", 2, *ordered)
    assert batch(rows, "-o", out, *arguments).code == 0
    size = out.stat().st_size
    for n_bytes in (0, 5, size // 3, size - 1):
        torn = copy_output(out, tmp_path / f"torn-{n_bytes}", n_bytes)
        assert batch(rows, "-o", torn, *arguments).code == 0
        assert digests(torn) == digests(out)
        if ordered:
            assert [line["row"] for line in lines(torn)] == [line["row"] for line in lines(out)]


def test_a_drawn_seed_is_kept(rows: Path, out: Path, tmp_path: Path) -> None:
    arguments = ("-t", 5, "-n", 8)
    assert batch(rows, "-o", out, *arguments).code == 0
    torn = copy_output(out, tmp_path / "torn", out.stat().st_size // 2)
    assert batch(rows, "-o", torn, *arguments).code == 0
    assert digests(torn) == digests(out)


def test_zeros_that_a_power_cut_left_are_cut(rows: Path, out: Path, tmp_path: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    torn = copy_output(out, tmp_path / "torn", out.stat().st_size // 2)
    torn.write_bytes(torn.read_bytes() + b"\0" * 500 + b"\n" + b"\0" * 9)
    assert batch(rows, "-o", torn).code == 0
    assert digests(torn) == digests(out)


def test_more_rows_may_come(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    before = out.read_bytes()
    write_rows(rows, *prompts(25))
    assert batch(rows, "-o", out).code == 0
    assert out.read_bytes().startswith(before)
    assert len(by_unit(out)) == 25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-n", 5), "max_tokens was 1024, is 5"),
        (("-t", 1), "temperature was 0.0, is 1.0"),
        (("--stop", "x"), "stop was"),
        (("--system", "x"), "system was null"),
        (("--fast",), "mode was"),
        (("--ctx", 1024), "window was"),
        (("--ordered",), "ordered was false, is true"),
        (("--shard", "1/2"), "shard was 1/1, is 1/2"),
        (("--output-format", "openai"), "output_format was"),
    ],
)
def test_another_job_is_refused(rows: Path, out: Path, arguments: tuple[object, ...], words: str) -> None:
    assert batch(rows, "-o", out).code == 0
    before = out.read_bytes()
    one_error_line(batch(rows, "-o", out, *arguments), 2, words, "--redo")
    assert out.read_bytes() == before


def test_a_canonical_width_is_the_jobs(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out, "--canonical").code == 0
    one_error_line(batch(rows, "-o", out, "--parallel", 4), 2, "width was 16, is 4", "--redo")


def test_another_model_is_refused_or_redone(rows: Path, out: Path, tmp_path: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    other = script(tmp_path, default_reply="other")
    # A fake has no sha256: its name stands for it.
    one_error_line(batch(rows, "-o", out, model=other), 2, "name was", "--redo")
    done = batch(rows, "-o", out, "--redo", "-n", 3, model=other)
    assert done.code == 0
    assert {line["text"] for line in by_unit(out).values()} == {"oth"}


def test_a_changed_row_is_refused_or_redone(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    before = digests(out)
    write_rows(rows, *["changed" if i == 3 else text for i, text in enumerate(prompts(20))])
    one_error_line(batch(rows, "-o", out), 2, "row 3", "--redo")
    assert digests(out) == before
    assert batch(rows, "-o", out, "--redo").code == 0
    after = digests(out)
    assert {unit for unit in before if before[unit] != after[unit]} == {(3, 0)}


def test_rows_that_are_gone_are_noticed(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    write_rows(rows, *prompts(18))
    one_error_line(batch(rows, "-o", out), 2, "rows 18, 19")
    assert batch(rows, "-o", out, "--redo").code == 0
    assert len(by_unit(out)) == 18


def test_redo_of_an_ordered_output_keeps_the_order(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out, "--ordered").code == 0
    write_rows(rows, *["changed" if i in (3, 7) else text for i, text in enumerate(prompts(20))])
    assert batch(rows, "-o", out, "--ordered", "--redo").code == 0
    found = lines(out)
    assert [line["row"] for line in found] == list(range(20))
    assert [line["row"] for line in found if line["text"] == "You said: changed"] == [3, 7]


@pytest.mark.parametrize("content", ["something of the user's\n", '{"id": "x"}\n'])
def test_a_file_that_is_none_of_ours_is_left_alone(rows: Path, out: Path, content: str) -> None:
    out.write_text(content)
    one_error_line(batch(rows, "-o", out), 2, "is there already")
    one_error_line(batch(rows, "-o", out, "--redo"), 2, "is there already")
    assert out.read_text() == content


def test_notes_where_an_output_was_are_left_alone(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    out.write_text("dear diary\n")
    one_error_line(batch(rows, "-o", out, "--redo"), 2, "is there already")
    assert out.read_text() == "dear diary\n"


def test_a_damaged_line_inside_is_told(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    first, second, *rest = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([first, second[: len(second) // 2], b"\n", *rest]))
    one_error_line(batch(rows, "-o", out), 2, "line 2")


def start(*arguments: object, model: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*INFER, "batch", "-m", model, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=REPO,
    )


def wait_for_lines(path: Path, n: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or path.read_bytes().count(b"\n") < n:
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.01)


def test_one_process_at_a_time(rows: Path, out: Path, tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.02)
    first = start(rows, "-o", out, "--parallel", 2, model=slow)
    wait_for_lines(out, 1)
    one_error_line(batch(rows, "-o", out, model=slow), 2, "another process")
    _, err = first.communicate()
    assert first.returncode == 0, err
    assert len(by_unit(out)) == 20


HANGS_AT_Y = (
    "{% if 'y' in messages[0].content %}" + HANG + "{% endif %}"
    "<|im_start|>user\n{{ messages[-1].content }}<|im_end|>\n<|im_start|>assistant\n"
)


def test_a_row_whose_rendering_hangs_is_an_error_row(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "one", {"prompt": "y", "deadline": "1s"}, "two")
    assert batch(rows, "-o", out, model=script(tmp_path, template=HANGS_AT_Y)).code == 8
    found = by_unit(out)
    assert {row: line["error"] and line["error"]["code"] for (row, _), line in found.items()} == {
        0: None, 1: 7, 2: None,
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupt_ends_a_rendering_that_hangs(tmp_path: Path, out: Path) -> None:
    slow = script(tmp_path, step_s=0.02, template=HANGS_AT_Y)
    process = start(write_rows(tmp_path / "in.jsonl", *(["one"] * 40), "y"), "-o", out, model=slow)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_finished(
    rows: Path, out: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    slow = script(tmp_path, step_s=0.02)
    process = start(rows, "-o", out, "--parallel", 4, model=slow)
    wait_for_lines(out, 3)
    process.send_signal(signum)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"the same command line goes on" in err
    assert b"Traceback" not in err
    kept = digests(out)
    assert 3 <= len(kept) < 20
    assert batch(rows, "-o", out, "--parallel", 4, model=slow).code == 0
    assert kept.items() <= digests(out).items()
    assert len(digests(out)) == 20


# --- failures -------------------------------------------------------------------------------------


def test_a_row_that_fails_is_an_error_row_and_the_job_goes_on(tmp_path: Path, out: Path) -> None:
    rows = tmp_path / "in.jsonl"
    write_rows(rows, "one", {"prompt": "x", "temprature": 1}, {"prompt": "y" * 9000}, "two")
    rows.write_text(rows.read_text() + "not json\n" + '{"prompt": "late", "deadline": "1ms"}\n')
    slow = script(tmp_path, step_s=0.005)
    done = batch(rows, "-o", out, model=slow)
    assert done.code == 8
    found = by_unit(out)
    assert {row: line["error"]["code"] for (row, _), line in found.items() if line["error"]} == {
        1: 2, 2: 5, 4: 2, 5: 7,
    }  # fmt: skip
    assert all(line["text"] is None for line in found.values() if line["error"])
    assert "temprature" in found[1, 0]["error"]["message"]
    assert found[5, 0]["finish_reason"] == "deadline"
    assert [found[row, 0]["text"] for row in (0, 3)] == ["You said: one", "You said: two"]
    before = out.read_bytes()
    assert batch(rows, "-o", out, model=slow).code == 8
    assert out.read_bytes() == before


@pytest.mark.parametrize("ordered", [(), ("--ordered",)])
def test_retry_errors(tmp_path: Path, out: Path, ordered: tuple[str, ...]) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "one", {"prompt": "late", "samples": 2, "temperature": 1}, "two")
    slow = script(tmp_path, step_s=0.03)
    seeded = ("--seed", 7, *ordered)  # by chance a sampled reply ends before its deadline
    assert batch(rows, "-o", out, "--deadline", "60ms", *seeded, model=slow).code == 8
    before = by_unit(out)
    assert {unit for unit, line in before.items() if line["error"]} == {(0, 0), (1, 0), (1, 1), (2, 0)}
    done = batch(rows, "-o", out, "--retry-errors", *seeded, model=slow)
    assert done.code == 0, done.err
    assert all(line["error"] is None for line in by_unit(out).values())
    assert len(by_unit(out)) == 4
    if ordered:
        assert [(line["row"], line["sample"]) for line in lines(out)] == [(0, 0), (1, 0), (1, 1), (2, 0)]


def test_a_row_that_was_mended_is_tried_again(tmp_path: Path, out: Path) -> None:
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"prompt": "one"}\n{"prompt": "two"\n')
    assert batch(rows, "-o", out).code == 8
    write_rows(rows, "one", "two")
    one_error_line(batch(rows, "-o", out), 2, "row 1", "--redo")
    assert batch(rows, "-o", out, "--retry-errors").code == 0
    assert {line["text"] for line in by_unit(out).values()} == {"You said: one", "You said: two"}


def test_retry_errors_of_another_job_changes_nothing(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "one", {"prompt": "x", "top_k": 1})
    assert batch(rows, "-o", out).code == 8
    before = out.read_bytes()
    one_error_line(batch(rows, "-o", out, "--retry-errors", "-n", 3), 2, "max_tokens")
    assert out.read_bytes() == before


def test_too_many_errors_stop_the_job(tmp_path: Path) -> None:
    bad: list[dict[str, object] | str] = [{"prompt": "x", "top_k": 1}] * 5
    rows = write_rows(tmp_path / "in.jsonl", *bad, *prompts(5))
    for flags, n_failed in (
        (("--fail-fast",), 1),
        (("--max-errors", 3), 4),
        (("--max-errors", "20%"), 3),
        (("--max-errors", 4), 5),
        (("--max-errors", 5), 5),
    ):
        out = tmp_path / "".join(map(str, flags)).replace("%", "")
        stops = flags != ("--max-errors", 5)
        done = batch(rows, "-o", out, *flags)
        assert done.code == (7 if stops else 8)
        assert ("stopped: too many errors" in done.err) == stops
        found = by_unit(out)
        assert sum(line["error"] is not None for line in found.values()) == n_failed
        assert len(found) == (n_failed if stops else 10)
        assert batch(rows, "-o", out).code == 8
        assert len(by_unit(out)) == 10


def test_an_error_too_many_in_the_last_row_stops_nothing(tmp_path: Path, out: Path) -> None:
    assert batch(write_rows(tmp_path / "in.jsonl", "one"), "-o", out).code == 0
    rows = write_rows(tmp_path / "in.jsonl", "one", {"prompt": "x", "top_k": 1})
    assert batch(rows, "-o", out, "--fail-fast").code == 8


@pytest.mark.parametrize(("signal_name", "code"), [("SIGSEGV", 11), ("SIGKILL", 6)])
def test_a_crash_costs_the_row_that_caused_it(
    rows: Path, out: Path, tmp_path: Path, signal_name: str, code: int
) -> None:
    reference = tmp_path / "reference"
    assert batch(rows, "-o", reference).code == 0
    crashing = script(tmp_path, crash_signal=signal_name, crash_on="number 7")
    done = batch(rows, "-o", out, model=crashing)
    assert done.code == 8, done.err
    assert "error:" not in done.err
    assert "given up: row 7" in done.err
    found = by_unit(out)
    assert {row for (row, _), line in found.items() if line["error"]} == {7}
    assert found[7, 0]["error"]["code"] == code
    wanted = {unit: digest for unit, digest in digests(reference).items() if unit != (7, 0)}
    assert wanted.items() <= digests(out).items()
    assert len(found) == 20


def test_a_crash_does_not_reset_the_limit_on_errors(tmp_path: Path, out: Path) -> None:
    bad: dict[str, object] = {"prompt": "x", "top_k": 1}
    rows = write_rows(tmp_path / "in.jsonl", bad, "boom", bad, *prompts(40), bad)
    crashing = script(tmp_path, crash_signal="SIGSEGV", crash_on="boom")
    done = batch(rows, "-o", out, "--max-errors", 2, "--parallel", 2, model=crashing)
    assert done.code == 7
    assert sum(line["error"] is not None for line in by_unit(out).values()) == 3
    assert "stopped: too many errors (3)" in done.err


def test_a_crash_in_an_ordered_job(rows: Path, out: Path, tmp_path: Path) -> None:
    crashing = script(tmp_path, crash_signal="SIGABRT", crash_on="number 7")
    assert batch(rows, "-o", out, "--ordered", "--parallel", 3, model=crashing).code == 8
    assert [line["row"] for line in lines(out)] == list(range(20))


def test_nan_is_an_error_row_that_blames_the_model(rows: Path, out: Path, tmp_path: Path) -> None:
    assert batch(rows, "-o", out, model=script(tmp_path, nan_after=8)).code == 8
    errors = [line["error"] for line in lines(out) if line["error"] is not None]
    assert errors
    assert all(error == {"code": 4, "message": "the model computed NaN"} for error in errors)


def test_a_crash_that_no_row_caused_ends_the_job(rows: Path, out: Path, tmp_path: Path) -> None:
    """It comes and goes: every row is answered in the end, each worker a few."""
    flaky = script(tmp_path, crash_signal="SIGSEGV", crash_after=60)
    done = batch(rows, "-o", out, "--parallel", 16, model=flaky, timeout=110)
    assert done.code in (0, 8)
    assert len(by_unit(out)) == 20
    assert (
        batch(rows, "-o", "-", "--parallel", 16, model=flaky).code == 11
    )  # nothing to find the rows again by


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "where do the replies go"),
        (("-o", "OUT", "--shard", "3/2"), "--shard"),
        (("-o", "OUT", "--max-errors", "some"), "--max-errors"),
        (("-o", "OUT", "--max-errors", "101%"), "--max-errors"),
        (("-o", "OUT", "--fail-fast", "--max-errors", "1"), "exclude each other"),
        (("-o", "OUT", "--parallel", "0"), "--parallel"),
        (("-o", "OUT", "--samples", "2"), "--samples"),
        (("-o", "OUT", "--seed", "2"), "--seed has no meaning"),
        (("-o", "OUT", "--top-k", "2"), "no meaning without sampling"),
        (("-o", "OUT", "--raw", "--system", "x"), "exclude each other"),
        (("-o", "OUT", "--format", "xml"), "--format"),
        (("-o", "OUT", "--output-format", "xml"), "--output-format"),
        (("-o", "OUT", "--row-template", "nothing"), "--row-template"),
        (("-o", "OUT", "--stop", ""), "--stop"),
        (("-o", "IN"), "is the input"),
        (("-o", "nowhere/out"), "no directory"),
        (("-o", "."), "is a directory"),
        (("-o", "OUT", "--summary", "nowhere/s"), "no directory"),
        (("-o", "OUT", "--summary", "."), "is a directory"),
        (("-o", "OUT", "--summary", "-"), "name a file"),
        (("-o", "OUT", "--summary", "/dev/stderr"), "name a file"),
        (("-o", "OUT", "--summary", "IN"), "is the input"),
        (("-o", "OUT", "--summary", "OUT"), "is the output"),
    ],
)
def test_usage_errors(rows: Path, out: Path, arguments: tuple[str, ...], words: str) -> None:
    names = {"OUT": str(out), "IN": str(rows)}
    one_error_line(batch(rows, *(names.get(a, a) for a in arguments)), 2, words)
    assert not out.exists()


def test_inputs_that_are_no_file(tmp_path: Path, out: Path) -> None:
    one_error_line(batch(tmp_path / "nothing.jsonl", "-o", out), 2, "no file")
    os.mkfifo(tmp_path / "pipe.jsonl")
    one_error_line(batch(tmp_path / "pipe.jsonl", "-o", out), 2, "standard input")


def test_a_seed_is_taken_where_a_row_samples(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", {"prompt": "x", "temperature": 1})
    assert batch(rows, "-o", out, "--seed", 9).code == 0
    assert lines(out)[0]["run_seed"] == 9
    assert batch(rows, "-o", out, "--seed", 9).code == 0
    one_error_line(batch(rows, "-o", out, "--seed", 8), 2, "run_seed was 9, is 8")


def test_a_seed_is_drawn_when_the_first_row_samples(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "one")
    assert batch(rows, "-o", out).code == 0
    write_rows(rows, "one", {"prompt": "two", "temperature": 1})
    assert batch(rows, "-o", out).code == 0
    assert batch(rows, "-o", out).code == 0
    assert by_unit(out)[1, 0]["run_seed"] == json.loads(Path(f"{out}.job/job.json").read_text())["run_seed"]


def test_an_empty_input(tmp_path: Path, out: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    assert batch(tmp_path / "in.jsonl", "-o", out).code == 0
    assert batch(tmp_path / "in.jsonl", "-o", out, "-t", 1, "--seed", 3).code == 0
    assert out.read_bytes() == b""


def test_a_dry_run_writes_nothing(tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "w" * 130, "w" * 200, "z" * 9000)
    done = batch(rows, "-o", out, "--dry-run", "-n", 50)
    assert done.code == 8
    found = dry_run_values(done)
    usage = infer("run", "-m", "fake", "w" * 130, "--json").json["usage"]
    n = usage["prompt_tokens"]  # type: ignore[index]
    measured = [found.pop(name) for name in ("prompt_tokens_per_s", "generated_tokens_per_s", "expected_s")]
    assert all(float(value) >= 0 for value in measured)
    assert found == {
        "rows": "3", "replies": "3", "prompt_tokens": str(2 * n + 70),
        "distinct_prompt_tokens": str(2 * n + 70 - 128), "window": str(n + 120), "failing": "1",
        "does_not_fit": "1", "truncated": "0", "reply_tokens": "100", "width": "2",
    }  # fmt: skip
    assert "row 2" in done.err
    assert not out.exists()
    assert not Path(f"{out}.job").exists()


def dry_run_values(done: Outcome) -> dict[str, str]:
    return dict(line.split("\t") for line in done.text.splitlines())


def test_a_dry_run_says_how_long_it_will_take(tmp_path: Path) -> None:
    model = script(tmp_path, step_s=0.01)
    rows = write_rows(tmp_path / "in.jsonl", *prompts(39), {"prompt": "long", "max_tokens": 100})
    summary = tmp_path / "summary.json"
    done = batch(rows, "--dry-run", "-n", 20, "--summary", summary, "--parallel", 16, model=model)
    assert done.code == 0
    found = dry_run_values(done)
    assert found["reply_tokens"] == str(39 * 20 + 100)
    assert {name: str(value) for name, value in json.loads(summary.read_text()).items()} == found
    prefill, decode, seconds = (
        float(found[name]) for name in ("prompt_tokens_per_s", "generated_tokens_per_s", "expected_s")
    )
    assert prefill < 64 / 0.01
    assert decode < 16 / 0.01
    # The longest reply takes more steps than all of them in 16 slots.
    assert seconds == pytest.approx(
        int(found["distinct_prompt_tokens"]) / prefill + 100 * 16 / decode, abs=0.06
    )
    assert seconds > 1.0
    assert "expected: " in done.err
    assert "if every reply is as long as it may be: 16 side by side" in done.err
    quiet = batch(rows, "--dry-run", "-n", 20, "--quiet", "--parallel", 3, model=model)
    assert (quiet.err, dry_run_values(quiet)["width"]) == ("", "3")
    nothing = batch(write_rows(rows, {"prompt": ""}), "--dry-run", model=model)
    assert (nothing.code, dry_run_values(nothing)["expected_s"]) == (8, "0.0")


# --- the width ------------------------------------------------------------------------------------


def widths(out: Path) -> set[int]:
    """Of the job, and of each line that says it."""
    facts = [line["engine"]["facts"] for line in lines(out)]
    said = {found["width"] for found in facts if "width" in found}
    return said | {json.loads(Path(f"{out}.job/job.json").read_text())["width"]}


@pytest.mark.parametrize("mode", ["--fast", "--invariant"])
def test_a_free_width_is_the_best_on_this_machine_and_stays(tmp_path: Path, out: Path, mode: str) -> None:
    model = script(tmp_path, step_s=0.01)
    rows = write_rows(tmp_path / "in.jsonl", *prompts(40))
    done = batch(rows, "-o", out, "-n", 3, mode, model=model)
    assert done.code == 0
    assert "32 replies side by side: tokens a second are " in done.err
    assert widths(out) == {32}
    script(tmp_path, token_s=0.003)  # now, one would do
    write_rows(rows, *prompts(60))
    again = batch(rows, "-o", out, "-n", 3, mode, model=model)
    assert (again.code, len(lines(out)), widths(out)) == (0, 60, {32})
    assert "side by side" not in again.err
    assert infer("verify", out).code == 0


@pytest.mark.parametrize(
    ("n_rows", "arguments", "width"),
    [
        (40, ("--canonical",), 16),  # it is part of the promise
        (7, ("--fast",), 16),
        (10, ("--fast",), 16),
        (40, ("--fast", "--parallel", 5), 5),
        (40, ("--fast", "--shard", "1/2"), 16),
        (80, ("--invariant", "--shard", "1/2"), 32),
    ],
)
def test_where_the_width_is_looked_for(
    tmp_path: Path, out: Path, n_rows: int, arguments: tuple[object, ...], width: int
) -> None:
    rows = write_rows(tmp_path / "in.jsonl", *prompts(n_rows))
    assert batch(rows, "-o", out, "-n", 3, *arguments, model=script(tmp_path, step_s=0.01)).code == 0
    assert widths(out) == {width}


# --- shards ---------------------------------------------------------------------------------------


def test_shards_merge_into_the_whole(rows: Path, tmp_path: Path) -> None:
    arguments = ("-t", 1, "--seed", 4, "--samples", 2)
    whole = tmp_path / "whole"
    assert batch(rows, "-o", whole, "--ordered", *arguments).code == 0
    parts = [tmp_path / f"part{i}" for i in (1, 2, 3)]
    for i, part in enumerate(parts, 1):
        assert batch(rows, "-o", part, "--shard", f"{i}/3", *arguments).code == 0
    merged = tmp_path / "merged"
    assert infer("merge", *reversed(parts), "-o", merged).code == 0
    assert list(digests(merged).items()) == list(digests(whole).items())
    before = merged.read_bytes()
    assert batch(rows, "-o", merged, *arguments).code == 0  # an output like any other
    assert merged.read_bytes() == before
    piped = infer("merge", *parts, "-o", "-", "--quiet")
    assert (piped.code, piped.out, piped.err) == (0, before, "")


def test_what_a_merge_refuses(rows: Path, tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    assert batch(rows, "-o", a, "--shard", "1/2").code == 0
    assert batch(rows, "-o", b, "--shard", "2/2").code == 0
    assert batch(rows, "-o", c, "--shard", "2/2", "-n", 3).code == 0
    to = ("-o", tmp_path / "all")
    one_error_line(infer("merge", a, c, *to), 2, "not of one job", "max_tokens")
    for name, shard, seed in (("d", "1/2", 1), ("e", "2/2", 2)):
        assert batch(rows, "-o", tmp_path / name, "--shard", shard, "-t", 1, "--seed", seed).code == 0
    one_error_line(infer("merge", tmp_path / "d", tmp_path / "e", *to), 2, "run_seed was")
    one_error_line(infer("merge", a, a, *to), 2, "answered twice")
    one_error_line(infer("merge", a, tmp_path / "none", *to), 2, "no file")
    one_error_line(infer("merge", a, rows, *to), 2, "job.json")
    one_error_line(infer("merge", a, b, "-o", a), 2, "is there already")
    assert not (tmp_path / "all").exists()
    done = infer("merge", a, *to)
    assert done.code == 8
    assert "10 of 20 rows are missing: rows 1, 3" in done.err
    assert len(by_unit(tmp_path / "all")) == 10


def test_redo_answers_what_needs_more_room(rows: Path, tmp_path: Path) -> None:
    """All rows are answered, so none of them says what the window must be."""
    out = tmp_path / "out"
    assert batch(rows, "-o", out, "-n", 4).code == 0
    assert batch(rows, "-o", out, "-n", 900, "--redo").code == 0
    assert {line["finish_reason"] for line in lines(out)} == {"stop"}


def test_a_jobs_file_with_a_wrong_value_is_refused_by_name(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    job = Path(f"{out}.job") / "job.json"
    job.write_text(json.dumps({**json.loads(job.read_text()), "width": 10**30}))
    for arguments in (
        ("batch", "-m", "fake", rows, "-o", out),
        ("batch", "-m", "fake", rows, "-o", out, "--shard", "1/2"),
        ("merge", out, "-o", "-"),
        ("verify", out),
    ):
        one_error_line(infer(*arguments), 2, "job.json", "width is 1000", "hint: ")


def test_a_merge_of_an_endless_job_ends(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    job = Path(f"{out}.job") / "job.json"
    job.write_text(json.dumps({**json.loads(job.read_text()), "n_rows": 10**18}))
    done = infer("merge", out, "-o", "-")
    assert done.code == 8
    assert "999999999999999980 of 1000000000000000000 rows are missing: rows 20, 21" in done.err


def test_shards_of_inputs_that_differ_are_not_merged(rows: Path, tmp_path: Path) -> None:
    """Each row is in one shard only: no other could tell that it was another row there."""
    a, b = tmp_path / "a", tmp_path / "b"
    assert batch(rows, "-o", a, "--shard", "1/2").code == 0
    write_rows(rows, *prompts(3), "changed", *prompts(20)[4:])
    assert batch(rows, "-o", b, "--shard", "2/2").code == 0
    one_error_line(infer("merge", a, b, "-o", tmp_path / "all"), 2, "the rows of its input are others")


def test_shards_that_sample_are_given_their_seed(tmp_path: Path) -> None:
    """Each would draw its own, and nobody would know before the merge. Some may have no row that samples."""
    rows = write_rows(tmp_path / "in.jsonl", {"prompt": "one", "temperature": 1}, "two")
    done = batch(rows, "-o", tmp_path / "part", "--shard", "1/3")
    one_error_line(done, 2, "one seed", "--seed")
    parts = [tmp_path / f"part{i}" for i in (1, 2, 3)]
    for i, part in enumerate(parts, 1):
        assert batch(rows, "-o", part, "--shard", f"{i}/3", "--seed", 5).code == 0
    assert batch(rows, "-o", parts[0], "--shard", "1/3").code == 0
    assert infer("merge", *parts, "-o", tmp_path / "all").code == 0
    assert batch(rows, "-o", tmp_path / "whole", "--seed", 5).code == 0
    assert digests(tmp_path / "all") == digests(tmp_path / "whole")


# --- what prompts share ---------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "share"), [([], 0.4), (["--fast"], 0.2)])
def test_interleaved_prefixes_are_evaluated_once(
    tmp_path: Path, out: Path, mode: list[str], share: float
) -> None:
    """More rows of two long prefixes than a block of the look-ahead, in one slot."""
    starts = ["first document " * 20, "second document " * 20]
    asked: list[dict[str, object] | str] = [f"{starts[i % 2]} question {i}" for i in range(300)]
    rows = write_rows(tmp_path / "in.jsonl", *asked)
    assert batch(rows, "-o", out, "-n", 2, "--ordered", "--parallel", 1, *mode).code == 0
    found = lines(out)
    assert [line["row"] for line in found] == list(range(300))
    usages = [line["usage"] for line in found]
    evaluated = sum(usage["prompt_tokens"] - usage["cached_tokens"] for usage in usages)
    assert evaluated < share * sum(usage["prompt_tokens"] for usage in usages)
    for row, line in enumerate(found):
        assert line["text"] == "Yo", row


def test_neighbours_together_keeps_every_item() -> None:
    def key(item: int) -> tuple[int, ...]:
        return (item % 2, item)

    found = list(neighbours_together(iter(range(1000)), key))
    assert sorted(found) == list(range(1000))
    changes = sum(a % 2 != b % 2 for a, b in pairwise(found))
    assert changes == 4  # blocks of 256: one in each
    assert all(abs(place - item) < 2 * 256 for place, item in enumerate(found))


@pytest.mark.parametrize(
    ("n_shared", "mode", "shares"),
    [(1500, "--fast", True), (100, "--fast", False), (1500, "--invariant", False)],
)
def test_one_memory_where_prompts_begin_alike_by_far(
    tmp_path: Path, out: Path, n_shared: int, mode: str, shares: bool
) -> None:
    """Chosen for the whole job, and kept when it goes on with rows that alone would not call for it."""
    begin = "x" * n_shared
    rows = write_rows(tmp_path / "in.jsonl", *(begin + text for text in prompts(20)))
    arguments = (rows, "-o", out, mode, "-n", 4, "--parallel", 4)
    assert batch(*arguments).code == 0
    assert ("kv_unified" in lines(out)[0]["engine"]["facts"]) == shares
    first = [json.dumps(line) + "\n" for line in lines(out)[:-1]]
    out.write_text("".join(first))
    assert batch(*arguments).code == 0
    assert len(by_unit(out)) == 20
    assert {("kv_unified" in line["engine"]["facts"]) for line in lines(out)} == {shares}
    assert all(line["text"] == "You " for line in lines(out))
