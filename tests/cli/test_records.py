from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infer_cli.cli.records import command as cli
from infer_cli.cli.records.view import described
from infer_cli.errors import ExitStatus, InferError, UsageError
from infer_cli.records.record import Adapter, ModelFile, Record
from infer_cli.records.store import Store, store_path
from infer_cli.settings.origins import Setting
from infer_cli.text.sanitize import sanitize
from infer_cli.types import Message

DAY = 24 * 3600
BEGAN = 1_700_000_000.0

SKY = Record(
    "5c0ffee0",
    "run",
    BEGAN,
    model="smollm2",
    model_sha256="ab" * 32,
    model_files=(ModelFile("/m.gguf", 42, 1),),
    adapters=(Adapter("/l.gguf", 0.5),),
    template_sha256="cd" * 32,
    fingerprint="f0" * 8,
    engine={"infer": "1.0", "llama_cpp": "b1", "threads": 2},
    mode="canonical",
    promise="canonical",
    width=1,
    n_ctx=256,
    params={"temperature": 0.8},
    settings=(Setting("temperature", 0.8, "--temperature"),),
    run_seed=7,
    seed=7,
    prompt="<user>Why is the sky\nblue?",
    messages=(Message("system", "Be brief."), Message("user", "Why is the sky\nblue?")),
    prompt_ids=(1, 2, 3),
    text="Because of\x1b]0;owned\x07 Rayleigh scattering",
    reasoning="let me think",
    tokens=(4, 5),
    finish_reason="stop",
    usage={"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 2},
    timings={"load_s": 0.25, "ttft_s": None},
    digest="sha256:11",
)
RAW = replace(
    SKY, id="5c1", created_at=BEGAN + 1, thread="talk", messages=None, prompt="Once", model="other",
    text="upon", tokens=(4, 6), digest="sha256:22", reasoning=None,
)  # fmt: skip
JOB = Record("b7", "batch", BEGAN + 2, model="smollm2", output="/out.jsonl")


@pytest.fixture
def store() -> Store:
    store = Store.open(store_path(), pytest.fail)
    store.add_all([SKY, RAW, JOB])
    return store


class Done:
    def __init__(self, *arguments: str) -> None:
        result = CliRunner().invoke(cli.app, list(arguments), standalone_mode=False)
        if result.exception is not None and not isinstance(result.exception, InferError):
            raise result.exception
        self.error = result.exception
        self.code = result.return_value
        self.out, self.err = result.stdout, result.stderr
        self.lines = self.out.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def _usage_error(*arguments: str) -> str:
    error = Done(*arguments).error
    assert isinstance(error, UsageError)
    return error.message


def _on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def test_last_is_the_newest(store: Store) -> None:
    assert Done("show", "last", "--json").objects[0]["id"] == "b7"
    assert [each["id"] for each in Done("export", "5c1", "last").objects] == ["5c1", "b7"]
    assert Done("rm", "last").err == "removed 1 record\n"
    assert Done("show", "last", "--json").objects[0]["id"] == "5c1"


# --- list -----------------------------------------------------------------------------------------


def test_no_records() -> None:
    for arguments in (["list"], ["list", "--jsonl"], ["export"]):
        assert Done(*arguments).out == ""
    assert Done("list", "--json").out == "[]\n"
    assert "no record 'last'" in _usage_error("show", "last")


def test_list_in_a_pipe(store: Store) -> None:
    assert Done("list").lines == [
        "b7\t2023-11-14T22:13:22.000Z\tbatch\tsmollm2\t-\t-\t-\t/out.jsonl",
        "5c1\t2023-11-14T22:13:21.000Z\trun\tother\t2\tstop\ttalk\tOnce",
        "5c0ffee0\t2023-11-14T22:13:20.000Z\trun\tsmollm2\t2\tstop\t-\tWhy is the sky blue?",
    ]


def test_list_json(store: Store) -> None:
    job, raw, sky = Done("list", "--jsonl").objects
    assert json.loads(Done("list", "--json").out) == [job, raw, sky]
    assert [job["id"], raw["id"], sky["id"]] == ["b7", "5c1", "5c0ffee0"]
    assert job["output"] == "/out.jsonl" and job["tokens"] is None
    assert sky["prompt"]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert sky["settings"] == [{"name": "temperature", "value": 0.8, "origin": "--temperature"}]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (["--limit", "1"], ["b7"]),
        (["--search", "RAYLEIGH blue"], ["5c0ffee0"]),
        (["-m", "other"], ["5c1"]),
        (["--model", "smollm2", "--search", "sky"], ["5c0ffee0"]),
        (["--thread", "talk"], ["5c1"]),
        (["--since", "2023-11-14T22:13:21+00:00"], ["b7", "5c1"]),
        (["--since", "1h"], []),
        (["--since", "100000d"], ["b7", "5c1", "5c0ffee0"]),
    ],
)
def test_list_filters(store: Store, chosen: list[str], found: list[str]) -> None:
    assert [line.partition("\t")[0] for line in Done("list", *chosen).lines] == found


