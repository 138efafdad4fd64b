"""`infer run --overflow` and `--show-context` on the fake model, where a token is a byte."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from infer_cli.cli.context_view import BAR_WIDTH, _lines
from infer_cli.context_budget import Budget, Part, budget_of
from tests.cli_helpers import infer, one_error_line

LOG = "".join(f"line {i} of the log\n" for i in range(1, 301))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_text(LOG)
    return path


def test_too_long_is_an_error_unless_told_otherwise(log: Path) -> None:
    one_error_line(infer("run", "-m", "fake", "--ctx", "500", "-f", log, "why?"), 5, "window of 500")
    one_error_line(infer("run", "-m", "fake", "--overflow", "guess", "hi"), 2, "'guess'", "keep-ends")


def test_what_was_dropped_is_told_three_times(log: Path) -> None:
    arguments = ("run", "-m", "fake", "--ctx", "500", "-n", "20", "-f", log, "why?", "--json")
    done = infer(*arguments, "--overflow", "drop-oldest")
    assert done.code == 0
    truncation = done.json["truncation"]
    assert isinstance(truncation, dict)
    assert truncation["policy"] == "drop-oldest"
    (part,) = truncation["dropped"]
    assert part["what"].startswith("lines 1 to ")
    assert part["what"].endswith(f" of {log}")
    assert part["tokens"] == truncation["dropped_tokens"]
    whole = infer(
        "run", "-m", "fake", "-f", log, "why?", "--json", "-n", "1", "--show-context", "--ctx", "500"
    )
    n_whole = json.loads(whole.err.splitlines()[0])["context"]["prompt_tokens"]
    usage = done.json["usage"]
    assert isinstance(usage, dict)
    n_left = usage["prompt_tokens"] - truncation["marker_tokens"]
    assert n_whole - n_left == truncation["dropped_tokens"]
    assert done.err.startswith("warning: --overflow drop-oldest: ")
    assert part["what"] in done.err
    (record, *_) = [json.loads(line) for line in infer("records", "export").text.splitlines()]
    assert record["truncation"] == truncation
    assert record["prompt"]["messages"][0]["content"].startswith('<file name="app.log">\n[… ')
    assert infer(*arguments, "--overflow", "drop-oldest", "--quiet").err == ""


def test_nothing_is_told_where_all_fits(log: Path) -> None:
    for policy in ("drop-oldest", "drop-middle", "keep-ends"):
        done = infer("run", "-m", "fake", "hi", "--json", "--overflow", policy)
        assert (done.json["truncation"], done.err) == (None, "")
        assert done.json["digest"] == infer("run", "-m", "fake", "hi", "--json").json["digest"]


def test_the_question_and_the_system_prompt_are_kept(log: Path) -> None:
    arguments = ("--ctx", "300", "-n", "60", "-f", log, "--system", "S" * 20, "Q" * 20, "--overflow")
    for policy in ("drop-oldest", "drop-middle", "keep-ends"):
        infer("run", "-m", "fake", *arguments, policy)
    for line in infer("records", "export").text.splitlines():
        system, user = json.loads(line)["prompt"]["messages"]
        assert system["content"] == "S" * 20
        assert user["content"].endswith("Q" * 20)


def test_a_conversation_loses_turns(tmp_path: Path) -> None:
    talk = []
    for i in range(1, 5):
        talk += [{"role": "user", "content": f"q{i}" * 20}, {"role": "assistant", "content": f"a{i}" * 20}]
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(talk))
    arguments = ("run", "-m", "fake", "--messages", path, "now?", "--ctx", "350", "-n", "30", "--json")
    dropped = {}
    for policy in ("drop-oldest", "drop-middle", "keep-ends"):
        truncation = infer(*arguments, "--overflow", policy).json["truncation"]
        assert isinstance(truncation, dict)
        dropped[policy] = [part["what"] for part in truncation["dropped"]]
    assert dropped["drop-oldest"] == ["turns 1 to 2"]
    assert dropped["drop-middle"] == ["turns 2 to 3"]
    assert all(" of message " in what for what in dropped["keep-ends"])


def test_raw_text_and_stored_prompts(log: Path, tmp_path: Path) -> None:
    raw = infer("run", "-m", "fake", "--raw", "--ctx", "200", "-n", "5", "--overflow", "drop-oldest",
                "--json", stdin=LOG.encode())  # fmt: skip
    truncation = raw.json["truncation"]
    assert isinstance(truncation, dict)
    assert truncation["dropped"][0]["what"].endswith(" of stdin")
    stored = tmp_path / "ask.md"
    stored.write_text("Summarize: {{ input }} END")
    done = infer("run", "-m", "fake", "--prompt-template", stored, "--ctx", "300", "-n", "250", "--overflow",
                 "keep-ends", stdin=LOG.encode())  # fmt: skip
    assert done.code == 5  # 250 of 300 are the reply's
    done = infer("run", "-m", "fake", "--prompt-template", stored, "--ctx", "400", "-n", "190", "--overflow",
                 "keep-ends", stdin=LOG.encode())  # fmt: skip
    assert done.text.startswith("You said: Summarize: line 1 of the log\n")
    assert "lines left out" in done.text


def test_binary_attachments_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    done = infer("run", "-m", "fake", "-f", path, "what?", "--overflow", "keep-ends")
    one_error_line(done, 2, "picture.png", "is binary")


def test_the_budget_adds_up(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("12345")
    talk = tmp_path / "talk.json"
    talk.write_text('[{"role": "user", "content": "abc"}, {"role": "assistant", "content": "de"}]')
    arguments = ("run", "-m", "fake", "--messages", talk, "-f", tmp_path / "a.txt", "ask", "--system", "sys")
    done = infer(*arguments, "--json", "--show-context", "--ctx", "1000", "-n", "100", stdin=b"piped")
    (line,) = done.err.splitlines()
    context = json.loads(line)["context"]
    parts = {part["what"]: part["tokens"] for part in context["parts"]}
    assert list(parts) == ["system", "history", str(tmp_path / "a.txt"), "stdin", "prompt", "chat template"]
    tags = [len(f'<file name="{name}">\n\n</file>') for name in ("a.txt", "stdin")]
    assert list(parts.values())[:5] == [3, 5, 5 + tags[0], 5 + tags[1], 3]
    usage = done.json["usage"]
    assert isinstance(usage, dict)
    assert context["prompt_tokens"] == usage["prompt_tokens"] == sum(parts.values())
    assert context["free"] == 1000 - 100 - context["prompt_tokens"]
    assert (context["window"], context["reserve"], context["fits"]) == (1000, 100, True)
    plain = infer(*arguments, "--show-context", "--ctx", "1000", "-n", "100", stdin=b"piped")
    rows = dict(line.rsplit(maxsplit=1) for line in plain.err.splitlines())
    assert rows["window"] == "1000"
    assert rows["reserved for the reply"] == "100"
    assert rows["free"] == str(context["free"])


def test_the_budget_of_what_does_not_fit_comes_before_the_error(log: Path) -> None:
    done = infer("run", "-m", "fake", "--ctx", "500", "-f", log, "why?", "--show-context")
    one_error_line(done, 5, "too many")
    assert done.err.index("too many") < done.err.index("error:")


@pytest.mark.parametrize("n_prompt", [0, 1, 500, 900, 1000, 5000])
def test_the_bar_is_as_wide_as_the_window(n_prompt: int) -> None:
    budget = budget_of(
        n_prompt + 3, [Part("prompt", n_prompt), Part("none", 0)], window=1000, reserve=100, rest="t"
    )
    assert [part.what for part in budget.parts] == (["prompt", "t"] if n_prompt else ["t"])
    bar, *_ = _lines(budget, columns=80, coloured=False)
    assert len(bar) == BAR_WIDTH
    used = min(n_prompt + 103, 1000) * BAR_WIDTH // 1000
    assert abs(bar.count("█") - used) <= 1
    assert budget.as_json()["fits"] == (n_prompt + 103 <= 1000)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pty")
def test_a_narrow_terminal_has_each_line_once() -> None:
    from tests.terminal import Terminal

    with Terminal(
        "run", "-m", "fake", "why?", "-n", "3", "--ctx", "60", "--show-context", columns=20
    ) as terminal:
        assert terminal.end() == 0
        bar, *rows = [row for row in terminal.text.splitlines() if row.strip()][:6]
    assert len(bar) == 20 and set(bar) == {"█", "░"}
    names, numbers = zip(*(row.strip("█ ").rsplit(maxsplit=1) for row in rows), strict=True)
    assert names == ("window", "prompt", "chat template", "reserved for …", "free")
    assert (numbers[0], numbers[3]) == ("60", "3")


def test_control_sequences_in_a_name_are_not_shown() -> None:
    lines = _lines(Budget(100, 10, (Part("a\x1b[2J", 5),)), columns=80, coloured=False)
    assert "\x1b" not in "\n".join(lines)


@pytest.mark.parametrize("flag", [("--show-context",), ("--tools", "-")])
def test_a_conversation_that_goes_on_has_its_own_way(flag: tuple[str, ...]) -> None:
    one_error_line(infer("run", "-m", "fake", "--continue", "hi", *flag), 2, "--continue", flag[0])
