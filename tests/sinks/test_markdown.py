from __future__ import annotations

import io
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from infer_cli.sinks import markdown
from infer_cli.sinks.markdown import MarkdownSink
from infer_cli.sinks.sample_order import ReasoningView
from infer_cli.types import Delta
from tests.replies import reply

DOC = """# Heading
Intro with **bold**, `code`, a [link](http://e.x/y), <https://auto.link> and ![pic](http://e.x/p.png).
<b>html</b>

Setext
------

1. first
   - nested
2. second
   ```python
   def f(x):
       return x
   ```
3. third
- other list
- 日本語のテキストがここにあります。とても長い文章なので折り返されるはずです。そうでしょう？
* * *

| Name | Value |
|------|------:|
| aé   | 1 |

> quoted
> more
lazy

```python
class A:
    x = 1  # done
```

<div>
[ref]: http://e.x/ref
مرحبا بالعالم

Last line.
"""


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every delta is painted."""
    monkeypatch.setattr(markdown, "_INTERVAL_S", 0.0)
    monkeypatch.setattr(markdown, "_IDLE_PER_BUSY", 0)


class Screen(io.StringIO):
    """A terminal with scrollback that does not wrap anew when resized."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, lines, history=100_000, ratio=0.5)
        self.screen.set_mode(pyte.modes.LNM)
        self.stream = pyte.Stream(self.screen)
        self.written = ""

    def size(self) -> tuple[int, int]:
        return self.screen.columns, self.screen.lines

    def write(self, text: str) -> int:
        self.stream.feed(text)
        self.written += text
        return len(text)

    def text(self) -> str:
        rows = [*self.screen.history.top, *(self.screen.buffer[y] for y in range(self.screen.lines))]
        lines = ["".join(row[x].data for x in range(self.screen.columns)).rstrip() for row in rows]
        return "\n".join(lines).rstrip()


class ReflowScreen(io.StringIO):
    """A terminal that wraps lines anew when resized. The cursor is at column 0 between writes.

    What it can't do fails the test: a cursor that stops inside a line, one that leaves the screen.
    """

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.columns, self.n_lines = columns, lines
        self.lines: list[str] = []

    def size(self) -> tuple[int, int]:
        return self.columns, self.n_lines

    def write(self, text: str) -> int:
        match = re.fullmatch(r"(?:\x1b\[(\d+)A)?\r\x1b\[J(.*)", text, re.DOTALL)
        assert match, repr(text)
        up = int(match[1] or 0)
        assert up < self.n_lines
        while up > 0:
            up -= max(1, -(-cell_len(self.lines.pop()) // self.columns))
        assert up == 0, "the cursor stopped inside a line"
        plain = re.sub(r"\x1b\[[\d;]*m", "", match[2])
        self.lines += plain.split("\n")[:-1]
        return len(text)


def _sink(screen: Screen | ReflowScreen, view: ReasoningView = "hide", n_samples: int = 1) -> MarkdownSink:
    reflows = isinstance(screen, ReflowScreen)
    return MarkdownSink(screen, reasoning=view, n_samples=n_samples, size=screen.size, reflows=reflows)


def _chunks(text: str, seed: int, longest: int = 12) -> Iterator[str]:
    rng = random.Random(seed)
    while text:
        n = rng.randint(1, longest)
        yield text[:n]
        text = text[n:]


def _stream(text: str, columns: int, lines: int, seed: int = 0) -> str:
    screen = Screen(columns, lines)
    sink = _sink(screen)
    for chunk in _chunks(text, seed):
        sink.delta(Delta(0, chunk, tokens=(1,)))
    sink.end(reply())
    sink.close()
    assert screen.screen.cursor.x == 0
    return screen.text()


def _whole(text: str, columns: int) -> str:
    screen = Screen(columns, 300)
    sink = _sink(screen)
    sink.delta(Delta(0, text))
    sink.close()
    return screen.text()


def test_rendering() -> None:
    assert _whole(DOC, 80) == (
        "Heading\n\n"
        "Intro with bold, code, a link (http://e.x/y), https://auto.link and pic\n"
        "(http://e.x/p.png).\n<b>html</b>\n\n"
        "Setext\n\n"
        " 1. first\n     • nested\n 2. second\n    def f(x):\n        return x\n 3. third\n\n"
        " • other list\n • 日本語のテキストがここにあります。とても長い文章なので折り返されるはずです。\n"
        "   そうでしょう？\n\n" + "─" * 40 + "\n\nName  Value\naé        1\n\n"
        "▌ quoted\n▌ more\n▌ lazy\n\n"
        "```python\nclass A:\n    x = 1  # done\n```\n\n"
        "<div>\n[ref]: http://e.x/ref\nمرحبا بالعالم\n\n"
        "Last line."
    )


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (80, 10), (40, 9)])
@pytest.mark.parametrize("seed", [0, 1])
def test_streaming_ends_as_the_whole_does(columns: int, lines: int, seed: int) -> None:
    assert _stream(DOC, columns, lines, seed) == _whole(DOC, columns)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"w{i}" if i % 7 else f"**b{i}** `c{i}`" for i in range(250)),
        "".join(chr(0x4E00 + i) for i in range(900)),
        "```python\n"
        + "\n".join(f"def f{i}(): return {i}  # " + "x" * (i % 50) for i in range(24))
        + "\n```\nend",
        "|a|b|\n|-|-|\n" + "\n".join(f"|r{i}|v{i}|" for i in range(24)) + "\n\nend",
        "\n".join(f"1. item {i}\n   - sub {i}" for i in range(1, 40)),
        "- " + " ".join(f"w{i}" for i in range(110)),
        "```\n" + "x" * 1200 + "END\n```",
        "\n".join(f"line {i} of a poem - with dash" for i in range(40)),
    ],
    ids=["paragraph", "cjk", "code", "table", "list", "item", "long-line", "poem"],
)
def test_blocks_taller_than_the_screen_are_whole_in_the_scrollback(text: str) -> None:
    assert _stream(text, 41, 9) == _whole(text, 41)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kind", ["paragraphs", "paragraph", "code", "list", "item", "table"])
