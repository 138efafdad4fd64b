"""Records the pictures of README.md: real sessions with the default model, each on a terminal of its own.

    python docs/pictures.py           # on a machine that does nothing else: the pictures show speeds

bash runs on a pty; pyte reads what a user would see of it, rich writes that as SVG. Linux and macOS.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pyte
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE = Path(__file__).resolve().parent
COLUMNS, LINES = 100, 40
_MOST_S = 300.0  # for one command

MAIL = """\
Hi all, the water in the building will be turned off on Thursday from 9 to 11 in the morning,
because the pump in the basement is replaced. Please fill a bottle or two the evening before.
If your heating does not come back after that, call Maria in the office.
"""
QUESTIONS = """\
What is 2+2?
What is the opposite of big?
What is the plural of mouse?
What is the capital of Japan?
"""


@dataclass(frozen=True)
class Session:
    """Lines that are typed, each with what the last line of the screen then is once it is answered."""

    name: str
    label: str  # for readers who don't see it
    lines: tuple[tuple[str, str], ...]


_SHELL, _CHAT = "$ ", "> "
SESSIONS = (
    Session(
        "terminal",
        "A terminal: infer answers a question, and shortens a mail that is piped into it",
        (
            ('infer run "What is the capital of Japan?"', _SHELL),
            ("cat mail.txt", _SHELL),
            ('cat mail.txt | infer run "Say this in fewer words."', _SHELL),
            ('cat mail.txt | infer run "Say this in fewer words." | wc -w', _SHELL),
        ),
    ),
    Session(
        "chat",
        "A terminal: a chat with infer, two questions and their answers",
        (
            ("infer chat", _CHAT),
            ("What is the plural of mouse?", _CHAT),
            ("What is the opposite of big?", _CHAT),
            ("/exit", _SHELL),
        ),
    ),
    Session(
        "batch",
        "A terminal: infer answers each line of a file, and the replies are in another file",
        (
            ("cat questions.txt", _SHELL),
            ("infer batch questions.txt -o replies.jsonl", _SHELL),
            ("""grep -o '"text": "[^"]*"' replies.jsonl""", _SHELL),
        ),
    ),
)

_THEME = TerminalTheme(
    (30, 32, 38),
    (214, 218, 224),
    [(80, 84, 92), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221),
     (86, 182, 194), (214, 218, 224)],
)  # fmt: skip
# As rich's own, without its fonts, which a browser would fetch.
_SVG = """\
<svg class="rich-terminal" role="img" aria-label="{label}" viewBox="0 0 {{width}} {{height}}" \
xmlns="http://www.w3.org/2000/svg">
<style>
.{{unique_id}}-matrix {{{{ font-family: Menlo, Consolas, 'DejaVu Sans Mono', monospace; \
font-size: {{char_height}}px; line-height: {{line_height}}px; }}}}
.{{unique_id}}-title {{{{ font-size: 18px; font-family: Helvetica, Arial, sans-serif; }}}}
{{styles}}
</style>
<defs><clipPath id="{{unique_id}}-clip-terminal"><rect x="0" y="0" width="{{terminal_width}}" \
height="{{terminal_height}}"/></clipPath>{{lines}}</defs>
{{chrome}}
<g transform="translate({{terminal_x}}, {{terminal_y}})" clip-path="url(#{{unique_id}}-clip-terminal)">
{{backgrounds}}<g class="{{unique_id}}-matrix">{{matrix}}</g>
</g>
</svg>
"""


class _Bash:
    """bash on a pty, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.screen: Any = pyte.HistoryScreen(COLUMNS, LINES, history=500, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        own = {"TERM": "xterm-256color", "PS1": _SHELL, "PATH": f"{folder}:{os.environ['PATH']}"}
        environment = {**os.environ, **own, "INFER_OFFLINE": "1"}
        environment.pop("COLUMNS", None)
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._master)

    def type(self, line: str) -> None:
        os.write(self._master, line.encode() + b"\r")

    def wait_for(self, prompt: str) -> None:
        """Until the cursor has stood behind a prompt for half a second."""
        deadline, calm_since = time.monotonic() + _MOST_S, time.monotonic()
        while time.monotonic() < deadline:
            if select.select([self._master], [], [], 0.1)[0]:
                data = os.read(self._master, 65536)
                if b"\x1b[6n" in data:  # asked where the cursor is
                    cursor = self.screen.cursor
                    os.write(self._master, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())
                self._stream.feed(data)
                calm_since = time.monotonic()
            here = self.screen.display[self.screen.cursor.y]
            is_prompt = here.startswith(prompt) and self.screen.cursor.x == len(prompt)
            if is_prompt and time.monotonic() - calm_since > 0.5:
                return
        raise SystemExit(f"no {prompt!r} came:\n" + "\n".join(self.screen.display))

    def rows(self) -> list[Text]:
        """What was on the screen, without empty lines at the end and the last prompt."""
        kept = [*self.screen.history.top, *(self.screen.buffer[y] for y in range(self.screen.lines))]
        rows = [_text(row) for row in kept]
        while rows and rows[-1].plain.strip() in ("", _SHELL.strip()):
            rows.pop()
        return rows


def _text(row: Any) -> Text:
    text = Text()
    for x in range(COLUMNS):
        cell = row[x]
        colour = cell.fg if cell.fg == "default" or not _is_hex(cell.fg) else f"#{cell.fg}"
        names = {"brown": "yellow", "brightblack": "bright_black"}
        style = " ".join(["bold"] * cell.bold + ["italic"] * cell.italics + [names.get(colour, colour)])
        text.append(cell.data, style)
    text.rstrip()
    return text


def _is_hex(colour: str) -> bool:
    return len(colour) == 6 and all(c in "0123456789abcdef" for c in colour)


def record(session: Session) -> str:
    """The session's picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mail.txt").write_text(MAIL)
        (folder / "questions.txt").write_text(QUESTIONS)
        infer = folder / "infer"
        infer.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m infer_cli "$@"\n')
        infer.chmod(0o755)
        bash = _Bash(folder)
        try:
            bash.wait_for(_SHELL)
            for line, prompt in session.lines:
                bash.type(line)
                bash.wait_for(prompt)
            rows = bash.rows()
        finally:
            bash.close()
    console = Console(
        record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    for row in rows:
        console.print(row, no_wrap=True, overflow="ignore", crop=False)
    label = session.label.replace('"', "&quot;")
    return console.export_svg(
        title="infer", theme=_THEME, code_format=_SVG.format(label=label), unique_id=session.name
    )


def main() -> None:
    for session in SESSIONS:
        path = HERE / f"{session.name}.svg"
        path.write_text(record(session), "utf-8")
        print(path)


if __name__ == "__main__":
    main()
