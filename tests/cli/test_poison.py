"""What others wrote never steers the terminal: every command, with control sequences wherever they can be."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infer_cli.evaluation.runs.results import Identity
from tests.cli_helpers import INFER, REPO, command_names, infer, script
from tests.evaluation.comparing.run_folders import RESULTS, Answered, write_run
from tests.integrations.extras import is_missing
from tests.model_server import ModelServer, serving
from tests.terminal import Terminal
from tests.tiny_gguf import DEFAULT_TEMPLATE, write_tiny_gguf

# A title (OSC), a clipboard (OSC 52), a device's string (DCS), the same as C1, a reset (RIS), text that reads
# backwards, and sequences that our own styling could hold, with numbers that it never has.
PIECES = [
    "\x1b]0;owned\x07",
    "\x1b]52;c;b3duZWQ=\x07",
    "\x1bPowned\x1b\\",
    "\x9d0;owned\x9c",
    "\x9b31m",
    "\x1bc",
    "\u202e",
    "\x1b[38;5;213m",
    "\x1b[17;23H",
    "\x1b[3J",
]
POISON = "".join(PIECES)
OURS = re.compile(r"\x1b\[(?:[0-9;]*m|[0-9;]*[A-HJK]|\?(?:1|7|12|25|2004|2026)[hl]|6n|[0-6] q)")
CONTROL = re.compile("[\x00-\x07\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]")


def assert_clean(shown: bytes) -> None:
    text = shown.decode("utf-8", "replace")
    assert [piece for piece in PIECES if piece in text] == []
    rest = OURS.sub("", text)
    assert CONTROL.findall(rest) == []


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


@pytest.fixture
def environment(own_home: Path, tmp_path: Path, server: ModelServer) -> dict[str, str]:
    home = tmp_path / f"home{POISON}"
    (home / "config").mkdir(parents=True)
    (home / "config" / "models.toml").write_text(
        f"[[model]]\nname = 'mine'\nsources = ['http://127.0.0.1:9/m.gguf']\n"
        f"licence = {json.dumps(POISON)}\nnotes = {json.dumps(POISON)}\n"
    )
    (home / "config" / "config.toml").write_text(f"[chat]\nsystem = {json.dumps(POISON)}\n")
    return {
        **os.environ,
        "INFER_HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "HF_ENDPOINT": server.url,
        "VISUAL": "true",  # an editor that changes nothing
    }


@pytest.mark.timeout(400)  # some fifty commands
def test_no_command_lets_anything_through(
    tmp_path: Path, environment: dict[str, str], server: ModelServer
) -> None:
    folder = tmp_path / f"d{POISON}"
    folder.mkdir()
    tiny = write_tiny_gguf(
        folder / f"m{POISON}.gguf",
        n_ctx_train=2048,
        overrides={
            "general.name": POISON,
            "general.license": POISON,
            "tokenizer.chat_template": f"{{# {POISON} #}}{DEFAULT_TEMPLATE}",
        },
    )
    fake = folder / f"script{POISON}.json"
    fake.write_text(json.dumps({"default_reply": f"**A** {POISON} reply\n\n```{POISON}\n{POISON}\n```\n"}))
    model = ["-m", f"fake:{fake}"]
    template = folder / f"t{POISON}.jinja"
    template.write_text("{{ raise_exception('" + POISON + "') }}")
    rows = folder / f"rows{POISON}.jsonl"
    rows.write_text(
        "".join(json.dumps({"custom_id": f"{i}{POISON}", "prompt": f"hi {POISON}"}) + "\n" for i in range(2))
        + json.dumps({"custom_id": POISON, POISON: 1}) + "\n"
    )  # fmt: skip
    out = folder / f"out{POISON}.jsonl"
    pairs, scored = folder / f"pairs{POISON}.jsonl", folder / f"scored{POISON}.jsonl"
    pairs.write_text(
        json.dumps({"custom_id": POISON, "context": POISON, "continuation": f"x {POISON}"}) + "\n"
        + json.dumps({"context": POISON, POISON: 1}) + "\n"
    )  # fmt: skip
    run, other_run = (
        write_run(
            folder / f"{i}{POISON}",
            [Answered(POISON, [{POISON: i}], POISON, POISON)],
            task=POISON,
            metrics=(POISON,),
            results=replace(RESULTS, mode=f"{i}{POISON}", model=Identity(POISON, None)),
        )
        for i in (0.0, 1.0)
    )
    text = folder / f"text{POISON}"
    text.write_text(f"The cat sat {POISON} on the mat.\n" * 10)
    task, questions = folder / f"task{POISON}.toml", folder / f"questions{POISON}.jsonl"
    said = json.dumps(POISON)
    task.write_text(
        f'name = "t"\nversion = {said}\nkind = "generate"\ndescription = {said}\n'
        f'[data]\nformat = "jsonl"\nid = "id"\ngroup = "id"\n[prompt]\ntext = "{{{{ q }}}}"\n'
        '[answer]\nreferences = ["{{ q }}"]\n[[scorer]]\nkind = "exact"\n'
    )
    questions.write_text(json.dumps({"id": POISON, "q": f"hi {POISON}"}) + "\n")
    url = server.add(
        "/m.gguf", POISON.encode(), headers={"X-Note": "1"}, content_type="text/\x1b]0;owned\x07"
    )

    server.add_hub_tree("o/r", [f"m{POISON}-Q8_0.gguf"])
    error = "".join(PIECES[:6])  # what a header can hold
    headers = {"X-Error-Message": error}
    server.add("/o/r/resolve/main/m.gguf", b"", status=400, etag=None, headers=headers)

    def record() -> str:
        done = subprocess.run(
            [*INFER, "records", "list", "--jsonl"], env=environment, cwd=REPO, capture_output=True
        )
        records = [json.loads(line) for line in done.stdout.splitlines()]
        found: str = next(
            each["id"] for each in records if each["kind"] == "run" and "fake" in each["model"]["name"]
        )
        return found

    commands: list[tuple[str, list[object]]] = [
        ("run", [f"hi {POISON}", *model, "--stats", "--show-context"]),
        ("run", [f"hi {POISON}", *model, "--plain"]),
        ("run", [f"hi {POISON}", *model, "--json"]),
        ("run", [f"hi {POISON}", *model, "-f", text]),
        ("run", ["hi", "-m", tiny, "--raw", "-n", "2", "--verbose"]),
        ("batch", [rows, *model, "-o", out]),
        ("batch", [rows, *model, "-o", "-"]),
        ("score", [pairs, *model, "-o", scored]),
        ("score", [pairs, *model, "-o", "-"]),
        ("score", [POISON, f"x {POISON}", *model]),
        ("perplexity", [text, *model, "--ctx", "64"]),
        ("verify", [out]),
        ("verify", [scored]),
        ("compare", [run, other_run]),
        ("compare", [run, other_run, "--json"]),
        ("report", [run]),
        ("report", [run, other_run, "-o", "-"]),
        ("merge", [out, "-o", "-"]),
        ("eval", [task, "--data", questions, *model, "-o", folder / "run"]),
        ("eval", ["--cite", folder / "run"]),
        ("rescore", [folder / "run"]),
        ("replay", [record]),
        ("task list", []),
        ("task check", [task, "--data", questions, *model]),
        ("task check", [task, "--data", questions, *model, "--json"]),
        ("tokens", ["-m", tiny, "-f", text, "-f", text]),
        ("tokens", ["-m", tiny, "-f", text, "--pieces"]),
        ("tokens", ["-m", tiny, "-f", text, "-f", text, "--json"]),
        ("probe", ["-m", tiny, "--requests", "2", "-n", "2"]),
        ("devices", ["--verbose"]),
        ("doctor", ["--verbose"]),
        ("template show", ["-m", tiny]),
        ("template render", ["hi", *model]),
        ("models path", [tiny]),
        ("models show", [tiny]),
        ("models show", [tiny, "--json"]),
        ("models show", ["mine"]),
        ("models verify", [tiny]),
        ("models add", ["other", tiny]),
        ("models pull", ["other"]),
        ("models list", []),
        ("models list", ["--json"]),
        ("models rm", ["other", "--entry"]),
        ("records list", []),
        ("records list", ["--json"]),
        ("records show", [record]),
        ("records export", []),
        ("records diff", [record, record]),
        ("cache warm", [*model, "-f", text]),
        ("cache list", []),
        ("cache list", ["--json"]),
        ("cache prune", []),
        ("cache clear", []),
        ("config path", []),
        ("config edit", []),
        ("config show", []),
        ("config show", ["--json"]),
    ]
    refused: list[tuple[str, list[object]]] = [
        ("run", ["hi", "-m", tiny, "--chat-template", template]),
        ("run", ["hi", "-m", f"{POISON}"]),
        ("run", [f"--{POISON}"]),
        ("score", [POISON, *model]),
        ("compare", [run, folder]),
        ("report", [run, "-o", f"{folder / POISON}/x"]),
        ("eval", [task, "--data", questions, *model, "-o", folder / "run", "--limit", "1"]),
        ("rescore", [POISON]),
        ("task check", [task, "--data", text, *model]),
        ("task check", [POISON]),
        ("template check", ["-m", tiny, "--chat-template", template]),
        ("models pull", [url]),
        ("models pull", ["hf:o/r:Q8_0"]),
        ("models pull", ["hf:o/r:Q4_0"]),
        ("models pull", ["hf:o/r/m.gguf"]),
        ("models default", [POISON]),
        ("records show", [POISON]),
        ("records rm", [POISON]),
        ("config set", ["run.stop", POISON]),
        ("config set", [POISON, "1"]),
    ]
    assert {name for name, _ in [*commands, *refused]} | {"chat"} == command_names()
    codes: list[int] = []
    for name, arguments in [*commands, *refused]:
        given = [str(argument() if callable(argument) else argument) for argument in arguments]
        with Terminal(*name.split(), *given, columns=200, env=environment) as terminal:
            terminal.end(60)
            codes.append(terminal.process.returncode)
            try:
                assert_clean(terminal.raw)
            except AssertionError as e:
                raise AssertionError(f"{name} {given!r}: {e}") from None
    assert 0 not in codes[len(commands) :], "what is wrong was refused"
    lacks = {"report"} if is_missing("matplotlib") else set()
    done = [code for (name, _), code in zip(commands, codes, strict=False) if name not in lacks]
    assert done.count(0) > len(done) * 2 / 3, "most of them did what they do"
    with Terminal("chat", *model, "-t", "0", env=environment) as terminal:
        terminal.wait_for(">")
        terminal.line("hi")
        terminal.wait_for("reply")
        terminal.line("/exit")
        terminal.end()
        assert_clean(terminal.raw)


def test_stderr_is_filtered_in_a_log_file_too_and_data_in_a_pipe_is_not(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path / "m.gguf", overrides={"general.name": POISON})
    loud = infer("run", "-m", tiny, "--raw", "hi", "-n", "2", "--verbose")
    assert "general.name" in loud.err
    assert_clean(loud.err.encode())
    answer = infer("run", "-m", script(tmp_path, default_reply=POISON), "hi")
    assert answer.out.decode() == POISON + "\n"
