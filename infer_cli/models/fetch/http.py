"""Downloads one GGUF over HTTP into a `.part` file, which a later run resumes.

Beside the part lies `<part>.json`: the URL, and the validator (ETag or Last-Modified) of the whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.models.fetch.base import (
    GGUF_MAGIC,
    Report,
    SourceFailure,
    check_magic,
    ensure_space,
    innermost_reason,
    local_io,
    refusal_of,
)
from infer_cli.models.fetch.connect import reach
from infer_cli.system.files import write_atomic

if TYPE_CHECKING:
    import requests

    from infer_cli.models.fetch.http_session import Session

READ_S = 30.0  # a server that sends nothing for so long has gone
MAX_RESUMES = 5  # of one run, each after some bytes came
_SPACE_STEP = 1 << 27  # bytes of a body of unknown length between two looks at the disk
_CHUNK = 1 << 14  # what of a chunk has come when the connection breaks is lost
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


class _BrokenOff(Exception):
    """The body ended early; what came is in the part."""


class _StaleRange(Exception):
    """The server has nothing at the part's end: begin anew."""


def download(
    url: str,
    part: Path,
    report: Report,
    *,
    headers: Mapping[str, str] | None = None,
    size: int | None = None,
    is_model: bool = True,
) -> str:
    """Download `url` into `part`, going on where an earlier run stopped. Returns the hex sha256.

    `size` is the exact length if known beforehand; `is_model`: what is no GGUF is of no use. Raises
    SourceFailure (the part is kept if it can be resumed) and UnexpectedFailure for trouble with the disk.
    """
    from infer_cli.models.fetch.http_session import Session

    reach(url)
    with Session() as session:
        for left in range(MAX_RESUMES, -1, -1):
            before = _length(part)
            try:
                return _attempt(session, url, part, report, headers or {}, size, is_model)
            except _StaleRange:
                discard(part)
            except _Worthless:
                discard(part)
                raise
            except _BrokenOff as error:
                if not left or not _meta_path(part).exists() or _length(part) <= before:
                    raise SourceFailure(str(error)) from error
    raise SourceFailure("the server's answers contradict each other")


def discard(part: Path) -> None:
    """Remove a part and the note beside it."""
    with local_io(part):
        part.unlink(missing_ok=True)
        _meta_path(part).unlink(missing_ok=True)


def _attempt(
    session: Session,
    url: str,
    part: Path,
    report: Report,
    headers: Mapping[str, str],
    size: int | None,
    is_model: bool,
) -> str:
    import requests

    from infer_cli.models.fetch.http_session import MALFORMED, answer_to

    validator = _validator_of(part, url)
    offset = _length(part) if validator else 0
    asked = {**headers}
    if offset:
        # If-Range: a server whose file has changed since sends all of it (200) instead of the rest (206).
        asked |= {"Range": f"bytes={offset}-", "If-Range": validator or ""}
    try:
        with answer_to(session, "GET", url, asked, read_s=READ_S) as response:
            offset, total = _placement(response, offset, size)
            _note_validator(part, url, response)
            return _receive(response, part, offset, total, report, is_model)
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.Timeout) as error:
        if _length(part) > offset:
            raise _BrokenOff(f"the connection broke: {innermost_reason(error)}") from error
        raise SourceFailure(innermost_reason(error)) from error
    except MALFORMED as error:
        raise SourceFailure(innermost_reason(error)) from error


def _placement(response: requests.Response, offset: int, size: int | None) -> tuple[int, int | None]:
    """Where the body goes in the file, and the file's length if the server says. Raises SourceFailure."""
    from infer_cli.models.fetch.http_session import number_in

    status = response.status_code
    total: int | None
    if status == 416 and offset:
        raise _StaleRange
    if status == 206 and offset:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != offset or int(match[2]) < offset:
            raise _StaleRange
        total = number_in(match[2])
    elif status == 200:
        offset = 0
        total = number_in(response.headers.get("Content-Length"))
    else:
        raise refusal_of(status, response.reason)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise SourceFailure("the server compressed what was asked for as it is")
    if size is not None and total is not None and size != total:
        raise SourceFailure(f"the server has {total} bytes, {size} were announced")
    return offset, total if total is not None else size


def _receive(
    response: requests.Response, part: Path, offset: int, total: int | None, report: Report, is_model: bool
) -> str:
    if total is not None:
        ensure_space(part.parent, total - offset)
    digest = hashlib.sha256()
    # Unbuffered: if this process is killed, all that came is in the file.
    with local_io(part):
        file = part.open("r+b" if offset else "wb", buffering=0)
    with file:
        with local_io(part):
            done = 0
            while done < offset and (chunk := file.read(min(_CHUNK, offset - done))):
                digest.update(chunk)
                done += len(chunk)
        # A part was begun with a checked head.
        head = b"" if offset == 0 and is_model else GGUF_MAGIC
        report(done, total)
        for chunk in response.iter_content(_CHUNK):
            if len(head) < len(GGUF_MAGIC):
                head += chunk[:64]
                if len(head) >= len(GGUF_MAGIC):
                    _check_head(head, response)
            with local_io(part):
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
            digest.update(chunk)
            done += len(chunk)
            report(done, total)
            if total is None and done // _SPACE_STEP > (done - len(chunk)) // _SPACE_STEP:
                ensure_space(part.parent, 2 * _SPACE_STEP)  # it may have no end
            elif total is not None and done > total:
                raise _Worthless(f"more came than the {total} bytes that were announced")
        if total is not None and done != total:
            raise _BrokenOff(f"the body ended after {done} of {total} bytes")
        _check_head(head, response)
        with local_io(part):
            os.fsync(file.fileno())
    return digest.hexdigest()


class _Worthless(SourceFailure):
    """Nothing in the part is of use."""


def _check_head(head: bytes, response: requests.Response) -> None:
    try:
        check_magic(head, response.headers.get("Content-Type", ""))
    except SourceFailure as error:
        raise _Worthless(error.reason) from None


def _length(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _meta_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _validator_of(part: Path, url: str) -> str | None:
    """What If-Range is to say for this part; None if the part cannot be resumed."""
    try:
        meta = json.loads(_meta_path(part).read_text("utf-8"))
        return str(meta["validator"]) if meta["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _note_validator(part: Path, url: str, response: requests.Response) -> None:
    etag = response.headers.get("ETag", "")
    # A weak ETag does not promise equal bytes (RFC 9110, 13.1.5).
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    with local_io(part):
        if validator:
            write_atomic(_meta_path(part), [json.dumps({"url": url, "validator": validator}).encode()])
        else:
            _meta_path(part).unlink(missing_ok=True)
