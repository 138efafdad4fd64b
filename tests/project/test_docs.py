"""The documentation says what the program does: every shown command is run, every list is compared.

A page's fenced blocks: `console` is a session, run with the fake model, in a folder with the files that the
page shows, such as `python capitals.py`; `console weights` is one with the real default model, and `console
extras` one with that and an optional extra, in such a folder too; `python` and `python weights` are programs,
run alike, and `python continued` goes on where the block before it ended; `sh` is not run; `sh setup` is one
of the two set-up commands, which `.ci/run` runs; `toml` is a part of a file. In a session, lines that begin
with `$ ` are commands and the others what they print, on both streams; `…` stands for anything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

import infer_cli
from infer_cli.answering.reply import as_json
from infer_cli.cli.app import call, command_line
from infer_cli.errors import ExitStatus
from infer_cli.models.catalogue import load_catalogue
from infer_cli.models.catalogue import user_path as user_catalogue
from infer_cli.settings.config_file import config_path
from infer_cli.types import EngineIdentity, FinishReason, ModelIdentity, Reply, Timings, Usage
from tests.cli_helpers import REPO
from tests.conftest import SMOLLM2_SHA256
from tests.project.test_imports import ORDER

PAGES = [
    "README.md",
    "CHANGELOG.md",
    *sorted(f"docs/{page.name}" for page in (REPO / "docs").glob("*.md")),
]
WAYS = ("console", "console weights", "console extras")
PROGRAMS = ("python", "python weights", "python continued")
# Variables that set no flag; the last is a misspelt one, which is warned of.
OTHER_VARIABLES = {
    "INFER_HOME", "INFER_MODEL", "INFER_TEST_DATA", "INFER_TEST_MODEL", "INFER_TEST_EXTRAS",
    "INFER_TEST_BROWSER", "INFER_TEST_SDIST", "INFER_MODLE",
}  # fmt: skip

# A file's name, in the info of the block that is its text.
FILE = re.compile(r"(?:python|yaml|json|toml) (\w+\.\w+)")
SETTINGS = ("toml models.toml", "toml config.toml")

_BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
_MOST_S = 250  # for one block: a probe of the real model measures its speed too
_MARK = "--- the next command ---"


@dataclass(frozen=True)
class Block:
    page: str
    info: str
    body: str

    @property
    def session(self) -> list[tuple[str, str]]:
        """Commands, each with what it prints."""
        first, *steps = re.split(r"^\$ ", self.body, flags=re.MULTILINE)
        assert first == "", f"{self.page}: a session begins with a command: {first!r}"
        pairs = [step.partition("\n") for step in steps]
        return [(command, expected) for command, _, expected in pairs]


def read(page: str) -> str:
    return (REPO / page).read_text("utf-8")


def blocks(page: str) -> list[Block]:
    return [Block(page, m["info"].strip(), m["body"]) for m in _BLOCK.finditer(read(page))]


def rows(page: str) -> list[list[str]]:
    """Cells of all table rows, without headings and rulers."""
    found = []
    for line in read(page).splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
    return found


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


# --- what is shown is run -------------------------------------------------------------------------


def sessions(way: str) -> list[str]:
    return [page for page in PAGES if any(block.info == way for block in blocks(page))]


@pytest.fixture
def environment(tmp_path: Path, own_home: Path) -> dict[str, str]:
    """Where a session runs: `infer` is the code under test, and caches are empty."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name, arguments in (("infer", "-m infer_cli "), ("python3", "")):
        script = bin_dir / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(infer_cli.__file__).parents[1]),
        "PYTHONUTF8": "1",
        "HOME": str(tmp_path),  # other tools' models are none of ours
        "HF_HOME": str(tmp_path / "hf"),
    }


