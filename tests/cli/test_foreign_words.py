"""Words of other programs: accepted, or answered with what there is here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.cli import foreign_words
from infer_cli.cli.app import command_line
from infer_cli.cli.translation import with_our_command, with_our_flags
from infer_cli.errors import UsageError
from tests.cli_helpers import command_names, infer, one_error_line, script

OF_RUN = {
    "-m": True, "--model": True, "-t": True, "--temperature": True, "-n": True, "--max-tokens": True,
    "--ctx": True, "--gpu-layers": True, "--system": True, "--stop": True, "-f": True, "--file": True,
    "-c": False, "--continue": False, "--json": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        (["two words"], ["run", "two words"]),
        (["two\nlines", "-n", "5"], ["run", "two\nlines", "-n", "5"]),
        (["word"], ["word"]),
        (["pull", "smollm2"], ["models", "pull", "smollm2"]),
        (["ls", "--json"], ["models", "list", "--json"]),
        (["help"], ["--help"]),
        (["help", "models", "pull"], ["models", "pull", "--help"]),
        (["-V"], ["--version"]),
        (["run", "list"], ["run", "list"]),
        ([], []),
    ],
)
def test_first_words(typed: list[str], ours: list[str]) -> None:
    assert with_our_command(typed) == ours


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        (["hi", "--temp", "0.5"], ["--temperature=0.5", "hi"]),
        (["hi", "--temp=0.5", "-ngl", "9"], ["--temperature=0.5", "--gpu-layers=9", "hi"]),
        (["hi", "--n-predict", "-1"], ["--max-tokens=-1", "hi"]),
        (["-hf", "o/r:Q8_0", "hi"], ["--model=o/r:Q8_0", "hi"]),
        (["-p", "two words", "-n5"], ["-n5", "two words"]),
        (["-p", "--help me", "and", "--json"], ["--json", "--", "--help me", "and"]),
        (["-", "and", "-p", "more"], ["--file", "-", "and", "more"]),
        (["-s", "Be brief.", "hi"], ["--system=Be brief.", "hi"]),
        # Values of flags, and what stands behind `--`, are no foreign words.
        (["hi", "--stop", "--temp", "-cn", "5"], None),
        (["-f", "-", "hi"], None),
        (["--stop", "-", "hi"], None),
        (["--", "--temp", "-", "smollm2"], None),
        (["hi", "-n", "-1"], None),
        (["hi", "--nonsense", "-Y"], None),  # which Typer refuses
    ],
)
def test_flags_of_a_command(typed: list[str], ours: list[str] | None) -> None:
    assert with_our_flags("run", typed, OF_RUN) == (typed if ours is None else ours)


_OURS = {"--temp": "--temperature", "--ctx-size": "--ctx", "-ngl": "--gpu-layers"}
_TOKENS = [
    *_OURS,
    *_OURS.values(),
    "-n",
    "-n5",
    "5",
    "-cn",
    "-c",
    "--json",
    "--stop",
    "-f",
    "--system=a",
    "hi",
    "--",
]


@given(st.lists(st.sampled_from(_TOKENS), max_size=8))
def test_a_line_is_read_as_typer_reads_it(tokens: list[str]) -> None:
    """The same line in our words, to the parser, is what it makes of the translated one."""
    command: Any = typer.main.get_command(command_line(["run"])).commands["run"]  # type: ignore[attr-defined]
    takes_value = {
        spelling: not param.is_flag
        for param in command.params
        if param.param_type_name == "option"
        for spelling in param.opts
    }

    def parsed(arguments: list[str]) -> dict[str, object] | None:
        try:
            found = command.make_context("run", list(arguments)).params
        except typer.TyperException:
            return None
        text = json.dumps(found)
        for theirs, ours in _OURS.items():  # in values
            text = text.replace(f'"{theirs}"', f'"{ours}"')
        values: dict[str, object] = json.loads(text)
        return values

    def translated() -> dict[str, object] | None:
        try:
            return parsed(with_our_flags("run", tokens, takes_value))
        except UsageError:
            return None

    assert translated() == parsed([_OURS.get(t, t) for t in tokens])


@pytest.mark.parametrize("typed", [["hi", "--temp"], ["--temp", "1", "hi", "-n"], ["hi", "-p"]])
def test_a_flag_without_its_value_takes_no_word(typed: list[str]) -> None:
    one_error_line(infer("run", *typed), 2, f"Option '{typed[-1]}' requires an argument", "infer run --help")


def test_help_is_shown_whatever_else_is_typed() -> None:
    assert infer("run", "smollm2", "hi", "--help").out == infer("run", "--help").out != b""


def test_a_command_takes_the_words_of_its_own_flags_only() -> None:
    assert with_our_flags("models list", ["--temp", "1"], {"--json": False}) == ["--temp", "1"]
    with pytest.raises(UsageError, match="No such option: -p"):
        with_our_flags("chat", ["-p", "hi"], {"--model": True})
    # What has a meaning here keeps it.
    assert with_our_flags("records export", ["--format", "md"], {"--format": True}) == ["--format", "md"]


@pytest.mark.parametrize("number", ["42", "0"])
def test_a_number_may_be_a_seed_or_a_system_prompt(number: str) -> None:
    with pytest.raises(UsageError, match=f"-s {number}") as caught:
        with_our_flags("run", ["hi", "-s", number], OF_RUN)
    assert f"--seed {number}" in caught.value.hint


def test_a_system_prompt_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "system.txt"
    file.write_text("Be brief.\n\n")
    assert with_our_flags("run", ["--system-file", str(file), "hi"], OF_RUN) == ["--system=Be brief.", "hi"]
    shown = infer("run", "-m", "fake", "--system-file", file, "hi", "--show-context").err
    assert shown == infer("run", "-m", "fake", "--system", "Be brief.", "hi", "--show-context").err != ""
    one_error_line(infer("run", "--system-file", tmp_path / "none", "hi"), 2, "none: No such file")
    file.write_bytes(b"\0")
    one_error_line(infer("run", "-sysf", file, "hi"), 2, "binary")


def test_two_words_are_a_prompt_and_one_is_a_command() -> None:
    assert infer("two words", "-m", "fake").out == infer("run", "two words", "-m", "fake").out
    one_error_line(infer("rnu"), 2, "No such command 'rnu'", "'run'")


@pytest.mark.parametrize(
    "typed",
    [
        ["-m", "fake", "two words"],
        ["--model=fake", "two words", "--temp", "0"],
        ["--quiet", "-m", "fake", "-n50", "two words"],
        ["-m", "fake", "-p", "two words"],
        ["-m", "fake", "--", "two words"],
    ],
)
def test_flags_may_stand_before_a_prompt_of_two_words(typed: list[str]) -> None:
    assert infer(*typed).text == "You said: two words\n"


@pytest.mark.parametrize(
    "typed",
    [["-m", "fake", "word"], ["--system", "Be brief.", "hello"], ["-m", "fake"], ["--verbose", "chat"]],
)
def test_flags_before_one_word_are_an_error(typed: list[str]) -> None:
    one_error_line(infer(*typed), 2, "No such option", "flags stand behind the command")


def test_a_foreign_flag_before_a_prompt_is_answered() -> None:
    one_error_line(infer("-q", "two words"), 2, "No such option: -q", "--quiet")


def test_the_version_has_several_names() -> None:
    assert infer("version").out == infer("-V").out == infer("--version").out != b""


def test_help_is_a_word_too() -> None:
    assert infer("help", "models").out == infer("models", "--help").out != b""
    one_error_line(infer("help", "nonsense"), 2, "No such command 'nonsense'")


def test_as_many_tokens_as_the_window_holds(tmp_path: Path) -> None:
    words = ["run", "-m", "fake", "--ctx", "300", "hi", "--json"]
    assert infer(*words, "-n", "-1").json["finish_reason"] == "stop"
    endless = script(tmp_path, default_reply="word " * 99)
    assert infer(*words, "-n", "-1", "-m", endless).json["finish_reason"] == "context"
    one_error_line(infer(*words, "-n", "-2"), 2, "--max-tokens -2")


def test_a_dash_is_what_is_piped_in() -> None:
    piped = infer("run", "-m", "fake", "and", stdin=b"given")
    assert infer("run", "-m", "fake", "-", "and", stdin=b"given").out == piped.out
    assert b"given" in piped.out


# --- the name of a model where a prompt stands ----------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["smollm2", "Name a colour"], "infer run -m smollm2 'Name a colour'"),
        (["-n", "5", "SmolLM2", "hi"], "infer run -m SmolLM2 -n 5 hi"),
        (["hf.co/o/r", "hi"], "infer run -m hf.co/o/r hi"),
        (["bartowski/Qwen3-0.6B-GGUF:Q8_0", "hi"], "infer run -m bartowski/Qwen3-0.6B-GGUF:Q8_0 hi"),
        (["https://huggingface.co/o/r", "hi"], "infer run -m https://huggingface.co/o/r hi"),
        (["hf:o/r", "hi"], "infer run -m hf:o/r hi"),
        (["smollm2", "x" * 1000], "infer run -m smollm2 …"),
        (["smollm2", "two\nlines"], "infer run -m smollm2 …"),
        (["smollm2"], "infer run -m smollm2"),
        (["llama3", "Why is the sky blue?"], "infer run -m llama-3.2-1b 'Why is the sky blue?'"),
        (["qwen3", "hi"], "infer run -m qwen3-0.6b hi"),
        (["gemma3", "hi"], "infer run -m gemma3-270m hi"),
        (["smollm2:135m", "hi"], "infer run -m smollm2-135m hi"),
        (["mixtral:8x7b", "hi"], "infer run -m mixtral:8x7b hi"),
        (["./none.gguf", "hi"], "infer run -m ./none.gguf hi"),
    ],
)
def test_a_model_in_the_place_of_the_prompt(typed: list[str], line: str) -> None:
    one_error_line(infer("run", *typed), 2, f"type `{line}`", "after -- it is prompt text")


@pytest.mark.parametrize(
    "typed",
    [
        ["--", "smollm2", "hi"],
        ["-m", "fake", "smollm2", "hi"],
        ["smollm2 is small"],
        ["hi", "smollm2"],
        ["and/or"],
        ["km/h", "is", "a", "unit"],
        ["-p", "smollm2"],
        ["Question:", "why"],
        ["https://example.org/a", "is", "a", "page"],
        ["llama", "or", "alpaca"],
        ["Gemma", "is", "a", "name"],
        ["llama3"],
        ["note:this", "is", "text"],
        ["12:30", "is", "a", "time"],
        ["3d", "is", "a", "word"],
        [".gguf", "is", "a", "suffix"],
    ],
)
def test_text_that_is_no_model(typed: list[str]) -> None:
    outcome = infer("run", *typed, env={"INFER_MODEL": "fake"})
    words = [word for word in typed if word not in ("--", "-m", "fake", "-p")]
    assert (outcome.code, outcome.text) == (0, f"You said: {' '.join(words)}\n")


def test_a_file_and_what_ollama_has_are_models_too(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    one_error_line(infer("run", tmp_path / "m.gguf", "hi"), 2, f"infer run -m {tmp_path / 'm.gguf'} hi")
    assert infer("run", tmp_path / "none.gguf", env={"INFER_MODEL": "fake"}).code == 0
    manifest = tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "llama3.2" / "1b"
    manifest.parent.mkdir(parents=True)
    digest = "sha256:" + "0" * 64
    layer = f'{{"mediaType": "application/vnd.ollama.image.model", "digest": "{digest}", "size": 1}}'
    manifest.write_text(f'{{"layers": [{layer}]}}')
    blob = tmp_path / "ollama" / "blobs" / digest.replace(":", "-")
    blob.parent.mkdir()
    blob.touch()
    env = {"OLLAMA_MODELS": str(tmp_path / "ollama"), "INFER_MODEL": "fake"}
    one_error_line(infer("run", "llama3.2:1b", "hi", env=env), 2, "infer run -m ollama:llama3.2:1b hi")
    one_error_line(infer("chat", "llama3.2:1b", env=env), 4, "is empty")
    one_error_line(
        infer("run", "llama3.2:7b", "hi", env=env), 2, "'llama3.2:7b' looks like the name of a model"
    )


def test_a_tag_is_no_kind_of_source() -> None:
    one_error_line(
        infer("run", "-m", "smollm2:135m", "hi"),
        3,
        "no model named 'smollm2:135m'",
        "did you mean smollm2-135m?",
    )


def test_a_chat_takes_its_model_as_a_word() -> None:
    assert infer("chat", "fake", "-t", "0", stdin=b"hello\n").text == "You said: hello\n"
    one_error_line(infer("chat", "-m", "fake", "other", stdin=b"hello\n"), 2, "other")


# --- words that are answered ----------------------------------------------------------------------


@pytest.mark.parametrize("word", foreign_words.OTHER_COMMANDS)
def test_a_command_that_there_is_not_here(word: str) -> None:
    with pytest.raises(UsageError, match=f"No such command '{word}'") as caught:
        with_our_command([word])
    assert caught.value.hint == foreign_words.OTHER_COMMANDS[word]


def test_no_word_hides_a_command_of_ours() -> None:
    ours = {name.split()[0] for name in command_names()}
    assert not ours & {*foreign_words.OTHER_COMMANDS, *foreign_words.COMMANDS}


def test_a_flag_that_there_is_not_here() -> None:
    one_error_line(infer("serve"), 2, "No such command 'serve'", foreign_words.OTHER_COMMANDS["serve"])
    for flag in ("--no-stream", "-st", "-cnv"):
        one_error_line(
            infer("run", "hi", flag), 2, f"No such option: {flag}", foreign_words.OTHER_FLAGS[flag]
        )
    # Of short flags written together these are none: `-t b`, `-m d`, `-d ev`.
    for typed in (["-tb", "4"], ["-md", "x"], ["-dev", "none"]):
        one_error_line(
            infer("run", "-m", "fake", "hi", *typed),
            2,
            f"No such option: {typed[0]}",
            foreign_words.OTHER_FLAGS[typed[0]],
        )
    one_error_line(infer("run", "hi", "--format=json"), 2, "No such option: --format")


def test_no_help_page_shows_another_spelling() -> None:
    for command in ("run", "chat", "batch"):
        page = infer(command, "--help").text.split()
        assert not {*foreign_words.FLAGS, *foreign_words.PROMPTS} & set(page)


def test_a_message_to_a_chat_is_typed_inside() -> None:
    one_error_line(infer("chat", "tell me a joke"), 2, "start `infer chat`", "`infer run`")


def test_n_of_a_list() -> None:
    one_error_line(infer("records", "list", "-n", "5"), 2, "No such option: -n", "--limit N")