@pytest.mark.parametrize("widths", [(50, 70, 30, 100), (20, 80), (120, 60), (33, 34, 35, 31)])
def test_resizes_leave_each_word_once(kind: str, widths: tuple[int, ...]) -> None:
    words = [f"w{i}w" for i in range(240)]
    text = {
        "paragraphs": "\n\n".join(" ".join(words[i : i + 60]) for i in range(0, 240, 60)),
        "paragraph": " ".join(words),
        "code": "```c\n" + "\n".join(" ".join(words[i : i + 14]) for i in range(0, 240, 14)) + "\n```\n",
        "list": "\n".join("- " + " ".join(words[i : i + 20]) for i in range(0, 240, 20)),
        "item": "- " + " ".join(words[:120]),
        "table": "|a|b|\n|-|-|\n" + "\n".join(f"|{words[i]}|{words[i + 1]}|" for i in range(0, 30, 2)),
    }[kind]
    screen = ReflowScreen(80, 24)
    screen.lines = ["before"]
    sink = _sink(screen)
    chunks = list(_chunks(text, 3))
    for index, chunk in enumerate(chunks):
        if index % (len(chunks) // (len(widths) + 1)) == 0 and index > 0:
            screen.columns = widths[min(index // (len(chunks) // (len(widths) + 1)), len(widths)) - 1]
        sink.delta(Delta(0, chunk))
    sink.close()
    out = "\n".join(screen.lines)
    assert screen.lines[0] == "before"
    assert re.findall(r"w\d+w", out) == re.findall(r"w\d+w", text)


@pytest.mark.usefixtures("eager")
def test_a_resize_of_a_terminal_that_cuts_rows_off_loses_no_new_text() -> None:
    screen = Screen(80, 24)
    sink = _sink(screen)
    sink.delta(Delta(0, "above\n\n" + " ".join(f"w{i}w" for i in range(40))))
    screen.screen.resize(24, 40)
    sink.delta(Delta(0, " end"))
    sink.close()
    assert screen.text().startswith("above\n\nw0w w1w")
    assert re.findall(r"w\d+w", screen.text()) == [f"w{i}w" for i in range(40)]


_PIECES = st.sampled_from(
    "|- |1. |10) |    |\n|\n\n|```|~~~|-¦-¦-\n|> |# |**|word |[x](y)|![i](u)|<b>|---|===|\t|&#27;|"
    "&#x202e;|日本|\x1b[31m|[r]: u|-|`|*|_|\\|a|¦".replace("|", "\0")
    .replace("¦", "|")
    .split("\0")
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(_PIECES, max_size=30).map("".join),
    st.sampled_from([(80, 24), (20, 6), (5, 3)]),
    st.integers(0, 3),
)
def test_any_text_is_shown_whole_and_safe(text: str, size: tuple[int, int], seed: int) -> None:
    columns, lines = size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markdown, "_INTERVAL_S", 0.0)
        patch.setattr(markdown, "_IDLE_PER_BUSY", 0)
        streamed = _stream(text, columns, lines, seed)
    if columns == 80:
        assert "".join(streamed.split()) == "".join(_whole(text, columns).split())
    assert "\u202e" not in streamed


@pytest.mark.usefixtures("eager")
def test_only_known_control_sequences_are_written() -> None:
    screen = Screen(60, 10)
    sink = _sink(screen)
    for chunk in _chunks("\x1b]0;t\x07&#27;[31m \x9b2J\r `&#x9b;`\n\n```\n\x1b[?25l\n```\n" + DOC, 1):
        sink.delta(Delta(0, chunk))
    sink.close()
    rest = re.sub(r"\x1b\[[\d;]*m|\x1b\[\d+A|\r\x1b\[J", "", screen.written)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", rest)


@pytest.mark.usefixtures("eager")
def test_finished_blocks_are_never_painted_again() -> None:
    screen = Screen(60, 24)
    sink = _sink(screen)
    sink.delta(Delta(0, "first paragraph\n\nsecond"))
    mark = len(screen.written)
    sink.delta(Delta(0, " goes on"))
    assert screen.written[mark:] == "\x1b[1A\r\x1b[Jsecond goes on\n"


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("show", "thinking\nwhy so\n\nanswer"),
        ("hide", "thought for 2 tokens\n\nanswer"),
        ("only", "why so"),
    ],
)
@pytest.mark.usefixtures("eager")
def test_reasoning(view: ReasoningView, expected: str) -> None:
    screen = Screen(60, 24)
    sink = _sink(screen, view)
    sink.delta(Delta(0, "why ", reasoning=True, tokens=(1,)))
    if view == "hide":
        assert screen.text() == "thinking… 1 tokens"
    sink.delta(Delta(0, "so", reasoning=True, tokens=(2,)))
    sink.delta(Delta(0, "\n\nanswer", tokens=(3,)))
    sink.end(reply())
    sink.close()
    assert screen.text() == expected
    assert ("\x1b[2mwhy so" in screen.written) is (view == "show")


