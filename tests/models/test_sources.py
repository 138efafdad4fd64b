from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.errors import UsageError
from infer_cli.models.sources import (
    GRAMMAR,
    HttpsFile,
    HubFile,
    HubQuant,
    LocalFile,
    PypiFile,
    Source,
    WheelPart,
    parse_hub_name,
    parse_source,
    split_names,
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:o/r/a.gguf@abc123", HubFile("o/r", "a.gguf", "abc123")),
        ("hf:o/r/sub/dir/a.gguf", HubFile("o/r", "sub/dir/a.gguf", None)),
        ("hf:o/r/a.gguf@refs/pr/1", HubFile("o/r", "a.gguf", "refs/pr/1")),
        ("hf:o/r:Q4_K_M", HubQuant("o/r", "Q4_K_M")),
        ("hf:o/r", HubQuant("o/r")),
        ("pypi:p==1.0#d/a.gguf", PypiFile((WheelPart("p", "1.0", "d/a.gguf"),))),
        (
            "pypi:p==1#d/a.gguf.part00,q==2#e/a.gguf.part01",
            PypiFile((WheelPart("p", "1", "d/a.gguf.part00"), WheelPart("q", "2", "e/a.gguf.part01"))),
        ),
        ("https://h.example/x/a.gguf?t=1", HttpsFile("https://h.example/x/a.gguf?t=1")),
        ("http://127.0.0.1:8000/a.gguf", HttpsFile("http://127.0.0.1:8000/a.gguf")),
        ("http://[::1]/a.gguf", HttpsFile("http://[::1]/a.gguf")),
        ("dir/a.gguf", LocalFile(Path("dir/a.gguf"))),
        ("C:/models/a.gguf", LocalFile(Path("C:/models/a.gguf"))),
    ],
)
def test_parse_and_back(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf:",
        "https://huggingface.co/o",
        "https://huggingface.co/o/r/blob/main/README.md",
        "https://huggingface.co/o/r/discussions/1",
        "https://huggingface.co/o/r/tree/main/sub",
        "https://huggingface.co/o/r/blob/main/%2E%2E/a.gguf",
        "hf:o/r/a.bin",
        "hf:o/r/../../etc/a.gguf",
        "hf:../r/a.gguf",
        "hf:o/r/a.gguf@",
        "hf:o/r:",
        "pypi:p",
        "pypi:p>=1#a.gguf",
        "pypi:p==1#../a.gguf",
        "pypi:p==1#/a.gguf",
        "pypi:p==1#a.bin",
        "pypi:p==1#a.gguf,",
        "pypi:--index-url==1#a.gguf",
        "https:///a.gguf",
        "https://h:notaport/a.gguf",
        "ftp://h/a.gguf",
        "s3:bucket/a.gguf",
        "~no-such-user-here/a.gguf",
        "a\0b.gguf",
    ],
)
def test_bad_source_shows_the_grammar(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert caught.value.hint == GRAMMAR


PAGES = [
    ("huggingface.co/o/r", HubQuant("o/r")),
    ("hf.co/o/r", HubQuant("o/r")),
    ("hf.co/o/r:Q8_0", HubQuant("o/r", "Q8_0")),
    ("huggingface.co/o/r/", HubQuant("o/r")),
    ("huggingface.co/o/r/tree/main?x=1", HubQuant("o/r")),
    ("huggingface.co/o/r/blob/main/d/a.gguf#L1", HubFile("o/r", "d/a.gguf")),
    ("www.huggingface.co/o/r/blob/abc/a.gguf", HubFile("o/r", "a.gguf", "abc")),
    ("huggingface.co/o/r/blob/refs%2Fpr%2F1/a.gguf", HubFile("o/r", "a.gguf", "refs/pr/1")),
]


@pytest.mark.parametrize(("text", "source"), PAGES)
def test_a_page_of_the_hub(text: str, source: Source) -> None:
    assert parse_source("https://" + text) == source
    assert parse_hub_name(text) == source


def test_a_download_of_the_hub_stays_one() -> None:
    url = "https://huggingface.co/o/r/resolve/main/a.gguf"
    assert parse_source(url) == HttpsFile(url)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("o/r", HubQuant("o/r")),
        ("o/r:Q8_0", HubQuant("o/r", "Q8_0")),
        ("o/r.gguf", None),
        ("o/r/a.gguf", None),
        ("./o/r", None),
        ("o", None),
        ("https://hf.co/o/r", None),  # which is no path
    ],
)
def test_a_name_of_the_hub(text: str, source: Source | None) -> None:
    assert parse_hub_name(text) == source


def test_unencrypted_and_passwords_are_refused() -> None:
    with pytest.raises(UsageError, match="not encrypted"):
        parse_source("http://example.org/a.gguf")
    with pytest.raises(UsageError, match="not encrypted"):
        parse_source("http://127.0.0.1.example.org/a.gguf")
    with pytest.raises(UsageError) as caught:
        parse_source("https://user:secret@example.org/a.gguf")
    assert "secret" not in str(caught.value) + caught.value.hint


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert parse_source("~/a.gguf") == LocalFile(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/x/a.gguf", "a.gguf"),
        ("https://h/x/", "model.gguf"),
        ("https://h/a%2F..%2Fb%20c", "b_c.gguf"),
        ("https://h/..%5c.hidden.gguf", "_.hidden.gguf"),
    ],
)
def test_file_name_of_a_url_is_safe(url: str, name: str) -> None:
    assert HttpsFile(url).file_name == name


def test_joined_parts_lose_their_number() -> None:
    source = parse_source("pypi:p==1#d/a.gguf.part00,q==1#d/a.gguf.part01")
    assert isinstance(source, PypiFile)
    assert source.file_name == "a.gguf"


def test_split_names() -> None:
    assert split_names("m-00002-of-00003.gguf") == tuple(f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3))
    assert split_names("m.gguf") == ("m.gguf",)
    assert split_names("m-00000-of-00000.gguf") == ("m-00000-of-00000.gguf",)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_a_usage_error(text: str) -> None:
    for prefix in ("", "hf:", "hf:o/r/", "hf:o/r:", "pypi:", "pypi:p==1#", "https://", "http:"):
        try:
            source = parse_source(prefix + text)
        except UsageError:
            continue
        if isinstance(source, HubFile | HubQuant | PypiFile):
            assert parse_source(str(source)) == source
        if isinstance(source, HttpsFile | PypiFile):
            assert Path(source.file_name).name == source.file_name
