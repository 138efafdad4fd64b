"""A zip file of JSON members as inspect writes its logs. The same members give the same bytes."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_BEGIN = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can tell
_LEVEL = 1  # of compression: three times as fast as the usual one, for a tenth more bytes


class EvalArchive:
    """Is at its place when it is left without an exception; until then what was there stays. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path, self._new = path, path.with_name(f".{path.name}.new")
        self._zip = zipfile.ZipFile(self._new, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)

    def __enter__(self) -> EvalArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        if kind is None:
            self._new.replace(self._path)
        else:
            self._new.unlink()

    def add(self, name: str, data: bytes) -> None:
        self._zip.writestr(self._member(name), data)

    def add_array(self, name: str, values: Iterable[IO[bytes] | bytes]) -> None:
        """A member of pieces, one after the other."""
        with self._zip.open(self._member(name), "w", force_zip64=True) as member:
            for piece in values:
                if isinstance(piece, bytes):
                    member.write(piece)
                else:
                    shutil.copyfileobj(piece, member)

    def _member(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, _BEGIN)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        info.create_system = 3  # as on Linux, wherever it is written
        return info
