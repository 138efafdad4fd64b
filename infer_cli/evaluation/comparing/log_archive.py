"""The members of a zip file that may be anyone's. Nothing is unpacked to a disk, names are only names."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.foreign_json import MOST_BYTES, MOST_ITEMS, refused
from infer_cli.system.files import open_regular

_MOST_DIRECTORY = 512 * 10**6  # bytes
_MOST_ALL = 64 * 10**9  # bytes of all members
_MOST_RATIO, _SMALL = 200, 10**6  # of sizes; a member that is small may be packed as it likes
_MOST_NAME = 4096  # bytes
_MOST_TAIL = (1 << 16) + 22
_END, _LOCATOR, _END_64 = struct.Struct("<4s4HIIH"), struct.Struct("<4sIQI"), struct.Struct("<4sQ2H2I4Q")
_CENTRAL, _LOCAL = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H")
_MOST_32 = 0xFFFFFFFF
_STORED, _DEFLATED, _ZSTANDARD = 0, 8, 93


class _Member(NamedTuple):
    offset: int
    packed: int
    size: int
    method: int
    crc: int


class LogArchive:
    """Reads one member at a time. Raises UsageError for a file that is no archive, or one beyond bounds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with open_regular(path) as file:
                self._members = self._directory(file)
        except OSError as e:
            raise UsageError(f"{path} can't be read: {e.strerror}") from None
        except (struct.error, UnicodeDecodeError):
            raise refused(path, "its directory is damaged") from None

    @property
    def names(self) -> Mapping[str, object]:
        """In the order of the directory."""
        return self._members

    def read(self, name: str) -> bytes:
        """Raises UsageError for a member that is not there, or not what the directory says."""
        member = self._members.get(name)
        if member is None:
            raise refused(self._path, f"it has no {name}")
        if member.size > MOST_BYTES or (member.size > _SMALL and member.size > _MOST_RATIO * member.packed):
            raise refused(self._path, f"{name} would have {member.size} bytes, of {member.packed}")
        if member.packed > MOST_BYTES:
            raise refused(self._path, f"{name} has more than {MOST_BYTES // 10**6} MB")
        with open_regular(self._path) as file:
            file.seek(member.offset)
            head = file.read(_LOCAL.size)
            if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
                raise refused(self._path, f"{name} is not where the directory says")
            *_, n_name, n_extra = _LOCAL.unpack(head)
            file.seek(n_name + n_extra, 1)
            packed = file.read(member.packed)
        data = self._unpacked(name, member, packed)
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise refused(self._path, f"{name} is damaged")
        return data

    def _unpacked(self, name: str, member: _Member, packed: bytes) -> bytes:
        """At most one byte more than the directory says."""
        if member.method == _STORED:
            return packed
        if member.method == _DEFLATED:
            try:
                return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
            except zlib.error:
                raise refused(self._path, f"{name} is damaged") from None
        if member.method != _ZSTANDARD:
            raise refused(self._path, f"{name} is packed in a way that is not known ({member.method})")
        try:
            import zstandard
        except ImportError:
            raise refused(
                self._path, "zstandard, which reads it, is not installed", "pip install 'infer-cli[inspect]'"
            ) from None
        try:
            with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
                packed, read_across_frames=True
            ) as reader:
                return reader.read(member.size + 1)
        except zstandard.ZstdError:
            raise refused(self._path, f"{name} is damaged") from None

    def _directory(self, file: BinaryIO) -> dict[str, _Member]:
        n, size, offset = self._end(file)
        if n > MOST_ITEMS or size > _MOST_DIRECTORY:
            raise refused(self._path, f"it has {n} members: more than {MOST_ITEMS}, or too large a directory")
        file.seek(offset)
        data = file.read(size)
        length = file.seek(0, 2)
        members: dict[str, _Member] = {}
        place = 0
        for _ in range(n):
            name, member, place = self._entry(data, place)
            if name in members:
                raise refused(self._path, f"it has {name:.80} twice")
            if member.offset + member.packed > length:
                raise refused(self._path, f"{name:.80} would end behind the end of the file")
            members[name] = member
        if sum(member.size for member in members.values()) > _MOST_ALL:
            raise refused(self._path, f"its members would have more than {_MOST_ALL // 10**9} GB")
        return members

    def _end(self, file: BinaryIO) -> tuple[int, int, int]:
        """Of the directory: how many entries, how many bytes, and where."""
        length = file.seek(0, 2)
        tail_begin = max(0, length - _MOST_TAIL)
        file.seek(tail_begin)
        tail = file.read(_MOST_TAIL)
        at = tail.rfind(b"PK\5\6")
        if at < 0:
            raise refused(self._path, "it is no zip file, or its end is missing")
        *_, n, size, offset, _ = _END.unpack_from(tail, at)
        if at >= _LOCATOR.size:
            sign, _, end_64, _ = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
            if sign == b"PK\6\7":
                if end_64 > length:
                    raise refused(self._path, "its directory is damaged")
                file.seek(end_64)
                sign, *_, n, size, offset = _END_64.unpack(file.read(_END_64.size))
                if sign != b"PK\6\6":
                    raise refused(self._path, "its directory is damaged")
        if offset + size > length:
            raise refused(self._path, "its directory is damaged")
        return n, size, offset

    def _entry(self, data: bytes, place: int) -> tuple[str, _Member, int]:
        """An entry of the directory, and where the next begins."""
        sign, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, _, _, _, offset = (
            _CENTRAL.unpack_from(data, place)
        )
        if sign != b"PK\1\2" or n_name > _MOST_NAME:
            raise refused(self._path, "its directory is damaged")
        begin = place + _CENTRAL.size
        name = data[begin : begin + n_name].decode()
        if flags & 1:
            raise refused(self._path, f"{name:.80} is encrypted")
        extra = data[begin + n_name : begin + n_name + n_extra]
        size, packed, offset = _whole_sizes(extra, [size, packed, offset])
        return name, _Member(offset, packed, size, method, crc), begin + n_name + n_extra + n_comment


def _whole_sizes(extra: bytes, values: list[int]) -> list[int]:
    """Those of the Zip64 record where the others have no place for them. Raises struct.error."""
    place = 0
    while place + 4 <= len(extra):
        tag, n = struct.unpack_from("<HH", extra, place)
        if tag == 1:
            at = place + 4
            for i, value in enumerate(values):
                if value == _MOST_32:
                    (values[i],) = struct.unpack_from("<Q", extra, at)
                    at += 8
        place += 4 + n
    return values
