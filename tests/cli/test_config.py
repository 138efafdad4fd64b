"""`infer config`: the settings as a user would write them, and which flags can be settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infer_cli.settings.config_file import config_path
from infer_cli.settings.toml_file import parse_toml
from tests.cli_helpers import infer, lines_of, one_error_line

SETTINGS = r"""max-tokens = 5
stop = ["END", "a \"quoted\"\tone\n", "é😀\u007f"]
quiet = true
run.stats = false
run.top-p = 0.5
run.min-p = 1e-05
run.var = []
run.set = ["xtc_probability=0.5"]
batch.format = "jsonl"
cache.json = true
"""


@pytest.fixture
def config(own_home: Path) -> Path:
    config_path().parent.mkdir(parents=True)
    return config_path()


def test_what_is_shown_can_be_written_in_the_file(config: Path) -> None:
    config.write_text(SETTINGS, "utf-8")
    done = infer("config", "show")
    assert (done.code, done.text, done.err) == (0, SETTINGS, "")


def test_values_of_every_kind_are_shown_as_toml(config: Path) -> None:
    """Whether a flag takes them is seen when it is used."""
    text = "seed = {a = 2024-01-31, 'b c' = [1, inf, {d = 07:32:00}]}\ntop-k = 2024-01-31T07:32:00Z\n"
    config.write_text(text, "utf-8")
    shown = infer("config", "show").out
    assert parse_toml(shown, config) == parse_toml(text.encode(), config)


def test_no_file_shows_nothing(config: Path) -> None:
    done = infer("config", "show")
    assert (done.code, done.out, done.err) == (0, b"", "")


def test_the_path_of_a_wrong_file_is_told(config: Path) -> None:
    for wrong in ("temprature = 1\n", "= ="):
        config.write_text(wrong)
        assert infer("config", "path").text == f"{config}\n"
        one_error_line(infer("config", "show"), 2, str(config))


def test_a_setting_has_the_name_of_its_flag(config: Path) -> None:
    config.write_text("[tokens]\njson = true\n[run]\nset = ['xtc_probability=0.5']\n")
    assert infer("tokens", "-m", "fake", "a").json["ids"] == [97]
    assert "xtc_probability" in infer("run", "-m", "fake", "a", "-t", "1", "--show-params").err
    config.write_text("[run]\nset_ = ['xtc_probability=0.5']\n")
    one_error_line(infer("run", "-m", "fake", "a"), 2, "[run] has no setting 'set_'")


def test_what_a_command_acts_on_is_no_setting(config: Path) -> None:
    """A default model must not hide records of others, and nothing is removed without being told to."""
    infer("run", "-m", "fake", "a")
    config.write_text("model = 'another'\n")
    assert infer("records", "list").text.count("\n") == 1
    config.write_text("[records]\nall = true\n")
    one_error_line(infer("records", "list"), 2, "[records] has no setting 'all'")


# --- set and edit ---------------------------------------------------------------------------------

WRITTEN = """# mine
max_tokens = 5  # few

