"""TOML that is sound, nearly sound, or not at all: for the two files that a user writes."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fuzz.mutate import TEXTS, changed_bytes, changed_lines
from infer_cli.settings.config_file import toml_text

VALUES = (
    "0", "1", "-1", "2**63", "9223372036854775807", "9223372036854775808", "1e999", "inf", "-inf", "nan",
    "+nan", "true",
    "false", '""', '"x"', "'x'", '"""\nx\n"""', "[]", "[[]]", "[1, \"a\"]", "{}", "{a = 1}",
    "{a.b = [{}]}", "1979-05-27",
    "1979-05-27T07:32:00Z", "07:32:00", "0x10", "0b2", "1_000", "1__0", '"\\u0000"', '"\\ud800"',
    '"\\x1b]0;t"', "",
    "9" * 5000, '"' + "x" * 3000 + '"', "[" * 300 + "]" * 300,
)  # fmt: skip
MARKS = (
    b"[", b"]", b"[[", b"]]", b"{", b"}", b"=", b'"', b"'", b'"""', b"'''", b"\\", b"#", b".", b",",
    b"\n", b"\r",
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1b", b"\xe2\x80\xae", b"[[model]]\n", b"[model]\n", b"default = ",
)  # fmt: skip


def any_text(rng: random.Random) -> str:
    """A TOML value."""
    return rng.choice(VALUES) if rng.random() < 0.7 else toml_text(rng.choice(TEXTS))


def setting(rng: random.Random, names: Sequence[str]) -> str:
    """A line that sets one of these names, or now and then another."""
    name = rng.choice(names) if rng.random() < 0.9 else toml_text(rng.choice(TEXTS))
    return f"{name} = {any_text(rng)}\n"


def changed_toml(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.5:
        return changed_lines(rng, data)
    return changed_bytes(rng, data, MARKS)


def deep(depth: int) -> dict[str, bytes]:
    """TOML that is nested deeply, in each way that it can be."""
    return {
        "deep-arrays": b"default = " + b"[" * depth + b"]" * depth + b"\n",
        "deep-tables": b"default = " + b"{a = " * depth + b"1" + b"}" * depth + b"\n",
        "deep-keys": b"a." * depth + b"a = 1\n",
        "deep-header": b"[" + b"a." * depth + b"a]\nb = 1\n",
    }
