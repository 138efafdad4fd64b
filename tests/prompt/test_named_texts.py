"""What `-f` names: folders and pages of the web. Files and stdin are tried in test_input.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from infer_cli.errors import SourceUnreachable, UsageError
from infer_cli.models.fetch import page
from infer_cli.prompt import folder
from infer_cli.prompt.attachments import between_tags
from infer_cli.prompt.named_texts import listed, read_named
from tests.cli_helpers import infer, one_error_line
from tests.model_server import answering, serving


class Told:
    """Keeps what was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def status(self, text: str) -> None: ...

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def fetched(url: str) -> str:
    (found,) = read_named(url, Told(), offline=False)
    return found.text


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with texts, a binary file, hidden entries, and what belongs to version control."""
    root = tmp_path / "project"
    for name, data in {
        "b.md": b"second",
        "a.txt": "\ufeffé first".encode(),
        "sub/c.py": b"third = 3\n",
        "sub/deep/d.txt": b"",
        "logo.png": b"\x89PNG\0\0",
        "latin.txt": b"\xe9",
        ".git/config": b"x",
        ".env": b"SECRET=1",
        "CVS/Root": b"x",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_texts_of_a_folder_in_order(tree: Path) -> None:
    told = Told()
    found = read_named(str(tree), told, offline=True)
    assert [item.text for item in found] == ["é first", "second", "third = 3\n", ""]
    assert [item.title for item in found] == [
        "project/a.txt", "project/b.md", "project/sub/c.py", "project/sub/deep/d.txt",
    ]  # fmt: skip
    assert found[2].name == str(tree / "sub/c.py")
    assert between_tags(found[2]) == '<file name="project/sub/c.py">\nthird = 3\n</file>'
    names = ", ".join(
        os.path.join(*name.split("/")) for name in ("a.txt", "b.md", "sub/c.py", "sub/deep/d.txt")
    )
    assert told.notes == [f"{tree}: 4 files, 24 bytes: {names}"]
    assert told.warnings == [f"{tree}: no text, left out: latin.txt, logo.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_links_do_not_lead_out_of_a_folder(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    (tree / "link.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (tree / "folder").symlink_to(tmp_path / "outside")
    (tree / "loop").symlink_to(tree)
    (tree / "inside.txt").symlink_to(tree / "b.md")
    os.mkfifo(tree / "pipe")
    found = folder.texts_in(str(tree))
    assert [item.title for item in found.texts if item.text == "second"] == [
        "project/b.md",
        "project/inside.txt",
    ]
    assert "secret" not in "".join(item.text for item in found.texts)
    assert set(found.left_out) == {"link.txt", "folder", "loop", "pipe", "latin.txt", "logo.png"}


def test_a_folder_has_bounds(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_FILES", 3)
    with pytest.raises(UsageError, match="more than 3 text files"):
        folder.texts_in(str(tree))
    monkeypatch.setattr(folder, "MOST_INPUT", 10)
    with pytest.raises(UsageError, match="MB of text"):
        folder.texts_in(str(tree))
    monkeypatch.setattr(folder, "_MOST_ENTRIES", 4)
    with pytest.raises(UsageError, match="more than 4 files"):
        folder.texts_in(str(tree))


def test_a_folder_without_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"\0")
    with pytest.raises(UsageError, match="a directory without a text file"):
        read_named(str(tmp_path), Told(), offline=False)


def test_long_lists_are_cut() -> None:
    assert listed("abc") == "a, b, c"
    assert listed(map(str, range(25))).endswith("18, 19 and 5 more")


def test_a_prompt_of_a_folder(tree: Path) -> None:
    done = infer("run", "-m", "fake", "-f", tree, "why?", "-n", "400", "--stats")
    assert '<file name="project/a.txt">' in done.text and done.text.rstrip().endswith("why?")
    assert "4 files" in done.err and "left out: latin.txt, logo.png" in done.err
    quiet = infer("run", "-m", "fake", "-f", tree, "why?", "-n", "400", "--quiet")
    assert (quiet.out, quiet.err) == (done.out, "")


def test_files_of_a_folder_are_counted_each(tree: Path) -> None:
    done = infer("tokens", "-m", "fake", "-f", tree)
    assert [line.split()[-1] for line in done.text.splitlines()][:2] == [
        str(tree / "a.txt"),
        str(tree / "b.md"),
    ]


def test_a_folder_is_attached_in_a_chat(tree: Path) -> None:
    lines = f"/attach {tree}\nwhy?\n/export {tree.parent}/talk.md\n"
    assert infer("chat", "-m", "fake", stdin=lines.encode()).code == 0
    assert '<file name="project/sub/c.py">' in (tree.parent / "talk.md").read_text()


# --- pages ----------------------------------------------------------------------------------------


def test_a_page_is_taken_as_it_is() -> None:
    with serving() as server:
        url = server.add("/page.html", "<p>é</p>".encode(), content_type="text/html; charset=UTF-8") + "?x=1"
        latin = server.add("/latin", "é".encode("latin-1"), content_type="text/plain; charset=ISO-8859-1")
        plain = server.add("/data", b'{"a": 1}', content_type="application/json")
        (found,) = read_named(url + "#part", Told(), offline=False)
        assert (found.text, found.title, found.name) == ("<p>é</p>", url + "#part", url + "#part")
        assert fetched(latin) == "é" and fetched(plain) == '{"a": 1}'


def test_no_credentials_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(
        "machine 127.0.0.1 login me password secret\nmachine localhost login me password secret\n"
    )
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving() as server:
        server.add("/end", b"text", content_type="text/plain")
        headers = {"Set-Cookie": "a=b; Path=/"}
        url = server.add("/begin", b"", status=302, redirect=server.url + "/end", headers=headers)
        assert fetched(url) == "text"
        for _, _, sent in server.requests:
            assert not {"authorization", "cookie"} & {name.lower() for name in sent}
        with pytest.raises(UsageError, match="a user and a password are not sent"):
            fetched(url.replace("//", "//me:secret@"))


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        ({"content_type": "application/pdf"}, "it is application/pdf, and no text"),
        ({"content_type": "text/plain", "status": 404}, "the server answers 404"),
        ({"content_type": "text/plain; charset=martian"}, "character set is not known"),
        ({"content_type": "text/plain; charset=ascii"}, "it is not ascii: byte 1"),
        ({"content_type": ""}, "it is binary"),
        ({"content_type": "text/plain", "redirect": "ftp://host/file", "status": 302}, "no web address"),
    ],
)
def test_what_is_no_text_is_told(served: dict[str, object], reason: str) -> None:
    body = b"a\0b" if served["content_type"] == "" else b"a\xff"
    with serving() as server, pytest.raises(SourceUnreachable, match=reason):
        fetched(server.add("/x", body, **served))


def test_a_page_has_the_bounds_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        url = server.add("/long", b"x" * 1000, content_type="text/plain")
        around = server.add("/around", b"", status=302, redirect="/around")
        with pytest.raises(SourceUnreachable, match="redirects more than 10 times"):
            fetched(around)
        monkeypatch.setattr(page, "_MOST_S", -1.0)
        with pytest.raises(SourceUnreachable, match="did not come within"):
            fetched(url)
        monkeypatch.setattr(page, "MOST_INPUT", 999)
        with pytest.raises(UsageError, match="MB of text"):
            fetched(url)


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_a_broken_answer_is_one_line(answer: bytes) -> None:
    with answering(answer, answer) as url, pytest.raises(SourceUnreachable):
        fetched(url)


def test_a_page_in_a_prompt() -> None:
    with serving() as server:
        url = server.add("/a.txt", b"the sky", content_type="text/plain")
        infer("run", "-m", "fake", "-f", url, "why?")
        assert f'<file name="{url}">\nthe sky\n</file>' in _last_prompt()
        one_error_line(infer("run", "-m", "fake", "-f", url, "why?", "--offline"), 2, "--offline", url)
        assert len(server.gets("/a.txt")) == 1
        one_error_line(infer("run", "-m", "fake", "-f", server.url + "/none", "why?"), 10, "404")
        chat = infer("chat", "-m", "fake", "-f", url, stdin=b"why?\n")
        assert chat.code == 0 and "the sky" in _last_prompt()
    one_error_line(infer("run", "-m", "fake", "-f", url, "why?"), 10, "no connection")
    one_error_line(infer("run", "-m", "fake", "-f", "https://", "why?"), 2, "is no web address")


def _last_prompt() -> str:
    """Of the last answer. (What the fake model repeats of a prompt may have other letters.)"""
    text = json.loads(infer("records", "show", "last", "--json").out)["prompt"]["text"]
    assert isinstance(text, str)
    return text