run.stats = false
[batch]
# of jobs
parallel = 2
"""


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("seed", "7", "seed = 7"),
        ("max-tokens", "9", "max_tokens = 9"),  # the spelling that is there
        ("run.temperature", "model", 'run.temperature = "model"'),
        ("run.stats", "true", "run.stats = true"),
        ("batch.parallel", "4", "batch.parallel = 4"),
        ("chat.stop", '["END", "a b"]', 'chat.stop = ["END", "a b"]'),
        ("system", 'say "no"', 'system = "say \\"no\\""'),
        ("system", "", 'system = ""'),
        ("run.max-tokens", "-1", "run.max-tokens = -1"),
    ],
)
def test_set_changes_one_setting_and_leaves_the_rest(config: Path, name: str, value: str, line: str) -> None:
    config.write_text(WRITTEN)
    before = infer("config", "show").text.splitlines()
    done = infer("config", "set", name, value)
    assert (done.code, done.out) == (0, b""), done
    assert f"in {config}" in done.err
    after = infer("config", "show").text.splitlines()
    assert line in after
    key = line.partition(" = ")[0] + " = "
    assert [each for each in after if each != line] == [each for each in before if not each.startswith(key)]
    assert [mark in config.read_text() for mark in ("# mine", "# few", "# of jobs")] == [True] * 3


def test_set_makes_the_file(config: Path) -> None:
    assert infer("config", "set", "run.max-tokens", "5").code == 0
    assert infer("run", "-m", "fake", "hi").text == "You s\n"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("temprature", "1", ["no command has a setting 'temprature'"]),
        ("chat.parallel", "1", ["[chat] has no setting 'parallel'"]),
        ("nocommand.seed", "1", ["no command has a setting 'nocommand'"]),
        ("a.b.c", "1", ["'a.b.c' is no setting"]),
        ("", "1", ["is no setting"]),
        ("max_tokens.x", "1", ["max_tokens is a setting"]),
        ("seed", "true", ["seed can't be true", "a string or a number"]),
        ("run.seed", "[1]", ["seed can't be [1]"]),
        ("seed", "2024-01-31", ["seed can't be 2024-01-31"]),
        ("seed", "nan", ["seed can't be nan"]),
        ("--seed", "1", ["no command has a setting '--seed'"]),
    ],
)
def test_set_refuses_what_no_command_would_take(
    config: Path, name: str, value: str, words: list[str]
) -> None:
    config.write_text(WRITTEN)
    one_error_line(infer("config", "set", name, value), 2, *words)
    assert config.read_text() == WRITTEN


def test_set_does_not_touch_a_file_that_is_no_toml(config: Path) -> None:
    config.write_text("seed = = 1\n")
    one_error_line(infer("config", "set", "seed", "1"), 2, "is not valid TOML")
    assert config.read_text() == "seed = = 1\n"


def test_a_file_that_is_wrong_can_be_mended(config: Path, tmp_path: Path) -> None:
    config.write_text("# mine\ntemprature = 1\n")
    one_error_line(infer("run", "-m", "fake", "hi"), 2, "temprature")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/temprature/temperature/ "$1"\n')
    editor.chmod(0o755)
    done = infer("config", "edit", env={"EDITOR": str(editor), "VISUAL": ""})
    assert (done.code, done.out, done.err) == (0, b"", "")
    assert config.read_text() == "# mine\ntemperature = 1\n"
    editor.write_text("#!/bin/sh\necho 'nonsense = 1' > \"$1\"\n")
    one_error_line(
        infer("config", "edit", env={"VISUAL": str(editor)}), 2, "no command has a setting 'nonsense'"
    )
    editor.write_text("#!/bin/sh\nexit 3\n")
    one_error_line(infer("config", "edit", env={"VISUAL": str(editor)}), 1, "the editor failed")
    one_error_line(infer("config", "edit", env={"VISUAL": "no-such-editor"}), 2, "no editor")


def test_show_as_json(config: Path) -> None:
    config.write_text("threads = 2\nseed = 2024-01-31\n[run]\nstop = ['a']\n")
    shown = [
        {"name": "threads", "value": 2},
        {"name": "seed", "value": "2024-01-31"},
        {"name": "run.stop", "value": ["a"]},
    ]
    assert json.loads(infer("config", "show", "--json").out) == shown
    assert lines_of(infer("config", "show", "--jsonl").out) == shown
    one_error_line(infer("config", "show", "--json", "--jsonl"), 2, "exclude each other")


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", "abc"), ("top-k", "abc"), ("run.temperature", "x")]
)
def test_a_value_that_no_run_would_take_is_not_set(name: str, value: str) -> None:
    one_error_line(infer("config", "set", name, value), 2, f'can\'t be "{value}"', "it takes a")
    assert infer("config", "show").out == b""
    assert infer("config", "set", "temperature", "model").code == 0
