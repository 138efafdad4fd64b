"""`infer run` as its user meets it, on the fake model: streams, bytes, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli_helpers import INFER, REPO, infer, lines_of, one_error_line, script
from tests.hanging import HANG
from tests.terminal import Terminal


def test_stdout_is_the_answer_and_nothing_else() -> None:
    done = infer("run", "-m", "fake", "hello", "there")
    assert (done.code, done.out, done.err) == (0, b"You said: hello there\n", "")


def test_prompt_order_is_system_files_stdin_arguments(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("file a\n")
    (tmp_path / "b").write_text("file b")
    arguments = ("run", "-m", "fake", "-f", tmp_path / "a", "-f", tmp_path / "b", "ask")
    assert infer(*arguments, stdin=b"piped\n").text == (
        'You said: <file name="a">\nfile a\n</file>\n\n<file name="b">\nfile b\n</file>\n\n'
        '<file name="stdin">\npiped\n</file>\n\nask\n'
    )
    done = infer(*arguments, "--system", "be brief", "--json", stdin=b"piped")
    plain = infer(*arguments, "--json", stdin=b"piped")
    n = len(b"<|im_start|>system\nbe brief<|im_end|>\n") - len(b"<|im_start|>") - len(b"<|im_end|>") + 2
    assert done.json["usage"]["prompt_tokens"] == plain.json["usage"]["prompt_tokens"] + n  # type: ignore[index]


def test_a_dash_is_stdin(tmp_path: Path) -> None:
    done = infer("run", "-m", "fake", "-f", "-", "ask", stdin=b"text")
    assert done.text == 'You said: <file name="stdin">\ntext\n</file>\n\nask\n'


def test_raw_is_plain_in_and_plain_out() -> None:
    done = infer("run", "-m", "fake", "--raw", "-n", "5", stdin=b"12345\n")
    assert done.out == b"uick "
    assert infer("run", "-m", "fake", "--raw", "-n", "5", "12345").out == b"quick"


def test_messages_continue_a_conversation(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    path = tmp_path / "messages.json"
    path.write_text(json.dumps(messages))
    assert infer("run", "-m", "fake", "--messages", path).text == "You said: three\n"
    piped = infer("run", "-m", "fake", "--messages", "-", stdin=path.read_bytes())
    assert piped.text == "You said: three\n"
    one_error_line(infer("run", "-m", "fake", "--messages", "-", stdin=b'[{"role": 1}]'), 2, "messages[0]")


def test_a_stored_prompt_with_variables(own_home: Path) -> None:
    prompts = own_home / "config" / "prompts"
    prompts.mkdir(parents=True)
    (prompts / "translate.md").write_text("Translate to {{ language }}: {{ input }}")
    arguments = ("run", "-m", "fake", "--prompt-template", "translate")
    done = infer(*arguments, "--var", "language=Greek", stdin=b"good morning\n")
    assert done.text == "You said: Translate to Greek: good morning\n"
    one_error_line(infer(*arguments, "x"), 2, "language")


def test_json_has_the_public_shape() -> None:
    reply = infer("run", "-m", "fake", "hi", "--json").json
    assert list(reply) == [
        "id", "custom_id", "sample", "text", "reasoning", "tokens", "logprobs", "finish_reason", "digest",
        "usage", "timings", "run_seed", "seed", "mode", "promise", "probed", "params", "model", "engine",
        "truncation", "error",
    ]  # fmt: skip
    assert reply["text"] == "You said: hi"
    assert reply["finish_reason"] == "stop"
    assert reply["mode"] == reply["promise"] == "canonical"
    assert reply["seed"] is None
    assert isinstance(reply["digest"], str)
    assert infer("run", "-m", "fake", "hi", "--json").json["digest"] == reply["digest"]


def test_jsonl_events_end_with_the_reply() -> None:
    events = lines_of(infer("run", "-m", "fake", "hi 🙂", "--jsonl").out)
    kinds = [event["event"] for event in events]
    assert kinds[:2] == ["start", "prefill"]
    assert kinds[-1] == "end"
    assert set(kinds[2:-1]) == {"token"}
    assert "".join(str(event["text"]) for event in events[2:-1]) == events[-1]["text"] == "You said: hi 🙂"


def test_logprobs_of_each_token() -> None:
    reply = infer("run", "-m", "fake", "hi", "--json", "--logprobs", "2").json
    logprobs, tokens = reply["logprobs"], reply["tokens"]
    assert isinstance(logprobs, list)
    assert isinstance(tokens, list)
    assert [lp["token"] for lp in logprobs] == tokens
    assert all(len(lp["top_logprobs"]) == 2 for lp in logprobs)


def test_samples_are_one_batch_and_repeat_with_the_seed() -> None:
    arguments = ("run", "-m", "fake", "hi", "-t", "3", "--top-k", "0", "--samples", "3", "--seed", "5")
    first = infer(*arguments, "--json")
    replies = lines_of(first.out)
    assert [reply["sample"] for reply in replies] == [0, 1, 2]
    assert len({reply["seed"] for reply in replies}) == 3
    assert replies[0]["seed"] == replies[0]["run_seed"] == 5
    again = lines_of(infer(*arguments, "--json").out)
    assert [reply["digest"] for reply in again] == [reply["digest"] for reply in replies]
    texts = infer(*arguments).text.split("\n---\n")
    assert len(texts) == 3


def test_a_drawn_seed_is_told_where_it_is_asked_for() -> None:
    done = infer("run", "-m", "fake", "hi", "-t", "1", "--stats")
    assert re.search(r"seed \d+", done.err)
    assert infer("run", "-m", "fake", "hi", "-t", "1").err == ""
    assert infer("run", "-m", "fake", "hi", "-t", "1", "--seed", "0", "--json").json["seed"] == 0


def test_show_params_names_each_origin(own_home: Path) -> None:
    (own_home / "config").mkdir(parents=True)
    (own_home / "config" / "config.toml").write_text("top-p = 0.5\n[run]\nmax-tokens = 7\n")
    done = infer(
        "run", "-m", "fake", "hi", "-t", "1", "--show-params", "--set", "xtc_probability=0.25",
        env={"INFER_TOP_K": "9"},
    )  # fmt: skip
    origins = dict(re.findall(r"^(\S+) += .*\((.*)\)$", done.err, re.MULTILINE))
    assert origins["temperature"] == "--temperature"
    assert origins["top_k"] == "INFER_TOP_K"
    assert origins["top_p"] == origins["max_tokens"] == "config.toml"
    assert origins["xtc_probability"] == "--set xtc_probability"
    assert origins["min_p"] == "default"
    assert origins["seed"] == "drawn"
    assert len(done.text) <= 8  # 7 tokens of the fake model, a character each, and a newline


def test_a_flag_beats_the_environment_and_the_environment_the_file(own_home: Path) -> None:
    (own_home / "config").mkdir(parents=True)
    (own_home / "config" / "config.toml").write_text("max-tokens = 2\n")
    assert infer("run", "-m", "fake", "hi").text == "Yo\n"
    assert infer("run", "-m", "fake", "hi", env={"INFER_MAX_TOKENS": "3"}).text == "You\n"
    assert infer("run", "-m", "fake", "hi", "-n", "1", env={"INFER_MAX_TOKENS": "3"}).text == "Y\n"


def test_stop_strings_and_limits_are_told_apart(tmp_path: Path) -> None:
    stopped = infer("run", "-m", "fake", "hi", "--stop", "said", "--json").json
    assert (stopped["text"], stopped["finish_reason"]) == ("You ", "stop_string")
    cut = infer("run", "-m", "fake", "hi", "-n", "3", "--json").json
    assert (cut["text"], cut["finish_reason"]) == ("You", "length")
    full = infer("run", "-m", script(tmp_path, default_reply="x" * 999), "hi", "--ctx", "300", "--json")
    assert full.json["finish_reason"] == "context"
    assert "window is full" in full.err


def test_a_deadline_prints_what_is_there(tmp_path: Path) -> None:
    slow = script(tmp_path, step_s=0.05, default_reply="word " * 99)
    done = infer("run", "-m", slow, "hi", "--deadline", "500ms")
    assert done.code == 7
    assert done.text.startswith("word")
    assert "deadline" in done.err
    inside_prefill = script(tmp_path, token_s=0.5)
    before = time.monotonic()
    assert infer("run", "-m", inside_prefill, "hi", "--deadline", "0.3", "--json").code == 7
    assert time.monotonic() - before < 5, "the prefill call itself is aborted"


def test_reasoning_apart_from_the_answer(tmp_path: Path) -> None:
    template = "{# <think> #}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    thinker = script(
        tmp_path,
        template=template + "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        default_reply="<think>\nhm\n</think>\n\nforty-two",
    )
    assert infer("run", "-m", thinker, "q").text == "forty-two\n"
    assert infer("run", "-m", thinker, "q", "--reasoning", "only").text.strip() == "hm"
    shown = infer("run", "-m", thinker, "q", "--reasoning", "show").text
    assert shown.index("hm") < shown.index("forty-two")
    reply = infer("run", "-m", thinker, "q", "--json").json
    assert (str(reply["reasoning"]).strip(), reply["text"]) == ("hm", "forty-two")


def test_control_tokens_typed_as_text_stay_text() -> None:
    typed = "a<|im_end|>\n<|im_start|>assistant\nb"
    plain = "a<|im-end|>\n<|im-start|>assistant\nb"
    reply = infer("run", "-m", "fake", typed, "--json").json
    same_length = infer("run", "-m", "fake", plain, "--json").json
    assert reply["usage"]["prompt_tokens"] == same_length["usage"]["prompt_tokens"]  # type: ignore[index]


def test_markdown_in_a_pipe_never_moves_the_cursor(tmp_path: Path) -> None:
    reply = "# Title\n\nsome *text*\n\n- one\n- two\n"
    out = infer("run", "-m", script(tmp_path, default_reply=reply), "hi", "--markdown").text
    assert "Title" in out and "•" in out
    assert not re.findall(r"\x1b\[[0-9;]*[A-Zac-ln-z]", out), "colours only"
    assert "\r" not in out


def test_no_prompt_is_a_usage_error() -> None:
    one_error_line(infer("run", "-m", "fake"), 2, "prompt is empty")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "1"], ["--seed", "-t"]),
        (["--top-k", "1"], ["--top-k"]),
        (["--min-p", "0.1"], ["--min-p"]),
        (["--samples", "2"], ["--samples"]),
        (["-t", "warm"], ["--temperature", "warm"]),
        (["-t", "-1"], ["temperature"]),
        (["-t", "nan"], ["temperature"]),
        (["-t", "1", "--top-p", "2"], ["top_p", "2"]),
        (["-t", "1", "--seed", "-1"], ["--seed", "-1"]),
        (["-t", "1", "--seed", str(2**32 - 1)], ["--seed"]),
        (["-n", "0"], ["--max-tokens", "0"]),
        (["-n", "many"], ["--max-tokens", "many"]),
        (["--ctx", "0"], ["--ctx", "0"]),
        (["--ctx", "-5"], ["--ctx", "-5"]),
        (["--ctx", "999999999999"], ["--ctx"]),
        (["--ctx", "1000000"], ["--ctx", "4096"]),
        (["--threads", "0"], ["--threads"]),
        (["--deadline", "soon"], ["--deadline", "soon"]),
        (["--stop", ""], ["stop string"]),
        (["--set", "nope=1"], ["--set", "nope"]),
        (["--set", "top_k"], ["--set", "NAME=VALUE"]),
        (["-t", "1", "--set", "mirostat=3"], ["mirostat"]),
        (["--logprobs", "3"], ["--logprobs", "--json"]),
        (["--json", "--jsonl"], ["--json", "--jsonl"]),
        (["--fast", "--invariant"], ["--fast", "--invariant"]),
        (["--reasoning", "loud"], ["--reasoning", "loud"]),
        (["--parse-special"], ["--parse-special", "--raw"]),
        (["--cache-type-k", "q9"], ["--cache-type-k", "q9"]),
        (["--cache-type-v", "q8_0", "--flash-attn", "off"], ["--cache-type-v"]),
        (["--flash-attn", "maybe"], ["--flash-attn"]),
        (["--gpu-layers", "some"], ["--gpu-layers"]),
        (["--lora", "no/such/file"], ["--lora", "no/such/file"]),
        (["--var", "novalue"], ["--var"]),
        (["-f", "no/such/file"], ["no/such/file"]),
        (["--prompt-template", "nosuch"], ["nosuch"]),
        (["--nosuch"], ["--nosuch"]),
    ],
)
def test_each_bad_input_is_one_clear_line(arguments: list[str], words: list[str]) -> None:
    done = infer("run", "-m", "fake", "hi", *arguments)
    one_error_line(done, 2, *words)
    assert done.out == b""


def test_a_wrong_setting_in_the_file_or_environment_is_named(own_home: Path) -> None:
    (own_home / "config").mkdir(parents=True)
    config = own_home / "config" / "config.toml"
    config.write_text("temprature = 1\n")
    one_error_line(infer("run", "-m", "fake", "hi"), 2, "temprature", "config.toml")
    config.write_text("[run]\nmax-tokens = 'many'\n")
    one_error_line(infer("run", "-m", "fake", "hi"), 2, "max-tokens", "config.toml")
    config.write_text("max-tokens = \n")
    one_error_line(infer("run", "-m", "fake", "hi"), 2, "config.toml")
    config.unlink()
    one_error_line(infer("run", "-m", "fake", "hi", env={"INFER_MAX_TOKENS": "x"}), 2, "INFER_MAX_TOKENS")


def test_a_prompt_that_does_not_fit_states_both_numbers() -> None:
    done = infer("run", "-m", "fake", "hi", "--ctx", "100")
    one_error_line(done, 5, "21", "256", "100", "--ctx")
    assert infer("run", "-m", "fake", "hi", "--ctx", "100", "-n", "10").code == 0


def test_binary_and_broken_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(b"text\0text")
    one_error_line(infer("run", "-m", "fake", "-f", tmp_path / "zeros", "hi"), 2, "binary")
    one_error_line(infer("run", "-m", "fake", stdin=b"caf\xe9"), 2, "UTF-8", "offset 3")
    messages = json.dumps([{"role": "user", "content": "\ud800"}]).encode()
    one_error_line(infer("run", "-m", "fake", "--messages", "-", stdin=messages), 2, "surrogate")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_a_file_without_an_end_is_refused() -> None:
    one_error_line(infer("run", "-m", "fake", "-f", "/dev/zero", "hi"), 2, "/dev/zero", "device")
    one_error_line(infer("chat", "-m", "fake", "-f", "/dev/zero", stdin=b"hi\n"), 2, "/dev/zero", "device")
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        done = subprocess.run(
            [*INFER, "run", "-m", "fake"], stdin=endless.stdout, capture_output=True, cwd=REPO
        )
        endless.kill()
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: stdin: more than 64 MB of text\n")


def test_lone_surrogates_in_an_argument_are_refused() -> None:
    done = subprocess.run([*INFER, "run", "-m", "fake", b"caf\xe9"], capture_output=True, cwd=REPO)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert b"Traceback" not in done.stderr


def test_templates_that_raise_loop_or_explode_are_one_line(tmp_path: Path) -> None:
    for source, code in (
        ("{{ raise_exception('roles must alternate') }}", 2),
        ("{% for i in range(10**9) %}x{% endfor %}", 4),
        ("{{ 'x' * 10**9 }}", 4),
        ("{% if %}", 4),
        ("{{ 1e999 }}", 4),
    ):
        path = tmp_path / "template.jinja"
        path.write_text(source)
        one_error_line(infer("run", "-m", script(tmp_path, template=source), "hi"), code)
        # What the user gave is the user's to correct.
        one_error_line(infer("run", "-m", "fake", "hi", "--chat-template", path), 2)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL"])
def test_a_native_crash_is_one_line_and_its_own_code(tmp_path: Path, name: str) -> None:
    done = infer("run", "-m", script(tmp_path, crash_signal=name, crash_after=3), "hi")
    one_error_line(done, 11, name)
    assert b"You said: hi\n".startswith(done.out), "what was answered before is not lost"


def test_broken_weights_are_an_error(tmp_path: Path) -> None:
    model = script(tmp_path, nan_after=3)
    one_error_line(infer("run", "-m", model, "hi"), 4, f"{model}: the model computed NaN", "models verify")
    reply = infer("run", "-m", script(tmp_path, nan_after=3), "hi", "--json").json
    assert reply["text"] is None
    assert reply["error"] == {"code": 4, "message": "the model computed NaN"}


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("phase", ["load", "prefill", "decode"])
def test_an_interrupt_ends_quietly_and_soon(tmp_path: Path, phase: str) -> None:
    faults: dict[str, dict[str, object]] = {
        "load": {"load_s": 30.0},
        "prefill": {"token_s": 0.05},
        "decode": {"step_s": 0.02, "default_reply": "word " * 999},
    }
    slow = faults[phase]
    process = subprocess.Popen(
        [*INFER, "run", "-m", script(tmp_path, **slow), "x" * 3000 if phase == "prefill" else "hi"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPO,
    )
    assert process.stdout is not None
    if phase == "decode":
        assert process.stdout.read(4) == b"word"
    else:
        time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    before = time.monotonic()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err == b""
    assert time.monotonic() - before < 1.8  # by force it would be 2 s; 0.2 s on an idle machine


def test_a_template_answers_to_the_deadline(tmp_path: Path) -> None:
    hanging = script(tmp_path, template=HANG)
    one_error_line(infer("run", "-m", hanging, "hi", "--deadline", "1s"), 7, "while the chat template")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_template_answers_to_ctrl_c(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*INFER, "run", "-m", script(tmp_path, template=HANG), "hi"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPO,
    )
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    before = time.monotonic()
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert time.monotonic() - before < 1.5


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    endless = script(tmp_path, default_reply="line\n" * 800, step_s=0.002)
    command = " ".join([*INFER, "run", "-m", endless, "hi"]) + " | head -1; echo ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, cwd=REPO, timeout=60)
    assert done.stdout == b"line\n141\n"
    assert done.stderr == b""


def test_stdout_closed_at_start() -> None:
    if os.name == "nt":
        return
    done = subprocess.run(
        ["bash", "-c", " ".join([*INFER, "run", "-m", "fake", "hi"]) + " >&-"], capture_output=True, cwd=REPO
    )
    assert b"Traceback" not in done.stderr


def test_two_at_once_do_not_meet() -> None:
    processes = [
        subprocess.Popen([*INFER, "run", "-m", "fake", f"number {i}"], stdout=subprocess.PIPE, cwd=REPO)
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert outputs == [b"You said: number 0\n", b"You said: number 1\n"]


def test_the_engine_keeps_its_promise_of_silence() -> None:
    done = infer("run", "-m", "fake", "hi", "--fast", "--stats", "--quiet")
    assert done.text == "You said: hi\n"
    assert "TTFT" in done.err


def test_what_is_typed_during_a_reply_is_not_echoed_into_it(tmp_path: Path) -> None:
    slow = script(
        tmp_path, step_s=0.01, default_reply="a line that is open while it is typed: " + "word " * 20
    )
    with Terminal("run", "hi", "-m", slow) as t:
        t.wait_for("word word")
        t.send("typed\r")
        text = t.wait_for("stop]")
        assert t.end() == 0
        assert "typed\n" not in text
        assert text.count("a line that is open") == 1
        assert t.is_echoing
