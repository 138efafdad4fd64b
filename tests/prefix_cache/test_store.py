"""Evaluated prefixes on disk: found again, damaged in every way, shared by processes, held to a limit."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.engine.mode_policy import CANONICAL_CHUNK
from infer_cli.prefix_cache.store import GRID, MOST_BYTES, Owner, PrefixStore, keys
from infer_cli.system.hashing import sha256
from infer_cli.types import Segment
from tests.cli_helpers import REPO

OWNER = Owner("model", "a" * 64, "fingerprint/1")
IDS = tuple(range(3 * GRID))
STATE = bytes(range(256)) * 8
LIMIT = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> PrefixStore:
    return PrefixStore(tmp_path / "prefixes", LIMIT)


def only_file(store: PrefixStore) -> Path:
    (entry,) = store.entries()
    return entry.path


def longest(store: PrefixStore, ids: tuple[int, ...], owner: Owner = OWNER) -> int:
    return store.longest(owner, ids, at_least=GRID, at_most=len(ids))


def test_what_was_written_is_read(store: PrefixStore) -> None:
    assert longest(store, IDS) == 0
    assert store.read(OWNER, IDS) is None
    size = store.write(OWNER, IDS, STATE)
    assert longest(store, (*IDS, 1, 2, 3)) == len(IDS)
    found = store.read(OWNER, IDS)
    assert found is not None and bytes(found) == STATE
    (entry,) = store.entries()
    assert (entry.owner, entry.n_tokens, entry.size) == (OWNER, len(IDS), size)
    assert size == entry.path.stat().st_size == store.size(OWNER, IDS)


def test_the_longest_beginning_between_the_bounds_is_found(store: PrefixStore) -> None:
    for n in (GRID, 2 * GRID):
        store.write(OWNER, IDS[:n], STATE)
    assert longest(store, IDS) == 2 * GRID
    assert store.longest(OWNER, IDS, at_least=GRID, at_most=2 * GRID - 1) == GRID
    assert store.longest(OWNER, IDS, at_least=2 * GRID, at_most=2 * GRID - 1) == 0
    assert longest(store, (*IDS[: 2 * GRID - 1], 999)) == GRID


def test_each_part_of_the_owner_and_each_id_is_in_the_key(store: PrefixStore) -> None:
    store.write(OWNER, IDS, STATE)
    for other in (Owner("model", "b" * 64, OWNER.engine), Owner("model", OWNER.model_sha256, "other/1")):
        assert longest(store, IDS, other) == 0
    for i in (0, GRID, len(IDS) - 1):
        assert longest(store, (*IDS[:i], 999, *IDS[i + 1 :])) == 0
    # The name is to be shown; the same file under another name is the same model.
    assert longest(store, IDS, Owner("alias", OWNER.model_sha256, OWNER.engine)) == len(IDS)


def test_the_grid_is_where_canonical_chunks_end() -> None:
    assert GRID % CANONICAL_CHUNK == 0
    assert [n for n, _key in keys(OWNER, IDS[:-1])] == [GRID, 2 * GRID]


# --- damage ---------------------------------------------------------------------------------------


def test_a_flip_of_any_byte_is_a_miss_and_the_file_is_gone(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path, LIMIT)
    store.write(OWNER, IDS, STATE[:100])
    path = only_file(store)
    whole = path.read_bytes()
    for i in range(len(whole)):
        damaged = bytearray(whole)
        damaged[i] ^= 1 << i % 8
        path.write_bytes(damaged)
        assert store.read(OWNER, IDS) is None, i
        assert not path.exists()
    path.write_bytes(whole)
    assert store.read(OWNER, IDS) is not None


def test_cut_short_or_grown_it_is_a_miss(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path, LIMIT)
    store.write(OWNER, IDS, STATE[:100])
    path = only_file(store)
    whole = path.read_bytes()
    for data in (*(whole[:n] for n in range(len(whole))), whole + b"\0", b"\0" * len(whole)):
        path.write_bytes(data)
        assert store.read(OWNER, IDS) is None, len(data)
        assert not path.exists()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_a_header_says_it_is_no_crash(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    """Headers with a right hash: made on purpose, not by accident."""
    store = PrefixStore(tmp_path_factory.mktemp("store"), LIMIT)
    store.write(OWNER, IDS, STATE)
    path = only_file(store)
    head = struct.pack("<8sII", b"INFERKV\n", 1, len(text)) + text
    path.write_bytes(head + sha256(head) + STATE)
    assert store.entries() == []
    assert store.read(OWNER, IDS) is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "{}",
        '{"key": 1}',
        "[" * 60_000,
        '{"key": "k", "n_tokens": "x", "model": 1, "model_sha256": 1, "engine": 1, "payload_bytes": 1,'
        ' "payload_sha256": 1}',
    ],
)
def test_a_header_of_another_shape_is_a_miss(store: PrefixStore, text: str) -> None:
    store.write(OWNER, IDS, STATE)
    path = only_file(store)
    head = struct.pack("<8sII", b"INFERKV\n", 1, len(text)) + text.encode()
    path.write_bytes(head + sha256(head) + STATE)
    assert store.entries() == []
    assert store.read(OWNER, IDS) is None


def test_another_version_is_a_miss(store: PrefixStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(OWNER, IDS, STATE)
    path = only_file(store)
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    head = data[:8] + struct.pack("<I", 2) + data[12 : 16 + length]
    path.write_bytes(head + sha256(head) + STATE)
    assert store.read(OWNER, IDS) is None
    assert not path.exists()


def test_a_file_under_another_ones_name_is_a_miss(store: PrefixStore) -> None:
    store.write(OWNER, IDS, STATE)
    store.write(OWNER, IDS[:GRID], STATE)
    one, other = (entry.path for entry in store.entries())
    one.write_bytes(other.read_bytes())
    assert len(store.entries()) == 1
    assert store.prune()[0] == 1


def test_files_of_others_are_left_alone(store: PrefixStore, tmp_path: Path) -> None:
    store.write(OWNER, IDS, STATE)
    other = tmp_path / "prefixes" / "notes.txt"
    other.write_text("mine")
    assert PrefixStore(tmp_path / "prefixes", 0).prune()[0] == 1
    store.write(OWNER, IDS, STATE)
    assert store.clear()[0] == 1
    assert other.read_text() == "mine"


# --- the directory --------------------------------------------------------------------------------


def test_a_directory_that_is_none_is_a_miss_and_says_so_when_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = PrefixStore(tmp_path / "file", LIMIT)
    assert longest(store, IDS) == 0
    assert (store.read(OWNER, IDS), store.entries(), store.clear()) == (None, [], (0, 0))
    with pytest.raises(OSError):
        store.write(OWNER, IDS, STATE)


def test_a_read_only_directory_is_still_read(store: PrefixStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(OWNER, IDS, STATE)

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    for name in ("utime", "unlink", "mkdir", "replace"):  # as root, permissions would not hold
        monkeypatch.setattr(os, name, refuse)
    found = store.read(OWNER, IDS)
    assert found is not None and bytes(found) == STATE
    only_file(store).write_bytes(b"damaged")
    assert store.read(OWNER, IDS) is None
    with pytest.raises(OSError):
        store.write(OWNER, IDS[:GRID], STATE)
    for remove in (store.prune, store.clear):
        with pytest.raises(PermissionError):
            remove()


def test_a_full_disk_leaves_nothing_half_written(
    store: PrefixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.write(OWNER, IDS, STATE)
    assert list((tmp_path / "prefixes").iterdir()) == []


def test_a_file_removed_between_finding_and_reading_is_a_miss(store: PrefixStore) -> None:
    store.write(OWNER, IDS, STATE)
    assert longest(store, IDS) == len(IDS)
    assert store.clear()[0] == 1
    assert store.read(OWNER, IDS) is None
    assert store.size(OWNER, IDS) == 0


def test_a_state_that_is_read_stays_when_its_file_goes(store: PrefixStore) -> None:
    store.write(OWNER, IDS, STATE)
    found = store.read(OWNER, IDS)
    store.clear()
    assert found is not None and bytes(found) == STATE


def test_nobody_else_may_look_into_the_directory(store: PrefixStore, tmp_path: Path) -> None:
    store.write(OWNER, IDS, STATE)
    if os.name == "posix":
        assert (tmp_path / "prefixes").stat().st_mode & 0o077 == 0


# --- the limit ------------------------------------------------------------------------------------


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path, LIMIT)
    ids = [tuple(range(i, i + GRID)) for i in range(4)]
    size = store.write(OWNER, ids[0], STATE)
    store = PrefixStore(tmp_path, 3 * size)
    for one in ids[1:3]:
        store.write(OWNER, one, STATE)
    for i, one in enumerate(ids[:3]):
        (path,) = (entry.path for entry in store.entries() if entry.key == dict(keys(OWNER, one))[GRID])
        os.utime(path, (1000 + i, 1000 + i))
    assert store.read(OWNER, ids[0]) is not None  # used: now the newest
    store.write(OWNER, ids[3], STATE)
    assert [longest(store, one) > 0 for one in ids] == [True, False, True, True]
    assert sum(entry.size for entry in store.entries()) <= 3 * size


def test_what_is_larger_than_the_limit_is_refused_and_nothing_goes_for_it(tmp_path: Path) -> None:
    size = PrefixStore(tmp_path, LIMIT).write(OWNER, IDS, STATE)
    store = PrefixStore(tmp_path, size)
    with pytest.raises(ValueError, match=str(size)):
        store.write(OWNER, IDS[:GRID], STATE * 2)
    assert longest(store, IDS) == len(IDS)


def test_the_default_limit_is_a_share_of_a_small_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk(free: int) -> None:
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)

    store = PrefixStore(tmp_path / "not" / "there", None)
    disk(1 << 40)
    assert store.limit() == MOST_BYTES
    disk(10_000_000)
    assert store.limit() == 1_000_000
    written = store.write(OWNER, IDS, STATE)
    assert store.limit() == (10_000_000 + written) // 10  # what it holds does not count against it


def test_abandoned_temporary_files_go(store: PrefixStore, tmp_path: Path) -> None:
    store.write(OWNER, IDS, STATE)
    path = only_file(store)
    old, young = (path.with_name(f"{path.name}.{digits}.tmp") for digits in ("00000000", "11111111"))
    for temporary in (old, young):
        temporary.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert store.prune() == (1, 4)
    assert young.exists() and longest(store, IDS)


# --- several processes ----------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from tests.prefix_cache.test_store import IDS, LIMIT, OWNER, STATE
from infer_cli.prefix_cache.store import GRID, PrefixStore
store = PrefixStore(Path(sys.argv[1]), int(sys.argv[2]))
for i in range(60):
    ids = tuple(range(i % 7, i % 7 + GRID))
    store.write(OWNER, ids, STATE)
    found = store.read(OWNER, ids)
    assert found is None or bytes(found) == STATE
"""


