"""Rows of a batch: files in every format, read and made into requests.

The kind of an input is the format (`jsonl`, `csv`, `tsv`, `lines`), with `pairs.` before it where the rows
are those of likelihoods, and `filled.` where a row template makes the prompts. A row that is wrong fails
alone; a file that is wrong is refused in one line.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from fuzz.mutate import TEXTS, any_value, changed_bytes, changed_lines, changed_value, json_bytes
from fuzz.target import Broken, Input, Target
from infer_cli.backend.fake import CHAT_TEMPLATE, FakeVocab
from infer_cli.batch.pair_preparing import PairDefaults, PairPreparer
from infer_cli.batch.pairs import PreparedPair
from infer_cli.batch.preparing import Defaults, Preparer
from infer_cli.batch.row_template import RowTemplate
from infer_cli.batch.rows import PAIRS, PROMPTS, Format
from infer_cli.batch.rows import Input as Rows
from infer_cli.errors import ExitStatus, InferError
from infer_cli.prompt.template import ChatTemplate

_NOW = datetime(2026, 7, 26, 12, 30, tzinfo=timezone.utc)
_OF_A_ROW = {ExitStatus.USAGE, ExitStatus.DOES_NOT_FIT, ExitStatus.MODEL_INVALID}
_KEYS = (
    "prompt", "messages", "custom_id", "system", "seed", "max_tokens", "stop", "samples", "logprobs",
    "deadline",
    "overflow", "temperature", "top_k", "top_p", "repeat_penalty", "mirostat", "body", "url", "method",
    "model",
    "text", "role", "content", "tool_calls", "n", "max_completion_tokens", "tools", "response_format", "line",
    "choices", "context", "continuation",
)  # fmt: skip
_ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "Why?"},
    {"prompt": "Why?", "custom_id": "a", "temperature": 0.7, "seed": 3, "samples": 2, "max_tokens": 5},
    {"prompt": "Why?", "system": "Be brief.", "stop": ["\n"], "logprobs": 2, "deadline": "3s",
     "overflow": "middle"},
    {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "Why?"}], "top_k": 5},
    {"messages": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"}]},
    {"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": {
        "model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}], "n": 2,
        "temperature": 1, "logprobs": True, "top_logprobs": 3, "max_completion_tokens": 9}},
    {"custom_id": 7, "url": "/v1/completions", "body": {"prompt": "Why?", "stop": "x", "logit_bias": {}}},
    {"text": "Ann", "n": 3},
    {"prompt": "Why?", "choices": ["So.", "No."], "deadline": 3},
)  # fmt: skip
_PAIRS: tuple[dict[str, Any], ...] = (
    {"context": "The sky is", "continuation": " blue", "custom_id": "a"},
    {"context": "", "continuation": "x"},
    {"messages": [{"role": "user", "content": "Why?"}], "continuation": "So."},
    {"text": "Ann", "prompt": "Bob", "continuation": "x"},
)
_MARKS = (
    b'"',
    b'""',
    b",",
    b"\t",
    b"\r\n",
    b"\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"\0",
    b"'",
    b"\xff",
    b"\xc2\x85",
    b"=1+1",
)


class RowsTarget(Target):
    name = "rows"
    most_memory = 512 * 2**20

    @classmethod
    def big_inputs(cls) -> Mapping[str, Callable[[], Input]]:
        columns = b",".join(b"c%d" % i for i in range(80_000))
        return {
            "row-of-100-mb.jsonl": lambda: Input(
                "jsonl", b'{"prompt": "' + b"a" * 10**8 + b'"}\n{"prompt": "b"}\n'
            ),
            "line-of-100-mb.lines": lambda: Input("lines", b"a" * 10**8 + b"\nb\n"),
            "field-of-100-mb.csv": lambda: Input("csv", b'prompt\n"' + b"a" * 10**8 + b'"\nb\n'),
            "row-of-many-values.jsonl": lambda: Input("jsonl", b'{"prompt": [' + b"1," * 10**7 + b"1]}\n"),
            "80000-columns.csv": lambda: Input("csv", columns + b",prompt\n" + b"1," * 80_000 + b"x\n"),
            "80000-columns-no-prompt.csv": lambda: Input("csv", columns + b"\n"),
            "80000-columns-alike.csv": lambda: Input("csv", b"a," * 80_000 + b"prompt\n"),
            "80000-columns-short-rows.csv": lambda: Input("csv", columns + b",prompt\n" + b"x\n" * 2000),
            "deep.jsonl": lambda: Input("jsonl", b'{"prompt": ' + b"[" * 10**6 + b"]" * 10**6 + b"}\n"),
            "deep-messages.jsonl": lambda: Input("jsonl", _nested(900)),
            "long-number.jsonl": lambda: Input("jsonl", b'{"prompt": "a", "seed": ' + b"9" * 10**6 + b"}\n"),
            "open-quote.csv": lambda: Input("csv", b'prompt\n"' + b"a\n" * 10**6),
        }

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._path = scratch / "rows"
        self._seeds = self.seed_inputs()
        self._templates = [None, RowTemplate("Say {text} to {prompt}."), RowTemplate("{line}")]
        template = ChatTemplate(CHAT_TEMPLATE, bos="", eos="", now=_NOW)
        defaults = Defaults(sampling={}, entry={}, recommended={}, run_seed=7, max_tokens=100)
        self._preparer = Preparer(defaults, FakeVocab(), lambda: template, 4096, 4096)
        self._pair_preparer = PairPreparer(PairDefaults(), FakeVocab(), lambda: template, 4096)

    def generate(self, rng: random.Random) -> Input:
        if rng.random() < 0.3:
            given = rng.choice(self._seeds)
            data = changed_lines(rng, given.data) if rng.random() < 0.2 else given.data
            return Input(given.kind, changed_bytes(rng, data, _MARKS))
        pairs = "pairs." if rng.random() < 0.2 else ""
        filled = pairs + ("filled." if rng.random() < 0.1 else "")
        kind = rng.choice(("jsonl", "jsonl", "jsonl", "csv", "tsv", "lines"))
        if kind == "jsonl":
            lines = [
                json_bytes(rng, changed_value(rng, rng.choice(_PAIRS if pairs else _ROWS), _KEYS))
                for _ in range(rng.randrange(1, 6))
            ]
            data = b"\n".join(lines)
            return Input(filled + kind, changed_bytes(rng, data, _MARKS) if rng.random() < 0.1 else data)
        names = [rng.choice((*_KEYS[:6], "text", *TEXTS)) for _ in range(rng.randrange(1, 5))]
        needed = ["context", "continuation"] if pairs else ["prompt"]
        table = [
            [*names, *needed],
            *([str(any_value(rng, 1)) for _ in range(len(names) + len(needed))] for _ in range(4)),
        ]
        mark = "\t" if kind == "tsv" else ","
        text = "\n".join(mark.join(row) for row in table)
        return Input(filled + kind, changed_bytes(rng, text.encode("utf-8", "surrogatepass"), _MARKS))

    def check(self, given: Input) -> None:
        plain = given.kind.removeprefix("pairs.")
        kind = plain.removeprefix("filled.")
        self._path.write_bytes(given.data)
        template = None if kind == plain else self._templates[2 if kind == "lines" else 1]
        shape = PROMPTS if plain == given.kind else PAIRS
        seen: set[str] = set()
        n_rows = 0
        for row in Rows(str(self._path), cast(Format, kind), template, shape).rows():
            if row.index != n_rows:
                raise Broken("rows are not numbered one by one")
            n_rows += 1
            if row.asked is None and not row.error:
                raise Broken("a row that can't be read says nothing of why")
            try:
                prepared = (self._preparer if shape is PROMPTS else self._pair_preparer).prepare(row)
            except InferError as error:
                if error.exit_status not in _OF_A_ROW:
                    raise Broken(
                        f"a row fails with {error.exit_status.name}: {error.message[:100]}"
                    ) from error
                json.dumps({"error": {"message": error.message}})
                continue
            if row.custom_id in seen:
                raise Broken("two rows of one custom_id can be answered")
            seen.add(row.custom_id)
            if not prepared.prompt_ids or prepared.n_samples < 1 or not prepared.requests(0):
                raise Broken("a row that asks nothing can be answered")
            if isinstance(prepared, PreparedPair):
                if not 0 < prepared.requests(0)[0].first < len(prepared.requests(0)[0].ids):
                    raise Broken("a pair without a context or a continuation can be scored")
                continue
            json.dumps(prepared.params, allow_nan=False)
        if n_rows > given.data.count(b"\n") + given.data.count(b"\r") + 1:
            raise Broken("there are more rows than lines")


def _nested(depth: int) -> bytes:
    value = b'{"a": ' * depth + b"1" + b"}" * depth
    return b'{"messages": [{"role": "user", "content": "a", "name": ' + value + b"}]}\n"
