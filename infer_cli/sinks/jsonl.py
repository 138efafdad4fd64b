"""Replies as lines of JSON: finished ones (--json) or every event (--jsonl)."""

from __future__ import annotations

from typing import BinaryIO

from infer_cli.answering.reply import TokenText, as_json, json_line, logprobs_json
from infer_cli.answering.silent import SilentSink
from infer_cli.answering.sink import Grain
from infer_cli.sinks.sample_order import SampleOrder
from infer_cli.types import Delta, Reply


class JsonSink(SilentSink):
    """--json: one line per finished reply, in sample order. `out` is left open by `close`."""

    def __init__(self, out: BinaryIO, token_text: TokenText) -> None:
        self._out, self._token_text = out, token_text
        self._order = SampleOrder()

    def end(self, reply: Reply) -> None:
        for due in self._order.push(reply):
            self._write(due)

    def close(self) -> None:
        for kept in self._order.drain():
            self._write(kept)

    def _write(self, item: Delta | Reply) -> None:
        if isinstance(item, Reply):
            self._out.write(json_line(as_json(item, self._token_text)))
            self._out.flush()


class JsonlSink:
    """--jsonl: one line per event, as it comes. `out` is left open by `close`.

    `{"event": "start", …info}`, `{"event": "prefill", "done", "total"}`, `{"event": "end", …reply}` and
    `{"event": "token", "token", "text"}` with `"reasoning": true` inside reasoning and `"bytes"`, `"logprob"`
    (and `"top_logprobs"`) where asked for; `"text"` is what the event adds to the reply, `"token"` is null
    where that is text without a new token. With several samples prefill and token events carry `"sample"`,
    and events of different samples interleave.
    """

    takes: Grain = "token"

    def __init__(self, out: BinaryIO, token_text: TokenText, *, n_samples: int) -> None:
        self._out, self._token_text = out, token_text
        self._several = n_samples > 1

    def start(self, info: dict[str, object]) -> None:
        self._write({"event": "start", **info})

    def prefill(self, sample: int, done: int, total: int) -> None:
        self._write({"event": "prefill", **self._sample(sample), "done": done, "total": total})

    def delta(self, delta: Delta) -> None:
        event: dict[str, object] = {"event": "token", **self._sample(delta.sample)}
        event |= {"token": delta.tokens[0] if delta.tokens else None, "text": delta.text}
        if delta.reasoning:
            event["reasoning"] = True
        if delta.logprobs is not None:
            event |= {**logprobs_json(delta.logprobs, self._token_text), "text": delta.text}
        self._write(event)

    def end(self, reply: Reply) -> None:
        self._write({"event": "end", **as_json(reply, self._token_text)})

    def close(self) -> None:
        pass

    def _sample(self, sample: int) -> dict[str, object]:
        return {"sample": sample} if self._several else {}

    def _write(self, event: dict[str, object]) -> None:
        self._out.write(json_line(event))
        self._out.flush()
