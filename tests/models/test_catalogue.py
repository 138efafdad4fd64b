from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.errors import ModelNotFound, UsageError
from infer_cli.models import catalogue
from infer_cli.models.catalogue import load_catalogue, shipped_path, user_path
from infer_cli.models.sources import HubFile, LocalFile, PypiFile
from infer_cli.types import SamplingParams
from tests.cli_helpers import REPO


def write_user(text: str) -> Path:
    path = user_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_shipped_catalogue_is_complete() -> None:
    known = load_catalogue()
    for entry in known.entries.values():
        assert entry.size and entry.licence and entry.sha256, entry.name
        for source in entry.sources:
            if isinstance(source, HubFile):
                assert source.revision and len(source.revision) == 40, f"{entry.name}: not pinned"


def test_default_model_has_a_hub_and_an_index_source() -> None:
    known = load_catalogue()
    entry = known.find(known.default)
    assert entry.name == "smollm2-135m-instruct"
    assert [type(source) for source in entry.sources] == [HubFile, PypiFile]
    assert entry.sampling == {"temperature": 0.2, "top_p": 0.9}
    SamplingParams(**entry.sampling)


def test_joined_wheels_are_in_order() -> None:
    (source,) = load_catalogue().find("gemma-3-270m").sources
    assert isinstance(source, PypiFile)
    assert [part.path[-6:] for part in source.parts] == ["part00", "part01", "part02", "part03"]
    assert source.file_name == "gemma-3-270m-q4_k_m.gguf"


def test_shipped_file_is_found_inside_a_wheel_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped_path() == REPO / "models.toml"
    package = tmp_path / "infer_cli"
    package.mkdir()
    (package / "models.toml").touch()
    monkeypatch.setattr(catalogue, "__file__", str(package / "models" / "catalogue.py"))
    assert shipped_path().resolve() == (package / "models.toml").resolve()


def test_aliases_and_case() -> None:
    known = load_catalogue()
    assert known.find("smollm2") is known.find("SmolLM2-135M-Instruct")


def test_unknown_name_suggests() -> None:
    with pytest.raises(ModelNotFound) as caught:
        load_catalogue().find("smolm2-135m")
    assert "smollm2-135m" in caught.value.hint


def test_user_entries_replace_and_add(tmp_path: Path) -> None:
    write_user(
        """
        default = "own"
        [[model]]
        name = "smollm2-135m-instruct"
        sources = ["files/mine.gguf"]
        [[model]]
        name = "own"
        aliases = ["smollm2"]
        sources = ["hf:o/r:Q8_0"]
        sampling = { temperature = 1, top_k = 20 }
        """
    )
    known = load_catalogue()
    assert known.default == "own"
    assert known.find("smollm2").name == "own"
    assert known.find("own").sampling == {"temperature": 1, "top_k": 20}
    replaced = known.find("smollm2-135m-instruct")
    assert replaced.sources == (LocalFile(user_path().parent / "files/mine.gguf"),)
    assert replaced.sha256 is None
    assert known.get("smollm2-135m") is None  # the alias went with the entry it belonged to
    assert known.get("gemma-3-270m") is not None


ENTRY = '[[model]]\nname = "x"\nsources = ["hf:o/r:Q8_0"]\n'


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("defualt = 'x'", ["top level", "defualt"]),
        ("default = 3", ["top level", "default", "string"]),
        ("default = 'nothing'", ["default", "nothing"]),
        ("[model]\nname = 'x'", ["top level", "model", "array"]),
        ("model = [1]", ["model number 1"]),
        ("[[model]]\nsources = ['hf:o/r:Q8_0']", ["model number 1", "name"]),
        ("[[model]]\nname = 'x'", ["model 'x'", "sources"]),
        ("[[model]]\nname = 'x'\nsuorces = ['hf:o/r:Q8_0']", ["suorces", "did you mean sources?"]),
        ("[[model]]\nname = 'x'\nsources = ['ftp:x']", ["model 'x'", "sources", "ftp"]),
        ("[[model]]\nname = 'X y'\nsources = ['hf:o/r:Q8_0']", ["name", "X y"]),
        (ENTRY + "aliases = ['a/b']", ["model 'x'", "aliases", "a/b"]),
        (ENTRY + "aliases = [1]", ["model 'x'", "aliases"]),
        (ENTRY + "aliases = ['x']", ["'x'"]),
        (ENTRY + ENTRY, ["'x'"]),
        (ENTRY + "license = 'MIT'", ["model 'x'", "license"]),
        (ENTRY + "sha256 = 'ABC'", ["model 'x'", "sha256"]),
        (ENTRY + "size = '98 MB'", ["model 'x'", "size", "whole number"]),
        (ENTRY + "size = true", ["model 'x'", "size"]),
        (ENTRY + "size = 0", ["model 'x'", "size"]),
        (ENTRY + "context = 1.5", ["model 'x'", "context"]),
        (ENTRY + "sampling = { heat = 1 }", ["model 'x', sampling", "heat"]),
        (ENTRY + "sampling = { top_k = 1.5 }", ["model 'x', sampling", "top_k"]),
        ("[[model", ["TOML"]),
    ],
)
def test_mistake_names_file_table_and_key(text: str, names: list[str]) -> None:
    path = write_user(text)
    with pytest.raises(UsageError) as caught:
        load_catalogue()
    assert "\n" not in caught.value.message
    for name in [str(path), *names]:
        assert name in caught.value.message


def test_unreadable_file(tmp_path: Path) -> None:
    user_path().parent.mkdir(parents=True)
    user_path().write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not UTF-8: byte 0xff in line 1"):
        load_catalogue()
