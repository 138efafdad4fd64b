from __future__ import annotations

import io
import json

from infer_cli.answering.reply import as_json
from infer_cli.sinks.jsonl import JsonlSink, JsonSink
from infer_cli.types import Delta, Reply, TokenLogprobs
from tests.replies import reply


def _reply(sample: int = 0) -> Reply:
    return reply(sample, "é")


def token_text(token: int) -> bytes:
    return {6: b"\xc3\xa9", 9: b"\xc3"}[token]


def _lines(out: io.BytesIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_is_a_line_per_reply_in_sample_order() -> None:
    out = io.BytesIO()
    sink = JsonSink(out, token_text)
    sink.start({})
    sink.delta(Delta(0, "é"))
    sink.end(_reply(1))
    assert out.getvalue() == b""
    sink.end(_reply(0))
    sink.end(_reply(3))
    sink.close()
    assert _lines(out) == [as_json(_reply(sample)) for sample in (0, 1, 3)]
    assert "é".encode() in out.getvalue()


def test_jsonl_events() -> None:
    out = io.BytesIO()
    sink = JsonlSink(out, token_text, n_samples=1)
    sink.start({"id": "r0"})
    sink.prefill(0, 2, 4)
    sink.delta(Delta(0, "wh", reasoning=True, tokens=(5,)))
    sink.delta(Delta(0, "\x1b\x9bé", tokens=(6,), logprobs=TokenLogprobs(6, -0.5, ((6, -0.5), (9, -2.0)))))
    sink.delta(Delta(0, "tail"))
    sink.end(_reply())
    sink.close()
    assert _lines(out) == [
        {"event": "start", "id": "r0"},
        {"event": "prefill", "done": 2, "total": 4},
        {"event": "token", "token": 5, "text": "wh", "reasoning": True},
        {
            "event": "token",
            "token": 6,
            "text": "\x1b\x9bé",
            "bytes": [0xC3, 0xA9],
            "logprob": -0.5,
            "top_logprobs": [
                {"token": 6, "text": "é", "bytes": [0xC3, 0xA9], "logprob": -0.5},
                {"token": 9, "text": "\ufffd", "bytes": [0xC3], "logprob": -2.0},  # half a character
            ],
        },
        {"event": "token", "token": None, "text": "tail"},
        {"event": "end", **as_json(_reply())},
    ]
    assert b"\\u009b" in out.getvalue()


def test_jsonl_names_the_sample_where_there_are_several() -> None:
    out = io.BytesIO()
    sink = JsonlSink(out, token_text, n_samples=2)
    sink.prefill(1, 1, 1)
    sink.delta(Delta(1, "a", tokens=(1,)))
    sink.end(_reply(1))
    assert [line["sample"] for line in _lines(out)] == [1, 1, 1]


def test_each_event_is_flushed() -> None:
    class Counting(io.BytesIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    out = Counting()
    sink = JsonlSink(out, token_text, n_samples=1)
    sink.start({})
    sink.delta(Delta(0, "a", tokens=(1,)))
    assert out.flushes == 2
