"""Data of tasks: each format and a folder, what can't be read, and files that mean ill."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from infer_cli.batch.records import MAX_ROW_BYTES
from infer_cli.errors import SourceUnreachable, UsageError
from infer_cli.evaluation.tasks.data import find_data
from infer_cli.models.fetch.data_set import parse_data_source
from tests.model_server import ModelServer, serving


def docs_of(path: Path, format_: str | None = None) -> list[object]:
    return [row.doc for row in find_data(str(path), Path(), format_).rows()]  # type: ignore[arg-type]


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_jsonl(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.jsonl", '\ufeff{"q": "Où?", "n": 1}\n\n{"q": null, "n": [1.5, {"x": true}]}\r\n'
    )
    assert docs_of(path) == [{"q": "Où?", "n": 1}, {"q": None, "n": [1.5, {"x": True}]}]


def test_tables_and_cells_that_begin_a_formula_are_text(tmp_path: Path) -> None:
    cells = ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x")', "plain"]
    text = "q,a\n" + "".join('"{}",x\n'.format(cell.replace('"', '""')) for cell in cells)
    assert docs_of(write(tmp_path, "a.csv", text)) == [{"q": cell, "a": "x"} for cell in cells]
    assert docs_of(write(tmp_path, "a.tsv", 'q\ta\n=1\t"two\nlines"\n')) == [{"q": "=1", "a": "two\nlines"}]


def test_a_text_is_one_row(tmp_path: Path) -> None:
    assert docs_of(write(tmp_path, "a.txt", "one\r\ntwo\n")) == [{"text": "one\r\ntwo\n", "file": "a.txt"}]
    assert docs_of(write(tmp_path, "a.md", "# x"), "text") == [{"text": "# x", "file": "a.md"}]


def test_a_folder_is_its_files_by_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "C.txt", ".hidden.txt", "README.md"):
        write(tmp_path, name, name)
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", "d.txt", "d")
    data = find_data(str(tmp_path), Path(), None)
    assert [row.doc["text"] for row in data.rows()] == ["C.txt", "a.txt", "b.txt"]
    assert [row.number for row in data.rows()] == [0, 1, 2]
    before = data.sha256()
    (tmp_path / "a.txt").rename(tmp_path / "z.txt")
    assert find_data(str(tmp_path), Path(), None).sha256() != before, "names are part of it"
    write(tmp_path, "x.jsonl", "{}")
    with pytest.raises(UsageError, match="files of several formats: jsonl, text"):
        find_data(str(tmp_path), Path(), None)
    assert docs_of(tmp_path, "jsonl") == [{}]


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"q": 1}\n')
    assert find_data(str(path), Path(), None).sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", '{"q": 1}\n{"q": ', "a.jsonl: line 2: the line is not JSON"),
        ("a.jsonl", '{"q": 1}\n\n[1]', "a.jsonl: row 1 is not an object"),
        ("a.jsonl", '{"q": 1, "q": 2}', "a.jsonl: line 1: the key 'q' is there twice"),
        ("a.jsonl", '{"q": NaN}', "NaN is not a JSON number"),
        ("a.jsonl", '{"q": 1e999}', "out of range"),
        ("a.jsonl", '{"q": "\\ud800"}', "row 0 holds half a surrogate pair"),
        ("a.jsonl", '{"\\ud800": 1}', "row 0 holds half a surrogate pair"),
        ("a.jsonl", '{"q": ' + "[" * 70 + "]" * 70 + "}", "row 0 is nested too deeply: more than 64 levels"),
        ("a.jsonl", '{"q": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ("a.jsonl", '{"q": ' + "9" * 5000 + "}", "a number of more than 4300 digits"),
        ("a.jsonl", b'{"q": "\xff"}', "not UTF-8: byte 0xff"),
        ("a.csv", "q,a\n1\n", "the record from line 2 on has 1 fields, the header 2"),
        ("a.csv", 'q\n"x\ny\n', "the record from line 2 on: unexpected end of data"),
        ("a.csv", "q,q\n1,2\n", "has the column 'q' twice"),
        ("a.csv", b"q\n\xff\n", "the record from line 2 on is not UTF-8: byte 0xff"),
        ("a.txt", b"a\0b", "is binary: a NUL byte at offset 1"),
        ("a.xls", "x", "the format of"),
    ],
)
def test_what_can_t_be_read_is_one_line(tmp_path: Path, name: str, data: bytes | str, said: str) -> None:
    path = write(tmp_path, name, data)
    with pytest.raises(UsageError) as raised:
        docs_of(path)
    assert said in raised.value.message and "\n" not in raised.value.in_full


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        docs_of(tmp_path / "none.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no file of data"):
        docs_of(tmp_path / "empty")


def test_a_huge_row_is_an_error_and_many_rows_are_not_kept(tmp_path: Path) -> None:
    huge = write(tmp_path, "huge.jsonl", b'{"q": "' + b"x" * (MAX_ROW_BYTES + 10) + b'"}\n')
    with pytest.raises(UsageError, match="line 1: the row has more than"):
        docs_of(huge)
    many = write(tmp_path, "many.jsonl", b"".join(b'{"q": "%s"}\n' % (b"y" * 10_000) for _ in range(2000)))
    data = find_data(str(many), Path(), None)
    tracemalloc.start()
    assert sum(1 for _ in data.rows()) == 2000 and len(data.sha256()) == 64
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 10**6, "20 MB were read"


# --- of the hub -----------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        form = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", form)
        yield running


def test_a_file_of_the_hub_is_fetched_once(server: ModelServer) -> None:
    body = json.dumps({"q": "x"}).encode() + b"\n"
    path = "/datasets/o/set/resolve/main/data/a.jsonl"
    digest = hashlib.sha256(body).hexdigest()
    server.add(path, body, etag=f'"{digest}"')
    for _ in range(2):
        data = find_data("hf:o/set/data/a.jsonl", Path(), None)
        assert [row.doc for row in data.rows()] == [{"q": "x"}]
        assert data.sha256() == digest and data.name == "hf:o/set/data/a.jsonl"
    assert len(server.gets(path)) == 1
    find_data("hf:o/set/data/a.jsonl", Path(), None, offline=True)


def test_what_the_hub_can_t_give(server: ModelServer) -> None:
    with pytest.raises(
        SourceUnreachable, match=r"hf:o/set/a.jsonl could not be fetched: no such repository or file"
    ):
        find_data("hf:o/set/a.jsonl", Path(), None)
    with pytest.raises(SourceUnreachable, match="--offline is given"):
        find_data("hf:o/set/b.jsonl", Path(), None, offline=True)
    server.add("/datasets/o/set/resolve/v1/c.jsonl", b"{}\n", etag=f'"{"0" * 64}"')
    with pytest.raises(SourceUnreachable, match="was expected"):
        find_data("hf:o/set/c.jsonl@v1", Path(), None)
    assert not server.gets("/datasets/o/set/resolve/main/c.jsonl")


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:o/set", "hf:o/set/../a.jsonl", "hf:o--x/set/a.jsonl", "hf:o/set//a", "hf:o/set/a\\b.csv"],
)
def test_names_of_the_hub_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not understood"):
        parse_data_source(text)