def test_empty_reasoning_leaves_no_trace() -> None:
    screen = Screen(60, 24)
    sink = _sink(screen)
    sink.delta(Delta(0, "\n\n", reasoning=True, tokens=(1,)))
    sink.delta(Delta(0, "answer", tokens=(2,)))
    sink.close()
    assert screen.text() == "answer"


def test_samples_in_order() -> None:
    screen = Screen(60, 24)
    sink = _sink(screen, n_samples=2)
    sink.delta(Delta(1, "two"))
    sink.delta(Delta(0, "one"))
    sink.end(reply(1))
    sink.end(reply(0))
    sink.close()
    assert screen.text() == "one\n\n---\n\ntwo"


def test_interruption_leaves_the_cursor_on_a_fresh_line() -> None:
    screen = Screen(60, 24)
    sink = _sink(screen)
    sink.delta(Delta(0, "half a "))
    sink.delta(Delta(0, "word -"))
    screen.write("^C")
    sink.close()
    assert screen.text() == "half a word -"
    assert (screen.screen.cursor.x, screen.screen.cursor.y) == (0, 1)
    assert "\x1b[?25" not in screen.written


def test_last_state_is_shown_without_a_further_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "_INTERVAL_S", 0.1)
    screen = Screen(60, 24)
    sink = _sink(screen)
    sink.delta(Delta(0, "one"))
    sink.delta(Delta(0, " two"))
    assert screen.text() == "one"
    deadline = time.monotonic() + 5
    while screen.text() != "one two" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert screen.text() == "one two"
    sink.close()


def test_a_closed_terminal_is_told_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "_INTERVAL_S", 0.01)

    class Closing(Screen):
        closed_now = False

        def write(self, text: str) -> int:
            if self.closed_now:
                raise BrokenPipeError
            return super().write(text)

    screen = Closing(60, 24)
    sink = _sink(screen)
    sink.delta(Delta(0, "one"))
    screen.closed_now = True
    with pytest.raises(BrokenPipeError):
        for _ in range(100):
            sink.delta(Delta(0, " two"))
            time.sleep(0.01)


def test_no_color_keeps_emphasis_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for no_color in (False, True):
        if no_color:
            monkeypatch.setenv("NO_COLOR", "1")
        else:
            monkeypatch.delenv("NO_COLOR", raising=False)
        screen = Screen(60, 24)
        sink = _sink(screen)
        sink.delta(Delta(0, "**b** `c`\n\n```python\nx = 'a'\n```\n"))
        sink.close()
        codes = {int(n) for run in re.findall(r"\x1b\[([\d;]+)m", screen.written) for n in run.split(";")}
        assert 1 in codes
        assert any(30 <= code < 50 or code >= 90 for code in codes) is not no_color


def test_paints_are_few_however_fast_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "_INTERVAL_S", 60.0)
    screen = Screen(60, 24)
    sink = _sink(screen)
    for chunk in _chunks(DOC * 3, 0):
        sink.delta(Delta(0, chunk))
    assert screen.written.count("\x1b[J") == 1
    sink.close()
    assert screen.text() == _whole(DOC * 3, 60)


def test_nesting_deeper_than_the_parser_goes_is_not_lost() -> None:
    text = "> " * 60 + "deepest"
    assert "deepest" in _whole(text, 80)


def test_sinks_load_rich_only_for_markdown() -> None:
    modules = "infer_cli.sinks.sample_order, infer_cli.sinks.markdown_blocks"
    code = f"import sys, {modules}; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
