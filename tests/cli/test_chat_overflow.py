"""`infer chat --overflow` on the fake model, where a token is a byte."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli_helpers import Outcome, infer, lines_of, one_error_line, script
from tests.terminal import Terminal
from tests.tiny_gguf import write_tiny_gguf

WINDOW = 700
REPLY = "Yes, that is so."
LINES = [f"message {i} " + "".join(f"part {j} of it " for j in range(9)) for i in range(1, 7)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return script(tmp_path, n_ctx_train=WINDOW, default_reply=REPLY)


def chat(lines: list[str], *arguments: object, env: dict[str, str] | None = None) -> Outcome:
    return infer("chat", *arguments, stdin="".join(f"{line}\n" for line in lines).encode(), env=env)


def records() -> list[dict[str, Any]]:
    """Oldest first."""
    return list(lines_of(infer("records", "export").out))


def settings(model: str, policy: str) -> tuple[object, ...]:
    return ("-m", model, "-t", "0", "-n", "60", "--system", "stay", "--overflow", policy)


def read(record: dict[str, Any]) -> str:
    """The prompt of the fake, as text."""
    return bytes(i for i in record["prompt"]["ids"] if i < 256).decode()


def fill(t: Terminal) -> None:
    """Three turns, and a fourth message that does not fit."""
    t.wait_for("/700")
    for i, line in enumerate(LINES[:3], 1):
        t.line(line)
        t.wait_for(lambda text, n=i: text.count("TTFT") == n)  # type: ignore[misc]
    t.line(LINES[3])


def test_error_refuses_the_message(model: str) -> None:
    done = chat([*LINES, "never read"], *settings(model, "error"))
    one_error_line(done, 5, "the conversation with this message is", "window of 700", "/undo")
    assert done.text == f"{REPLY}\n" * 3
    assert all(record["truncation"] is None for record in records())
    assert chat(["/undo", "short"], "--continue").text == f"{REPLY}\n"


def test_at_a_terminal_the_talk_goes_on_after_an_error(model: str) -> None:
    with Terminal("chat", *map(str, settings(model, "error")), columns=200) as t:
        fill(t)
        t.wait_for("error: the conversation with this message is")
        t.wait_for("or go on with --continue --overflow drop-oldest")
        t.line("short")
        t.wait_for(lambda text: text.count("TTFT") == 4)
        t.send("\x04")
        assert t.end() == 0


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("drop-oldest", r"so these were dropped: turns 1 to 2 \(\d+ tokens\)"),
        ("drop-middle", r"so these were dropped: turns 2 to 3 \(\d+ tokens\)"),
        ("keep-ends", r"dropped: characters \d+ to \d+ of the message of turn 1 \(\d+ tokens\)"),
        ("summarize", r"3 turns \(\d+ tokens\) were summarized in 81 tokens"),
    ],
)
def test_what_went_is_told_and_taken_up_again(model: str, policy: str, words: str) -> None:
    done = chat([*LINES, "/context"], *settings(model, policy))
    assert done.code == 0, done.err
    assert done.text == f"{REPLY}\n" * 6
    assert re.search(f"^warning: the window is full.*{words}", done.err, re.MULTILINE), done.err
    kept = records()
    (thread,) = {record["thread"] for record in kept}
    cut = [record for record in kept if record["truncation"] is not None]
    truncation = cut[0]["truncation"]
    assert truncation["policy"] == policy
    assert truncation["dropped_tokens"] == sum(part["tokens"] for part in truncation["dropped"]) > 0
    assert ("summary_tokens" in truncation) == (policy == "summarize")
    for record, line in zip(kept, LINES, strict=True):
        assert record["prompt"]["messages"][-1]["content"] == line
        assert read(record).startswith("system\nstay\n")
        assert read(record).endswith(f"\n{line}\nassistant\n")
        assert len(record["prompt"]["ids"]) + 60 <= WINDOW
    # One prefill of what is left, and then each turn costs its own tokens.
    for before, record in itertools.pairwise(kept):
        if record["truncation"] is None:
            n_held = len(before["prompt"]["ids"]) + len(before["tokens"]) - 1
            assert record["usage"]["cached_tokens"] == n_held
    again = chat(["/context"], "--continue")
    assert again.err == done.err[done.err.index("system: stay") :]
    replayed = infer("replay", thread)
    assert (replayed.code, replayed.text.count("identical")) == (0, 6), replayed
    together = chat([*LINES, "one more", "and another"], *settings(model, policy))
    assert together.code == 0
    apart = chat(["one more", "and another"], "--continue", "--no-record")
    assert apart.code == 0
    chat(["one more", "and another"], "--resume", thread)
    first, second = (
        [r["prompt"] | {"truncation": r["truncation"], "digest": r["digest"]} for r in chosen[-2:]]
        for chosen in (
            [r for r in records() if r["thread"] == thread],
            [r for r in records() if r["thread"] != thread],
        )
    )
    assert first == second


def test_the_summary_is_in_the_record_and_in_the_window(model: str) -> None:
    done = chat([*LINES[:4], "/context", "/stats"], *settings(model, "summarize"))
    assert f"summary: {REPLY}\n" in done.err
    assert "(summarized)" in done.err
    assert "so far: 4 replies" in done.err
    last = records()[-1]
    shortened = last["prompt"]["shortened"]
    assert shortened["summary"]["text"] == REPLY
    assert shortened["dropped"] == shortened["summary"]["turns"] == [1, 2, 3]
    assert last["prompt"]["dropped_turns"] == 3
    assert f"user\n[Summary of the conversation before this]\n{REPLY}\n[End of" in read(last)
    exported = "message 1" in infer("records", "export", records()[0]["id"]).text
    assert exported, "the original stays in the store"


def test_another_reply_to_a_message_has_the_same_summary(model: str) -> None:
    chat([*LINES[:4], "/regen"], *settings(model, "summarize"))
    first, second = records()[-2:]
    assert first["turn"] == second["turn"] == 4
    assert (first["prompt"], first["truncation"]) == (second["prompt"], second["truncation"])
    assert first["truncation"] is not None


def test_ctrl_c_during_a_summary_gives_the_message_up(tmp_path: Path) -> None:
    model = script(tmp_path, n_ctx_train=WINDOW, default_reply=REPLY, token_s=0.002)
    with Terminal("chat", *map(str, settings(model, "summarize")), columns=200) as t:
        fill(t)
        t.wait_for("summarizing the oldest turns")
        t.send("\x03")
        t.wait_for("it is in the line again")
        t.wait_for(lambda text: text.count("> message 4") == 2)
        t.send("\x15")  # Ctrl-U
        t.line("/context")
        t.wait_for("tokens are in use")
        assert "summarized" not in t.text
        assert "4  message" not in t.text.replace("> message 4", "")
        t.line(LINES[3])
        t.wait_for("were summarized in")
        t.wait_for(lambda text: text.count("TTFT") == 4)
        t.send("\x04")
        assert t.end() == 0
    assert len(records()) == 4


def test_private_talks_keep_no_summary(model: str) -> None:
    chat(LINES, *settings(model, "summarize"), "--private")
    text = json.dumps(records())
    assert REPLY not in text and "message" not in text.replace('"messages"', "")


def test_the_choice_holds_until_a_flag_says_otherwise(model: str) -> None:
    chat(LINES[:3], *settings(model, "summarize"))
    assert "summarized" in chat(LINES[3:4], "--continue", "--no-record").err
    assert "turns 2 to 3" in chat(LINES[3:4], "--continue", "--overflow", "drop-middle").err
    said = {setting["name"]: setting for setting in records()[-1]["settings"]}["overflow"]
    assert (said["value"], said["origin"]) == ("drop-middle", "--overflow")


def test_the_variable_and_words_that_a_command_does_not_know(model: str) -> None:
    env = {"INFER_OVERFLOW": "error"}
    plain = ("-m", model, "-t", "0", "-n", "60")
    one_error_line(chat(LINES, *plain, env=env), 5, "window of 700")
    for command in ("chat", "run"):
        one_error_line(
            infer(command, *plain[:2], "--overflow", "guess", stdin=b"x"), 2, "'guess'", "keep-ends"
        )
    one_error_line(infer("run", "x", env={"INFER_OVERFLOW": "summarize"}), 2, "INFER_OVERFLOW", "'summarize'")


def test_run_goes_on_as_the_talk_was_told(model: str) -> None:
    chat(LINES[:3], *settings(model, "drop-middle"))
    done = infer("run", "-c", LINES[3], "--json")
    assert "turns 2 to 3" in done.err
    truncation = done.json["truncation"]
    assert truncation == records()[-1]["truncation"]
    assert isinstance(truncation, dict) and truncation["policy"] == "drop-middle"
    thread = records()[-1]["thread"]
    assert infer("replay", thread).code == 0
    one_error_line(infer("run", "-c", LINES[4] * 3, "--overflow", "error"), 5, "window of 700")


def test_run_makes_no_summary(model: str) -> None:
    chat(LINES[:3], *settings(model, "summarize"))
    one_error_line(infer("run", "-c", LINES[3]), 5, "`infer chat --continue`")
    assert infer("run", "-c", "short").code == 0
    assert infer("run", "-c", LINES[3], "--overflow", "keep-ends").code == 0


@pytest.mark.parametrize("policy", ["drop-middle", "keep-ends", "summarize"])
def test_on_llama_cpp(tmp_path: Path, policy: str) -> None:
    """Random weights: every reply is noise, and the same noise."""
    tiny = write_tiny_gguf(tmp_path / "tiny.gguf")
    lines = [f"turn {i} {'many ' * 28}" for i in range(5)]
    how = ("-m", tiny, "--ctx", "512", "-t", "2", "--seed", "9", "-n", "10", "--overflow", policy)
    done = chat(lines[:4], *how)
    assert done.code == 0 and "the window is full" in done.err, done.err
    (thread,) = {record["thread"] for record in records()}
    replayed = infer("replay", thread)
    assert (replayed.code, replayed.text.count("identical")) == (0, 4), replayed
    whole = chat([*lines, "/stats"], *how).err
    apart = chat([lines[4], "/stats"], "--resume", thread).err
    digests = re.findall(r"sha256:\w+", whole)
    assert digests == re.findall(r"sha256:\w+", apart) != []


@pytest.mark.weights
def test_a_summary_on_the_real_model(smollm2: Path) -> None:
    lines = [f"Turn {i}: tell me of {'many ' * 40}things." for i in range(4)]
    done = chat(lines, "-m", smollm2, "--ctx", "256", "-n", "4", "--seed", "5", "--overflow", "summarize")
    assert done.code == 0 and "summarized in" in done.err
    (thread,) = {record["thread"] for record in records()}
    replayed = infer("replay", thread)
    assert (replayed.code, replayed.text.count("identical")) == (0, 4), replayed
