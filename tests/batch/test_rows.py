"""Rows of a batch: what each kind of line asks, and what becomes of one that can't be read."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from infer_cli.backend.fake import CHAT_TEMPLATE, FakeVocab
from infer_cli.batch.late_template import NoTemplate
from infer_cli.batch.preparing import Defaults, Preparer
from infer_cli.batch.records import MAX_ROW_BYTES
from infer_cli.batch.replies import PreparedRow
from infer_cli.batch.row_template import RowTemplate
from infer_cli.batch.rows import Format, Input, Row, input_format
from infer_cli.errors import InferError, UsageError
from infer_cli.prompt.template import ChatTemplate
from infer_cli.settings.origins import Given
from infer_cli.settings.seeds import row_seed, sample_seed
from tests.prompt.test_template import NOW


def rows_of(
    tmp_path: Path, text: str | bytes, name: str = "in.jsonl", template: str | None = None
) -> list[Row]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    row_template = None if template is None else RowTemplate(template)
    return list(Input(str(path), input_format(name, None), row_template).rows())


def row_of(tmp_path: Path, **value: object) -> Row:
    (row,) = rows_of(tmp_path, json.dumps(value))
    return row


def preparer(*, template: str | None = CHAT_TEMPLATE, window: int = 4096, **defaults: object) -> Preparer:
    def load() -> ChatTemplate:
        if template is None:
            raise UsageError("no template")
        return ChatTemplate(template, bos="", eos="", now=NOW)

    values: dict[str, object] = {
        "sampling": {},
        "entry": {},
        "recommended": {},
        "run_seed": 7,
        "max_tokens": 100,
    }
    return Preparer(Defaults(**{**values, **defaults}), FakeVocab(), load, window, 4096)  # type: ignore[arg-type]


def prepared(tmp_path: Path, row: dict[str, object], **defaults: Any) -> PreparedRow:
    found = preparer(**defaults).prepare(row_of(tmp_path, **row))
    assert isinstance(found, PreparedRow)
    return found


def prompt_text(asked: PreparedRow) -> str:
    return b"".join(FakeVocab().token_text(t) for t in asked.prompt_ids).decode()


SAMPLED = {"temperature": Given("0.5", "--temperature")}


# --- reading --------------------------------------------------------------------------------------


def test_lines_of_json(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, '\ufeff{"prompt": "one"}\r\n\n{"custom_id": 7, "messages": []}')
    assert [(row.index, row.custom_id) for row in rows] == [(0, "0"), (1, "7")]
    assert rows[0].asked is not None
    assert rows[0].asked.prompt == "one"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense", "not JSON"),
        ('{"prompt": NaN}', "NaN"),
        ("[" * 100_000, "not JSON|nested too deeply"),
        ('{"prompt": "x", "seed": ' + "9" * 5000 + "}", "a number of more than 4300 digits"),
        ("[1]", "not an object"),
        ("{}", "either a prompt or messages"),
        ('{"prompt": "x", "messages": []}', "either a prompt or messages"),
        ('{"prompt": "x", "custom_id": [1]}', "custom_id"),
        ('{"custom_id": "a", "url": "/v1/embeddings", "body": {}}', "/v1/embeddings"),
        ('{"custom_id": "a", "method": "GET", "url": "/v1/completions", "body": {}}', "GET"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": 3}', "body is not an object"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": {}}', "no prompt"),
        ('{"url": "/v1/completions", "body": {"prompt": "x", "stream": true}}', "stream"),
        ('{"url": "/v1/completions", "body": {"prompt": "x"}, "seed": 1}', "unknown key 'seed'"),
        ('{"url": "/v1/completions", "body": {"prompt": "x", "echo": true}}', "echo is not supported"),
        ('{"url": "/v1/completions", "body": {"prompt": ["x"]}}', "prompt must be one text"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_row_with_an_error(tmp_path: Path, line: str, why: str) -> None:
    bad, good = rows_of(tmp_path, f'{line}\n{{"prompt": "x"}}\n')
    assert bad.asked is None
    assert bad.custom_id == ("a" if '"a"' in line else "0")
    assert any(part in bad.error for part in why.split("|"))
    assert good.index == 1
    assert good.asked is not None


def test_nesting_of_any_depth_is_no_failure_of_the_job(tmp_path: Path) -> None:
    for depth in (60, 300, *range(900, 1000, 7), 5000, 100_000):
        text = '{"prompt": "x", "messages_": ' + "[" * depth + "]" * depth + "}\n"
        row, good = rows_of(tmp_path, text + '{"prompt": "x"}')
        assert good.asked is not None
        if row.asked is not None:
            with pytest.raises(UsageError, match="unknown key"):
                preparer().prepare(row)
        else:
            assert "nested too deeply" in row.error


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, b'{"prompt": "\xff"}')
    assert "0xff" in row.error
    bad, good = rows_of(tmp_path, b"custom_id,prompt\na,\xff\nb,x\n", "in.csv")
    assert (bad.custom_id, bad.error) == ("a", "the record is not UTF-8: byte 0xff")
    assert good.asked is not None


def test_an_id_is_used_once(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, '{"prompt": "x", "custom_id": "1"}\n{"prompt": "y"}\n{"prompt": "z"}')
    assert [row.error for row in rows] == ["", "custom_id '1' is another row's too", ""]


def test_the_openai_form(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 5, "n": 2}
    (chat,) = rows_of(
        tmp_path,
        json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}),
    )
    assert chat.asked is not None
    assert chat.custom_id == "a"
    assert chat.asked.messages == body["messages"]
    assert chat.asked.values == {"max_tokens": 5, "samples": 2}
    asked = prepared(
        tmp_path,
        {"url": "/v1/completions", "body": {"prompt": "the", "temperature": 0, "top_p": 1, "seed": 3}},
        template=None,
    )
    assert asked.prompt_ids == tuple(b"the")
    assert asked.raw
    assert asked.seed(0) is None  # greedy: a seed is no error there


def test_what_changes_nothing_is_taken_in_the_openai_form(tmp_path: Path) -> None:
    body: dict[str, object] = {
        "messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "text"}, "tools": [],
        "tool_choice": "none", "logit_bias": {}, "service_tier": "auto", "stream_options": None,
        "stream": False,
    }  # fmt: skip
    assert prepared(tmp_path, {"url": "/v1/chat/completions", "body": body}).prompt_ids
    body["response_format"] = {"type": "json_object"}
    assert "response_format is not supported" in row_of(tmp_path, url="/v1/chat/completions", body=body).error
    body = {"prompt": "the", "echo": False, "best_of": 1, "suffix": ""}
    assert prepared(tmp_path, {"url": "/v1/completions", "body": body}).prompt_ids


def test_log_probabilities_in_the_openai_form(tmp_path: Path) -> None:
    def n_logprobs(**body: object) -> int | None:
        body["messages"] = [{"role": "user", "content": "hi"}]
        return prepared(tmp_path, {"url": "/v1/chat/completions", "body": body}).n_logprobs

    assert n_logprobs() is None
    assert n_logprobs(logprobs=True) == 0
    assert n_logprobs(logprobs=True, top_logprobs=4) == 4


def test_tables(tmp_path: Path) -> None:
    text = 'custom_id,text,n\na,"one,\nline two",1\nb,two\n,three,3\n'
    rows = rows_of(tmp_path, text, "in.csv", "{n}: {text} {{}}")
    assert [(row.custom_id, row.asked and row.asked.prompt) for row in rows] == [
        ("a", "1: one,\nline two {}"),
        ("1", None),
        ("2", "3: three {}"),
    ]
    assert "2 fields, the header 3" in rows[1].error
    (row,) = rows_of(tmp_path, "prompt\tx\nhello\t1\n", "in.tsv")
    assert row.asked is not None
    assert row.asked.prompt == "hello"


@pytest.mark.parametrize(
    ("text", "template", "why"),
    [
        ("x,y\n1,2\n", None, "no column 'prompt'"),
        ("x;prompt\n1;2\n", None, "no column 'prompt'"),
        ("x,y\n1,2\n", "{z}", "no column 'z'"),
        ("prompt,prompt\n1,2\n", None, "'prompt' twice"),
    ],
)
def test_a_header_that_no_row_can_do_with_stops_the_job(
    tmp_path: Path, text: str, template: str | None, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        rows_of(tmp_path, text, "in.csv", template)
    assert rows_of(tmp_path, "", "in.csv", template) == []


def test_a_quote_that_is_not_closed_does_not_swallow_rows_unsaid(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 'prompt\none\n"two\nthree\nfour\n', "in.csv")
    assert [row.error for row in rows] == ["", "the record from line 3 on: unexpected end of data"]
    rows = rows_of(tmp_path, 'prompt\n"Hello" he said\nIt is "x"\n', "in.tsv")
    assert "from line 2 on" in rows[0].error
    assert rows[1].asked is not None
    assert rows[1].asked.prompt == 'It is "x"'


@pytest.mark.parametrize("format_", ["jsonl", "lines", "csv"])
def test_a_row_that_is_too_long_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: Format
) -> None:
    monkeypatch.setattr("infer_cli.batch.records.MAX_ROW_BYTES", 1000)
    monkeypatch.setattr("infer_cli.batch.records._PIECE", 64)
    long = {
        "jsonl": ['{"prompt": "%s"}' % ("x" * 3000), "[" * 3000, '{"prompt": "%s"}' % ("x" * 984 + "yz")],
        "lines": ["x" * 3000, "y" * 1000],
        "csv": ["x" * 3000, '"%s"' % ("words\n" * 500), '"%s"' % ('""\n' * 500), "y" * 1000],
    }[format_]
    good = {"jsonl": '{"prompt": "good"}', "lines": "good", "csv": "good"}[format_]
    path = tmp_path / f"in.{format_}"
    text = "".join(f"{row}\n{good}\n" for row in long)
    path.write_text(("prompt\n" if format_ == "csv" else "") + text)
    rows = list(Input(str(path), format_).rows())
    assert [row.asked is not None and row.asked.prompt == "good" for row in rows] == [False, True] * len(long)
    assert all("more than" in row.error for row in rows[::2])
    assert len({row.sha256 for row in rows[::2]}) == len(long)


def test_the_longest_row_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer_cli.batch.records.MAX_ROW_BYTES", 1000)
    path = tmp_path / "in.txt"
    path.write_text("x" * 999 + "\n" + "y" * 999)
    assert [row.error for row in Input(str(path), "lines").rows()] == ["", ""]


def test_a_row_of_100_mb_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"prompt": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"prompt": "good"}\n')
    tracemalloc.start()
    rows = list(Input(str(path), "jsonl").rows())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.error for row in rows] == ["the row has more than 8 MB", ""]
    assert peak < 4 * MAX_ROW_BYTES


def test_a_table_of_80_000_columns_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    names = [f"c{i}" for i in range(80_000)]
    path.write_text(",".join(["prompt", *names]) + "\n" + ",".join(["hi"] * 80_001) + "\n")
    began = time.process_time()
    (row,) = Input(str(path), "csv").rows()
    assert time.process_time() - began < 5
    assert row.asked is not None
    path.write_text(",".join(names) + "\nx\n")
    with pytest.raises(UsageError, match=r"has no column 'prompt'; its first line names 'c0', .*, …$") as e:
        list(Input(str(path), "csv").rows())
    assert len(e.value.message) < 1000


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('{"prompt": "a", "prompt": "b"}', "the key 'prompt' is there twice"),
        (
            '{"messages": [{"role": "user", "role": "system", "content": "x"}]}',
            "the key 'role' is there twice",
        ),
        ('{"prompt": "a", "temperature": 1e999}', "the number 1e999 is out of range"),
        ('{"prompt": "a", "metadata": [-1e999]}', "the number -1e999 is out of range"),
        ('{"prompt": "a", "seed": 1%s}' % ("0" * 5000), "more than 4300 digits"),
        ('{"prompt": %s}' % ("[" * 200_000), "nested too deeply"),
    ],
)
def test_json_that_readers_take_differently_is_an_error(tmp_path: Path, row: str, why: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(row + '\n{"prompt": "good"}\n')
    bad, good = Input(str(path), "jsonl").rows()
    assert why in bad.error
    assert good.error == ""


def test_plain_lines_and_objects_fill_a_template(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "one\n\n two\n", "in.txt", "Say {line}!")
    assert [row.asked and row.asked.prompt for row in rows] == ["Say one!", "Say  two!"]
    (row,) = rows_of(tmp_path, '{"q": [1], "label": 3}', template="{q}?")
    assert row.asked is not None
    assert (row.asked.prompt, row.asked.values) == ("[1]?", {})


@pytest.mark.parametrize("text", ["no field", "{", "{}", "{a.b}", "{a[0]}", "{a!r}", "{a:>3}"])
def test_templates_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--row-template"):
        RowTemplate(text)


def test_the_format_is_told_by_the_name(tmp_path: Path) -> None:
    assert [input_format(n, None) for n in ("a.jsonl", "a.CSV", "a.tsv", "a.txt", "-")] == [
        "jsonl", "csv", "tsv", "lines", "jsonl",
    ]  # fmt: skip
    assert input_format("a.data", "lines") == "lines"
    for name, given in (("a.data", None), ("a.csv", "xml")):
        with pytest.raises(UsageError):
            input_format(name, given)


# --- parameters -----------------------------------------------------------------------------------


def test_a_row_says_otherwise(tmp_path: Path) -> None:
    row: dict[str, object] = {
        "prompt": "hi", "temperature": 0.7, "top_k": 5, "max_tokens": 9, "stop": "x", "samples": 3,
        "deadline": "2m", "logprobs": 2, "system": "be brief",
    }  # fmt: skip
    asked = prepared(tmp_path, row, system="be long", stop=("y",))
    assert (asked.sampling.temperature, asked.sampling.top_k) == (0.7, 5)
    assert (asked.max_tokens, asked.stop, asked.n_samples) == (9, ("x",), 3)
    assert (asked.deadline_s, asked.n_logprobs) == (120, 2)
    assert "be brief" in prompt_text(asked)
    assert "be long" not in prompt_text(asked)


def test_null_is_not_said(tmp_path: Path) -> None:
    """Tables written as JSON have it in every empty field."""
    names = (
        "messages",
        "temperature",
        "top_k",
        "seed",
        "max_tokens",
        "stop",
        "samples",
        "deadline",
        "overflow",
    )
    row: dict[str, object] = {"prompt": "hi", **dict.fromkeys(names)}
    asked = prepared(tmp_path, row, stop=("y",), sampling=SAMPLED, n_samples=2)
    assert (asked.sampling.temperature, asked.stop, asked.n_samples) == (0.5, ("y",), 2)
    assert row_of(tmp_path, prompt=None).error == "a row has either a prompt or messages"


def test_a_row_that_says_nothing(tmp_path: Path) -> None:
    asked = prepared(tmp_path, {"prompt": "hi"}, system="be long", stop=("y",), sampling=SAMPLED, n_samples=2)
    assert (asked.sampling.temperature, asked.stop, asked.n_samples) == (0.5, ("y",), 2)
    assert prompt_text(asked).startswith("<|im_start|>system\nbe long")


def test_a_greedy_row_in_a_sampled_job(tmp_path: Path) -> None:
    sampling = {**SAMPLED, "top_k": Given(3, "--top-k")}
    asked = prepared(tmp_path, {"prompt": "hi", "temperature": 0}, sampling=sampling, n_samples=4)
    assert (asked.n_samples, asked.seed(0)) == (1, None)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"temprature": 1}, "unknown key 'temprature'"),
        ({"top_k": 3}, "top_k has no meaning without sampling"),
        ({"seed": 3}, "seed has no meaning without sampling"),
        ({"samples": 2}, "samples above 1 need sampling"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 1, "top_p": 2}, "top_p"),
        ({"temperature": 1, "seed": -1}, "seed"),
        ({"temperature": 1, "seed": "1"}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": 1}, "stop"),
        ({"stop": "\ud800"}, "surrogate"),
        ({"deadline": "soon"}, "deadline"),
        ({"deadline": [1]}, "deadline"),
        ({"logprobs": -1}, "logprobs"),
        ({"system": 1}, "system"),
        ({"prompt": 1}, "prompt must be a string"),
        ({"prompt": " "}, "empty"),
        ({"prompt": "x" * 5000}, "do not fit"),
        ({"prompt": "\ud800"}, "surrogate"),
    ],
)
def test_a_row_that_cannot_be_answered_says_why(tmp_path: Path, row: dict[str, object], why: str) -> None:
    with pytest.raises(InferError, match=why):
        prepared(tmp_path, {"prompt": "hi", **row})


def test_messages_and_their_system_prompt(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "own"}, {"role": "user", "content": "hi"}]
    assert "own" in prompt_text(prepared(tmp_path, {"messages": turns}, system="the job's"))
    assert "row's" in prompt_text(prepared(tmp_path, {"messages": turns, "system": "row's"}))
    assert "the job's" in prompt_text(prepared(tmp_path, {"messages": turns[1:]}, system="the job's"))
    with pytest.raises(UsageError, match="wizard"):
        prepared(tmp_path, {"messages": [{"role": "wizard", "content": "x"}]})


def test_null_content_is_none_for_the_template_in_both_forms(tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}{{ m.role }}:"
        "{{ m.tool_calls[0].id if m.content is none else m.content }};{% endfor %}"
    )
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "call 1"}]}
    turns = [{"role": "user", "content": "hi"}, call, {"role": "tool", "content": "42"}]
    openai: dict[str, object] = {
        "url": "/v1/chat/completions",
        "body": {"messages": turns},
        "custom_id": "a",
    }
    without = [turns[0], {k: v for k, v in call.items() if k != "content"}, turns[2]]
    asked_rows: list[dict[str, object]] = [{"messages": turns}, {"messages": without}, openai]
    for row in asked_rows:
        asked = prepared(tmp_path, row, template=source)
        assert prompt_text(asked) == "user:hi;assistant:call 1;tool:42;"
    for bare in ({"role": "assistant", "content": None}, {"role": "user", "content": None}):
        with pytest.raises(UsageError, match=r"messages\[1\] has no content"):
            prepared(tmp_path, {"messages": [turns[0], bare]})


def test_a_model_without_a_template_stops_the_job_not_the_row(tmp_path: Path) -> None:
    with pytest.raises(NoTemplate):
        prepared(tmp_path, {"prompt": "hi"}, template=None)
    assert prepared(tmp_path, {"prompt": "hi"}, template=None, raw=True).prompt_ids == tuple(b"hi")


# --- seeds ----------------------------------------------------------------------------------------


def test_seeds_depend_on_the_row_and_not_on_its_place(tmp_path: Path) -> None:
    one, two = '{"prompt": "one"}', '{"prompt": "two", "custom_id": "b"}'
    job = preparer(sampling=SAMPLED, n_samples=2)

    def seeds(*lines: str) -> dict[str, list[int | None]]:
        asked = [job.prepare(row) for row in rows_of(tmp_path, "\n".join(lines))]
        return {str(a.row.asked and a.row.asked.prompt): [a.seed(0), a.seed(1)] for a in asked}

    assert seeds(one, two) == seeds(two, one)
    assert seeds(two)["two"] == [row_seed(7, "id b", 0), row_seed(7, "id b", 1)]
    assert len({s for pair in seeds(one, two).values() for s in pair}) == 4


def test_the_same_row_twice_has_two_seeds(tmp_path: Path) -> None:
    job = preparer(sampling=SAMPLED)
    a, b = (job.prepare(row) for row in rows_of(tmp_path, '{"prompt": "one"}\n' * 2))
    assert a.row.sha256 == b.row.sha256
    assert a.seed(0) != b.seed(0)


def test_a_row_s_own_seed_is_used_as_run_uses_it(tmp_path: Path) -> None:
    asked = prepared(tmp_path, {"prompt": "hi", "temperature": 1, "seed": 5, "samples": 2})
    assert [asked.seed(0), asked.seed(1)] == [5, sample_seed(5, 1)]
