"""An HTTP server on this machine that misbehaves as told, and answers as the Hugging Face hub does."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Served:
    """One file. `pause_at` holds the body there until `resume` is set; `cut_at` ends it there, once."""

    body: bytes
    etag: str | None = '"v1"'
    content_type: str = "application/octet-stream"
    status: int = 200
    ranges: bool = True
    length: bool = True
    pause_at: int | None = None
    cut_at: int | None = None
    redirect: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    resume: threading.Event = field(default_factory=threading.Event)


@dataclass
class ModelServer:
    url: str
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def add(self, path: str, body: bytes, **options: Any) -> str:
        """Serve `body` at `path`; returns its URL."""
        self.files[path] = Served(body, **options)
        return self.url + path

    def add_hub_file(self, repo: str, file: str, body: bytes, sha256: str, revision: str = "main") -> None:
        """As the hub resolves an LFS file: the linked ETag is its sha256."""
        path = f"/{repo}/resolve/{revision}/{file}"
        headers = {"X-Repo-Commit": "c" * 40, "X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(body))}
        self.files[path] = Served(body, etag=f'"{sha256}"', headers=headers)

    def add_hub_tree(self, repo: str, names: list[str]) -> None:
        entries = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in names]
        body = json.dumps(entries).encode()
        self.files[f"/api/models/{repo}/tree/main"] = Served(body, content_type="application/json")

    def gets(self, path: str) -> list[dict[str, str]]:
        """Headers of each GET of `path`, in order."""
        return [headers for method, at, headers in self.requests if method == "GET" and at == path]


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that sends these bytes, whatever is asked, one after another and the last again; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = list(answers)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    asked = b""
                    while b"\r\n\r\n" not in asked and (data := client.recv(65536)):
                        asked += data
                    if asked:  # else it was only a look whether the server is there
                        client.sendall(left.pop(0) if len(left) > 1 else left[0])

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextlib.contextmanager
def serving() -> Iterator[ModelServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, body: bool) -> None:
            path = urlsplit(self.path).path
            server.requests.append((self.command, path, dict(self.headers)))
            file = server.files.get(path)
            if file is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = self._start(file)
            data = file.body[start:]
            if start > len(file.body):
                self.send_response(416)
                file = Served(b"", etag=None)
                start = 0
            else:
                self.send_response(206 if start else file.status)
            headers = {"Content-Type": file.content_type, **file.headers}
            if file.redirect:
                headers["Location"] = file.redirect
            if file.etag:
                headers["ETag"] = file.etag
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(file.body) - 1}/{len(file.body)}"
            if file.length:
                headers["Content-Length"] = str(len(data))
            headers["Connection"] = "close"
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self._send(file, data)
            self.close_connection = True

        def _start(self, file: Served) -> int:
            asked = self.headers.get("Range")
            if not asked or not file.ranges or self.headers.get("If-Range") != file.etag:
                return 0
            return int(asked.removeprefix("bytes=").removesuffix("-"))

        def _send(self, file: Served, data: bytes) -> None:
            with contextlib.suppress(ConnectionError):
                if file.cut_at is not None:
                    self.wfile.write(data[: file.cut_at])
                    file.cut_at = None
                    return
                if file.pause_at is not None:
                    self.wfile.write(data[: file.pause_at])
                    self.wfile.flush()
                    file.resume.wait(20)
                    data = data[file.pause_at :]
                self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as http:
        server = ModelServer(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            for file in server.files.values():
                file.resume.set()
            http.shutdown()
            thread.join()
