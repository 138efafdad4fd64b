"""Nothing that lies in the working directory is run, by any command or process that it starts."""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from infer_cli.process import child_process
from tests.cli_helpers import REPO, command_names
from tests.evaluation.comparing.run_folders import right, write_run
from tests.integrations.extras import is_missing
from tests.tiny_gguf import write_tiny_gguf

MARK = "EXECUTED"
_RECORD = "the id of a record"
INSTALLED = set(packages_distributions()) - {"infer_cli"} | {
    "IPython",
    "socks",
    "brotli",
    "chardet",
    "truststore",
}


def write_wheel(folder: Path, body: bytes) -> None:
    with zipfile.ZipFile(folder / "m-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("m/x.gguf", body)
        wheel.writestr("m-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: m\nVersion: 1.0\n")
        wheel.writestr(
            "m-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("m-1.0.dist-info/RECORD", "")


class Place:
    """A working directory whose modules leave a mark when they are run, and what the commands need."""

    def __init__(self, folder: Path, modules: set[str]) -> None:
        self.folder = folder
        self.here = folder / "here"
        self.here.mkdir()
        for name in modules:
            (self.here / f"{name}.py").write_text(
                f"open({str(folder / MARK)!r}, 'a').write({name!r} + ' ')\n"
            )
        self.tiny = write_tiny_gguf(folder / "tiny.gguf", n_ctx_train=2048)
        (folder / "rows.jsonl").write_text('{"prompt": "hi"}\n')
        (folder / "pairs.jsonl").write_text(
            '{"UID": "a", "pairID": "0", "sentence_good": "hi", "sentence_bad": "hii"}\n'
        )
        (folder / "text").write_text("The cat sat on the mat.\n" * 40)
        (folder / "text.txt").write_text("The cat sat on the mat.\n" * 40)
        self.run_a = write_run(folder / "run", right(1, 0))
        (folder / "index").mkdir()
        write_wheel(folder / "index", self.tiny.read_bytes())
        self.script = folder / "bin" / "infer"
        self.script.parent.mkdir()
        self.script.write_text("import sys\nfrom infer_cli.__main__ import main\nsys.exit(main())\n")
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPO),
            "PIP_NO_INDEX": "1",
            "VISUAL": "true",
            "PIP_FIND_LINKS": str(folder / "index"),
            "PIP_CONFIG_FILE": os.devnull,
        }

    def run(self, python: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *python, *map(str, arguments)],
            cwd=self.here,
            env=self.environment,
            input="hi\n",
            capture_output=True,
            text=True,
            timeout=100,
        )

    def executed(self) -> str:
        mark = self.folder / MARK
        return mark.read_text() if mark.exists() else ""

    def commands(self) -> list[tuple[str, list[object]]]:
        """In an order in which each finds what it needs."""
        native = ["-m", self.tiny]
        rows, out = self.folder / "rows.jsonl", self.folder / "out.jsonl"
        run = self.folder / "evaluated"
        return [
            ("run", ["hi", *native, "--raw", "-n", "2", "--verbose"]),
            ("run", ["hi", "-m", "fake", "--json"]),
            ("chat", ["-m", "fake"]),
            ("batch", [rows, "-m", "fake", "-o", out]),
            ("verify", [out]),
            ("merge", [out, "-o", "-"]),
            ("compare", [self.run_a, self.run_a]),
            ("report", [self.run_a]),
            ("eval", ["blimp", "--data", self.folder / "pairs.jsonl", "-m", "fake", "-o", run]),
            ("rescore", [run]),
            ("score", ["hello", " world", *native]),
            ("perplexity", [self.folder / "text", "-m", "fake", "--rolling"]),
            ("replay", [_RECORD]),
            ("tokens", ["hi", *native]),
            ("task list", []),
            ("task check", ["perplexity", "--data", self.folder / "text.txt", *native]),
            ("probe", [*native, "--requests", "2", "-n", "2"]),
            ("devices", []),
            ("doctor", []),
            ("template show", ["-m", "fake"]),
            ("template render", ["hi", "-m", "fake"]),
            ("template check", native),
            ("models pull", ["pypi:m==1.0#m/x.gguf"]),
            ("models path", [self.tiny]),
            ("models show", [self.tiny]),
            ("models verify", ["--all"]),
            ("models add", ["mine", self.tiny]),
            ("models default", []),
            ("models list", []),
            ("models rm", ["mine", "--entry"]),
            ("records list", []),
            ("records show", [_RECORD]),
            ("records export", []),
            ("records diff", [_RECORD, _RECORD]),
            ("records rm", ["--all"]),
            ("cache warm", ["-m", "fake", "-f", self.folder / "text"]),
            ("cache list", []),
            ("cache prune", []),
            ("cache clear", []),
            ("config path", []),
            ("config set", ["seed", "1"]),
            ("config edit", []),
            ("config show", []),
        ]


