"""The store of models: what `-m` means, installing once, and what a killed or concurrent pull leaves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer_cli.errors import ModelInvalid, ModelNotFound, SourceUnreachable, UsageError
from infer_cli.models import hashes as digests
from infer_cli.models.catalogue import load_catalogue, user_path
from infer_cli.models.fetch.base import Failed, FetchEvent, Waiting
from infer_cli.models.install_note import NOTE
from infer_cli.models.installed import InstalledModel
from infer_cli.models.store import FetchNotice, list_installed, pull, resolve
from tests.cli_helpers import REPO
from tests.model_server import ModelServer, serving
from tests.tiny_gguf import gguf_bytes

GGUF = gguf_bytes({"general.architecture": "llama"}, [("t", (100_000,), 0, b"abcd" * 100_000)])
SHA = hashlib.sha256(GGUF).hexdigest()
HALF = len(GGUF) // 2


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub-cache"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


def write_catalogue(*sources: str, sha256: str | None = SHA) -> None:
    user_path().parent.mkdir(parents=True, exist_ok=True)
    lines = [
        "default = 'mine'",
        "[[model]]",
        "name = 'mine'",
        "aliases = ['m']",
        f"sources = {list(sources)}",
    ]
    lines += [f"size = {len(GGUF)}", *([f"sha256 = '{sha256}'"] if sha256 else [])]
    user_path().write_text("\n".join(lines))


# --- what -m means --------------------------------------------------------------------------------


def test_name_alias_default_and_source_are_fetched_once(server: ModelServer) -> None:
    url = server.add("/m.gguf", GGUF)
    write_catalogue(url)
    notices: list[FetchNotice] = []
    first = resolve(None, on_fetch=notices.append)
    assert notices == [FetchNotice("mine", len(GGUF), url)]
    assert (first.name, first.sha256) == ("mine", SHA)
    assert first.entry is not None and first.entry.name == "mine"
    assert first.path.read_bytes() == GGUF
    assert resolve("m") == resolve("mine", offline=True) == first
    assert len(server.gets("/m.gguf")) == 1
    own = resolve(url)
    assert (own.name, own.sha256, own.entry) == ("m", SHA, None)
    assert own.path != first.path
    assert resolve(url) == own
    assert len(server.gets("/m.gguf")) == 2
    assert len(notices) == 1


def test_path_is_used_in_place(tmp_path: Path, own_home: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(GGUF)
    assert resolve(str(path)) == InstalledModel("x", path, None, None)
    assert digests.file_sha256(path) == SHA
    assert resolve(str(path)).sha256 == SHA
    assert not (own_home / "models").exists()


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.gguf").write_bytes(GGUF)
    assert resolve("x.gguf").path == resolve("./x.gguf").path == Path("x.gguf")


def test_split_path_wants_all_parts(tmp_path: Path) -> None:
    first, second = (tmp_path / f"x-0000{i}-of-00002.gguf" for i in (1, 2))
    second.write_bytes(GGUF)
    with pytest.raises(ModelInvalid, match=r"x-00001-of-00002\.gguf is missing"):
        resolve(str(second))
    first.write_bytes(GGUF)
    assert resolve(str(second)).path == first
    assert digests.file_sha256(first) == hashlib.sha256(GGUF + GGUF).hexdigest()


@pytest.mark.parametrize("model", ["nothing-like-it", "dir/none.gguf", "./none", "none.gguf", "."])
def test_nothing_there(model: str) -> None:
    with pytest.raises(ModelNotFound):
        resolve(model)


@pytest.mark.parametrize("model", ["hf:bad", "ftp://x/y.gguf", "~no-such-user-here/x.gguf"])
def test_bad_source(model: str) -> None:
    with pytest.raises(UsageError):
        resolve(model)


def test_a_name_of_the_hub_is_a_source_where_no_path_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("o/r", "hf.co/o/r", "https://huggingface.co/o/r", "hf:o/r"):
        with pytest.raises(ModelNotFound, match="hf:o/r is not installed here"):
            resolve(name, offline=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "r").write_bytes(GGUF)
    assert resolve("o/r", offline=True).path == Path("o/r")


# --- installing -----------------------------------------------------------------------------------


def test_offline_fetches_nothing(server: ModelServer) -> None:
    write_catalogue(server.add("/m.gguf", GGUF))
    with pytest.raises(ModelNotFound, match="mine is not installed") as caught:
        resolve("mine", offline=True)
    assert "infer models pull mine" in caught.value.hint
    assert server.requests == []


def test_hub_cache_is_used_in_place(hub_cache: Path) -> None:
    snapshot = hub_cache / "models--o--r" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "m.gguf").write_bytes(GGUF)
    write_catalogue("hf:o/r/m.gguf@" + "c" * 40)
    notices: list[FetchNotice] = []
    found = resolve("mine", offline=True, on_fetch=notices.append)
    assert found.path == snapshot / "m.gguf"
    assert notices == []
    assert list_installed() == [found]


def test_local_file_of_an_entry(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(GGUF)
    write_catalogue(str(tmp_path / "x.gguf"))
    assert resolve("mine", offline=True).path == tmp_path / "x.gguf"
    (tmp_path / "x.gguf").write_bytes(GGUF[:-1] + b"\0")
    with pytest.raises(ModelInvalid, match="has changed since it was installed"):
        resolve("mine")


def test_local_file_without_a_hash_may_change(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(GGUF)
    write_catalogue(str(tmp_path / "x.gguf"), sha256=None)
    assert resolve("mine").sha256 == SHA
    newer = GGUF[:-1] + b"\0"
    (tmp_path / "x.gguf").write_bytes(newer)
    assert resolve("mine", offline=True).sha256 == hashlib.sha256(newer).hexdigest()


def test_list(server: ModelServer) -> None:
    assert list_installed() == []
    write_catalogue(server.add("/m.gguf", GGUF))
    found = resolve("mine")
    assert list_installed() == [found]
    found.path.unlink()
    assert list_installed() == []


def test_hash_is_recorded_and_later_downloads_are_held_to_it(server: ModelServer) -> None:
    url = server.add("/m.gguf", GGUF)
    write_catalogue(url, sha256=None)
    found = resolve("mine")
    assert found.sha256 == SHA
    found.path.unlink()
    server.add("/m.gguf", GGUF[:-1] + b"\0")
    with pytest.raises(SourceUnreachable, match=f"{SHA} was expected"):
        resolve("mine")
    server.add("/m.gguf", GGUF)
    assert resolve("mine") == found


def test_new_hash_in_the_catalogue_means_a_new_file(server: ModelServer) -> None:
    url = server.add("/m.gguf", GGUF)
    write_catalogue(url)
    resolve("mine")
    newer = GGUF[:-1] + b"\0"
    server.add("/m.gguf", newer, etag='"v2"')
    write_catalogue(url, sha256=hashlib.sha256(newer).hexdigest())
    assert resolve("mine").path.read_bytes() == newer


def test_changed_file_is_refused_and_pull_mends_it(server: ModelServer) -> None:
    write_catalogue(server.add("/m.gguf", GGUF))
    path = resolve("mine").path
    path.write_bytes(GGUF[:-1] + b"\0")
    with pytest.raises(ModelInvalid, match="has changed") as caught:
        resolve("mine")
    assert "infer models pull mine" in caught.value.hint
    assert pull("mine").path.read_bytes() == GGUF


def test_touched_file_is_still_good(server: ModelServer) -> None:
    write_catalogue(server.add("/m.gguf", GGUF))
    found = resolve("mine")
    os.utime(found.path, (1, 1))
    assert resolve("mine", offline=True) == found
    note = json.loads((found.path.parent / NOTE).read_text())
    assert note["files"] == [{"path": "m.gguf", "size": len(GGUF), "mtime_ns": 10**9}]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": [{}]}', "\0"])
def test_damaged_note_is_no_note(server: ModelServer, text: str) -> None:
    write_catalogue(server.add("/m.gguf", GGUF))
    found = resolve("mine")
    (found.path.parent / NOTE).write_text(text)
    assert resolve("mine") == found
    assert len(server.gets("/m.gguf")) == 1  # the file itself was whole


def test_whole_home_can_move(server: ModelServer, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_catalogue(server.add("/m.gguf", GGUF))
    resolve("mine")
    moved = own_home.with_name("moved")
    shutil.move(own_home, moved)
    monkeypatch.setenv("INFER_HOME", str(moved))
    assert resolve("mine", offline=True).path.is_relative_to(moved)


# --- other processes ------------------------------------------------------------------------------


class Puller:
    """A process that pulls `mine` and tells of each event on its stdout."""

    SCRIPT = (
        "from infer_cli.models.store import pull\n"
        "print(pull('mine', on_event=lambda e: print(type(e).__name__, flush=True)).path)"
    )

    def __init__(self, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT],
            cwd=REPO,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, word: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        raise AssertionError(f"no {word}: {self.process.communicate()}")

    def end(self) -> str:
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, err
        return out.splitlines()[-1]


def test_killed_pull_is_resumed(server: ModelServer, own_home: Path) -> None:
    write_catalogue(server.add("/m.gguf", GGUF, pause_at=HALF))
    puller = Puller()
    folder = own_home / "models" / "mine"
    deadline = time.monotonic() + 20
    while sum(part.stat().st_size for part in folder.glob("*.part")) < HALF - 2**14:
        assert time.monotonic() < deadline and puller.process.poll() is None, puller.process.communicate()
        time.sleep(0.02)
    puller.process.kill()
    puller.process.communicate()
    assert not (folder / "m.gguf").exists() and not (folder / NOTE).exists()
    (part,) = folder.glob("*.part")
    kept = part.stat().st_size
    assert 0 < kept < len(GGUF)
    server.files["/m.gguf"].pause_at = None
    server.files["/m.gguf"].resume.set()
    assert resolve("mine").path.read_bytes() == GGUF
    assert server.gets("/m.gguf")[1]["Range"] == f"bytes={kept}-"
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == ["m.gguf", NOTE]


def test_two_pulls_at_once_fetch_once(server: ModelServer) -> None:
    write_catalogue(server.add("/m.gguf", GGUF, pause_at=HALF))
    first = Puller()
    first.wait_for("Progress")
    second = Puller()
    second.wait_for("Waiting")
    server.files["/m.gguf"].resume.set()
    assert first.end() == second.end() == str(resolve("mine", offline=True).path)
    assert len(server.gets("/m.gguf")) == 1


def test_killed_pull_holds_nobody_up(server: ModelServer) -> None:
    write_catalogue(server.add("/m.gguf", GGUF, pause_at=HALF))
    first = Puller()
    first.wait_for("Progress")
    first.process.kill()
    first.process.communicate()
    server.files["/m.gguf"].pause_at = None
    events: list[FetchEvent] = []
    resolve("mine", on_event=events.append)
    assert not [event for event in events if isinstance(event, Waiting | Failed)]


def test_hub_environment_is_honoured(server: ModelServer, tmp_path: Path) -> None:
    server.add_hub_file("o/r", "m.gguf", GGUF, SHA)
    write_catalogue("hf:o/r/m.gguf", sha256=None)
    Puller(HF_ENDPOINT=server.url, HF_TOKEN="hf_mine", HF_HOME=str(tmp_path / "hf")).end()
    (headers,) = server.gets("/o/r/resolve/main/m.gguf")
    assert headers["Authorization"] == "Bearer hf_mine"
    assert resolve("mine").sha256 == SHA


# --- digests --------------------------------------------------------------------------------------


def test_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(GGUF)
    assert digests.cached_sha256(path) is None
    assert digests.compute_sha256(path) == SHA
    assert digests.cached_sha256(path) == SHA
    path.write_bytes(GGUF + b"\0")
    assert digests.cached_sha256(path) is None
    assert digests.cached_sha256(tmp_path / "none.gguf") is None


def test_hashing_can_be_stopped(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(GGUF)
    assert digests.compute_sha256(path, lambda: True) is None
    assert digests.cached_sha256(path) is None
    assert digests.compute_sha256(path, lambda: False) == SHA


@pytest.mark.parametrize("damage", [b"", b"zz", b"\xff" * 64, SHA.encode() + b"\n0"])
def test_damaged_digest_cache_is_a_miss(tmp_path: Path, own_home: Path, damage: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(GGUF)
    assert digests.file_sha256(path) == SHA
    (stored,) = (own_home / "cache" / "sha256").iterdir()
    stored.write_bytes(damage)
    assert digests.cached_sha256(path) is None
    assert digests.file_sha256(path) == SHA
    assert digests.cached_sha256(path) == SHA


def test_unwritable_digest_cache_costs_only_time(tmp_path: Path, own_home: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(GGUF)
    own_home.mkdir()
    (own_home / "cache").write_text("a file where the directory should be")
    assert digests.file_sha256(path) == SHA


@pytest.mark.weights
def test_the_real_model_is_the_catalogue_s(smollm2: Path) -> None:
    found = resolve(str(smollm2))
    entry = load_catalogue().find("smollm2")
    assert digests.file_sha256(found.path) == entry.sha256
    assert found.path.stat().st_size == entry.size
