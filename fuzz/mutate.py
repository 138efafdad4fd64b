"""Changes to bytes, texts and JSON values. All choices come from the generator that is handed in."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

INTEGERS = (
    0, 1, -1, 2, 3, 7, 15, 16, 17, 63, 64, 127, 128, 255, 256, 257, 1023, 65535, 65536, 2**24, 2**31 - 1,
    2**31,
    2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -(2**31), -(2**63), 10**400,
)  # fmt: skip
TEXTS = (
    "", " ", "\n", "a", "é", "\u202e", "\x1b]0;t\x07", "\x9b31m", "\0", "\ud800", "日本語", "🙂", "x" * 300,
    "NaN",
    "../../x", "/dev/zero", "{}", "[[", "<|im_end|>", "%s%n", "-1", "1e999", "true", "\ufeff", "a\r\nb",
    "\u2028",
)  # fmt: skip
_FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))


def changed_bytes(rng: random.Random, data: bytes, words: Sequence[bytes] = (), most: int = 4) -> bytes:
    """`data` with a few local changes. `words` are put in now and then."""
    out = bytearray(data)
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(out) + 1)
        choice = rng.randrange(10)
        if choice == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif choice == 1 and out:
            out[at % len(out)] = rng.choice((0, 1, 9, 10, 13, 27, 34, 44, 92, 127, 128, 155, 192, 237, 255))
        elif choice == 2:
            del out[at : at + rng.choice((1, 2, 4, 8, 40))]
        elif choice == 3:
            end = at + rng.choice((1, 2, 8, 30, 200))
            out[at:at] = out[at:end]
        elif choice == 4:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
        elif choice == 5 and words:
            out[at:at] = rng.choice(words)
        elif choice == 6 and words:
            word = rng.choice(words)
            out[at : at + len(word)] = word
        elif choice == 7 and rng.random() < 0.3:
            del out[at:]
        elif choice == 8:
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice(INTEGERS) % 2 ** (8 * size)
            out[at : at + size] = value.to_bytes(size, rng.choice(("little", "little", "big")))
        else:
            start = rng.randrange(len(out) + 1)
            piece = bytes(out[start : start + rng.choice((1, 4, 16, 100))])
            out[at : at + len(piece)] = piece
    return bytes(out)


def changed_lines(rng: random.Random, data: bytes) -> bytes:
    """`data` with a line moved, repeated or left out."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = rng.randrange(len(lines))
    choice = rng.randrange(3)
    if choice == 0:
        del lines[at]
    elif choice == 1:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    else:
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    return b"".join(lines)


def any_value(rng: random.Random, depth: int = 3) -> Any:
    """A JSON value, as Python has it: NaN and infinities too."""
    choice = rng.randrange(8 if depth else 6)
    if choice == 0:
        return rng.choice(INTEGERS)
    if choice == 1:
        return rng.choice(_FLOATS)
    if choice == 2:
        return rng.choice(TEXTS)
    if choice == 3:
        return None
    if choice == 4:
        return rng.random() < 0.5
    if choice == 5:
        return "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in range(rng.randrange(9))
        )
    if choice == 6:
        return [any_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(TEXTS): any_value(rng, depth - 1) for _ in range(rng.randrange(4))}


def changed_value(rng: random.Random, value: Any, keys: Sequence[str] = ()) -> Any:
    """A copy of a JSON value with one thing in it changed; `keys` are put into objects."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        copy = dict(value)
        key = rng.choice(list(copy))
        choice = rng.random()
        if choice < 0.7:
            copy[key] = changed_value(rng, copy[key], keys)
        elif choice < 0.8:
            del copy[key]
        elif choice < 0.9 and keys:
            copy[rng.choice(keys)] = any_value(rng)
        else:
            copy[rng.choice(TEXTS)] = copy.pop(key)
        return copy
    if isinstance(value, list) and value and rng.random() < 0.7:
        items = list(value)
        at = rng.randrange(len(items))
        choice = rng.random()
        if choice < 0.6:
            items[at] = changed_value(rng, items[at], keys)
        elif choice < 0.8:
            items.insert(at, items[rng.randrange(len(items))])
        else:
            del items[at]
        return items
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice(INTEGERS)
    if isinstance(value, str) and rng.random() < 0.5:
        return rng.choice(TEXTS)
    return any_value(rng)


def json_bytes(rng: random.Random, value: Any) -> bytes:
    """JSON of a value, sometimes in spellings that Python's own writer does not use."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.05:
        text = text.replace("Infinity", "1e999")
    if rng.random() < 0.03:
        depth = rng.choice((50, 900, 1100, 5000, 100_000))
        text = text.replace("null", "[" * depth + "]" * depth, 1)
    return text.encode("utf-8", "surrogatepass")
