"""`infer chat` as its user meets it, on the fake model: in a pipe, and on a terminal that pyte draws."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli_helpers import INFER, REPO, infer, lines_of, one_error_line, script
from tests.terminal import Terminal
from tests.tiny_gguf import write_tiny_gguf

READY = "> "


def chat(lines: str, *arguments: str | Path) -> str:
    done = infer("chat", "-m", "fake", "-t", "0", *arguments, stdin=lines.encode())
    assert done.code == 0, done.err
    return done.text


def test_a_pipe_gives_one_turn_a_line_and_nothing_else() -> None:
    done = infer("chat", "-m", "fake", "-t", "0", stdin=b"a\n\nb\n")
    assert (done.code, done.out, done.err) == (0, b"You said: a\nYou said: b\n", "")


def test_each_turn_evaluates_only_what_is_new() -> None:
    done = infer("chat", "-m", "fake", "-t", "0", stdin=b"one\n/stats\ntwo\n/stats\nthree\n/stats\n")
    counts = re.findall(r"last reply: (\d+) prompt tokens evaluated, (\d+) reused, (\d+) sampled", done.err)
    (new_1, old_1, n_1), (new_2, old_2, n_2), (_, old_3, _) = [tuple(map(int, c)) for c in counts]
    assert old_1 == 0
    assert old_2 == new_1 + n_1 - 1, "all but the end token, which was not evaluated"
    assert new_2 == len("\n") + 1 + 1 + len("user\ntwo") + 1 + len("\n") + 1 + len("assistant\n")
    assert old_3 == old_2 + new_2 + n_2 - 1


def test_undo_regen_edit_and_branch(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    chat(f"a\nb\n/undo\nc\n/edit d\n/regen\n/branch x\ne\n/branch main\n/export {path}\n")
    assert [m["content"] for m in json.loads(path.read_text())] == ["a", "You said: a", "d", "You said: d"]
    again = infer("run", "-m", "fake", "--messages", path)
    assert again.code == 0


def test_the_same_seed_gives_the_same_reply_again() -> None:
    hot = ("-t", "8", "--top-k", "0", "-n", "12", "--stats")
    done = infer("chat", "-m", "fake", *hot, stdin=b"a\nb\n/stats\n/regen same\n/stats\n/regen\n/stats\n")
    first, same, other = re.findall(r"sha256:\w+", done.err)
    assert first == same != other
    fixed = [infer("chat", "-m", "fake", *hot, "--seed", "7", stdin=b"a\nb\n") for _ in range(2)]
    assert fixed[0].out == fixed[1].out
    assert fixed[0].err.count("seed 7") == 2


def test_a_cut_reply_goes_on_as_if_it_had_not_been_cut() -> None:
    whole = chat("hello there\n")
    parts = chat("hello there\n/set max_tokens 999\n/continue\n", "-n", "9")
    assert parts.replace("\n", "") == whole.replace("\n", "")


def test_a_full_window_drops_whole_old_turns_and_says_so() -> None:
    lines = "".join(f"message {i} {'x' * 40}\n" for i in range(8))
    done = infer("chat", "-m", "fake", "--ctx", "512", "-n", "100", "--system", "stay", "-t", "0",
                 stdin=(lines + "/context\n").encode())  # fmt: skip
    assert done.code == 0, done.err
    assert "the window is full" in done.err
    assert "system: stay" in done.err
    assert re.search(r"^1 .*\(dropped\)", done.err, re.MULTILINE)
    assert re.search(r"^8 .*\(\d+ tokens sampled\)", done.err, re.MULTILINE)
    assert done.text.count("You said") == 8
    one_error_line(infer("chat", "-m", "fake", "--ctx", "512", stdin=b"x" * 600), 5, "do not fit")


def test_dropped_reasoning_is_not_fed_back(tmp_path: Path) -> None:
    template = (
        "{# <think> #}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    model = script(tmp_path, template=template, default_reply="<think>\nhm\n</think>\n\nforty-two")
    done = infer("chat", "-m", model, "-t", "0", stdin=b"q\n/stats\nr\n/stats\n")
    assert done.text == "forty-two\nforty-two\n"
    counts = re.findall(r"last reply: (\d+) prompt tokens evaluated, (\d+) reused", done.err)
    first_prompt = len("user\nq\nassistant\n") + 3
    assert int(counts[1][1]) == first_prompt, "the evaluation is kept up to the reasoning"
    assert int(counts[1][0]) == len("forty-two\nuser\nr\nassistant\n") + 4


def test_files_are_attached_or_sent(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("from a file\n")
    assert chat(f"/read {tmp_path / 'f'}\n") == "You said: from a file\n"
    assert chat(f"/attach {tmp_path / 'f'}\nq\nr\n") == (
        'You said: <file name="f">\nfrom a file\n</file>\n\nq\nYou said: r\n'
    )


def test_several_files_are_attached_at_once(tmp_path: Path) -> None:
    for name in ("a", "b c", "d e"):
        (tmp_path / name).write_text(f"text of {name}")
    lines = f'/attach {tmp_path / "a"} "{tmp_path / "b c"}"\n/attach {tmp_path / "d e"}\nhi\n'
    done = infer("chat", "-m", "fake", "-t", "0", stdin=lines.encode())
    assert all(f"text of {name}" in done.text for name in ("a", "b c", "d e")), done
    missing = infer("chat", "-m", "fake", stdin=f"/attach {tmp_path / 'a'} none.txt\n".encode())
    one_error_line(missing, 2, "none.txt")
    one_error_line(infer("chat", "-m", "fake", stdin=b"/attach 'open\n"), 2, "a quote is not closed")


def test_overflow_is_set_and_kept() -> None:
    done = infer("chat", "-m", "fake", "-t", "0", stdin=b"hi\n/set overflow drop-middle\n/params\n")
    assert "overflow = drop-middle" in done.err
    assert re.search(r"overflow += drop-middle +\(/set\)", done.err), done
    again = infer("chat", "--continue", stdin=b"/params\n")
    assert re.search(r"overflow += drop-middle ", again.err), again
    one_error_line(infer("chat", "-m", "fake", stdin=b"/set overflow shout\n"), 2, "shout", "keep-ends")


def test_a_greedy_chat_says_why_a_seed_changes_nothing() -> None:
    lines = b"hi\n/seed 7\n/regen\n"
    why = "every seed gives the same reply"
    assert infer("chat", "-m", "fake", "-t", "0", stdin=lines).err.count(why) == 2
    assert why not in infer("chat", "-m", "fake", "-t", "1", stdin=lines).err


def test_a_base_model_has_a_hint_that_exists(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path / "base.gguf", chat_template=None)
    done = infer("chat", "-m", tiny, stdin=b"hi\n")
    one_error_line(done, 2, "no chat template", "`infer run --raw`", "--chat-template FILE")
    assert infer("run", "--raw", "-m", tiny, "-n", "2", "hi").code == 0


def test_files_given_by_flag_go_before_the_first_message(tmp_path: Path) -> None:
    for name in ("f", "g"):
        (tmp_path / name).write_text(f"text of {name}\n")
    files = ("-f", tmp_path / "f", "--file", tmp_path / "g")
    asked = infer("run", "-m", "fake", *files, "q").text
    assert '<file name="g">\ntext of g\n</file>\n\nq' in asked
    assert chat("/params\nq\nr\n", *files) == asked + "You said: r\n"
    none = infer("chat", "-m", "fake", "-f", tmp_path / "f", stdin=b"")
    assert (none.code, none.out) == (0, b"")
    assert "warning: no message came after" in none.err
    one_error_line(infer("chat", "-m", "fake", "-f", tmp_path / "h", stdin=b"q"), 2, "no file")
    one_error_line(infer("chat", "-m", "fake", "-f", "-", stdin=b"q"), 2, "-f -")


def test_the_deadline_ends_each_reply_and_the_talk_goes_on(tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.02, replies={"a": "word " * 80, "b": "short"}, token_s=0.01)
    done = infer(
        "chat", "-m", slow, "-t", "0", "--deadline", "1500ms", stdin=b"a\nb\n" + b"c" * 1000 + b"\n/context\n"
    )
    assert done.code == 7
    first, second, none = done.text.splitlines()
    assert first.startswith("word word")
    assert (second, none) == ("short", "")
    assert "warning: the deadline ended the reply after" in done.err
    assert "warning: the deadline came while the prompt was read" in done.err
    assert "3  " not in done.err
    cut = lines_of(infer("records", "export").out)[0]
    assert cut["finish_reason"] == "deadline"
    more = infer("chat", "--continue", stdin=b"/undo\n/undo\na\n")
    assert more.code == 7, "it holds until a flag says otherwise"
    assert infer("chat", "--continue", "--deadline", "1h", "-n", "3", stdin=b"/continue\n").code == 0


def test_another_model_goes_on_with_the_talk(tmp_path: Path) -> None:
    other = script(tmp_path, default_reply="I am another")
    path = tmp_path / "talk.md"
    assert chat(f"a\n/model {other}\nb\n/export {path}\n") == "You said: a\nI am another\n"
    assert path.read_text() == (
        "## User\n\na\n\n## Assistant\n\nYou said: a\n\n## User\n\nb\n\n## Assistant\n\nI am another\n"
    )


def test_quotes_hold_several_lines_and_two_slashes_are_one() -> None:
    assert chat('"""one\ntwo"""\n//x\n/etc/passwd is a file\n') == (
        "You said: one\ntwo\nYou said: /x\nYou said: /etc/passwd is a file\n"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/regne", ["/regne", "/regen"]),
        ("/undo", ["no turn"]),
        ("a\n/edit", ["no terminal", "/edit TEXT"]),
        ("/continue", ["no reply"]),
        ("/set top_k", ["name and a value"]),
        ("/set nonsense 1", ["nonsense"]),
        ("/set temperature -1", ["temperature"]),
        ("/read /nonexistent", ["/nonexistent"]),
        ("/export x.txt", [".md or .json"]),
        ("/copy", ["no reply"]),
        ("/retry", ["/regen asks"]),
    ],
)
def test_a_wrong_command_is_one_line(line: str, words: list[str]) -> None:
    one_error_line(infer("chat", "-m", "fake", stdin=line.encode()), 2, *words)


@pytest.mark.parametrize("word", ["/bye", "/quit", "/q", "/exit"])
def test_ways_to_leave(word: str) -> None:
    assert chat(f"one\n{word}\ntwo\n") == "You said: one\n"


@pytest.mark.parametrize("word", ["/?", "/h", "/help"])
def test_ways_to_ask_for_help(word: str) -> None:
    assert "/regen [same|SEED]" in infer("chat", "-m", "fake", stdin=word.encode()).err


def test_a_word_from_a_pipe_is_a_message() -> None:
    assert chat("exit\n") == "You said: exit\n"


def test_wrong_flags() -> None:
    one_error_line(infer("chat", "-m", "fake", "-t", "0", "--seed", "1", stdin=b""), 2, "--seed")
    one_error_line(infer("chat", "-m", "fake", "--keys", "nano", stdin=b""), 2, "--keys")
    one_error_line(infer("chat", "-m", "fake", "-n", "0", stdin=b""), 2, "--max-tokens", "0")


@pytest.mark.parametrize("value", ["0", "-1", "2147483648", "many", "\u00b2"])
def test_a_reply_has_at_least_one_token(value: str) -> None:
    done = infer("chat", "-m", "fake", stdin=f"/set max_tokens {value}\n".encode())
    one_error_line(done, 2, "tokens", value)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    one_error_line(infer("chat", "-m", "fake", stdin=b"/seed " + b"9" * 5000), 2, "is no seed")


def test_an_interrupt_ends_a_talk_from_a_pipe(tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.02, default_reply="word " * 40)
    command = [*INFER, "chat", "-m", slow, "-t", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPO) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"a\nb\n")
        process.stdin.flush()
        assert process.stdout.read(4) == b"word"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        rest = process.stdout.read()
    assert 0 < len(rest) < 190
    (kept,) = lines_of(infer("records", "export").out)
    assert kept["finish_reason"] == "cancelled"


# --- on a terminal --------------------------------------------------------------------------------


def test_ten_turns_a_toolbar_and_a_line_after_each() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0.1") as t:
        t.wait_for("0/4096 · fake")
        for i in range(10):
            t.line(f"turn {i}")
            t.wait_for(f"You said: turn {i}\n")
            t.wait_for(lambda text, n=i + 1: text.count("seed") >= n)  # type: ignore[misc]
        text = t.wait_for(lambda text: len(re.findall(r"tokens · TTFT .* seed \d+", text)) == 10)
        assert "Traceback" not in text
        t.send("\x04")
        assert t.end() == 0


def test_a_word_that_leaves_other_programs_is_answered() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0") as t:
        t.wait_for("0/4096 · fake")
        for n, word in enumerate(("exit", "Quit "), 1):
            t.line(word)
            t.wait_for(lambda text, n=n: text.count("/exit or Ctrl-D leaves") >= n)  # type: ignore[misc]
        t.line("/bye")
        assert t.end() == 0
        assert "You said" not in t.text


def test_ctrl_c_stops_a_reply_and_keeps_the_part(tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.05, default_reply="word " * 200)
    with Terminal("chat", "-m", slow, "-t", "0") as t:
        t.wait_for("0/4096")
        t.line("go")
        t.wait_for("word word")
        t.send("\x03")
        t.wait_for("stopped")
        assert "^C" not in t.text
        time.sleep(2.5)  # longer than the supervisor's patience
        t.line("/continue")
        t.wait_for(lambda text: text.count("word") > 8)
        t.send("\x03")
        t.wait_for(lambda text: text.count("stopped") == 2)
        t.line("/context")
        t.wait_for("1  go")
        t.send("\x04")
        assert t.end() == 0


def test_ctrl_c_inside_a_prefill_gives_the_message_up(tmp_path: Path) -> None:
    slow = script(tmp_path, token_s=0.02)
    (tmp_path / "long").write_text("x" * 2000)
    with Terminal("chat", "-m", slow, "-t", "0") as t:
        t.wait_for("0/4096")
        t.line(f"/read {tmp_path / 'long'}")
        t.wait_for("reading the prompt")
        t.send("\x03")
        t.wait_for("it is in the line again")
        t.wait_for(lambda text: text.count("> /read") == 2)
        t.send("\x15")  # Ctrl-U
        t.line("/stats")
        t.wait_for("so far: 1 reply")
        t.line("hi")
        t.wait_for("You said: hi")
        t.send("\x04")
        assert t.end() == 0


def test_ctrl_c_at_the_prompt_clears_the_line() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0.1") as t:
        t.wait_for("0/4096")
        t.send("\x03")
        t.wait_for(lambda text: "> " in text.partition("Ctrl-D or /exit leaves the chat")[2])
        t.send("nonsense")
        t.wait_for("nonsense")
        t.send("\x03")
        t.wait_for(lambda text: "nonsense" not in text)
        t.line("hi")
        t.wait_for("You said: hi")


def test_a_paste_of_many_lines_is_one_message(tmp_path: Path) -> None:
    with Terminal("chat", "-m", "fake", "-t", "0") as t:
        t.wait_for("0/4096")
        t.paste("\n".join(f"line {i}" for i in range(200)))
        t.wait_for("> [200 lines pasted]")
        t.paste("\n".join("other" for i in range(200)))
        t.wait_for("[200 lines pasted, 2]")
        t.send("\x7f")  # takes the whole mark away
        t.wait_for(lambda text: "pasted, 2" not in text)
        t.send("\r")
        t.wait_for("4096 tokens · TTFT")
        assert "line 199" not in t.text.partition("You said")[0]
        path = tmp_path / "talk.json"
        t.line(f"/export {path}")
        t.wait_for("wrote")
        user = json.loads(path.read_text())[0]["content"]
        assert user == "\n".join(f"line {i}" for i in range(200))


def test_a_chat_says_what_it_is_and_how_it_goes_on() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0") as t:
        text = t.wait_for("> /help for commands, Ctrl-D to leave")
        assert text.startswith("fake · window of 4096 tokens\n")
        t.line("hi")
        t.wait_for("You said: hi")
        t.wait_for(lambda text: "/help" not in text)
        row = next(y for y, line in enumerate(t.screen.display) if line.startswith("> hi"))
        assert t.screen.buffer[row][2].bold and not t.screen.buffer[row + 1][0].bold
        t.send("\x04")
        assert t.end() == 0
        text = t.text
    (line,) = (line for line in text.splitlines() if "--resume" in line)
    thread = line.split()[3].rstrip("`")
    assert infer("chat", "--resume", thread, stdin=b"more\n").text == "You said: more\n"
    with Terminal("chat", "-m", "fake", "-t", "0", "--no-record") as t:
        t.wait_for("0/4096")
        t.line("hi")
        t.wait_for("You said: hi")
        t.send("\x04")
        assert t.end() == 0
        assert "--resume" not in t.text


def test_alt_enter_begins_a_line_and_quotes_hold_several() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0") as t:
        t.wait_for("0/4096")
        t.send("one\x1b\rtwo\r")
        t.wait_for("You said: one")
        t.line('"""a')
        t.line('b"""')
        t.wait_for("You said: a")


