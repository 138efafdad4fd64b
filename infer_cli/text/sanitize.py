"""Makes untrusted text safe for a terminal. Knows the syntax of control sequences, no streams and no styles.

The grammar is ECMA-48's (5.4 control sequences, 5.6 control strings) as terminals parse it; what a
sequence would do does not matter, since all of them are removed.
"""

from __future__ import annotations

import re
from enum import Enum, auto

# Most characters one sequence may take. Beyond it the rest is text: a sequence that never ends
# must not swallow the reply.
MAX_SEQUENCE = 4096

# C0 but TAB and LF, DEL, C1, and the two bidirectional overrides. Marks, embeddings and isolates stay:
# right-to-left text needs them, while overrides only make text read other than it is.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]")

# What our own styling consists of, and rich's and prompt_toolkit's: colours, cursor movement, erasing, the
# cursor's shape and place, and the modes for wrapping, the cursor, bracketed paste and steady painting.
_STYLING = re.compile(r"\x1b\[(?:[0-9;:]*m|[0-9;]*[A-HJK]|\?(?:1|7|12|25|2004|2026)[hl]|6n|[0-6] q)")
_MOVES = "\r\b"

_ESC, _BEL, _ST = "\x1b", "\x07", "\x9c"
_CANCEL = "\n\x18\x1a"  # what ends any sequence: CAN, SUB, and LF so that a line is the most that is lost


class _State(Enum):
    TEXT = auto()
    ESCAPE = auto()  # after ESC
    INTERMEDIATE = auto()  # after ESC and an intermediate character
    CSI = auto()
    OSC = auto()
    STRING = auto()  # DCS, SOS, PM, APC
    STRING_ESCAPE = auto()  # after ESC in a string: the string's end, or a new sequence


# Introducers: the character after ESC, and the C1 control that means the same.
_INTRODUCERS = {
    "[": _State.CSI,
    "]": _State.OSC,
    "P": _State.STRING,
    "X": _State.STRING,
    "^": _State.STRING,
    "_": _State.STRING,
}
_C1 = {chr(ord(char) + 0x40): state for char, state in _INTRODUCERS.items()}


class Sanitizer:
    """Removes what a terminal would obey, over any chunking of one text.

    Gone are: CSI sequences, OSC, DCS, SOS, PM and APC strings, every other ESC sequence, C0 controls
    but TAB and LF (so CR LF becomes LF), DEL, C1 controls, U+202D and U+202E. A string that is not
    ended stops at the end of its line or after `MAX_SEQUENCE` characters. The output does not depend
    on where the chunks were cut. With `styling` what our own styling consists of stays.
    """

    def __init__(self, *, styling: bool = False) -> None:
        self._styling = styling
        self._state = _State.TEXT
        self._length = 0  # characters of the sequence so far
        self._sequence = ""  # its text, where it may be styling

    def feed(self, text: str) -> str:
        """The part of the next chunk that may be shown."""
        if self._state is _State.TEXT and not _UNSAFE.search(text):
            return text
        return "".join(filter(None, map(self._step, text)))

    def _step(self, char: str) -> str:
        """Take one character; what may be shown because of it."""
        if self._state is _State.TEXT:
            return self._text(char)
        self._length += 1
        if self._styling:
            self._sequence += char
        if self._length > MAX_SEQUENCE or char in _CANCEL:
            return self._text(char)
        if self._state is _State.STRING_ESCAPE:
            if char == "\\":
                self._state = _State.TEXT
                return ""
            self._state = _State.ESCAPE
        if self._state is _State.ESCAPE:
            return self._escape(char)
        if self._state in (_State.OSC, _State.STRING):
            if char == _ESC:
                self._state = _State.STRING_ESCAPE
            elif char == _ST or (char == _BEL and self._state is _State.OSC):
                self._state = _State.TEXT
            return ""
        if " " <= char <= "/" or ("0" <= char <= "?" and self._state is _State.CSI):
            return ""
        if "0" <= char <= "~":  # the final character ("@" to "~" in a CSI)
            self._state = _State.TEXT
            return self._sequence if _STYLING.fullmatch(self._sequence) else ""
        return self._text(char)

    def _escape(self, char: str) -> str:
        if char in _INTRODUCERS:
            self._state = _INTRODUCERS[char]
            return ""
        if " " <= char <= "/":
            self._state = _State.INTERMEDIATE
            return ""
        if "0" <= char <= "~":
            self._state = _State.TEXT
            return ""
        return self._text(char)

    def _text(self, char: str) -> str:
        """Take a character outside any sequence, leaving one that it can't belong to."""
        self._state = _State.TEXT
        if not _UNSAFE.match(char) or (self._styling and char in _MOVES):
            return char
        if char == _ESC:
            self._state = _State.ESCAPE
        elif char in _C1:
            self._state = _C1[char]
        self._length = 0
        self._sequence = char if self._styling else ""
        return ""


def sanitize(text: str) -> str:
    """`Sanitizer` over one whole text."""
    return Sanitizer().feed(text)


def single_line(text: str) -> str:
    """`text` safe to show: white space becomes spaces, anything else unprintable (escape sequences,
    bidirectional overrides, lone surrogates) becomes U+FFFD."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text).strip()
