"""Models that LM Studio, ollama and the Hugging Face cache hold: found, named, and used in place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from infer_cli.errors import ModelNotFound, UsageError
from infer_cli.models import other_programs as neighbours
from infer_cli.models import store
from infer_cli.models.catalogue import user_path
from infer_cli.models.other_programs import HUGGING_FACE, LM_STUDIO, OLLAMA, find_all, locate
from infer_cli.models.sources import OllamaModel, StudioFile, parse_source
from infer_cli.models.store import resolve
from tests.tiny_gguf import gguf_bytes

GGUF = gguf_bytes({"general.architecture": "llama"}, [("t", (1000,), 0, bytes(4000))])
SHA = hashlib.sha256(GGUF).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    for name in ("XDG_CACHE_HOME", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OLLAMA_MODELS", str(folder / "ollama"))  # not the service's, which may exist here
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / ".cache/huggingface/hub"))
    return folder


def put(path: Path, data: bytes = GGUF) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def put_ollama(home: Path, name: str = "library/tiny/latest", host: str = "registry.ollama.ai") -> Path:
    """ollama's store with one model; returns its blob."""
    manifest = {
        "schemaVersion": 2,
        "layers": [
            {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "0" * 64},
            {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{SHA}", "size": len(GGUF)},
        ],
    }
    put(home / "ollama" / "manifests" / host / name, json.dumps(manifest).encode())
    return put(home / "ollama" / "blobs" / f"sha256-{SHA}")


def put_hub(home: Path, file: str = "m.gguf") -> Path:
    return put(home / ".cache/huggingface/hub/models--own--re-po/snapshots" / ("c" * 40) / file)


def names() -> list[tuple[str, str]]:
    return [(model.tool, str(model.source)) for model in find_all()]


# --- finding --------------------------------------------------------------------------------------


def test_nothing_is_found_where_there_is_nothing() -> None:
    assert find_all() == []


def test_everything_is_found_under_a_name_that_m_takes(home: Path) -> None:
    studio = put(home / ".lmstudio/models/pub/repo/m.gguf")
    older = put(home / ".cache/lm-studio/models/pub/other repo/m.gguf")
    blob = put_ollama(home)
    put_ollama(home, "someone/tiny/7b")
    put_ollama(home, "own/repo/Q4_K_M", host="hf.co")
    hub = put_hub(home, "sub/m.gguf")
    assert names() == [
        (LM_STUDIO, "lmstudio:pub/other repo/m.gguf"),
        (LM_STUDIO, "lmstudio:pub/repo/m.gguf"),
        (OLLAMA, "ollama:hf.co/own/repo:Q4_K_M"),
        (OLLAMA, "ollama:someone/tiny:7b"),
        (OLLAMA, "ollama:tiny"),
        (HUGGING_FACE, f"hf:own/re-po/sub/m.gguf@{'c' * 40}"),
    ]
    assert {model.size for model in find_all()} == {len(GGUF)}
    expected = [older, studio, blob, blob, blob, hub]
    assert [resolve(name, offline=True).path for _, name in names()] == expected
    assert [parse_source(name) for _, name in names()] == [model.source for model in find_all()]


def test_split_models_are_one_and_projectors_none(home: Path) -> None:
    folder = home / ".lmstudio/models/pub/repo"
    first, second = (put(folder / f"m-0000{i}-of-00002.gguf") for i in (1, 2))
    put(folder / "mmproj-F16.gguf")
    (model,) = find_all()
    assert (model.files, model.size) == ((first, second), 2 * len(GGUF))
    second.unlink()
    assert find_all() == []


def test_folder_of_lm_studio_s_settings(home: Path, tmp_path: Path) -> None:
    put(home / ".lmstudio/settings.json", json.dumps({"downloadsFolder": str(tmp_path / "disk")}).encode())
    chosen = put(tmp_path / "disk/pub/repo/m.gguf")
    put(home / ".lmstudio/models/pub/repo/m.gguf")
    assert names() == [(LM_STUDIO, "lmstudio:pub/repo/m.gguf")]
    assert locate(StudioFile("pub/repo/m.gguf")) == (chosen,)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"downloadsFolder": 3}', b"\xff", b"[" * 100_000])
def test_damaged_settings_are_none(home: Path, content: bytes) -> None:
    put(home / ".lmstudio/settings.json", content)
    put(home / ".lmstudio/models/pub/repo/m.gguf")
    assert names() == [(LM_STUDIO, "lmstudio:pub/repo/m.gguf")]


@pytest.mark.parametrize(
    "layers",
    [
        None,
        3,
        [3],
        [{"mediaType": "application/vnd.ollama.image.model"}],
        [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}],
        [{"mediaType": "application/vnd.ollama.image.adapter", "digest": f"sha256:{SHA}"}],
        [{"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{SHA}"}] * 2,
    ],
)
def test_strange_manifests_name_no_model(home: Path, layers: object) -> None:
    put_ollama(home)
    put(
        home / "ollama/manifests/registry.ollama.ai/library/tiny/latest",
        json.dumps({"layers": layers}).encode(),
    )
    assert find_all() == []
    with pytest.raises(ModelNotFound):
        resolve("ollama:tiny")


