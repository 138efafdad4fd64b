"""stdout and stderr behind the filter: what is printed reaches a terminal as text, whatever it holds.

`print(x)` is always safe. What styles says so, with `styled(stream)`, and passes as what it may be: colours,
cursor movement and the few modes that we set. Knows no commands and no sinks.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

if TYPE_CHECKING:
    from infer_cli.text.sanitize import Sanitizer


class FilteredText(io.TextIOWrapper):
    """A text stream that lets no control sequence pass; nor does its `buffer`. See `Sanitizer`."""

    _filter: Sanitizer | None = None  # made when it is needed: few texts hold what it looks for
    _style_filter: Sanitizer | None = None
    _bytes: BinaryIO | None = None

    def write(self, text: str) -> int:
        # Lines of a report need no import: there may be no file descriptor left for it.
        if self._filter is None and not text.replace("\n", "").isprintable():
            self._filter = _new_sanitizer(styling=False)
        super().write(text if self._filter is None else self._filter.feed(text))
        return len(text)

    def write_styled(self, text: str) -> int:
        """Write text with styling of our own."""
        if self._style_filter is None:
            self._style_filter = _new_sanitizer(styling=True)
        super().write(self._style_filter.feed(text))
        return len(text)

    def write_sequence(self, sequence: str) -> None:
        """Write a control sequence of our own that is no styling."""
        super().write(sequence)

    @property
    def unfiltered_buffer(self) -> BinaryIO:
        return cast(BinaryIO, super().buffer)

    @property
    def buffer(self) -> BinaryIO:
        if self._bytes is None:
            self._bytes = cast(BinaryIO, _FilteredBytes(self.unfiltered_buffer))
        return self._bytes


class _FilteredBytes(io.BufferedIOBase):
    """The same for UTF-8 bytes. A character that is not complete waits for the rest of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._filter = _new_sanitizer(styling=False)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def write(self, data: object) -> int:
        with memoryview(data) as view:  # type: ignore[arg-type]  # whatever has bytes
            text = self._filter.feed(self._decoder.decode(bytes(view)))
            self._file.write(text.encode("utf-8", "surrogateescape"))
            return view.nbytes

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()

    def writable(self) -> bool:
        return True


class _Styled(io.TextIOBase):
    """A filtered stream as our own styling sees it."""

    def __init__(self, stream: FilteredText) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute there
        return self._stream.encoding

    def write(self, text: str) -> int:
        return self._stream.write_styled(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]  # of str alone
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True


def filter_streams() -> None:
    """Put this process's stderr behind the filter, and its stdout where that is a terminal.

    stderr always: a log file is read on a terminal later. What goes to a file or a pipe on stdout is data.
    """
    if sys.stderr is None:  # it was closed at start: `print(file=None)` would write to stdout
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # open to the end
    for name, always in (("stdout", False), ("stderr", True)):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper and (always or stream.isatty()):
            setattr(sys, name, _filtered(stream))
            setattr(sys, f"__{name}__", getattr(sys, name))


def styled(stream: TextIO) -> TextIO:
    """`stream` for text that holds styling of our own: what is not our own has been filtered before."""
    return cast(TextIO, _Styled(stream)) if isinstance(stream, FilteredText) else stream


def write_sequence(stream: TextIO, sequence: str) -> None:
    """Write a control sequence of our own that is no styling. Nothing in it is anybody else's text."""
    if isinstance(stream, FilteredText):
        stream.write_sequence(sequence)
    else:
        stream.write(sequence)


def _filtered(stream: io.TextIOWrapper) -> FilteredText:
    encoding, errors = stream.encoding, stream.errors
    line_buffering, write_through = stream.line_buffering, stream.write_through
    return FilteredText(
        stream.detach(),
        encoding=encoding,
        errors=errors,
        line_buffering=line_buffering,
        write_through=write_through,
    )


def _new_sanitizer(*, styling: bool) -> Sanitizer:
    from infer_cli.text.sanitize import Sanitizer

    return Sanitizer(styling=styling)
