"""SHA-256 of what is short. For files there is `hashlib`, which is faster, but loads OpenSSL: at every start
that would be 4 MB and as many milliseconds (the standard library's `random` avoids it for the same reason).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def _implementation() -> Any:
    for module in ("_sha2", "_sha256"):  # CPython from 3.12 on, and before
        try:
            return import_module(module).sha256
        except ImportError:
            continue
    return import_module("hashlib").sha256


_sha256 = _implementation()


def sha256(data: bytes) -> bytes:
    """The 32 bytes."""
    digest: bytes = _sha256(data).digest()
    return digest


def sha256_hex(data: bytes) -> str:
    return sha256(data).hex()
