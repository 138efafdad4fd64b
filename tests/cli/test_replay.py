"""`infer replay`: identical, or where and why not."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.cli_helpers import infer, lines_of, one_error_line, script
from tests.tiny_gguf import write_tiny_gguf


def _last_id() -> str:
    return infer("records", "list", "--limit", "1").text.split("\t")[0]


@pytest.mark.parametrize("mode", [[], ["--fast"], ["--invariant"]])
@pytest.mark.parametrize("how", [[], ["-t", "2", "--seed", "9", "--samples", "3"]])
def test_a_run_replays_to_the_same_digest(tmp_path: Path, mode: list[str], how: list[str]) -> None:
    tiny = write_tiny_gguf(tmp_path / "tiny.gguf")
    assert infer("run", "-m", tiny, "hello", "-n", "10", "--stop", "zzz", *mode, *how).code == 0
    for line in infer("records", "list").text.splitlines():
        done = infer("replay", line.split("\t")[0])
        assert (done.code, done.text, done.err) == (0, "identical\n", "")


def test_a_reply_that_filled_its_window_ends_there_again(tmp_path: Path) -> None:
    """llama.cpp rounds a window up: 290 is 512 to it."""
    reason: object = None
    for seed in range(3, 20):  # most random weights repeat themselves for ever, some do not
        tiny = write_tiny_gguf(tmp_path / f"{seed}.gguf", seed=seed)
        reason = infer("run", "-m", tiny, "--raw", "hello", "--ctx", "290", "--json").json["finish_reason"]
        if reason == "context":
            break
    assert reason == "context"
    assert infer("replay", _last_id()).text == "identical\n"


def test_verdicts_as_json(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, seed=1)
    infer("run", "-m", path, "--raw", "hello", "-n", "20")
    same: dict[str, object] = {"id": _last_id(), "turn": None, "identical": True, "reasons": []}
    assert json.loads(infer("replay", "last", "--json").out) == [same]
    write_tiny_gguf(path, seed=2)
    done = infer("replay", "last", "--jsonl")
    (verdict,) = lines_of(done.out)
    assert (done.code, verdict["identical"]) == (9, False)
    reasons = verdict["reasons"]
    assert isinstance(reasons, list) and reasons[0].startswith("differs") and len(reasons) > 1


def test_another_model_file_is_noticed_and_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, seed=1)
    infer("run", "-m", path, "--raw", "hello", "-n", "20")
    write_tiny_gguf(path, seed=2)
    done = infer("replay", _last_id())
    assert done.code == 9
    assert done.text.startswith("differs at token ")
    assert "log-probability" in done.text
    assert "model_sha256 was" in done.text


def test_a_reply_that_a_deadline_cut_is_compared_as_a_prefix(tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.05, default_reply="word " * 10)
    assert infer("run", "-m", slow, "hi", "--deadline", "500ms").code == 7
    script(tmp_path, default_reply="word " * 10)
    assert infer("replay", _last_id()).text == "identical\n"
    script(tmp_path, default_reply="other " * 10)
    assert infer("replay", _last_id()).code == 9


def test_what_cannot_be_replayed_says_why(tmp_path: Path, own_home: Path) -> None:
    one_error_line(infer("replay", "none"), 2, "none")
    infer("run", "-m", "fake", "secret", "--private")
    one_error_line(infer("replay", _last_id()), 2, "private")
    with sqlite3.connect(own_home / "data" / "records.sqlite") as store:
        assert not any("secret" in line for line in store.iterdump())
    gone = write_tiny_gguf(tmp_path / "gone.gguf")
    infer("run", "-m", gone, "--raw", "hello", "-n", "3")
    gone.unlink()
    one_error_line(infer("replay", _last_id()), 3, "gone.gguf")


def test_null_content_is_kept_and_replayed(tmp_path: Path) -> None:
    template, messages = tmp_path / "template.jinja", tmp_path / "messages.json"
    template.write_text(
        "{% for m in messages %}{{ m.role }}:"
        "{{ m.tool_calls[0].id if m.content is none else m.content }};{% endfor %}"
    )
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call 1"}]},
        {"role": "tool", "content": "42"},
    ]
    messages.write_text(json.dumps(turns))
    done = infer("run", "-m", "fake", "--messages", messages, "--chat-template", template)
    assert done.code == 0, done.err
    kept = infer("records", "show", _last_id(), "--json").json["prompt"]
    assert isinstance(kept, dict)
    assert kept["messages"] == turns
    assert kept["text"] == "user:hi;assistant:call 1;tool:42;"
    assert infer("records", "show", _last_id()).code == 0
    assert infer("records", "list").code == 0
    assert infer("replay", _last_id()).text == "identical\n"
