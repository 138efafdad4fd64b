"""What stands on stderr beside the answer: statistics where they are wanted."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from infer_cli.answering.silent import SilentSink
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import StatusSink
from tests.cli_helpers import infer, script
from tests.terminal import Terminal

STATISTICS = "21 + 13 tokens"
READING = re.compile(r"reading the prompt \d+ %, \d+ tok/s, .* left")


def shown(*arguments: str, **variables: str) -> tuple[str, bytes]:
    """The screen, and what was written to it."""
    with Terminal(*arguments, env=variables, columns=120) as terminal:
        assert terminal.end() == 0
        return terminal.text, terminal.raw


def test_statistics_are_dim_on_a_terminal() -> None:
    text, raw = shown("run", "-m", "fake", "hi")
    assert STATISTICS in text and b"\x1b[2m[fake" in raw
    text, raw = shown("run", "-m", "fake", "hi", NO_COLOR="1")
    assert STATISTICS in text and b"\x1b[2m" not in raw


def test_what_is_too_long_goes_on_between_words() -> None:
    with Terminal("run", "-m", "fake", "hi", "--stats", columns=40) as terminal:
        assert terminal.end() == 0
        lines = [line for line in terminal.text.split("\n") if line][1:]
    words = "[fake · 21 + 13 tokens · load"
    assert len(lines) > 1 and " ".join(lines).startswith(words) and "tok/s" in " ".join(lines).split()


def test_statistics_that_are_not_wanted(own_home: Path) -> None:
    assert STATISTICS not in shown("run", "-m", "fake", "hi", INFER_STATS="0")[0]
    assert STATISTICS not in shown("run", "-m", "fake", "hi", "--json")[0]
    assert STATISTICS in shown("run", "-m", "fake", "hi", "--json", "--stats")[0]
    assert "tokens]" not in shown("template", "render", "-m", "fake", "hi", INFER_STATS="0")[0]
    (own_home / "config").mkdir(parents=True)
    (own_home / "config" / "config.toml").write_text("stats = false\n")
    assert STATISTICS not in shown("run", "-m", "fake", "hi")[0]
    assert STATISTICS in shown("run", "-m", "fake", "hi", "--stats")[0]


def test_a_chat_without_statistics() -> None:
    with Terminal("chat", "-m", "fake", "-t", "0", env={"INFER_STATS": "0"}) as terminal:
        terminal.wait_for("greedy")  # the toolbar
        terminal.line("hi")
        terminal.wait_for("You said: hi")
        terminal.line("/exit")
        assert terminal.end() == 0
        assert "TTFT" not in terminal.text


@pytest.mark.parametrize(("more", "are_shown"), [((), False), (("--stats",), True)])
def test_no_statistics_in_the_middle_of_a_pipe(more: tuple[str, ...], are_shown: bool) -> None:
    read_end, write_end = os.pipe()
    with (
        open(read_end, "rb") as answer,
        open(write_end, "wb") as pipe,
        Terminal("run", "-m", "fake", "hi", *more, stdout=pipe, columns=120) as terminal,
    ):
        pipe.close()
        assert terminal.end() == 0
        assert answer.read() == b"You said: hi\n"
        assert (STATISTICS in terminal.text) == are_shown


def test_statistics_stay_out_of_what_is_no_terminal() -> None:
    assert infer("run", "-m", "fake", "hi").err == ""
    assert STATISTICS in infer("run", "-m", "fake", "hi", "--stats").err


# --- what is waited for ---------------------------------------------------------------------------


class Screen(Notices):
    """Notices that are only noted."""

    def __init__(self) -> None:
        super().__init__(quiet=False, stats=None)
        self.shown: list[str] = []

    def status(self, text: str) -> None:
        self.shown.append(text)

    def clear(self) -> None:
        self.shown.append("")


def test_a_long_prompt_has_its_rate_and_the_time_left() -> None:
    screen, seconds = Screen(), iter((0.0, 1.0, 9.5, 9.9))
    sink = StatusSink(SilentSink(), screen, clock=lambda: next(seconds))
    sink.start({})
    for done in (400, 500, 1350, 1390, 1400):
        sink.prefill(0, done, 1400)
    assert screen.shown == [
        "reading the prompt 0 %",
        "reading the prompt 28 %",  # what was kept from before came at once
        "reading the prompt 35 %, 100 tok/s, 9s left",
        "reading the prompt 96 %",
        "reading the prompt 99 %",
        "",
    ]


def seconds_until(wanted: str, *arguments: str) -> float:
    """From the start of the command until this is on the terminal."""
    began = time.monotonic()
    with Terminal(*arguments) as terminal:
        terminal.wait_for(lambda text: wanted.encode() in terminal.raw)
        return time.monotonic() - began


@pytest.mark.parametrize(("command", "most"), [(("run", "hi"), 2), (("chat",), 4)])
def test_what_is_waited_for_is_said_at_once(command: tuple[str, ...], most: int, tmp_path: Path) -> None:
    """As a version is shown in some 100 ms, within 200 ms of the start; a chat has its line to import too.

    Measured against the version just before, as other tests slow the machine; once is enough.
    """
    slow = script(tmp_path, load_s=20.0)

    def is_soon() -> bool:
        version = seconds_until("infer 0", "--version")
        return seconds_until("loading fake", *command, "-m", slow) < most * version

    assert any(is_soon() for _ in range(6))


def test_a_slow_load_and_a_long_prompt_on_a_terminal(tmp_path: Path) -> None:
    slow = script(tmp_path, load_s=1.0, step_s=0.25)
    text = "many words " * 300  # 3300 tokens
    with Terminal("run", "-m", slow, text, "-n", "4", "--ctx", "4096", columns=100) as terminal:
        terminal.wait_for("loading fake")
        terminal.wait_for("reading the prompt 0 %")
        shown = terminal.wait_for(lambda text: bool(READING.search(text)))
        assert "loading" not in shown
        terminal.wait_for("You")
        assert terminal.end() == 0
        assert "reading the prompt" not in terminal.text


def test_the_status_line_is_there_before_the_load(tmp_path: Path) -> None:
    text, raw = shown("run", "-m", "fake", "hi")
    loading, reading = raw.index("loading fake…".encode()), raw.index(b"reading the prompt 0 %")
    assert loading < reading < raw.index(b"You said: hi")
    assert "loading" not in text and "reading" not in text  # wiped
    assert b"loading" not in shown("run", "-m", "fake", "hi", "--quiet")[1]


# --- what would be ignored in silence -------------------------------------------------------------


def test_a_variable_that_no_flag_has() -> None:
    wrong = {"INFER_MODLE": "x", "INFER_TOP_K": "4"}
    done = infer("run", "-m", "fake", "hi", env={**wrong, "INFER_PARALLEL": "4"})  # one of another command
    assert done.err == "warning: the variable INFER_MODLE is not used: did you mean INFER_MODEL?\n"
    assert (done.code, done.text) == (0, "You said: hi\n")
    assert "INFER_XYZZY is not used\n" in infer("models", "default", env={"INFER_XYZZY": "1"}).err
    assert infer("run", "-m", "fake", "hi", "--quiet", env=wrong).err == ""
    assert infer("run", "-m", "fake", "hi", env={**wrong, "INFER_QUIET": "1"}).err == ""
    asked = {"_INFER_COMPLETE": "complete_bash", "COMP_WORDS": "infer ba", "COMP_CWORD": "1"}
    assert infer(env={**asked, **wrong}).err == ""


def test_a_template_variable_that_is_not_used(tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{% if polite %}Please: {% endif %}{{ messages[-1].content }}")
    flags = ("-m", "fake", "--chat-template", template, "--var", "polite=true")
    rows = tmp_path / "rows.txt"
    rows.write_text("hi\n")
    line = "warning: --var polit: the chat template does not use it\n"
    for command in (
        ("run", "hi"),
        ("chat",),
        ("template", "render", "hi"),
        ("batch", rows, "-o", "-"),
    ):
        assert "--var" not in infer(*command, *flags, stdin=b"").err
        done = infer(*command, *flags, "--var", "polit=1", stdin=b"")
        assert (done.code, done.err.count(line)) == (0, 1), done
