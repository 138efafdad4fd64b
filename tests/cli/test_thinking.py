"""`--think`, `--no-think`, `--reasoning-budget`, and a reply that ends inside its reasoning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from infer_cli.backend.fake import CHAT_TEMPLATE
from infer_cli.batch.job import job_dir
from tests.batch_helpers import batch, by_unit, write_rows
from tests.cli_helpers import infer, one_error_line, script

ANSWER = "<think>one and one</think>It is two."
OPEN = "assistant\n{% endif %}"
# Qwen3's way: a closed block in the prompt is what turns thinking off.
SWITCHED = CHAT_TEMPLATE.replace(
    OPEN,
    "assistant\n{% if enable_thinking is defined and enable_thinking is false %}<think></think>"
    "{% endif %}{% endif %}",
)
N_OPENING = len("<think>")


@pytest.fixture
def model(tmp_path: Path) -> str:
    """It thinks, and its template has a switch."""
    return script(tmp_path, template=SWITCHED, default_reply=ANSWER)


@pytest.fixture
def stubborn(tmp_path: Path) -> str:
    """Its template begins the reasoning of every reply."""
    template = CHAT_TEMPLATE.replace(OPEN, "assistant\n<think>{% endif %}")
    (tmp_path / "stubborn").mkdir()
    return script(tmp_path / "stubborn", template=template, default_reply=ANSWER)


def run(model: str, *arguments: object) -> dict[str, Any]:
    done = infer("run", "-m", model, "q", "--json", *arguments)
    assert done.code == 0, done.err
    return done.json


def prompt_of_last() -> str:
    record = infer("records", "show", "last", "--json")
    return str(json.loads(record.out)["prompt"]["text"])


# --- cut inside the reasoning ---------------------------------------------------------------------


def test_a_reply_that_is_cut_inside_its_reasoning_says_so(model: str) -> None:
    done = infer("run", "-m", model, "q", "-n", "12")
    assert (done.code, done.text) == (0, "\n")
    assert done.err.count("warning: ") == 1
    for word in ("the token limit of 12", "inside its reasoning", "-n", "--reasoning-budget", "--no-think"):
        assert word in done.err
    assert infer("run", "-m", model, "q", "-n", "12", "--quiet").err == ""
    reply = run(model, "-n", "12")
    assert (reply["finish_reason"], reply["text"], reply["reasoning_cut"]) == ("length", "", True)
    assert reply["reasoning"] == "one a"
    assert "reasoning_cut" not in run(model)
    assert "reasoning_cut" not in run(model, "-n", "30"), "the limit came in the answer"


def test_the_deadline_and_the_window_say_so_too(tmp_path: Path) -> None:
    slow = script(tmp_path, template=SWITCHED, default_reply="<think>" + "x" * 200, token_s=0.02)
    late = infer("run", "-m", slow, "q", "--deadline", "900ms")
    assert late.code == 7
    assert late.err.startswith("warning: the deadline ended the reply inside its reasoning")
    assert late.err.count("warning: ") == 1
    long = script(tmp_path, template=SWITCHED, default_reply="<think>" + "x" * 600)
    full = infer("run", "-m", long, "q", "--ctx", "300", "--json")
    assert full.json["reasoning_cut"] is True
    assert "the end of the window ended the reply inside its reasoning" in full.err


def test_in_chat(model: str) -> None:
    done = infer("chat", "-m", model, "-t", "0", "-n", "12", stdin=b"q\n/continue\n")
    assert "inside its reasoning" in done.err and "/continue lets it go on" in done.err
    assert infer("chat", "-m", model, "-t", "0", stdin=b"q\n").err == ""


def test_rows_are_counted(model: str, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "in.jsonl", {"prompt": "a", "max_tokens": 9}, "b", {"prompt": "c", "max_tokens": 8}
    )
    out, summary = tmp_path / "out", tmp_path / "summary"
    done = batch(rows, "-o", out, "--summary", summary, model=model)
    assert done.code == 0, done.err
    assert "warning: 2 replies ended inside the reasoning" in done.err
    assert json.loads(summary.read_text())["reasoning_cut"] == 2
    assert [line.get("reasoning_cut") for _, line in sorted(by_unit(out).items())] == [True, None, True]
    again = batch(rows, "-o", out, "--summary", summary, model=model)
    assert json.loads(summary.read_text())["reasoning_cut"] == 2, again.err
    assert infer("verify", out, "--fraction", 1).code == 0


def test_rows_in_openais_form_are_counted(model: str, tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 9}
    request: dict[str, object] = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }
    rows, out = write_rows(tmp_path / "in.jsonl", request), tmp_path / "out"
    done = batch(rows, "-o", out, "--output-format", "openai", model=model)
    assert "warning: 1 reply ended inside the reasoning" in done.err
    assert json.loads(out.read_text())["infer"]["reasoning_cut"] == [True]
    assert "warning: 1 reply" in batch(rows, "-o", out, "--output-format", "openai", model=model).err
    assert infer("verify", out, "--fraction", 1).code == 0


# --- the switch -----------------------------------------------------------------------------------


def test_no_think_sets_the_templates_switch(model: str) -> None:
    off = run(model, "--no-think")
    assert off["params"]["think"] is False
    assert prompt_of_last().endswith("<think></think>")
    on = run(model, "--think")
    assert on["params"]["think"] is True
    assert not prompt_of_last().endswith("<think></think>")
    assert "think" not in run(model)["params"]
    assert run(model, "--var", "enable_thinking=false")["tokens"] == off["tokens"]
    assert infer("replay", "last").text == "identical\n"


def test_the_variable_and_the_file_of_settings_say_it_too(model: str) -> None:
    done = infer("run", "-m", model, "q", "--json", env={"INFER_THINK": "0", "INFER_REASONING_BUDGET": "3"})
    assert cast("dict[str, object]", done.json["params"])["think"] is False
    raw = infer("run", "-m", model, "q", "--raw", "-n", "3", env={"INFER_THINK": "0"})
    assert (raw.code, raw.err) == (0, "")


def test_a_template_without_a_switch(stubborn: str) -> None:
    for flag in ("--think", "--no-think"):
        done = infer("run", "-m", "fake", "hi", flag)
        assert done.code == 0
        assert done.err == (
            f"warning: {flag}: the model's chat template has no switch for thinking: it changes nothing\n"
        )
    one_error_line(
        infer("run", "-m", stubborn, "q", "--no-think"), 2, "no switch for thinking", "--reasoning-budget 0"
    )


def test_what_excludes_each_other(model: str) -> None:
    one_error_line(infer("run", "-m", model, "q", "--raw", "--no-think"), 2, "--raw and --no-think")
    one_error_line(infer("run", "-m", model, "q", "--raw", "--reasoning-budget", "1"), 2, "exclude")
    one_error_line(infer("run", "-m", model, "q", "--reasoning-budget", "-1"), 2, "not between 0")
    twice = infer("run", "-m", model, "q", "--think", "--var", "enable_thinking=true")
    one_error_line(twice, 2, "say the same thing twice")
    chosen = infer("run", "-m", model, "q", "--choices", "a,b", "--reasoning-budget", "1")
    one_error_line(chosen, 2, "--reasoning-budget has no meaning beside --choices")
    assert infer("run", "-m", model, "q", "--choices", "a,b", "--no-think").code == 0


def test_chat_switches_it_for_the_next_message(model: str) -> None:
    lines = b"q\n/set think off\nq\n/set think model\n/params\nq\n/set think maybe\n"
    done = infer("chat", "-m", model, "-t", "0", stdin=lines)
    assert done.code == 2 and "think 'maybe' is not on, off or model" in done.err
    exported = infer("records", "export")
    records = [json.loads(line) for line in exported.out.splitlines()]
    assert [record["params"].get("think") for record in records] == [None, False, None]
    assert [r["prompt"]["text"].endswith("<think></think>") for r in records] == [False, True, False]
    assert infer("replay", records[0]["thread"]).code == 0


def test_a_conversation_that_goes_on_is_told_so_still(model: str) -> None:
    infer("chat", "-m", model, "-t", "0", "--no-think", "--reasoning-budget", "9", stdin=b"q\n")
    infer("run", "-c", "and?")
    params = json.loads(infer("records", "show", "last", "--json").out)["params"]
    assert (params["think"], params["reasoning_budget"]) == (False, 9)
    infer("chat", "-c", "--think", stdin=b"again\n")
    params = json.loads(infer("records", "show", "last", "--json").out)["params"]
    assert (params["think"], params["reasoning_budget"]) == (True, 9)


def test_chat_refuses_what_can_not_be(stubborn: str) -> None:
    one_error_line(infer("chat", "-m", stubborn, "--no-think", stdin=b"q\n"), 2, "no switch for thinking")
    done = infer("chat", "-m", stubborn, "-t", "0", stdin=b"/set think off\n")
    one_error_line(done, 2, "no switch for thinking")


def test_rows_say_it_for_themselves(model: str, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "in.jsonl", {"prompt": "a", "think": False}, "a", {"prompt": "a", "think": "no"}
    )
    out = tmp_path / "out"
    assert batch(rows, "-o", out, model=model).code == 8
    found = by_unit(out)
    assert found[0, 0]["params"]["think"] is False and "think" not in found[1, 0]["params"]
    assert found[0, 0]["usage"]["prompt_tokens"] > found[1, 0]["usage"]["prompt_tokens"]
    assert found[2, 0]["error"]["message"] == "think must be true or false, not 'no'"
    assert infer("verify", out, "--fraction", 1).code == 0


def test_rows_for_a_template_without_a_switch_fail(tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "in.jsonl", {"prompt": "a", "think": False}, {"prompt": "a", "reasoning_budget": 2}
    )
    assert batch(rows, "-o", tmp_path / "out").code == 8
    found = by_unit(tmp_path / "out")
    assert "no switch for thinking" in found[0, 0]["error"]["message"]
    assert "no tags of reasoning" in found[1, 0]["error"]["message"]


def test_a_batch_is_told_once_or_fails_before_it_begins(stubborn: str, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "a", "b")
    done = batch(rows, "-o", tmp_path / "out", "--no-think", "--reasoning-budget", "3")
    assert done.code == 0
    assert done.err.count("no switch for thinking") == done.err.count("no tags of reasoning") == 1
    wrong = batch(rows, "-o", tmp_path / "other", "--no-think", model=stubborn)
    one_error_line(wrong, 2, "no switch for thinking")
    assert not (tmp_path / "other").exists()


# --- the budget -----------------------------------------------------------------------------------


def test_the_budget_ends_the_reasoning(model: str, stubborn: str) -> None:
    reply = run(model, "--reasoning-budget", "5")
    assert reply["reasoning"] == "one a"
    assert bytes(t for t in reply["tokens"] if t < 256).startswith(b"<think>one a</think>")
    assert reply["params"]["reasoning_budget"] == 5
    assert infer("replay", "last").text == "identical\n"
    assert run(stubborn, "--reasoning-budget", "0")["reasoning"] is None
    assert run(model, "--reasoning-budget", "500")["tokens"] == run(model)["tokens"]


def test_a_sampled_reply_with_a_budget_replays(model: str) -> None:
    first = run(model, "--reasoning-budget", "5", "-t", "0.7", "--seed", "3", "--repeat-penalty", "1.2")
    assert infer("replay", "last").text == "identical\n"
    again = run(model, "--reasoning-budget", "5", "-t", "0.7", "--seed", "3", "--repeat-penalty", "1.2")
    assert again["digest"] == first["digest"]


def test_the_budget_is_what_is_left_of_it_where_a_reply_goes_on(model: str) -> None:
    lines = b"q\n/set max_tokens 99\n/continue\n"
    n = str(N_OPENING + 3)
    done = infer("chat", "-m", model, "-t", "0", "-n", n, "--reasoning-budget", "5", stdin=lines)
    assert done.code == 0, done.err
    records = [json.loads(line) for line in infer("records", "export").out.splitlines()]
    assert [record["params"]["reasoning_budget"] for record in records] == [5, 2]
    whole = run(model, "--reasoning-budget", "5")
    assert [t for record in records for t in record["tokens"]] == whole["tokens"]
    assert infer("replay", records[0]["thread"]).code == 0


def test_chat_changes_the_budget(model: str) -> None:
    lines = b"/set reasoning_budget 2\nq\n/set reasoning-budget none\nq\n/set reasoning_budget x\n"
    done = infer("chat", "-m", model, "-t", "0", "--reasoning", "show", stdin=lines)
    one_error_line(done, 2, "'x' is no number of tokens")
    records = [json.loads(line) for line in infer("records", "export").out.splitlines()]
    assert [record["params"].get("reasoning_budget") for record in records] == [2, None]
    assert [record["reasoning"] for record in records] == ["on", "one and one"]


def test_batches_keep_their_promises_with_a_budget(model: str, tmp_path: Path) -> None:
    asked: list[dict[str, object] | str] = [
        {"prompt": f"q{i}", **({} if i % 3 == 0 else {"reasoning_budget": i})} for i in range(7)
    ]
    rows, outs = write_rows(tmp_path / "in.jsonl", *asked), [tmp_path / "out", tmp_path / "alone"]
    for out, width in zip(outs, ("4", "1"), strict=True):
        done = batch(rows, "-o", out, "--reasoning-budget", "3", "--parallel", width, model=model)
        assert done.code == 0, done.err
    together, alone = map(by_unit, outs)
    assert {unit: line["digest"] for unit, line in together.items()} == {
        unit: line["digest"] for unit, line in alone.items()
    }
    assert together[0, 0]["reasoning"] == "one" and together[4, 0]["reasoning"] == "one "
    lone = run(model, "--invariant", "--reasoning-budget", "3")
    assert lone["tokens"] == together[0, 0]["tokens"]
    job = json.loads((job_dir(outs[0]) / "job.json").read_text())
    assert job["params"]["reasoning_budget"] == 3
    assert infer("verify", outs[0], "--fraction", 1).code == 0
    assert infer("verify", outs[0], "--fraction", 1, "--tokens").code == 0
    text = outs[0].read_text()
    closing = next(line for line in text.splitlines() if '"row": 0' in line)
    tokens = json.loads(closing)["tokens"]
    at = bytes(tokens[:-1]).index(b"</think>")
    forged = [*tokens[: at + 1], ord("x"), *tokens[at + 2 :]]
    outs[0].write_text(text.replace(json.dumps(tokens), json.dumps(forged)))
    assert infer("verify", outs[0], "--fraction", 1, "--tokens").code == 9
    outs[0].write_text(text)
    other = batch(rows, "-o", outs[0], "--reasoning-budget", "4", model=model)
    one_error_line(other, 2, "reasoning_budget was 3, is 4")


def test_results_that_came_alone_are_verified_and_forgeries_found(model: str, tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "in.jsonl", "a", "b"), tmp_path / "out"
    batch(rows, "-o", out, "--no-think", "--reasoning-budget", "3", model=model)
    for path in job_dir(out).iterdir():
        path.unlink()
    alone = infer("verify", out, "--input", rows, "--fraction", 1)
    assert alone.code == 0, alone.err + alone.text
    for forged in ('"reasoning_budget": 4', '"reasoning_budget": "3"'):
        text = out.read_text()
        out.write_text(text.replace('"reasoning_budget": 3', forged, 1))
        assert infer("verify", out, "--input", rows, "--fraction", 1).code in (2, 9)
        out.write_text(text)


def test_the_record_shows_both(model: str) -> None:
    run(model, "--no-think", "--reasoning-budget", "5")
    shown = infer("records", "show", "last").text
    assert "think=False (--think)" in shown and "reasoning_budget=5 (--reasoning-budget)" in shown