def test_a_name_that_cannot_be_asked_for_is_not_listed(home: Path) -> None:
    for repo in ("models--own--re--po", "models--own--repo-", "models--alone"):
        put(home / ".cache/huggingface/hub" / repo / "snapshots" / ("c" * 40) / "m.gguf")
    put(home / ".lmstudio/models/pub/repo/\x1b[31mred.gguf")
    assert find_all() == []


@pytest.mark.parametrize("name", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_hugging_face_cache_is_where_its_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    below = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}.get(name, "")
    monkeypatch.setenv(name, str(tmp_path / "there"))
    assert neighbours.hugging_face_folder() == tmp_path / "there" / below


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("ollama:tiny", OllamaModel("tiny")),
        ("ollama:tiny:0.5b", OllamaModel("tiny", "0.5b")),
        ("ollama:hf.co/own/repo:Q4_K_M", OllamaModel("hf.co/own/repo", "Q4_K_M")),
        ("lmstudio:pub/repo/m.gguf", StudioFile("pub/repo/m.gguf")),
    ],
)
def test_names_are_parsed_and_written(text: str, source: OllamaModel | StudioFile) -> None:
    assert parse_source(text) == source
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    [
        "ollama:",
        "ollama:../x",
        "ollama:a/../b",
        "ollama:a:",
        "ollama:a/b/c/d",
        "ollama:a:b/c",
        "lmstudio:",
        "lmstudio:m.gguf",
        "lmstudio:a/b/m.bin",
        "lmstudio:../b/m.gguf",
        "lmstudio:a/b/c/m.gguf",
        "lmstudio:a/b/\n.gguf",
    ],
)
def test_bad_names_say_how_names_look(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert "ollama:NAME:TAG" in caught.value.hint and "lmstudio:PUBLISHER/REPO" in caught.value.hint


@pytest.mark.parametrize("text", ["ollama:none", "ollama:tiny:none", "lmstudio:pub/repo/none.gguf"])
def test_what_a_tool_does_not_have(home: Path, text: str) -> None:
    put_ollama(home)
    with pytest.raises(ModelNotFound) as caught:
        resolve(text)
    assert "infer models list" in caught.value.hint


# --- using ----------------------------------------------------------------------------------------


def test_ollama_model_is_used_in_place(home: Path, own_home: Path) -> None:
    blob = put_ollama(home)
    found = resolve("ollama:tiny")
    assert (found.name, found.path, found.entry) == ("ollama:tiny", blob, None)
    assert not (own_home / "models").exists()


def write_entry(source: str, sha256: str | None = SHA) -> None:
    user_path().parent.mkdir(parents=True, exist_ok=True)
    text = f"default = 'mine'\n[[model]]\nname = 'mine'\nsources = ['{source}']\n"
    user_path().write_text(text + (f"sha256 = '{sha256}'\n" if sha256 else ""))


def test_entry_whose_bytes_ollama_has_is_not_downloaded(home: Path) -> None:
    blob = put_ollama(home)
    write_entry("https://127.0.0.1:1/m.gguf")
    found = resolve("mine")
    assert (found.name, found.path, found.sha256) == ("mine", blob, SHA)
    assert resolve("mine", offline=True) == found
    blob.unlink()
    with pytest.raises(ModelNotFound):
        resolve("mine", offline=True)


def test_blob_that_is_not_what_its_name_says_is_not_used(home: Path) -> None:
    put_ollama(home).write_bytes(GGUF[:-1] + b"\1")
    write_entry("https://127.0.0.1:1/m.gguf")
    with pytest.raises(ModelNotFound):
        resolve("mine", offline=True)
    verdict = store.verify("ollama:tiny")
    assert not verdict.holds and verdict.expected == SHA


def test_entry_may_name_another_tool_s_model_and_follows_its_tag(home: Path) -> None:
    put_ollama(home)
    write_entry("ollama:tiny", None)
    assert resolve("mine", offline=True).sha256 == SHA
    newer = GGUF[:-1] + b"\1"
    newer_sha = hashlib.sha256(newer).hexdigest()
    put(home / "ollama/blobs" / f"sha256-{newer_sha}", newer)
    manifest = home / "ollama/manifests/registry.ollama.ai/library/tiny/latest"
    manifest.write_text(manifest.read_text().replace(SHA, newer_sha))
    assert resolve("mine", offline=True).sha256 == newer_sha


def test_lm_studio_s_file_may_change(home: Path) -> None:
    path = put(home / ".lmstudio/models/pub/repo/m.gguf")
    write_entry("lmstudio:pub/repo/m.gguf", None)
    assert resolve("mine").sha256 == SHA
    path.write_bytes(GGUF[:-1] + b"\1")
    assert resolve("mine").sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_removing_leaves_another_tool_s_file(home: Path) -> None:
    blob = put_ollama(home)
    write_entry("https://127.0.0.1:1/m.gguf")
    resolve("mine")
    removed = store.remove("mine")
    assert removed.kept == (blob,) and blob.read_bytes() == GGUF
    assert store.list_installed() == []
    with pytest.raises(UsageError, match="was not installed by infer"):
        store.remove("ollama:tiny")
    assert blob.exists()
