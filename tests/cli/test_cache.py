"""`infer run` that begins where an earlier command ended, and `infer cache`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli_helpers import INFER, REPO, Outcome, infer, lines_of, one_error_line, script
from tests.terminal import Terminal
from tests.tiny_gguf import write_tiny_gguf

LINES = "The cat number {} sat on a mat and saw a rat, and then another one came in.\n"
BOOK = "".join(LINES.format(i) for i in range(12))  # some 900 characters


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(BOOK)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", n_ctx_train=2048)


def cached(done: Outcome) -> int:
    assert done.code == 0, done.err
    usage = done.json["usage"]
    assert isinstance(usage, dict)
    n = usage["cached_tokens"]
    assert isinstance(n, int)
    return n


def listed() -> list[dict[str, object]]:
    shown = lines_of(infer("cache", "list", "--jsonl").out)
    assert json.loads(infer("cache", "list", "--json").out) == shown
    return list(shown)


def files(home: Path) -> list[Path]:
    return sorted((home / "cache" / "prefixes").glob("*"))


def ask(book: Path, question: str, *more: object, **how: object) -> Outcome:
    return infer("run", "-m", "fake", "-f", book, question, "--json", *more, **how)  # type: ignore[arg-type]


# --- run ------------------------------------------------------------------------------------------


def test_another_question_on_the_same_file_begins_at_the_question(book: Path) -> None:
    first = ask(book, "who?")
    assert cached(first) == 0
    n_file = 1 + len(b'user\n<file name="book.txt">\n</file>' + BOOK.encode())
    second = ask(book, "and what then?")
    assert n_file // 64 * 64 == cached(second)
    without = ask(book, "and what then?", "--no-cache")
    assert cached(without) == 0
    assert second.json["digest"] == without.json["digest"]
    assert len(listed()) == 1


def test_the_answer_is_out_and_nothing_else_is_said(book: Path) -> None:
    for _ in range(2):
        done = infer("run", "-m", "fake", "-f", book, "who?", "-n", "3")
        assert (done.out, done.err) == (b"You\n", "")


def test_stats_say_what_was_kept_and_what_was_used(book: Path) -> None:
    arguments = ("run", "-m", "fake", "-f", book, "who?", "-n", "3", "--stats")
    assert "prefix cache: kept 896 tokens, 3.9" in infer(*arguments).err
    again = infer(*arguments).err
    assert "prefix cache: 896 tokens read in" in again
    assert "896 cached" in again
    assert "kept" not in again


@pytest.mark.parametrize("flags", [["--private"], ["--no-record"], ["--no-cache"]])
def test_with_these_flags_it_is_neither_used_nor_filled(
    book: Path, own_home: Path, flags: Sequence[str]
) -> None:
    assert cached(ask(book, "who?", *flags)) == 0
    assert files(own_home) == []
    ask(book, "who?")
    assert cached(ask(book, "who?", *flags)) == 0
    assert cached(ask(book, "who?")) > 0


def test_standard_input_is_a_file_too(own_home: Path) -> None:
    arguments = ("run", "-m", "fake", "--json")
    assert cached(infer(*arguments, "who?", stdin=BOOK.encode())) == 0
    assert cached(infer(*arguments, "what?", stdin=BOOK.encode())) == 896
    assert cached(infer(*arguments, "-f", "-", "where?", stdin=BOOK.encode())) == 896


def test_a_short_file_or_a_long_question_is_not_kept(tmp_path: Path, own_home: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("x" * 200)
    assert cached(ask(short, "y" * 400)) == 0
    infer("run", "-m", "fake", "z" * 800)
    assert files(own_home) == []


def test_raw_text_system_prompts_and_templates_are_beginnings_of_their_own(
    book: Path, tmp_path: Path
) -> None:
    template = tmp_path / "ask.md"
    template.write_text("Read this: {{ input }}")
    ways: list[list[object]] = [[], ["--system", "Be brief."], ["--raw"], ["--prompt-template", template]]
    for way in ways:
        assert cached(ask(book, "who?", *way)) == 0, way
        second = ask(book, "what then?", *way)
        assert cached(second) >= 832, way
        assert second.json["digest"] == ask(book, "what then?", "--no-cache", *way).json["digest"], way
    assert len(listed()) == len(ways)


def test_another_engine_has_a_cache_of_its_own(book: Path) -> None:
    ask(book, "who?")
    assert cached(ask(book, "who?", "--fast")) == 0
    assert cached(ask(book, "who?", "--threads", "1")) == 0
    assert cached(ask(book, "who?", "--invariant", "--threads", "1")) == 0
    assert cached(ask(book, "who?", "--invariant", "--threads", "2")) == 896  # it promises that much
    assert cached(ask(book, "who?", "--samples", "1", "-t", "1")) == 896


def test_samples_share_what_was_kept(book: Path) -> None:
    arguments = ("-t", "1", "--seed", "5", "--samples", "3")
    first, second = ask(book, "who?", *arguments), ask(book, "who?", *arguments)
    assert first.code == second.code == 0
    replies = [[json.loads(line) for line in done.text.splitlines()] for done in (first, second)]
    assert [r["digest"] for r in replies[0]] == [r["digest"] for r in replies[1]]
    assert all(r["usage"]["cached_tokens"] >= 896 for r in replies[1])


def test_a_reply_that_is_cut_short_by_the_clock_keeps_nothing(
    book: Path, tmp_path: Path, own_home: Path
) -> None:
    slow = script(tmp_path, token_s=0.001)
    done = infer("run", "-m", slow, "-f", book, "who?", "--deadline", "300ms")
    assert done.code == 7
    assert files(own_home) == []


def test_ctrl_c_keeps_nothing(book: Path, tmp_path: Path, own_home: Path) -> None:
    slow = script(tmp_path, step_s=0.05)
    command = [*INFER, "run", "-m", slow, "-f", str(book), "who?"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=REPO, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"You"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert files(own_home) == []


def test_a_damaged_file_costs_only_time(book: Path, own_home: Path) -> None:
    whole = ask(book, "who?")
    (path,) = files(own_home)
    data = path.read_bytes()
    for i in (0, 9, 13, 40, 330, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:i] + bytes([data[i] ^ 0x10]) + data[i + 1 :])
        done = ask(book, "who?")
        assert (cached(done), done.err) == (0, "")
        assert done.json["digest"] == whole.json["digest"]
        assert path.read_bytes() == data  # kept anew
    path.write_bytes(data[:100])
    assert cached(ask(book, "who?")) == 0
    assert cached(ask(book, "who?")) == 896


def test_a_cache_that_cannot_be_written_is_told_with_stats_only(book: Path, own_home: Path) -> None:
    (own_home / "cache").mkdir(parents=True)
    (own_home / "cache" / "prefixes").write_text("a file, not a directory")
    done = infer("run", "-m", "fake", "-f", book, "who?", "-n", "3")
    assert (done.code, done.out, done.err) == (0, b"You\n", "")
    told = infer("run", "-m", "fake", "-f", book, "who?", "-n", "3", "--stats").err
    assert told.count("prefix cache: nothing kept: ") == 1
    done = infer("cache", "warm", "-m", "fake", "-f", book)
    one_error_line(done, 1, "nothing was kept: ", "hint: the cache is in", "prefixes")
    assert "Errno" not in told + done.err


def test_the_limit_is_a_flag_a_variable_and_a_setting(book: Path, own_home: Path) -> None:
    assert "nothing kept" in infer("run", "-m", "fake", "-f", book, "a", "--stats", "--cache-size", "1kB").err
    assert files(own_home) == []
    ask(book, "who?", env={"INFER_CACHE_SIZE": "1kB"})
    assert files(own_home) == []
    (own_home / "config").mkdir(parents=True)
    (own_home / "config" / "config.toml").write_text('cache-size = "5 MB"\n')
    with Terminal("cache", "list") as terminal:
        terminal.end()
    assert "5 MB" in terminal.text
    one_error_line(ask(book, "who?", "--cache-size", "many"), 2, "--cache-size", "many")


def test_a_limit_below_what_is_there_is_kept_to_where_nothing_is_written(
    book: Path, tmp_path: Path, own_home: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(BOOK[::-1])
    ask(other, "who?")
    ask(book, "who?")
    assert len(listed()) == 2
    (size, _) = (entry["bytes"] for entry in listed())
    hit = ask(book, "and then?", "--cache-size", f"{size}B")
    assert cached(hit) > 0
    assert [entry["bytes"] for entry in listed()] == [size]
    assert cached(ask(other, "and then?", "--cache-size", "1MB")) == 0
    # What is larger than the limit by itself is used a last time.
    assert cached(ask(book, "and last?", "--cache-size", "1kB")) > 0
    assert files(own_home) == []


def test_warming_what_is_larger_than_the_limit_keeps_nothing(book: Path, own_home: Path) -> None:
    ask(book, "who?")
    one_error_line(
        infer("cache", "warm", "-m", "fake", "-f", book, "--cache-size", "1kB"), 1, "more than all"
    )
    assert files(own_home) == []


def test_a_run_without_files_in_a_pipe_imports_nothing_of_it_nor_for_terminals() -> None:
    code = (
        "import sys\n"
        "from infer_cli.cli.run import worker as run_worker\n"
        "class W: native_fd = 2\n"
        "values = {'model': ('fake', '-m'), 'prompt': (('hi',), '-'), 'quiet': (True, '-')}\n"
        "run_worker.answer(values, W())\n"
        "found = [n for n in sys.modules if 'prefix_cache' in n or 'fetch' in n or 'wcwidth' in n]\n"
        "print(found, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=REPO
    )
    assert (done.stdout, done.stderr) == ("You said: hi\n", "[]\n")


# --- cache ----------------------------------------------------------------------------------------


def test_warm_evaluates_a_file_that_run_then_need_not(book: Path) -> None:
    warmed = infer("cache", "warm", "-m", "fake", "-f", book)
    assert warmed.text.startswith("kept: 896 tokens, 3.9")
    assert cached(ask(book, "who?")) == 896
    again = infer("cache", "warm", "-m", "fake", "-f", book, "--json").json
    assert again["written"] is False and again["n_tokens"] == 896
    assert len(listed()) == 1


def test_warm_says_what_is_too_short(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("hello")
    one_error_line(infer("cache", "warm", "-m", "fake", "-f", short), 2, "256 tokens")
    one_error_line(infer("cache", "warm", "-m", "fake", "-f", tmp_path / "none"), 2, "no file")


def test_list_prune_and_clear(book: Path, own_home: Path) -> None:
    assert infer("cache", "list").out == b""
    assert infer("cache", "clear").err == "removed 0 files: 0 bytes freed\n"
    ask(book, "who?")
    ask(book, "who?", "--system", "x")
    (_newest, oldest) = listed()
    assert (oldest["model"], oldest["n_tokens"], oldest["bytes_per_token"]) == ("fake", 896, 4)
    rows = [line.split("\t") for line in infer("cache", "list").text.splitlines()]
    assert [row[1:3] for row in rows] == [["fake", "896"]] * 2
    assert str(oldest["key"]).startswith(rows[1][0])
    pruned = infer("cache", "prune", "--cache-size", "5kB")
    assert pruned.code == 0 and pruned.err.startswith("removed 1 file: 3.9")
    assert [entry["key"] for entry in listed()] == [_newest["key"]]
    (path,) = files(own_home)
    path.write_bytes(path.read_bytes()[:-1])
    assert infer("cache", "prune").err.startswith("removed 1 file")
    ask(book, "who?")
    assert infer("cache", "clear").err.startswith("removed 1 file")
    assert files(own_home) == []


def test_two_commands_at_once(book: Path) -> None:
    command = [*INFER, "run", "-m", "fake", "-f", str(book), "who?", "--json"]
    running = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=REPO)
        for _ in range(3)
    ]
    digests = set()
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        digests.add(json.loads(out)["digest"])
    assert len(digests) == len(listed()) == 1
    assert cached(ask(book, "who?")) == 896


# --- conversations --------------------------------------------------------------------------------

SAID = f"{BOOK} What was that?".replace("\n", " ")


def talked(lines: str, *arguments: object) -> list[dict[str, object]]:
    """The records of the turns, oldest first."""
    done = infer("chat", *arguments, stdin=lines.encode())
    assert done.code == 0, done.err
    return [json.loads(line) for line in infer("records", "export").out.splitlines()]


def reused(record: dict[str, object]) -> int:
    usage = record["usage"]
    assert isinstance(usage, dict)
    return int(usage["cached_tokens"])


@pytest.mark.parametrize(("model", "mode"), [("fake", []), ("tiny", []), ("tiny", ["--invariant"])])
def test_a_conversation_goes_on_where_it_was_in_memory(model: str, tiny: Path, mode: list[str]) -> None:
    arguments = ("-m", tiny if model == "tiny" else model, "-t", "1", "--seed", "5", "-n", "30", *mode)
    straight = talked(f"{SAID}\nAnd then?\nAnd then?\n", *arguments, "--no-cache")
    assert listed() == []
    assert infer("records", "rm", "--all").code == 0
    talked(SAID, *arguments)
    (kept,) = listed()
    assert int(str(kept["n_tokens"])) > 256
    talked("And then?\n", "--continue")
    resumed = talked("And then?\n", "--continue")
    assert [record["digest"] for record in resumed] == [record["digest"] for record in straight]
    assert [reused(record) for record in resumed] == [reused(record) for record in straight]
    assert reused(resumed[1]) == int(str(kept["n_tokens"]))
    (grown,) = listed()  # in place of what it was before
    assert int(str(grown["n_tokens"])) > int(str(kept["n_tokens"]))


def test_run_continues_where_a_conversation_was_in_memory() -> None:
    talked(SAID, "-m", "fake")
    assert cached(infer("run", "-c", "and?", "--json")) > 256
    assert cached(infer("run", "-c", "and?", "--json")) > 300
    assert cached(infer("run", "-c", "and?", "--json", "--no-cache")) == 0
    assert len(listed()) == 1


def test_a_conversation_about_a_file_begins_where_run_has_read_it(book: Path) -> None:
    arguments = ("-m", "fake", "-f", book)
    (fresh,) = talked("and what then?\n", *arguments, "-t", "0", "--no-cache")
    assert reused(fresh) == 0
    assert infer("records", "rm", "--all").code == 0
    asked = infer("run", *arguments, "who?", "--json")
    assert cached(asked) == 0
    (kept,) = listed()
    (_, begun) = talked("and what then?\n", *arguments, "-t", "0")
    assert reused(begun) == kept["n_tokens"]
    assert begun["digest"] == fresh["digest"]
    assert len(listed()) == 2  # the conversation beside it


@pytest.mark.parametrize("flag", ["--no-cache", "--no-record", "--private"])
def test_a_conversation_with_these_flags_is_not_kept(flag: str) -> None:
    talked(SAID, "-m", "fake", flag)
    assert listed() == []


def test_a_short_conversation_or_a_damaged_state_is_evaluated_again(own_home: Path) -> None:
    talked("hello\n", "-m", "fake", "-n", "8")
    assert listed() == []
    (whole,) = talked(SAID, "-m", "fake", "-n", "8")[1:]
    (file,) = files(own_home)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    *_, last = talked("and?\n", "--continue")
    assert reused(last) == 0 and last["thread"] == whole["thread"]


# --- llama.cpp ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [[], ["--fast"], ["--invariant"]])
def test_llama_cpp_gives_and_takes_states(tiny: Path, book: Path, mode: list[str]) -> None:
    """F16 weights: a lone row would take another kernel than two rows."""
    arguments = ("run", "-m", tiny, "-f", book, "--json", "-n", "12", "--logprobs", "3", *mode)
    assert cached(infer(*arguments, "and?")) == 0
    hit, miss = infer(*arguments, "who was it?"), infer(*arguments, "who was it?", "--no-cache")
    assert cached(hit) >= 256 > cached(miss) == 0
    if mode != ["--fast"]:  # which promises no such thing
        assert hit.json["digest"] == miss.json["digest"]
        assert hit.json["logprobs"] == miss.json["logprobs"]


@pytest.mark.parametrize("mode", [[], ["--invariant"]])
def test_a_state_of_sliding_windows_is_whole(tmp_path: Path, book: Path, mode: list[str]) -> None:
    """What the windows have passed keeps its place in memory: without it, logits differ."""
    model = write_tiny_gguf(tmp_path / "w.gguf", n_ctx_train=2048, sliding_window=64)
    arguments = ("run", "-m", model, "-f", book, "--json", "-n", "12", "--logprobs", "3", *mode)
    assert cached(infer(*arguments, "and?")) == 0
    hit, miss = infer(*arguments, "who was it?"), infer(*arguments, "who was it?", "--no-cache")
    assert cached(hit) >= 256 > cached(miss) == 0
    assert hit.json["digest"] == miss.json["digest"]
    assert hit.json["logprobs"] == miss.json["logprobs"]


def test_a_state_of_one_window_serves_another(tiny: Path, book: Path) -> None:
    arguments = ("run", "-m", tiny, "-f", book, "who?", "--json")
    infer(*arguments, "-n", "400")
    small, large = infer(*arguments, "-n", "4"), infer(*arguments, "-n", "900")
    assert cached(small) == cached(large) >= 256
    assert small.json["digest"] == infer(*arguments, "-n", "4", "--no-cache").json["digest"]


def test_another_model_at_the_same_path_is_another_model(tmp_path: Path, book: Path) -> None:
    model = write_tiny_gguf(tmp_path / "m.gguf", n_ctx_train=2048)
    arguments = ("run", "-m", model, "-f", book, "who?", "--json", "-n", "8")
    infer(*arguments)
    assert cached(infer(*arguments)) > 0
    time.sleep(0.02)  # another time of change
    write_tiny_gguf(model, seed=1, n_ctx_train=2048)
    assert cached(infer(*arguments)) == 0
    assert cached(infer(*arguments)) > 0
    assert len(listed()) == 2


@pytest.mark.weights
@pytest.mark.parametrize(
    ("mode", "sampling"),
    [([], ["-t", "0.8", "--seed", "7"]), (["--invariant"], [])],
    ids=["canonical", "invariant"],
)
def test_a_hit_has_the_digest_and_the_logprobs_of_a_miss(
    smollm2: Path, tmp_path: Path, mode: list[str], sampling: list[str]
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("".join(LINES.format(i * 37) for i in range(36)))
    arguments = ("run", "-m", smollm2, "-f", book, "--json", "-n", "16", "--logprobs", "5", *mode, *sampling)
    first = infer(*arguments, "Who sat on the mat?")
    again = infer(*arguments, "Who sat on the mat?")
    other = infer(*arguments, "How many cats were there, and what did they see?")
    miss = infer(*arguments, "How many cats were there, and what did they see?", "--no-cache")
    assert cached(first) == cached(miss) == 0
    assert cached(again) == cached(other) >= 600
    for hit, same in ((again, first), (other, miss)):
        assert hit.json["digest"] == same.json["digest"]
        assert hit.json["logprobs"] == same.json["logprobs"]