def test_list_knows_aliases(store: Store) -> None:
    store.add(replace(RAW, id="named", model="smollm2-135m-instruct"))
    found = [line.partition("\t")[0] for line in Done("list", "-m", "smollm2").lines]
    assert found == ["named", "b7", "5c0ffee0"]  # two of them were called so themselves


def test_a_model_for_all_commands_is_no_filter() -> None:
    import typer

    command: Any = typer.main.get_command(cli.app)
    assert "model" not in {parameter.name for parameter in command.commands["list"].params}


def test_list_on_a_terminal(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _on_a_terminal(monkeypatch)
    cli.list_records()
    heading, job, raw, sky = sanitize(capsys.readouterr().out).splitlines()
    assert heading.split() == ["id", "when", "kind", "model", "tokens", "end", "prompt"]
    assert job.split()[0] == "b7" and raw.split()[0] == "5c1"
    assert sky.split()[:1] + sky.split()[2:6] == ["5c0ffee0", "run", "smollm2", "2", "stop"]
    assert all(len(line) <= 80 for line in (heading, job, raw, sky))


@pytest.mark.parametrize("text", ["soon", "-3h", "d", "0d", "2023-99-01"])
def test_neither_age_nor_date(store: Store, text: str) -> None:
    assert "neither an age nor a date" in _usage_error("list", f"--since={text}")
    assert "--older-than" in _usage_error("rm", f"--older-than={text}")


# --- show -----------------------------------------------------------------------------------------


def test_show(store: Store) -> None:
    head, *texts = Done("show", "5c0").out.split("\n--- ")
    facts = dict(line.split("  ", 1) for line in head.splitlines())
    assert {name: value.strip() for name, value in facts.items()} == {
        "id": "5c0ffee0",
        "kind": "run",
        "created": "2023-11-14T22:13:20.000Z",
        "model": "smollm2",
        "model sha256": "ab" * 32,
        "model files": "/m.gguf (42 bytes)",
        "adapters": "/l.gguf:0.5",
        "template": "cd" * 32,
        "engine": "f0" * 8,
        "promise": "canonical (mode canonical)",
        "settings": "temperature=0.8 (--temperature)",
        "run seed": "7",
        "seed": "7",
        "tokens": "3 prompt, 0 cached, 2 completion",
        "timings": "load_s 0.25",
        "end": "stop",
        "digest": "sha256:11",
    }
    assert texts == [
        "system\nBe brief.\n",
        "user\nWhy is the sky\nblue?\n",
        "reasoning\nlet me think\n",
        "reply\nBecause of\x1b]0;owned\x07 Rayleigh scattering\n",
    ]


def test_long_facts_are_cut_between_words_on_a_terminal(store: Store) -> None:
    settings = tuple(Setting(f"name_{i}", i, "default") for i in range(40))
    record = replace(store.get("5c0"), settings=settings)
    whole, narrow = described(record), described(record, 60)
    assert narrow.split() == whole.split()
    lines = narrow.split("\n--- ")[0].splitlines()
    assert all(len(line) <= 60 for line in lines if " " in line.strip() and "sha256" not in line)
    assert sum("name_" in line for line in lines) == 20


def test_show_on_a_terminal_is_safe(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _on_a_terminal(monkeypatch)
    cli.show("5c0")
    out = capsys.readouterr().out
    assert "Because of Rayleigh scattering\n" in out and "\x1b" not in out


def test_show_json(store: Store) -> None:
    done = Done("show", "5c1", "--json")
    (raw,) = done.objects
    assert (raw["id"], raw["text"], raw["prompt"]["text"], raw["prompt"]["messages"]) == (
        "5c1", "upon", "Once", None,
    )  # fmt: skip
    assert "\x1b" not in Done("show", "5c0", "--json").out


def test_show_says_that_replay_is_off(store: Store) -> None:
    store.add(replace(JOB, id="p", private=True))
    assert "replay is off" in Done("show", "p").out
    assert Done("list").lines[0].endswith("\t(private)")


def test_no_such_record(store: Store) -> None:
    assert _usage_error("show", "zz") == "no record 'zz'"
    assert "begins several records" in _usage_error("show", "5c")


# --- export ---------------------------------------------------------------------------------------


def test_export_jsonl(store: Store) -> None:
    assert [r["id"] for r in Done("export").objects] == ["5c0ffee0", "5c1", "b7"]
    assert [r["id"] for r in Done("export", "b", "5c0").objects] == ["b7", "5c0ffee0"]
    assert [r["id"] for r in Done("export", "--thread", "talk").objects] == ["5c1"]


def test_export_markdown(store: Store) -> None:
    assert Done("export", "--format", "md", "--thread", "talk").out == (
        "## 5c1\n\n2023-11-14T22:13:21.000Z, model other, seed 7, end: stop\n\n"
        "### prompt\n\nOnce\n\n### reply\n\nupon\n\n"
    )


def test_wrong_exports(store: Store) -> None:
    assert "--format" in _usage_error("export", "--format", "xml")
    assert "exclude each other" in _usage_error("export", "5c1", "--thread", "talk")


# --- diff -----------------------------------------------------------------------------------------


def test_diff_of_different_replies(store: Store) -> None:
    done = Done("diff", "5c0", "5c1")
    assert done.code == int(ExitStatus.CHECK_FAILED)
    assert done.lines == [
        "the replies differ",
        "model  smollm2 -> other",
        "reply differs from token 1 on: 5 -> 6",
        r"  A: 'Because of\x1b]0;owned\x07 Rayleigh scattering'",
        "  B: 'upon'",
    ]


def test_diff_of_equal_replies(store: Store) -> None:
    store.add(replace(SKY, id="same", engine={**SKY.engine, "threads": 4, "repack": True}, prompt_ids=(1, 2)))
    done = Done("diff", "5c0", "same")
    assert done.code == ExitStatus.OK
    assert [" ".join(line.split()) for line in done.lines] == [
        "the replies are the same",
        "engine.repack - -> True",
        "engine.threads 2 -> 4",
        "prompt differs from token 2 on: 3 -> the end",
    ]


def test_diff_json(store: Store) -> None:
    done = Done("diff", "5c0", "5c1", "--json")
    (found,) = done.objects
    assert done.code == ExitStatus.CHECK_FAILED
    assert not found["same_reply"] and found["prompt"] is None
    assert found["differences"] == [{"what": "model", "a": "smollm2", "b": "other"}]
    assert (found["reply"]["index"], found["reply"]["a"], found["reply"]["b"]) == (1, 5, 6)


def test_diff_of_a_job(store: Store) -> None:
    assert _usage_error("diff", "5c0", "b7") == "b7 is a whole batch, not a reply"


# --- rm -------------------------------------------------------------------------------------------


def _left(store: Store) -> list[str]:
    return [record.id for record in store.export()]


def test_rm_by_id(store: Store) -> None:
    done = Done("rm", "5c0", "b7")
    assert (done.out, done.err) == ("", "removed 2 records\n")
    assert _left(store) == ["5c1"]


def test_rm_removes_nothing_where_an_id_is_wrong(store: Store) -> None:
    assert _usage_error("rm", "5c0", "zz") == "no record 'zz'"
    assert len(_left(store)) == 3


def test_rm_by_age(store: Store) -> None:
    store.add(replace(JOB, id="yesterday", created_at=time.time() - 1 * DAY))
    store.add(replace(JOB, id="now", created_at=time.time()))
    assert Done("rm", "--older-than", "30d").err == "removed 3 records\n"
    assert Done("rm", "--older-than", "12h").err == "removed 1 record\n"
    assert _left(store) == ["now"]


def test_rm_all(store: Store) -> None:
    assert Done("rm", "--all").err == "removed 3 records\n"
    assert _left(store) == []


@pytest.mark.parametrize("arguments", [[], ["5c0", "--all"], ["--all", "--older-than", "30d"]])
def test_rm_wants_to_know_one_thing(store: Store, arguments: list[str]) -> None:
    assert "only one" in _usage_error("rm", *arguments)
    assert len(_left(store)) == 3


# --- the store ------------------------------------------------------------------------------------


def test_a_damaged_store_is_one_warning(store: Store, own_home: Path) -> None:
    store.close()
    store_path().write_bytes(b"no database" * 1000)
    done = Done("list")
    assert (done.error, done.out) == (None, "")
    assert done.err.startswith("warning: the record store was damaged: it is now ")
    assert done.err.count("\n") == 1
    assert [name for name in os.listdir(own_home / "data") if "damaged" in name]
