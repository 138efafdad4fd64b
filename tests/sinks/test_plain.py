from __future__ import annotations

import io
import subprocess
import sys

import pytest

from infer_cli.sinks.plain import PlainSink
from infer_cli.sinks.sample_order import ReasoningView
from infer_cli.types import Delta
from tests.replies import reply


def _sink(
    *, raw: bool = False, sanitize: bool = False, reasoning: ReasoningView = "hide", n_samples: int = 1
) -> tuple[PlainSink, io.BytesIO]:
    out = io.BytesIO()
    return PlainSink(out, raw=raw, sanitize=sanitize, reasoning=reasoning, n_samples=n_samples), out


@pytest.mark.parametrize(
    ("raw", "texts", "expected"),
    [
        (False, ["hé", "llo"], "héllo\n"),
        (False, ["hello\n"], "hello\n"),
        (False, [""], "\n"),
        (True, ["hello"], "hello"),
        (True, [""], ""),
    ],
)
def test_last_newline(raw: bool, texts: list[str], expected: str) -> None:
    sink, out = _sink(raw=raw)
    for text in texts:
        sink.delta(Delta(0, text))
    sink.end(reply())
    sink.close()
    assert out.getvalue() == expected.encode()


def test_text_is_out_before_the_next_token() -> None:
    class Unflushed(io.BytesIO):
        flushed = b""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    out = Unflushed()
    sink = PlainSink(out, raw=False, sanitize=False, reasoning="hide", n_samples=1)
    sink.delta(Delta(0, "a"))
    assert out.flushed == b"a"


def test_an_error_without_text_prints_nothing() -> None:
    sink, out = _sink()
    sink.end(reply(text=None))
    sink.close()
    assert out.getvalue() == b""


def test_interrupted_reply_ends_its_line() -> None:
    sink, out = _sink()
    sink.delta(Delta(0, "half"))
    sink.close()
    assert out.getvalue() == b"half\n"


def test_controls_pass_to_a_pipe_and_not_to_a_terminal() -> None:
    for sanitize, expected in ((False, b"a\x1b[1mb\r\n"), (True, b"ab\n")):
        sink, out = _sink(sanitize=sanitize)
        for text in ("a\x1b", "[1mb\r", "\n"):
            sink.delta(Delta(0, text))
        sink.end(reply())
        assert out.getvalue() == expected


@pytest.mark.parametrize(
    ("view", "expected"),
    [("hide", "\nanswer\n"), ("show", "why\n\nanswer\n"), ("only", "why\n")],
)
def test_reasoning(view: ReasoningView, expected: str) -> None:
    sink, out = _sink(reasoning=view)
    sink.delta(Delta(0, "wh", reasoning=True))
    sink.delta(Delta(0, "y\n", reasoning=True))
    sink.delta(Delta(0, "\n"))
    sink.delta(Delta(0, "answer"))
    sink.end(reply())
    sink.close()
    assert out.getvalue().decode() == expected


def test_samples_are_shown_in_order_and_the_first_unfinished_streams() -> None:
    sink, out = _sink(n_samples=3)
    sink.delta(Delta(1, "b"))
    sink.delta(Delta(0, "a"))
    assert out.getvalue() == b"a"
    sink.end(reply(2))
    sink.end(reply(0))
    assert out.getvalue() == b"a\n---\nb"
    sink.delta(Delta(1, "B"))
    assert out.getvalue() == b"a\n---\nbB"
    sink.end(reply(1))
    sink.close()
    assert out.getvalue() == b"a\n---\nbB\n---\n\n"


def test_kept_samples_are_not_lost_on_an_interruption() -> None:
    sink, out = _sink(n_samples=2)
    sink.delta(Delta(0, "a"))
    sink.delta(Delta(1, "b"))
    sink.close()
    assert out.getvalue() == b"a\n---\nb\n"


def test_a_closed_pipe_is_passed_on() -> None:
    class Closed(io.BytesIO):
        def flush(self) -> None:
            raise BrokenPipeError

    sink = PlainSink(Closed(), raw=False, sanitize=False, reasoning="hide", n_samples=1)
    with pytest.raises(BrokenPipeError):
        sink.delta(Delta(0, "a"))


def test_plain_imports_no_rich() -> None:
    code = "import sys, infer_cli.sinks.plain, infer_cli.sinks.jsonl; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
