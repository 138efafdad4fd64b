"""The filter in stdout and stderr: what passes as text, as bytes and as our own styling."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from infer_cli.process.stream_filter import FilteredText, styled, write_sequence

OSC = "\x1b]0;owned\x07"


class Stream:
    """A filtered stream and what came out of it."""

    def __init__(self) -> None:
        self._raw = io.BytesIO()
        self.stream = FilteredText(self._raw, encoding="utf-8", line_buffering=True)

    def text(self) -> str:
        self.stream.flush()
        return self._raw.getvalue().decode("utf-8", "surrogateescape")


@pytest.fixture
def out() -> Stream:
    return Stream()


def test_text_loses_every_sequence(out: Stream) -> None:
    print(f"a{OSC}b\x1b[31mc\x9b1md\u202ee\x07", file=out.stream)
    assert out.stream.write("é\n") == 2
    assert out.text() == "abcde\né\n"


def test_a_sequence_is_gone_wherever_writes_cut_it(out: Stream) -> None:
    for char in f"a{OSC}b\x1b[2Jc\n":
        out.stream.write(char)
    for i in range(len(data := f"d\x9d0;x\x9ce é\u202e\xff{OSC}\n".encode())):
        out.stream.buffer.write(data[i : i + 1])
    assert out.text() == "abc\nde é\xff\n"


def test_bytes_that_are_no_text_pass(out: Stream) -> None:
    out.stream.buffer.writelines([b"\xff\xc3\n", memoryview(b"\xa9 \x1b[31m\n")])
    assert out.text().encode("utf-8", "surrogateescape") == b"\xff\xc3\n\xa9 \n"


def test_our_styling_passes_and_nothing_else(out: Stream) -> None:
    ours = "\r\x1b[K\x1b[2mdim\x1b[0m\x1b[3A\x1b[?25l\x1b[?2004h\x1b[6n\x1b[2 q\b\x1b[38;5;1mx\n"
    screen = styled(out.stream)
    screen.write(ours + f"{OSC}\x1bPq\x1b\\\x9b31m\x1bc\u202e\x1b[20t\x1b[!p\x1b[?1049h\x07")
    assert out.text() == ours


def test_text_and_styling_keep_their_order(out: Stream) -> None:
    out.stream.write("a")
    styled(out.stream).write("\x1b[1mb")
    write_sequence(out.stream, "\x1b]52;c;YQ==\x07")
    print("c", file=out.stream)
    assert out.text() == "a\x1b[1mb\x1b]52;c;YQ==\x07c\n"


def test_another_stream_is_styled_as_it_is() -> None:
    plain = io.StringIO()
    assert styled(plain) is plain
    write_sequence(plain, OSC)
    assert plain.getvalue() == OSC


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor in a shell")
def test_what_belongs_on_a_closed_stderr_is_not_on_stdout() -> None:
    code = (
        "import sys; from infer_cli.process.stream_filter import filter_streams; filter_streams()\n"
        "print('note', file=sys.stderr); print('answer')"
    )
    command = ["sh", "-c", '"$@" 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "answer\n"
