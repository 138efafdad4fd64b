"""Long pastes stand in the line of a chat as `[200 lines pasted]`, and are sent whole. Knows no terminal."""

from __future__ import annotations

MOST_SHOWN = 10  # lines of a paste that are shown as they are


class Pastes:
    """What was pasted since the chat began, by the mark that stands for it."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def shown(self, text: str) -> str:
        """What stands in the line for a pasted text: a mark, or a short text itself."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        n_lines = len(text.splitlines())
        if n_lines <= MOST_SHOWN:
            return text
        number, mark = 1, f"[{n_lines} lines pasted]"
        while self._texts.get(mark, text) != text:
            number += 1
            mark = f"[{n_lines} lines pasted, {number}]"
        self._texts[mark] = text
        return mark

    def whole(self, line: str) -> str:
        """A line with the texts in place of their marks."""
        for mark in self._texts:
            if mark in line:
                before, _, after = line.partition(mark)
                return self.whole(before) + self._texts[mark] + self.whole(after)
        return line

    def mark_at_end(self, line: str) -> str:
        """The mark that a line ends with; empty where it ends with none."""
        return next((mark for mark in self._texts if line.endswith(mark)), "")
