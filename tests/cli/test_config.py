"""`infer config`: the settings as a user would write them, and which flags can be settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.settings.config_file import config_path
from infer_cli.settings.toml_file import parse_toml
from tests.cli_helpers import infer, one_error_line

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