def run_session(block: Block, directory: Path, environment: dict[str, str]) -> None:
    """One shell for a block, as a reader would type it. Raises AssertionError for other output."""
    script = "".join(
        f"{command}\nstatus=$?; printf '\\n%s\\n' '{_MARK}'; (exit $status)\n" for command, _ in block.session
    )
    done = subprocess.run(
        ["bash", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=environment,
        timeout=_MOST_S,
    )
    *printed, rest = done.stdout.decode().split(f"\n{_MARK}\n")
    assert rest == ""
    for (command, expected), actual in zip(block.session, printed, strict=True):
        pattern = ".*?".join(map(re.escape, expected.removesuffix("\n").split("…")))
        assert re.fullmatch(pattern, actual.removesuffix("\n"), re.DOTALL), (
            f"{block.page}: $ {command}\n{actual}\n--- is not as shown:\n{expected}"
        )


def write_files(page: str, directory: Path) -> None:
    """The files that a page shows."""
    for block in blocks(page):
        if (file := FILE.fullmatch(block.info)) and block.info not in SETTINGS:
            (directory / file[1]).write_text(block.body, "utf-8")


@pytest.mark.parametrize("page", sessions("console"))
def test_sessions_without_weights(page: str, tmp_path: Path, environment: dict[str, str]) -> None:
    directory = tmp_path / "session"
    directory.mkdir()
    write_files(page, directory)
    for block in blocks(page):
        if block.info == "console":
            run_session(block, directory, {**environment, "INFER_MODEL": "fake"})


@pytest.fixture
def default_model(own_home: Path, smollm2: Path) -> None:
    """The default model is installed."""
    shipped = load_catalogue()
    user_catalogue().parent.mkdir(parents=True)
    user_catalogue().write_text(  # the shipped entry with the file that is here already
        f"[[model]]\nname = '{shipped.default}'\naliases = {list(shipped.find(shipped.default).aliases)}\n"
        f"sources = ['{smollm2}']\nsha256 = '{SMOLLM2_SHA256}'\n"
    )


@pytest.mark.weights
@pytest.mark.usefixtures("default_model")
@pytest.mark.parametrize("page", sessions("console weights"))
def test_sessions_with_the_default_model(page: str, tmp_path: Path, environment: dict[str, str]) -> None:
    directory = tmp_path / "session"
    directory.mkdir()
    for block in blocks(page):
        if block.info == "console weights":
            run_session(block, directory, environment)


def programs(page: str, way: str) -> list[str]:
    """Each block of this kind, with those that go on after it."""
    found: list[list[str]] = []
    last = ""
    for block in blocks(page):
        if block.info == "python continued":
            assert last, f"{page}: nothing comes before {block.body!r}"
        elif block.info in PROGRAMS:
            last = block.info
            if last == way:
                found.append([])
        if block.info in PROGRAMS and last == way:
            found[-1].append(block.body)
    return ["\n".join(bodies) for bodies in found]


def run_program(program: str, directory: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=environment,
        timeout=_MOST_S,
    )
    assert done.returncode == 0, f"{program}\n{done.stdout.decode()}"


@pytest.mark.parametrize("page", [page for page in PAGES if programs(page, "python")])
def test_programs_without_weights(page: str, tmp_path: Path, environment: dict[str, str]) -> None:
    for program in programs(page, "python"):
        run_program(program, tmp_path, environment)


@pytest.mark.weights
@pytest.mark.usefixtures("default_model")
@pytest.mark.parametrize("page", [page for page in PAGES if programs(page, "python weights")])
def test_programs_with_the_default_model(page: str, tmp_path: Path, environment: dict[str, str]) -> None:
    for program in programs(page, "python weights"):
        run_program(program, tmp_path, environment)


def test_a_program_that_fails_is_noticed(tmp_path: Path, environment: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_program("1 / 0", tmp_path, environment)


def test_a_session_that_prints_something_else_is_noticed(tmp_path: Path, environment: dict[str, str]) -> None:
    run_session(Block("page", "console", "$ echo one; false\none\n$ echo $?\n1\n"), tmp_path, environment)
    for body in ("$ echo one\ntwo\n", "$ echo one\n", "$ echo one\none\ntwo\n", "$ echo one two\none …e\n"):
        with pytest.raises(AssertionError, match="is not as shown"):
            run_session(Block("page", "console", body), tmp_path, environment)


def test_every_shown_command_is_in_a_session_that_is_run() -> None:
    """No block has a prompt sign outside the two kinds that are run, and each of those holds a command."""
    for page in PAGES:
        for block in blocks(page):
            if block.info in WAYS:
                assert block.session, f"{page}: an empty session"
            else:
                assert not re.search(r"^\$ ", block.body, re.MULTILINE), f"{page}: {block.body}"
                known = (*PROGRAMS, "sh", "sh setup", "toml", *SETTINGS, "packages")
                assert block.info in known or FILE.fullmatch(block.info), f"{page}: ```{block.info}"


def test_the_set_up_commands_are_those_of_ci() -> None:
    setup = [block.body.strip() for block in blocks("README.md") if block.info == "sh setup"]
    assert len(setup) == 2
    ci = re.findall(r"^readme '(.*)'$", (REPO / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert ci == setup


def test_shown_settings_are_understood(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_home / "config").mkdir(parents=True)
    shown = [block for page in PAGES for block in blocks(page) if block.info in SETTINGS]
    assert {block.info for block in shown} == set(SETTINGS)
    for block in shown:
        if block.info == "toml models.toml":
            user_catalogue().write_text(block.body)
            assert load_catalogue().find("m").name == load_catalogue().default == "mine"
        else:
            config_path().write_text(block.body)
            assert call(["config", "show"]) == 0
    assert 'run.stop = ["END"]' in capsys.readouterr().out


def test_the_pinned_engine_is_the_one_that_is_named() -> None:
    (pin,) = re.findall(r'"(llama-cpp-python==[\d.]+)"', (REPO / "pyproject.toml").read_text("utf-8"))
    named = re.findall(r"llama-cpp-python==[\d.]+\d", read("docs/installing.md"))
    assert len(named) >= 6
    assert set(named) == {pin}


# --- what is listed is complete -------------------------------------------------------------------


def commands() -> Iterator[tuple[str, Any]]:
    """`("models pull", its command)` for each command that does something."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        for key, sub in (inner or {}).items():
            yield from walk(f"{name} {key}".strip(), sub)

    return walk("", typer.main.get_command(command_line()))


def options(command: Any) -> dict[str, tuple[list[str], str | None]]:
    """Long flag -> its spellings and its variable."""
    found = {}
    for param in command.params:
        if param.param_type_name == "option" and param.name != "help":
            spellings = [*param.opts, *param.secondary_opts]
            found[max(spellings, key=len)] = (spellings, param.envvar)
    return found


def page_of(command: str) -> str:
    name = command.split()[0]
    return f"docs/{'tasks' if name == 'task' else name}.md"


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_and_flag_is_on_its_page(name: str) -> None:
    text = read(page_of(name))
    assert f"infer {name}" in text
    for spellings, _ in options(dict(commands())[name]).values():
        for flag in spellings:
            assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), flag


def test_no_page_lists_a_flag_that_its_commands_have_not() -> None:
    known: dict[str, set[str]] = {}
    for name, command in commands():
        flags = {spelling for spellings, _ in options(command).values() for spelling in spellings}
        known.setdefault(page_of(name), set()).update(flags)
    for page, flags in known.items():
        listed = {flag for row in rows(page) for flag in quoted(row[0]) if flag.startswith("-")}
        assert not listed - flags, page


def test_flags_without_a_command_are_in_the_readme() -> None:
    top = typer.main.get_command(command_line())
    for flag in options(top):
        assert f"`infer {flag}`" in read("README.md")


def test_each_variable_is_beside_its_flag() -> None:
    listed = [row for row in rows("docs/run.md") if len(row) == 3 and row[0] != "Flag"]
    documented = {max(quoted(flags), key=len): "".join(quoted(variable)) for flags, variable, _ in listed}
    of_run = options(dict(commands())["run"])
    assert documented == {flag: variable or "" for flag, (_, variable) in of_run.items()}


def test_no_page_names_a_variable_that_is_not_read() -> None:
    known = {variable for _, command in commands() for _, variable in options(command).values() if variable}
    for page in PAGES:
        assert not set(re.findall(r"INFER_[A-Z_]*[A-Z]", read(page))) - known - OTHER_VARIABLES, page


def test_exit_codes() -> None:
    listed = {int(row[0]): quoted(row[1])[0] for row in rows("docs/exit-codes.md") if row[0] != "Code"}
    assert listed == {status.value: status.name for status in ExitStatus}


def test_keys_and_reasons_of_a_reply() -> None:
    reply = Reply(
        "id", None, 0, None, None, (), None, "stop", "", Usage(0, 0, 0), Timings(0, 0, None, 0, None, None),
        None, None, "canonical", "canonical", False, {},
        ModelIdentity(None, None), EngineIdentity(None, None, None, {}), choices=(), reasoning_cut=True,
    )  # fmt: skip
    first_cells = [quoted(row[0])[0] for row in rows("docs/json.md") if row[0] != "Key"]
    keys, reasons = list(as_json(reply)), list(get_args(FinishReason))
    assert first_cells == [*keys, "finish_reason", *reasons]


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target, _ in _LINK.findall(read(page)):
            assert not target or (REPO / page).parent.joinpath(target).is_file(), f"{page}: {target}"
    linked = {target for target, _ in _LINK.findall(read("README.md"))}
    assert {page for page in PAGES if page != "README.md"} <= linked


def test_the_architecture_page_lists_the_packages_in_order() -> None:
    (block,) = (block for block in blocks("docs/architecture.md") if block.info == "packages")
    assert [line.split()[0] for line in block.body.splitlines()] == ORDER


@pytest.mark.parametrize("name", ["terminal", "chat", "batch"])
def test_a_picture_loads_nothing(name: str) -> None:
    picture = (REPO / "docs" / f"{name}.svg").read_text("utf-8")
    assert len(picture) < 100_000
    assert re.findall(r"https?://[^\"' )]+", picture) == ["http://www.w3.org/2000/svg"]
    assert "<script" not in picture
