"""Conversations that are kept: recorded turn by turn, gone on with, and replayed."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli_helpers import Outcome, infer, lines_of, one_error_line, script
from tests.terminal import Terminal
from tests.tiny_gguf import write_tiny_gguf

HOT = ("-t", "8", "--top-k", "0", "-n", "12")  # of the fake: no two replies alike
THINKING = (
    "{# <think> #}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat(lines: str, *arguments: object) -> Outcome:
    done = infer("chat", *arguments, stdin=lines.encode())
    assert done.code == 0, done.err
    return done


def records() -> list[dict[str, Any]]:
    """Oldest first."""
    return list(lines_of(infer("records", "export").out))


def threads() -> list[str]:
    """In the order in which they began."""
    return list(dict.fromkeys(record["thread"] for record in records()))


def digests(lines: str, *arguments: object) -> list[str]:
    return re.findall(r"sha256:\w+", chat(lines, *arguments).err)


def assert_replays(thread: str, n_records: int) -> None:
    done = infer("replay", thread)
    assert (done.code, done.err) == (0, ""), done
    assert len(done.text.splitlines()) == n_records
    assert all(re.fullmatch(r"turn \d+  \w{16}  identical", line) for line in done.text.splitlines())


# --- a turn is a record ---------------------------------------------------------------------------


def test_each_turn_is_one_record() -> None:
    chat("one\ntwo\n", "-m", "fake", *HOT, "--seed", "3", "--system", "Be brief.")
    first, second = records()
    assert [record["kind"] for record in (first, second)] == ["chat", "chat"]
    assert first["thread"] == second["thread"] is not None
    assert (first["turn"], first["parent"], second["turn"], second["parent"]) == (1, None, 2, first["id"])
    assert second["prompt"]["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "two"},
    ]  # fmt: skip
    assert second["prompt"]["text"].endswith("<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n")
    assert "one" not in second["prompt"]["text"], "what was new, so that a search finds a turn once"
    n_first = len(first["prompt"]["ids"])
    assert second["prompt"]["ids"][:n_first] == first["prompt"]["ids"]
    assert [(part["how"], part["n_tokens"]) for part in second["prompt"]["history"]][:2] == [
        ("prefill", n_first), ("decode", len(first["tokens"]) - 1),
    ]  # fmt: skip
    assert len(second["prompt"]["ids"]) == sum(part["n_tokens"] for part in second["prompt"]["history"])
    assert first["engine"]["fingerprint"] and first["engine"]["facts"]["mode"] == "canonical"
    assert first["model"]["name"] == "fake" and first["model"]["template_sha256"]
    origins = {setting["name"]: setting["origin"] for setting in first["settings"]}
    assert (origins["temperature"], origins["seed"], origins["stop"]) == (
        "--temperature",
        "--seed",
        "default",
    )
    assert (first["seed"], first["mode"], first["promise"]) == (3, "canonical", "canonical")


def test_nothing_is_kept_where_that_is_wanted(own_home: Path) -> None:
    chat("one\n/undo\ntwo\n", "-m", "fake", "--no-record")
    assert not (own_home / "data" / "records.sqlite").exists()
    chat("secret\n/branch confidential\nsecret\n/undo\n", "-m", "fake", "--private", "--stop", "secret")
    with sqlite3.connect(own_home / "data" / "records.sqlite") as store:
        dump = list(store.iterdump())
    assert not any("secret" in line or "confidential" in line for line in dump)
    first, second = records()
    assert first["private"] and first["text"] is None and first["digest"]
    one_error_line(infer("chat", "--resume", second["id"], stdin=b""), 2, "private")
    one_error_line(infer("chat", "--continue", stdin=b""), 2, "no conversation yet")
    one_error_line(infer("replay", second["id"]), 2, "private")
    one_error_line(infer("chat", "--continue", "--private", stdin=b""), 2, "--private", "--continue")


def test_a_record_that_cannot_be_written_costs_a_warning(own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "data").write_text("a file where the directory should be")
    done = chat("one\n/undo\ntwo\n", "-m", "fake", "-t", "0")
    assert done.text == "You said: one\nYou said: two\n"
    assert done.err.count("warning: the answer was not recorded") == 2


# --- replay ---------------------------------------------------------------------------------------


def test_all_that_was_evaluated_is_replayed() -> None:
    chat("a\nb\n/regen\n/regen same\n/undo\nc\n/edit d\n/branch x\ne\n/branch main\nf\n", "-m", "fake", *HOT)
    (thread,) = threads()
    assert_replays(thread, 8)
    chat("g\n/regen\n/undo\n/undo\nh\n", "--continue")
    assert threads() == [thread]
    assert_replays(thread, 11)
    for record in records():
        assert infer("replay", record["id"]).text == "identical\n"


def test_a_reply_that_went_on_is_replayed_and_restored(tmp_path: Path) -> None:
    lines = "hello é there\n/set max_tokens 40\n/continue\n"
    chat(lines + "more\n", "-m", "fake", "-t", "0", "-n", "17", "--stop", "ere")
    cut, rest, more = records()
    assert (cut["turn"], rest["turn"], more["turn"]) == (1, 1, 2)
    assert (rest["parent"], more["parent"]) == (cut["id"], rest["id"])
    assert rest["prompt"]["messages"][-1] == {"role": "assistant", "content": cut["text"]}
    assert_replays(cut["thread"], 3)
    chat(f"/export {tmp_path / 'talk.json'}\n", "--continue")
    talk = [message["content"] for message in json.loads((tmp_path / "talk.json").read_text())]
    assert talk == ["hello é there", "You said: hello é th", "more", "You said: more"]


def test_reasoning_is_replayed_and_dropped_as_before(tmp_path: Path) -> None:
    model = script(tmp_path, template=THINKING, default_reply="<think>\nhm\n</think>\n\nforty-two")
    whole = digests("q\nr\n/stats\n", "-m", model, "-t", "0")
    chat("q\n", "-m", model, "-t", "0", "-n", "9")  # cut inside the block
    chat("/set max_tokens 99\n/continue\n", "--continue")
    assert [record["text"] for record in records()[2:]] == ["", "forty-two"]
    thread = threads()[1]
    done = chat("r\n/stats\n", "--resume", thread, "-n", "1024")
    assert re.findall(r"sha256:\w+", done.err) == whole
    assert_replays(thread, 3)


@pytest.mark.parametrize("mode", [[], ["--invariant"]])
def test_a_talk_on_llama_cpp(tmp_path: Path, mode: list[str]) -> None:
    """Random weights: every reply is noise, and the same noise."""
    tiny = write_tiny_gguf(tmp_path / "tiny.gguf")
    how = ("-t", "2", "--seed", "9", "-n", "10", *mode)
    lines = [f"turn {i} {'many ' * i * 20}\n" for i in range(4)]
    whole = digests("".join(lines) + "/stats\n", "-m", tiny, *how)
    chat("".join(lines[:2]) + "gone\n/undo\n", "-m", tiny, *how)
    one = digests(lines[2] + "/regen 4\n/regen 9\n/stats\n" + lines[3] + "/stats\n", "--continue")
    assert one[-1:] == whole
    for thread, n_records in zip(threads(), (4, 7), strict=True):
        assert_replays(thread, n_records)


def test_a_full_window_is_replayed_and_restored() -> None:
    lines = "".join(f"message {i} {'x' * 40}\n" for i in range(8))
    done = chat(
        lines + "/context\n", "-m", "fake", "--ctx", "512", "-t", "0", "-n", "100", "--system", "stay"
    )
    assert "(dropped)" in done.err
    cut = [record for record in records() if record["truncation"] is not None]
    assert cut[0]["truncation"]["dropped"][0]["what"].startswith("turn")
    assert cut[-1]["prompt"]["dropped_turns"] > 0
    again = chat("/context\n", "--continue")
    assert again.err == done.err[done.err.index("system: stay") :]
    assert_replays(threads()[0], 8)
    lines = "and this\n/context\n/stats\n"
    one, other = (chat(lines, "--continue", "--no-record").err for _ in range(2))
    assert re.sub(r"[\d.]+ s,", "", one) == re.sub(r"[\d.]+ s,", "", other)


def test_a_turn_that_differs_is_named(tmp_path: Path) -> None:
    model = script(tmp_path, replies={"b": "right"})
    chat("a\nb\nc\n", "-m", model, "-t", "0")
    script(tmp_path, replies={"b": "rignt"})
    done = infer("replay", threads()[0])
    assert done.code == 9
    first, second, third = done.text.splitlines()
    assert first.endswith("identical") and third.endswith("identical")
    assert re.match(r"turn 2  \w+  differs at token 3: 'h' .*, now 'n'", second)


def test_several_models_and_modes_in_one_talk(tmp_path: Path) -> None:
    other = script(tmp_path, default_reply="I am another")
    chat(f"a\n/model {other}\nb\n", "-m", "fake", *HOT)
    chat("c\n", "--continue", "--fast")
    (thread,) = threads()
    assert_replays(thread, 3)
    chat("d\n", "--continue", "--invariant")
    done = infer("replay", thread)
    assert done.code == 9
    assert "not compared: the mode was invariant" in done.text.splitlines()[3]
    assert infer("replay", records()[3]["id"]).text == "identical\n"


def test_a_stopped_reply_is_replayed_as_far_as_it_came(tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.05, default_reply="word " * 200)
    with Terminal("chat", "-m", slow, "-t", "0") as t:
        t.wait_for("0/4096")
        t.line("go")
        t.wait_for("word word")
        t.send("\x03")
        t.wait_for("stopped")
        t.send("\x04")
        assert t.end() == 0
    (record,) = records()
    assert record["finish_reason"] == "cancelled"
    assert_replays(record["thread"], 1)


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [[], ["--fast"], ["--invariant"]])
def test_the_next_reply_is_what_it_would_have_been(mode: list[str]) -> None:
    lines = "".join(f"turn {i} {'many ' * i * 30}\n" for i in range(3)) + "/seed 5\n"
    whole = digests(lines + "the last\n/stats\n", "-m", "fake", *HOT, "--seed", "7", *mode)
    chat(lines, "-m", "fake", *HOT, "--seed", "7", *mode)
    done = chat("the last\n/stats\n", "--continue", "--seed", "5")
    assert re.findall(r"sha256:\w+", done.err) == whole
    together, apart = records()[3], records()[7]
    assert apart["prompt"] == together["prompt"]
    assert apart["engine"] == together["engine"]
    assert apart["usage"]["cached_tokens"] == together["usage"]["cached_tokens"] > 256  # what was kept of it


def test_the_talk_is_as_it_stood(tmp_path: Path) -> None:
    look = f"/context\n/branch\n/system\n/export {tmp_path}/1.json\n"
    lines = "a\nb\n/regen\n/branch x\nc\n/undo\nd\n/branch empty\n/undo\n/undo\n/undo\n/branch main\n/undo\n"
    before = chat(lines + look, "-m", "fake", *HOT, "--system", "Be brief.")
    after = chat(look.replace("1.json", "2.json"), "--continue")
    assert after.err.replace("2.json", "1.json") == before.err[before.err.index("system: Be brief.") :]
    assert (tmp_path / "1.json").read_text() == (tmp_path / "2.json").read_text()
    assert "* main (1 turn)\nx (3 turns)\nempty (0 turns)\n" in after.err


def test_what_the_talk_was_told_holds_until_a_flag_says_otherwise(tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text(THINKING)
    told = ("-t", "0.5", "-n", "40", "--stop", "END", "--system", "Be brief.", "--ctx", "500",
            "--chat-template", template, "--threads", "1", "--var", "x=1")  # fmt: skip
    chat("a\n/set top_k 5\nb\n", "-m", "fake", *told)
    chat("c\n", "--continue")
    chat("d\n", "--continue", "-t", "0.25", "--ctx", "600", "--system", "Be long.")
    before, same, changed = records()[1:]
    assert same["params"] == before["params"] and same["params"]["top_k"] == 5
    assert same["engine"] == before["engine"] and same["engine"]["n_ctx"] == 500
    assert same["model"] == before["model"]
    said = {setting["name"]: (setting["value"], setting["origin"]) for setting in same["settings"]}
    for name in ("temperature", "top_k", "max_tokens", "stop", "ctx", "threads", "chat_template", "var"):
        assert said[name][1] == "conversation", name
    assert said["mode"] == ("canonical", "default")
    assert changed["params"] == {**before["params"], "temperature": 0.25}
    assert changed["engine"]["n_ctx"] == 600
    assert changed["prompt"]["messages"][0]["content"] == "Be long."
    template.write_text(THINKING + " ")
    assert "warning: the chat template is not the one" in chat("", "--continue").err


def test_what_is_said_after_the_last_reply_holds_too(tmp_path: Path) -> None:
    other = script(tmp_path, default_reply="I am another")
    later = "/system Be long.\n/set top_k 5\n/seed 7\n/set max_tokens 30\n"
    chat(f"a\n{later}", "-m", "fake", "-t", "0.1", "--system", "Be brief.")
    assert "system prompt: Be long." in chat("/system\nb\n/system none\n", "--continue").err
    second = records()[1]
    assert second["prompt"]["messages"][0] == {"role": "system", "content": "Be long."}
    assert (second["params"]["top_k"], second["params"]["max_tokens"], second["run_seed"]) == (5, 30, 7)
    assert "system prompt: none" in chat(f"/system\n/model {other}\n", "--continue").err
    assert chat("c\n/system Be odd.\n", "--continue").text == "I am another\n"
    assert infer("run", "-c", "d").text == "I am another\n"
    assert records()[-1]["prompt"]["messages"][0]["content"] == "Be odd."
    assert_replays(threads()[0], 4)


def test_another_model_reads_the_talk_as_text(tmp_path: Path) -> None:
    chat("a\nb\n", "-m", "fake", "-t", "0")
    other = script(tmp_path, default_reply="I am another")
    done = chat("c\n/context\n", "--continue", "-m", other)
    assert done.text == "I am another\n"
    assert done.err.count("text of another model") == 2
    assert_replays(threads()[0], 3)
    chat("d\n", "--continue")
    assert records()[-1]["model"]["name"] == other, "the model that it had last"


def test_another_model_leaves_what_was_made_for_the_first(tmp_path: Path) -> None:
    template, adapter = tmp_path / "t.jinja", tmp_path / "lora.gguf"
    template.write_text(THINKING)
    adapter.write_bytes(b"GGUF")
    chat("a\n", "-m", "fake", "--chat-template", template, "--lora", adapter, "--stop", "END")
    template.unlink()
    adapter.unlink()
    other = script(tmp_path, default_reply="I am another")
    chat("b\n", "--continue", "-m", other)
    assert records()[1]["params"]["stop"] == ["END"]
    assert records()[1]["model"]["adapters"] == []
    infer("records", "rm", records()[1]["id"])
    one_error_line(infer("chat", "--continue", stdin=b""), 2, "lora.gguf")


def test_which_conversation(own_home: Path) -> None:
    chat("first\nof mine\n/rename mine\n", "-m", "fake", "-t", "0")
    chat("second\n", "-m", "fake", "-t", "0")
    mine, _ = threads()
    ids = [record["id"] for record in records()]
    for name in (mine, mine[:6], "mine", ids[0], ids[1][:7]):
        assert "1  first" in chat("/context\n", "--resume", name).err
    assert "1  second" in chat("/context\n", "--continue").err
    one_error_line(infer("chat", "--resume", "none", stdin=b""), 2, "no record or conversation 'none'")
    one_error_line(infer("chat", "--resume", "", stdin=b""), 2, "no record or conversation")
    one_error_line(infer("chat", "--resume", "mine", "--continue", stdin=b""), 2, "exclude each other")
    infer("records", "rm", *ids[:2])
    one_error_line(infer("chat", "--resume", "mine", stdin=b""), 2, "no record or conversation 'mine'")
    shutil.rmtree(own_home)
    one_error_line(infer("chat", "--continue", stdin=b""), 2, "no conversation yet")


def test_the_last_conversation_by_its_name() -> None:
    one_error_line(infer("chat", "--resume", "last", stdin=b""), 2, "'last'")
    chat("one\n", "-m", "fake", "-t", "0")
    assert infer("replay", "last", "--json").out == infer("replay", records()[-1]["id"], "--json").out
    infer("run", "-m", "fake", "alone", "--private")  # which can't be continued
    chat("two\n", "--resume", "last")
    first, _, last = records()
    assert (last["thread"], last["parent"]) == (first["thread"], first["id"])
    chat("/rename last\n", "-m", "fake", "--resume", first["thread"])
    chat("three\n", "-m", "fake", "-t", "0")  # another one
    chat("four\n", "--resume", "last")
    assert records()[-1]["thread"] == first["thread"]  # a conversation's own name comes first


def test_commands_about_conversations() -> None:
    lines = b"one\n/rename mine\n/clear\ntwo\n/rename mine\n"
    done = infer("chat", "-m", "fake", "-t", "0", stdin=lines)
    one_error_line(done, 2, "another conversation is named 'mine'")
    mine, other = threads()
    done = chat("/list\n/load mine\nthree\n/list\n", "--continue")
    listed = [line for line in done.err.splitlines() if re.match(r"\w{8}  ", line)]
    shown = [re.sub(r"  (\d\d:\d\d|\dh)  ", "  WHEN  ", line) for line in listed]
    assert shown == [
        f"{other[:8]}  WHEN  1 turn  (this one) two",
        f"{mine[:8]}  WHEN  1 turn  mine: one",
        f"{mine[:8]}  WHEN  2 turns  (this one) mine: one",
        f"{other[:8]}  WHEN  1 turn  two",
    ]
    assert f"conversation {mine} mine: 1 turn\n> one\nYou said: one\n" in done.err
    assert_replays(mine, 2)
    for line, words in (
        ("/load", "takes the id"),
        ("/load nonsense", "nonsense"),
        ("/rename", "takes a name"),
        ("/rename x", "not kept"),
    ):
        one_error_line(infer("chat", "-m", "fake", stdin=line.encode()), 2, words)


def test_loading_brings_the_model_back(tmp_path: Path) -> None:
    other = script(tmp_path, default_reply="I am another")
    chat("a\n/rename it\n", "-m", other, "-t", "0")
    done = chat("b\n/load it\nc\n", "-m", "fake", "-t", "0")
    assert done.text == "You said: b\nI am another\n"
    one_error_line(infer("chat", "-m", "fake", "--private", stdin=b"/load it"), 2, "private")


def test_the_model_is_gone(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path / "tiny.gguf")
    chat("a\n", "-m", tiny, "-n", "5")
    tiny.unlink()
    one_error_line(infer("chat", "--continue", stdin=b""), 3, "tiny.gguf", "-m")
    one_error_line(infer("run", "-c", "b"), 3, "tiny.gguf")
    one_error_line(infer("replay", threads()[0]), 3, "tiny.gguf")
    assert "text of another model" in chat("/context\n", "--continue", "-m", "fake").err


def test_removed_turns_are_noticed() -> None:
    chat("a\nb\nc\n", "-m", "fake", "-t", "0")
    infer("records", "rm", records()[0]["id"])
    done = chat("/context\nd\n/context\n", "--continue")
    assert "warning: turns of this conversation are missing" in done.err
    assert "1  b" in done.err and "3  d" in done.err
    infer("records", "rm", records()[-1]["id"])
    assert "2  c" in chat("/context\n", "--continue").err


def test_the_last_turns_are_shown_on_a_terminal(tmp_path: Path) -> None:
    chat("a\nb\nc\n", "-m", "fake", "-t", "0")
    with Terminal("chat", "--continue") as t:
        text = t.wait_for("/4096 · fake")
        assert "3 turns" in text and "> b\nYou said: b\n> c\nYou said: c\n" in text
        assert "You said: a" not in text
        t.line("d")
        t.wait_for("You said: d")
        t.send("\x04")
        assert t.end() == 0
    assert chat("", "--continue").err == "", "in a pipe nothing is shown"


# --- from a script --------------------------------------------------------------------------------


def test_run_continues_a_run() -> None:
    one_error_line(infer("run", "-c", "hi"), 2, "no conversation yet")
    infer("run", "-m", "fake", "first", "--system", "Be brief.")
    done = infer("run", "-c", "second")
    assert (done.code, done.out, done.err) == (0, b"You said: second\n", "")
    first, second = records()
    assert (first["kind"], second["kind"]) == ("run", "chat")
    assert first["thread"] == second["thread"] is not None
    assert (first["turn"], second["turn"], second["parent"]) == (1, 2, first["id"])
    assert second["prompt"]["messages"][0]["content"] == "Be brief."
    assert second["prompt"]["ids"][: len(first["prompt"]["ids"])] == first["prompt"]["ids"]
    assert_replays(first["thread"], 2)
    assert "2  second" in chat("/context\n", "--continue").err


def test_run_continues_a_chat() -> None:
    chat("a\nb\n", "-m", "fake", *HOT, "--seed", "7")
    whole = digests("a\nb\nc\n/stats\n", "-m", "fake", *HOT, "--seed", "7", "--no-record")
    done = infer("run", "--continue", "c", "--json")
    assert done.json["digest"] == whole[0], "what the talk was told, its seed too"
    assert_replays(threads()[0], 3)
    infer("run", "-c", "--no-record", "d")
    assert len(records()) == 3


def test_what_is_no_conversation_is_passed_over() -> None:
    infer("run", "-m", "fake", "the talk")
    infer("run", "-m", "fake", "--raw", "text")
    infer("run", "-m", "fake", "-t", "1", "--samples", "2", "samples")
    infer("run", "-m", "fake", "private", "--private")
    assert "1  the talk" in chat("/context\n", "--continue").err
    raw, sample = (record["id"] for record in records()[1:3])
    one_error_line(infer("chat", "--resume", raw, stdin=b""), 2, "--raw")
    one_error_line(infer("chat", "--resume", sample, stdin=b""), 2, "samples")


@pytest.mark.parametrize(
    "flag", [["--raw"], ["--messages", "-"], ["--private"], ["-t", "1", "--samples", "2"]]
)
def test_what_run_cannot_continue_with(flag: list[str]) -> None:
    one_error_line(infer("run", "-c", "hi", *flag), 2, "--continue", "exclude each other")


# --- on the real model ----------------------------------------------------------------------------


@pytest.mark.weights
def test_twenty_turns_are_replayed(smollm2: Path) -> None:
    how = ("-m", smollm2, "-n", "8", "--seed", "11")
    lines = [f"Turn {i}: tell me of {'many ' * (i % 6) ** 2}things.\n" for i in range(20)]
    chat("".join(lines), *how)
    (thread,) = threads()
    turns = records()
    for before, turn in zip([None, *turns], turns, strict=False):
        usage, parts = turn["usage"], turn["prompt"]["history"]
        assert usage["prompt_tokens"] - usage["cached_tokens"] == parts[-1]["n_tokens"], "what was new"
        if before is not None:
            assert usage["cached_tokens"] == len(before["prompt"]["ids"]) + len(before["tokens"]) - 1
    assert_replays(thread, 20)
    chat("/undo\n/undo\n" + lines[18] + "/regen\n/regen 11\n" + lines[19], "--continue")
    again = records()[20:]
    assert [again[0]["digest"], again[2]["digest"], again[3]["digest"]] == [
        turns[18]["digest"], turns[18]["digest"], turns[19]["digest"],
    ]  # fmt: skip
    assert_replays(thread, 24)


@pytest.mark.weights
def test_the_fourth_turn_is_what_it_would_have_been(smollm2: Path) -> None:
    how = ("-m", smollm2, "-n", "16", "--seed", "5")
    lines = [f"Turn {i}: tell me of {'many ' * i * 20}things.\n" for i in range(4)]
    whole = digests("".join(lines) + "/stats\n", *how)
    chat("".join(lines[:3]), *how)
    assert digests(lines[3] + "/stats\n", "--continue") == whole