def test_a_resize_during_a_reply_loses_nothing(tmp_path: Path) -> None:
    words = [f"w{i:03}" for i in range(120)]
    slow = script(tmp_path, step_s=0.004, default_reply=" ".join(words))
    with Terminal("chat", "-m", slow, "-t", "0", columns=70) as t:
        t.wait_for("0/4096")
        t.line("go")
        t.wait_for("w010")
        t.resize(40, 30)
        t.wait_for("TTFT")
        t.line("again")
        t.wait_for(lambda text: text.count("TTFT") == 2)
        assert all(word in t.text for word in words)


def test_a_narrow_terminal() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0", columns=20) as t:
        t.wait_for("0/4096 · fake")
        t.line("a message that is wider than it")
        t.wait_for("You said:")
        t.wait_for("TTFT")
        t.send("\x04")
        assert t.end() == 0


def test_escape_sequences_in_a_reply_do_nothing(tmp_path: Path) -> None:
    evil = "safe\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b5mtext\x1b]52;c;aGk=\x07 end"
    with Terminal("chat", "-m", script(tmp_path, default_reply=evil), "-t", "0") as t:
        t.wait_for("0/4096")
        t.line("go")
        t.wait_for("end")
        t.wait_for("TTFT")
        assert "saferedtext end" in t.text
        assert b"owned" not in t.raw
        assert b"]52;" not in t.raw