@pytest.mark.timeout(400)  # some thirty commands
def test_no_command_runs_a_file_of_the_working_directory(tmp_path: Path) -> None:
    stdlib = set(sys.stdlib_module_names)
    place = Place(tmp_path, stdlib | INSTALLED | {"infer_cli", "sitecustomize", "usercustomize", "pip"})
    commands = place.commands()
    assert {name for name, _ in commands} == command_names()
    record = ""
    for name, arguments in commands:
        given = [record if argument is _RECORD else argument for argument in arguments]
        done = place.run([str(place.script)], *name.split(), *given)
        if name == "run" and "--json" in given:
            record = json.loads(done.stdout)["id"]
        expected = 2 if name == "report" and is_missing("matplotlib") else 0
        assert done.returncode == expected, (name, done.stderr)
        assert place.executed() == "", name


@pytest.mark.parametrize("how", ["-m", "empty entry"])
def test_python_that_has_the_directory_on_its_path_itself(tmp_path: Path, how: str) -> None:
    """Python's own start is out of reach; nothing that we import comes from there."""
    at_start = {"_distutils_hack"}  # a .pth file of setuptools imports it
    place = Place(tmp_path, INSTALLED - at_start | {"sqlite3", "html", "queue"})
    python = ["-m", "infer_cli"]
    if how == "empty entry":
        python = [str(place.script)]
        place.environment["PYTHONPATH"] += os.pathsep
    for name, arguments in place.commands():
        if name in ("run", "probe", "models pull", "models list"):
            done = place.run(python, *name.split(), *arguments)
            assert done.returncode == 0, (name, done.stderr)
            assert place.executed() == "", name


def test_a_checkout_runs_from_its_own_directory() -> None:
    """Not installed: found through the working directory, and so by its child processes."""
    child = (
        "from infer_cli.process.child_process import *; leave_working_directory(); import subprocess, sys\n"
        "command = python_module('infer_cli.checking.probe_mode')\n"
        "sys.exit(subprocess.run(command, env=environment(), input=b'{').returncode)"
    )
    env = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", child], cwd=REPO, env=env, capture_output=True, text=True)
    assert "JSONDecodeError" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("how", "options"),
    [
        (["-m", "infer_cli"], []),
        (["-uminfer_cli"], ["-u"]),
        (["-X", "dev", "-um", "infer_cli"], ["-X", "dev", "-u"]),
    ],
)
def test_the_same_command_without_the_directory(
    monkeypatch: pytest.MonkeyPatch, how: list[str], options: list[str]
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", *how, "run", "-m", "fake"])
    monkeypatch.setattr(sys, "argv", ["infer", "run", "-m", "fake"])
    spec = importlib.machinery.ModuleSpec("infer_cli.__main__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    command = child_process.same_command()
    assert command[: len(options) + 1] == [sys.executable, *options]
    assert Path(command[len(options) + 1]).name == "run_module.py"
    assert command[-4:] == ["infer_cli", "run", "-m", "fake"]


def test_programs_of_the_working_directory_are_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "uv"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join(["", ".", "bin"]))
    assert child_process.find_program("uv") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert child_process.find_program("uv") == str(program)