@pytest.mark.parametrize("limit", [LIMIT, 3 * (len(STATE) + 400)])
def test_writers_and_readers_at_once(tmp_path: Path, limit: int) -> None:
    """The same files, written, read and evicted by three processes."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(limit)]
    writers = [subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE) for _ in range(3)]
    for writer in writers:
        _, err = writer.communicate(timeout=60)
        assert writer.returncode == 0, err.decode()
    store = PrefixStore(tmp_path, limit)
    assert not list(tmp_path.glob("*.tmp"))
    entries = store.entries()
    assert entries and sum(entry.size for entry in entries) <= limit
    assert store.prune() == (0, 0)


# --- conversations --------------------------------------------------------------------------------


def test_a_conversation_is_found_by_just_the_segments_it_was_evaluated_in(store: PrefixStore) -> None:
    talk = (Segment("prompt", (1, 2, 3)), Segment("decoded", (4, 5)), Segment("prompt", (6,)))
    store.write(OWNER, talk, b"state")
    found = store.read(OWNER, talk)
    assert found is not None and bytes(found) == b"state"
    (entry,) = store.entries()
    assert entry.n_tokens == 6
    others = [
        (Segment("prompt", (1, 2, 3, 4, 5, 6)),),
        (Segment("prompt", (1, 2)), Segment("decoded", (3, 4, 5)), Segment("prompt", (6,))),
        (Segment("decoded", (1, 2, 3)), Segment("prompt", (4, 5)), Segment("decoded", (6,))),
        talk[:2],
        (*talk, Segment("decoded", (7,))),
    ]
    for other in others:
        assert store.read(OWNER, other) is None and store.size(OWNER, other) == 0
    store.remove(OWNER, talk)
    assert store.entries() == []
    store.remove(OWNER, talk)


def test_a_prompt_is_no_conversation(store: PrefixStore) -> None:
    ids = tuple(range(GRID))
    store.write(OWNER, ids, b"prompt")
    assert store.read(OWNER, (Segment("prompt", ids),)) is None
    assert longest(store, ids) == GRID