def test_arabic_chinese_and_emoji() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0") as t:
        t.wait_for("0/4096")
        for text in ("مرحبا بالعالم", "你好世界", "🙂🚀"):
            t.line(text)
            t.wait_for(lambda seen, text=text: f"Yousaid:{text}" in re.sub(r"\s", "", seen) or  # type: ignore[misc]
                       f"Yousaid:{text.replace(' ', '')}" in re.sub(r"\s", "", seen))  # fmt: skip


def test_the_editor_changes_the_last_message(tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nstty -a > "$0.modes"\nprintf \'edited by hand\' > "$1"\n')
    editor.chmod(0o755)
    with Terminal("chat", "-m", "fake", "-t", "0", env={"EDITOR": str(editor), "VISUAL": ""}) as t:
        t.wait_for("0/4096")
        t.line("first")
        t.wait_for("You said: first")
        t.line("/edit")
        t.wait_for("You said: edited by hand")
        modes = (tmp_path / "editor.modes").read_text().split()
        assert "-icanon" not in modes
        assert "-echo" not in modes
        t.send("\x18\x05")
        t.wait_for("> edited by hand")


def test_history_completion_and_copy(own_home: Path) -> None:
    with Terminal("chat", "-m", "fake", "-t", "0") as t:
        t.wait_for("0/4096")
        t.line("remember me")
        t.wait_for("You said: remember me")
        t.send("/und")
        t.wait_for("/undo")
        t.send("\t")
        t.wait_for("> /undo")
        t.send("\x03")
        t.line("/copy")
        t.wait_for("copied")
        assert b"\x1b]52;c;WW91IHNhaWQ6IHJlbWVtYmVyIG1l\x07" in t.raw
    with Terminal("chat", "-m", "fake", "-t", "0") as t:
        t.wait_for("0/4096")
        t.send("\x1b[A\x1b[A")
        t.wait_for("> remember me")


