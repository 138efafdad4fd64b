"""What shells are told when Tab is pressed, by the protocol of each shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from infer_cli.cli.app import command_line
from infer_cli.cli.completion import choices_of
from infer_cli.conversation.shortening import OVERFLOW_POLICIES
from tests.cli.test_help import pages
from tests.cli_helpers import REPO, infer
from tests.project.test_imports import HEAVY


def in_bash(words: str) -> list[str]:
    """What the last of the words, perhaps none yet, can become. Bash takes `=` for a word of its own."""
    split = words.replace("=", " = ").split(" ")
    asked = {"_INFER_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(split)}
    done = infer(env={**asked, "COMP_CWORD": str(len(split) - 1)})
    assert (done.code, done.err) == (0, "")
    return done.text.split()


def in_shell(shell: str, words: str) -> str:
    asked = {"_INFER_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words}
    done = infer(env={**asked, "_TYPER_COMPLETE_FISH_ACTION": "get-args"})
    assert (done.code, done.err) == (0, "")
    return done.text


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("infer ba", ["batch"]),
        ("infer run --see", ["--seed"]),
        ("infer models lis", ["list"]),
        ("infer run -m smollm2-1.7", ["smollm2-1.7b-instruct"]),
        ("infer run hello --model=smollm2-1.7", ["smollm2-1.7b-instruct"]),
        ("infer models show smollm2-1.7", ["smollm2-1.7b-instruct"]),
        ("infer pull smollm2-1.7", ["smollm2-1.7b-instruct"]),
        ("infer perplexity book.txt --against smollm2-1.7", ["smollm2-1.7b-instruct"]),
        ("infer models rm smollm2-1.7", []),  # it is not installed
        ("infer run --overflow ", list(OVERFLOW_POLICIES)),
        ("infer score --overflow ", ["error", "truncate-left"]),
        ("infer batch rows.csv --format ", ["jsonl", "csv", "tsv", "lines"]),
        ("infer batch rows.csv --output-format=o", ["openai"]),
        ("infer run -t ", ["model"]),
        ("infer run --gpu-layers a", ["auto", "all"]),
        ("infer run --cache-type-k q4", ["q4_0", "q4_1"]),
        ("infer config set max-tok", ["max-tokens"]),
        ("infer eval gsm", ["gsm8k"]),
        ("infer run -f ", []),  # the shell offers files
        ("infer records show ", []),  # there is none yet
    ],
)
def test_a_shell_completes(words: str, completed: list[str]) -> None:
    assert in_bash(words) == completed


def test_ids_of_records_and_names_of_conversations() -> None:
    assert infer("run", "-m", "fake", "Why is the sky blue?").code == 0
    assert infer("chat", "-m", "fake", stdin=b"hello\n/rename greetings\n").code == 0
    shown = infer("records", "list").text.splitlines()
    ids = [line.split("\t")[0][:8] for line in shown]
    for command in ("show", "diff", "export", "rm"):
        assert in_bash(f"infer records {command} ") == ["last", *ids]
    assert in_bash(f"infer records show {ids[1][:7]}") == [ids[1]]
    assert in_bash("infer replay ") == ["last", *ids, "greetings"]
    assert in_bash("infer chat --resume gre") == ["greetings"]
    assert "Why is the sky blue?" in in_shell("zsh", "infer records show ")


def test_a_prompt_is_nothing_that_a_shell_would_run(tmp_path: Path) -> None:
    """zsh evaluates the words about a candidate; Typer reads `[…]` in them as markup."""
    assert infer("run", "-m", "fake", r"a \$(touch x) `id` '; \" [/red] b").code == 0
    shown = in_shell("zsh", "infer records show ")
    assert "a touch x id" in " ".join(shown.split())
    assert not set("$`;[") & set(shown.replace("_arguments '*: :((", ""))


def test_a_name_that_a_shell_would_split_is_not_offered() -> None:
    assert infer("chat", "-m", "fake", stdin=b"hello\n/rename two words\n").code == 0
    assert in_bash("infer chat --resume ") == []


def test_fish_and_zsh_get_a_few_words_about_each(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")
    assert in_shell("fish", "infer run -m smollm2-1.7").strip() == "smollm2-1.7b-instruct\t1.06 GB"
    assert '"smollm2-1.7b-instruct":"1.06 GB"' in in_shell("zsh", "infer run -m smollm2-1.7")
    assert in_shell("zsh", "infer run -f ").strip() == "_files"


def test_no_file_of_records_is_made_nor_a_damaged_one_moved(own_home: Path) -> None:
    assert in_bash("infer records show ") == []
    assert not own_home.exists()
    (own_home / "data").mkdir(parents=True)
    store = own_home / "data" / "records.sqlite"
    store.write_bytes(b"not a database" * 1000)
    assert in_bash("infer records show ") == []
    assert [path.name for path in store.parent.iterdir()] == [store.name]


def test_wrong_settings_are_no_obstacle(own_home: Path) -> None:
    (own_home / "config").mkdir(parents=True)
    (own_home / "config" / "config.toml").write_text("wrong = = 1")
    assert in_bash("infer run --see") == ["--seed"]
    (own_home / "config" / "models.toml").write_text("wrong = = 1")
    assert in_bash("infer run -m smol") == []


def test_every_parameter_that_takes_a_model_or_has_choices_is_completed() -> None:
    from infer_cli.cli.completion import add_completions

    top = typer.main.get_command(command_line())
    add_completions(top, lambda: top)
    n_models = n_choices = 0
    for name, command in pages(top):
        for param in command.params:
            offered = "shell_complete" in vars(param)
            if "--model" in param.opts or "MODEL" in (param.metavar or ""):
                n_models += 1
                assert offered, f"infer {name}: {param.name}"
            if choices_of(param):
                n_choices += 1
                assert offered, f"infer {name}: {param.name}"
    assert n_models > 15 and n_choices > 20


@pytest.mark.parametrize("words", ["infer run -m ", "infer records show ", "infer ru"])
def test_no_engine_and_no_network(words: str) -> None:
    assert infer("run", "-m", "fake", "hello").code == 0
    code = (
        "import os, sys\n"
        "os._exit = lambda status: print('\\n'.join(sys.modules), file=sys.stderr)\n"
        "from infer_cli.__main__ import main\n"
        "main()\n"
    )
    env = {**os.environ, "_INFER_COMPLETE": "complete_bash", "COMP_WORDS": words, "PYTHONPATH": str(REPO)}
    env["COMP_CWORD"] = str(words.count(" "))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout
    loaded = set(done.stderr.split())
    assert "infer_cli.cli.completion" in loaded
    assert not loaded & (HEAVY - {"tomllib", "sqlite3", "infer_cli.cli.flags.options"})


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself(tmp_path: Path) -> None:
    """The script that `--show-completion` prints, in a bash that asks as Tab does."""
    ours = tmp_path / "infer"
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m infer_cli "$@"\n')
    ours.chmod(0o755)
    asks = (
        'eval "$(infer --show-completion)"\n'
        "COMP_WORDS=(infer run --model = smollm2-1.7); COMP_CWORD=4; _infer_completion infer\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(REPO)}
    done = subprocess.run(["bash", "-c", asks], env=env, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["smollm2-1.7b-instruct"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_is_shown_and_installed(shell: str, tmp_path: Path) -> None:
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else the shell that calls is taken
    assert "_INFER_COMPLETE" in infer("--show-completion", shell, env=named).text
    assert infer("--install-completion", shell, env=named).code == 0
    places = {"bash": ".bash_completions/infer.sh", "zsh": ".zfunc/_infer"}
    assert (tmp_path / places.get(shell, ".config/fish/completions/infer.fish")).is_file()
