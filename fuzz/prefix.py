"""Files of the cache: kept states and known hashes. Whatever a file holds, it is a miss or what was written.

`kv`: a state's file as it is found. `rehashed`: its header is other JSON, and its hashes are right.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from pathlib import Path

from fuzz.mutate import changed_bytes, changed_value, json_bytes
from fuzz.target import Broken, Input, Target
from infer_cli.models.hashes import cached_sha256, file_sha256
from infer_cli.prefix_cache.store import GRID, Owner, PrefixStore
from infer_cli.system.paths import cache_dir

_FIXED = struct.Struct("<8sII")
_OWNER = Owner("m", "ab" * 32, "engine")
_IDS = tuple(range(GRID))
_PAYLOAD = bytes(range(256)) * 4


class PrefixTarget(Target):
    name = "prefix"
    statuses = frozenset()

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._store = PrefixStore(scratch / "prefixes", most_bytes=1 << 30)
        self._store.write(_OWNER, _IDS, _PAYLOAD)
        (self._path,) = (scratch / "prefixes").glob("*.kv")
        self._whole = self._path.read_bytes()
        length = _FIXED.unpack_from(self._whole)[2]
        self._header = json.loads(self._whole[_FIXED.size : _FIXED.size + length])
        self._model = scratch / "model.gguf"
        self._model.write_bytes(b"GGUF")
        self._digest = file_sha256(self._model)

    def generate(self, rng: random.Random) -> Input:
        choice = rng.random()
        if choice < 0.5:
            return Input("kv", changed_bytes(rng, self._whole))
        if choice < 0.9:
            return Input("rehashed", json_bytes(rng, changed_value(rng, self._header, tuple(self._header))))
        return Input("sha256", changed_bytes(rng, self._digest.encode()))

    def check(self, given: Input) -> None:
        if given.kind == "sha256":
            self._check_digest(given.data)
            return
        data = given.data
        if given.kind == "rehashed":
            head = _FIXED.pack(self._whole[:8], _FIXED.unpack_from(self._whole)[1], len(data)) + data
            data = head + hashlib.sha256(head).digest() + _PAYLOAD
        for step in ("read", "list", "prune", "write"):
            self._path.write_bytes(data)
            if step == "read":
                state = self._store.read(_OWNER, _IDS)
                if state is not None and bytes(state) != _PAYLOAD:
                    raise Broken("a state that was not written is read")
                if state is None and self._path.exists():
                    raise Broken("a damaged state stays")
                self._store.longest(_OWNER, _IDS, at_least=1, at_most=GRID)
            elif step == "list":
                for entry in self._store.entries():
                    json.dumps([entry.key, entry.owner.model, entry.n_tokens, entry.size])
            elif step == "prune":
                self._store.prune()
            else:
                self._store.write(_OWNER, _IDS, _PAYLOAD)
                if bytes(self._store.read(_OWNER, _IDS) or b"") != _PAYLOAD:
                    raise Broken("a state can't be written over a damaged one")

    def _check_digest(self, data: bytes) -> None:
        (path,) = (cache_dir() / "sha256").iterdir()
        path.write_bytes(data)
        known = cached_sha256(self._model)
        if known is not None and (len(known) != 64 or not set(known) <= set("0123456789abcdef")):
            raise Broken(f"a hash that is none: {known!r}")
        if os.path.getsize(path) != len(data):
            raise Broken("reading a hash changes its file")