def test_a_dumb_terminal_gets_plain_lines() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0", env={"TERM": "dumb"}) as t:
        t.wait_for(">")
        t.line("hi")
        t.wait_for("You said: hi")
        t.wait_for("TTFT")
        assert b"\x1b" not in t.raw
        t.send("\x03")
        time.sleep(2.5)  # longer than the supervisor's patience
        t.line("still here")
        t.wait_for("You said: still here")
        t.send("\x04")
        assert t.end() == 0


def test_a_terminal_whose_stdout_is_a_file(tmp_path: Path) -> None:
    replies, editor = tmp_path / "replies", tmp_path / "editor"
    editor.write_text("#!/bin/sh\necho on the screen\n")
    editor.chmod(0o755)
    env = {"EDITOR": str(editor), "VISUAL": ""}
    with replies.open("wb") as file, Terminal("chat", "-m", "fake", "-t", "0", env=env, stdout=file) as t:
        t.wait_for(">")
        t.line("helloo\x7f there")
        t.wait_for("> hello there")
        t.wait_for("TTFT")
        t.line("/edit")
        t.wait_for("on the screen")
        t.wait_for("as it was")
        t.send("\x04")
        assert t.end() == 0
    assert replies.read_text() == "You said: hello there\n"


def test_what_is_typed_during_a_reply_waits_for_the_next_prompt(tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.05, replies={"go": "word " * 200})
    path = tmp_path / "talk.json"
    with Terminal("chat", "-m", slow, "-t", "0") as t:
        t.wait_for("0/4096")
        t.line("go")
        t.wait_for("word word")
        t.send("typed\x1b\rahead ")
        t.paste("and\npasted\n")
        t.send("\x03")
        shown = t.wait_for("stopped").partition("stopped")[0]
        assert "typed" not in shown
        t.wait_for(lambda text: re.search(r"> typed\n  ahead and\n  pasted\n", text) is not None)
        t.line("")
        t.wait_for(lambda text: text.count("TTFT") == 2)
        t.line(f"/export {path}")
        t.wait_for("wrote")
        assert json.loads(path.read_text())[2]["content"] == "typed\nahead and\npasted"
        t.send("\x04")
        assert t.end() == 0
        assert t.is_echoing


def test_termination_leaves() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0.1") as t:
        t.wait_for("0/4096")
        t.process.send_signal(signal.SIGTERM)
        assert t.end() == 130
