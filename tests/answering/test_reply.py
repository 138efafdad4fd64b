from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.answering.reply import as_json, digest, json_line
from infer_cli.system.hashing import sha256_hex
from infer_cli.types import EngineIdentity, FinishReason, ModelIdentity, Reply, Timings, TokenLogprobs, Usage

_KEYS = [
    "id",
    "custom_id",
    "sample",
    "text",
    "reasoning",
    "tokens",
    "logprobs",
    "finish_reason",
    "digest",
    "usage",
    "timings",
    "run_seed",
    "seed",
    "mode",
    "promise",
    "probed",
    "params",
    "model",
    "engine",
    "truncation",
    "error",
]


def _reply() -> Reply:
    return Reply(
        id="r1",
        custom_id=None,
        sample=0,
        text="hi",
        reasoning=None,
        tokens=(1, 2),
        logprobs=None,
        finish_reason="stop",
        digest="sha256:00",
        usage=Usage(31, 0, 2),
        timings=Timings(0.2, 0.0, 0.12, 0.21, 310.0, 140.0),
        run_seed=None,
        seed=None,
        mode="canonical",
        promise="canonical",
        probed=False,
        params={"temperature": 0.0},
        model=ModelIdentity("m", "aa"),
        engine=EngineIdentity("1", None, None, {}),
    )


def test_keys_and_their_order() -> None:
    value = as_json(_reply())
    assert list(value) == _KEYS
    assert value["usage"] == {"prompt_tokens": 31, "cached_tokens": 0, "completion_tokens": 2}
    assert list(value["timings"]) == ["load_s", "queue_s", "ttft_s", "total_s", "prefill_tps", "decode_tps"]  # type: ignore[call-overload]
    assert value["tokens"] == [1, 2]
    assert json.loads(json_line(value)) == value


def test_logprobs_and_numbers_that_json_lacks() -> None:
    reply = replace(
        _reply(),
        logprobs=(TokenLogprobs(1, -0.5, ((1, -0.5), (7, -math.inf))), TokenLogprobs(2, -1.0)),
        timings=Timings(0.0, 0.0, None, 0.1, math.inf, math.nan),
    )
    value = as_json(reply)
    assert value["logprobs"] == [
        {
            "token": 1,
            "logprob": -0.5,
            "top_logprobs": [{"token": 1, "logprob": -0.5}, {"token": 7, "logprob": None}],
        },
        {"token": 2, "logprob": -1.0},
    ]
    timings = value["timings"]
    assert isinstance(timings, dict)
    assert (timings["ttft_s"], timings["prefill_tps"], timings["decode_tps"]) == (None, None, None)


def test_digest_is_the_documented_hash() -> None:
    expected = (
        '{"finish_reason":"stop","params":{"a":1,"temperature":0.7},"seed":5,'
        r'"text":"h\u00e9\n","tokens":[1,2]}'
    )
    got = digest((1, 2), "hé\n", "stop", 5, {"temperature": 0.7, "a": 1})
    assert got == "sha256:" + hashlib.sha256(expected.encode()).hexdigest()


@pytest.mark.parametrize(
    ("tokens", "text", "reason", "seed", "params"),
    [
        ((1, 3), "x", "stop", 5, {"t": 0.1}),
        ((1, 2), "y", "stop", 5, {"t": 0.1}),
        ((1, 2), "x", "length", 5, {"t": 0.1}),
        ((1, 2), "x", "stop", None, {"t": 0.1}),
        ((1, 2), "x", "stop", 5, {"t": math.nextafter(0.1, 1)}),
    ],
)
def test_digest_changes_with_each_part(
    tokens: tuple[int, ...], text: str, reason: FinishReason, seed: int | None, params: dict[str, object]
) -> None:
    assert digest(tokens, text, reason, seed, params) != digest((1, 2), "x", "stop", 5, {"t": 0.1})


def test_digest_ignores_key_order_and_refuses_nan() -> None:
    assert digest((), None, "error", None, {"a": 1, "b": 2}) == digest(
        (), None, "error", None, {"b": 2, "a": 1}
    )
    with pytest.raises(ValueError, match="JSON"):
        digest((), "", "stop", None, {"t": math.nan})


@given(st.text(st.characters(exclude_categories=())))
def test_json_line_is_one_safe_line_of_utf8(text: str) -> None:
    line = json_line({"text": text})
    # JSON joins a pair of escaped surrogates into the character that they stand for.
    assert json.loads(line) == {
        "text": text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    }
    decoded = line.decode("utf-8")
    assert decoded.splitlines() == [decoded[:-1]]
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in decoded[:-1])


def test_the_lean_sha256_is_sha256() -> None:
    for data in (b"", b"abc", bytes(range(256)) * 300):
        assert sha256_hex(data) == hashlib.sha256(data).hexdigest()
