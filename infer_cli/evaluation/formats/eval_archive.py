"""A zip file of JSON members, such as inspect's logs are. The same members give the same bytes.

`zipfile` keeps an object of each member, of which a log has one for each answer. Here they wait in a file.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType

_LEVEL = 1  # of compression: three times as fast as the usual one, for a tenth more bytes
_PIECE = 1 << 20  # bytes
_MOST_16, _MOST_32 = 0xFFFF, 0xFFFFFFFF  # what stands where a number has its place in the Zip64 record
_VERSION_64 = 45  # that a reader must know: Zip64
_UTF_8, _DEFLATED = 0x800, 8
_BEGIN = (0, 0x21)  # 1980-01-01, the first day that a zip file can tell
_ON_UNIX, _MODE = 3 << 8, 0o100600 << 16
_LOCAL, _CENTRAL = struct.Struct("<IHHHHHIIIHH"), struct.Struct("<IHHHHHHIIIHHHHHII")
_EXTRA_LOCAL, _EXTRA_CENTRAL = struct.Struct("<HHQQ"), struct.Struct("<HHQQQ")
_END_64, _LOCATOR, _END = struct.Struct("<IQHHIIQQQQ"), struct.Struct("<IIQI"), struct.Struct("<IHHHHIIH")


class _Content(NamedTuple):
    """Of a member: its checksum, and its sizes in bytes."""

    crc: int
    packed: int
    size: int


class EvalArchive:
    """Is at its place when it is left without an exception; until then what was there stays.

    Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._new = path, path.with_name(f".{path.name}.new")
        self._new.unlink(missing_ok=True)  # a link, where the folder is anyone's
        self._file = self._new.open("x+b")
        self._directory = tempfile.TemporaryFile()  # noqa: SIM115  # `__exit__` closes it
        self._n_members = 0

    def __enter__(self) -> EvalArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file, self._directory:
            if kind is None:
                self._write_directory()
        if kind is None:
            self._new.replace(self._path)
        else:
            self._new.unlink()

    def add(self, name: str, pieces: Iterable[IO[bytes] | bytes]) -> None:
        """A member of pieces, one after the other."""
        encoded, offset = name.encode(), self._file.tell()
        self._file.write(_local(encoded, _Content(0, 0, 0)))
        content = self._pack(pieces)
        end = self._file.tell()
        self._file.seek(offset)
        self._file.write(_local(encoded, content))
        self._file.seek(end)
        extra = _EXTRA_CENTRAL.pack(1, 24, content.size, content.packed, offset)
        versions, sizes = (_ON_UNIX | _VERSION_64, _VERSION_64), (_MOST_32, _MOST_32)
        head = (0x02014B50, *versions, _UTF_8, _DEFLATED, *_BEGIN, content.crc, *sizes)
        rest = (len(encoded), len(extra), 0, 0, 0, _MODE, _MOST_32)
        self._directory.write(_CENTRAL.pack(*head, *rest) + encoded + extra)
        self._n_members += 1

    def _pack(self, pieces: Iterable[IO[bytes] | bytes]) -> _Content:
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        crc = packed = size = 0
        for piece in pieces:
            for data in _parts(piece):
                crc, size = zlib.crc32(data, crc), size + len(data)
                packed += self._file.write(packer.compress(data))
        return _Content(crc, packed + self._file.write(packer.flush()), size)

    def _write_directory(self) -> None:
        begin, size = self._file.tell(), self._directory.tell()
        self._directory.seek(0)
        shutil.copyfileobj(self._directory, self._file)
        n = self._n_members
        self._file.write(
            _END_64.pack(0x06064B50, 44, _ON_UNIX | _VERSION_64, _VERSION_64, 0, 0, n, n, size, begin)
            + _LOCATOR.pack(0x07064B50, 0, begin + size, 1)
            + _END.pack(0x06054B50, 0, 0, min(n, _MOST_16), min(n, _MOST_16), min(size, _MOST_32),
                        min(begin, _MOST_32), 0)
        )  # fmt: skip


def _parts(piece: IO[bytes] | bytes) -> Iterator[bytes]:
    if isinstance(piece, bytes):
        yield piece
        return
    while data := piece.read(_PIECE):
        yield data


def _local(name: bytes, content: _Content) -> bytes:
    """The sizes stand in the Zip64 record of every member, however small: there is one form only."""
    extra = _EXTRA_LOCAL.pack(1, 16, content.size, content.packed)
    head = (0x04034B50, _VERSION_64, _UTF_8, _DEFLATED, *_BEGIN, content.crc, _MOST_32, _MOST_32)
    return _LOCAL.pack(*head, len(name), len(extra)) + name + extra
