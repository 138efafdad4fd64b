"""`infer run --choices`: one of the given answers, its likelihoods, its record."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from pathlib import Path

import pytest

from infer_cli.backend.fake import CHAT_TEMPLATE
from infer_cli.records.store import Store, store_path
from tests.cli_helpers import INFER, REPO, infer, lines_of, one_error_line, script
from tests.terminal import Terminal

QUESTION = "Is the sky blue?"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return script(
        tmp_path, replies={QUESTION: "yes, it is", "Why?": "because", "comma": "a,b", "stars": "*yes*"}
    )


def choices_of(value: dict[str, object]) -> list[dict[str, object]]:
    choices = value["choices"]
    assert isinstance(choices, list)
    return choices


def newest() -> dict[str, object]:
    return lines_of(infer("records", "list", "--limit", "1", "--jsonl").out)[0]


# --- the answer -----------------------------------------------------------------------------------


def test_stdout_is_the_chosen_text_alone(model: str) -> None:
    done = infer("run", "-m", model, QUESTION, "--choices", "no, yes,perhaps")
    assert (done.code, done.out, done.err) == (0, b"yes\n", "")


def test_the_json_has_each_choice(model: str) -> None:
    reply = infer("run", "-m", model, QUESTION, "--choices", "no,yes", "--json").json
    assert (reply["text"], reply["tokens"], reply["finish_reason"]) == ("yes", list(b"yes"), "stop")
    assert reply["params"] == {"choices": ["no", "yes"]}
    assert (reply["mode"], reply["seed"], reply["error"]) == ("canonical", None, None)
    no, yes = choices_of(reply)
    assert [choice["text"] for choice in (no, yes)] == ["no", "yes"]
    assert (yes["tokens"], yes["n_tokens"], yes["n_bytes"]) == (list(b"yes"), 3, 3)
    for choice in (no, yes):
        logprob, n = choice["logprob"], choice["n_tokens"]
        assert isinstance(logprob, float) and isinstance(n, int)
        assert choice["logprob_per_token"] == choice["logprob_per_byte"] == logprob / n < 0
    odds = math.exp(float(str(no["logprob"])) - float(str(yes["logprob"])))
    assert yes["probability"] == pytest.approx(1 / (1 + odds))
    usage = reply["usage"]
    assert isinstance(usage, dict)
    assert usage["completion_tokens"] == 3
    plain = infer("run", "-m", model, QUESTION, "-n", "1", "--json").json["usage"]
    assert isinstance(plain, dict)
    assert usage["prompt_tokens"] == plain["prompt_tokens"]


def test_events_are_a_start_and_an_end(model: str) -> None:
    lines = lines_of(infer("run", "-m", model, QUESTION, "--choices", "no,yes", "--jsonl").out)
    assert [line["event"] for line in lines] == ["start", "end"]
    assert lines[1]["text"] == "yes" and len(choices_of(lines[1])) == 2


def test_a_choice_with_a_comma(model: str) -> None:
    one = infer("run", "-m", model, "comma", "--choices", "a,b", "--json").json
    assert [choice["text"] for choice in choices_of(one)] == ["a", "b"]
    two = infer("run", "-m", model, "comma", "--choices", "a,b", "--choices", " c", "--json").json
    assert [choice["text"] for choice in choices_of(two)] == ["a,b", " c"]
    assert two["text"] == "a,b"


def test_a_choice_may_begin_another_one(model: str) -> None:
    reply = infer("run", "-m", model, QUESTION, "--choices", "yes,yes: it is", "--json").json
    short, long = choices_of(reply)
    assert reply["text"] == "yes"
    assert float(str(short["logprob"])) > float(str(long["logprob"]))


def test_raw_takes_choices_as_they_stand() -> None:
    """The fake goes on with ` the quick brown…`, by the number of tokens before it."""
    done = infer("run", "-m", "fake", "--raw", "12345", "--choices", "quick ,slow, quick", "--json")
    assert [choice["text"] for choice in choices_of(done.json)] == ["quick ", "slow", " quick"]
    assert done.json["text"] == "quick "
    plain = infer("run", "-m", "fake", "--raw", "12345", "--choices", "quick ,slow")
    assert plain.out == b"quick "


def test_white_space_that_ends_a_raw_prompt_begins_the_choice() -> None:
    """As for `infer score`: the words have the tokens of running text."""
    spaced = infer("run", "-m", "fake", "--raw", "1234 ", "--choices", "quick,slow", "--json").json
    plain = infer("run", "-m", "fake", "--raw", "1234", "--choices", " quick, slow", "--json").json
    assert [c["tokens"] for c in choices_of(spaced)] == [c["tokens"] for c in choices_of(plain)]
    assert [c["logprob"] for c in choices_of(spaced)] == [c["logprob"] for c in choices_of(plain)]


def test_all_of_the_prompt_works(model: str, tmp_path: Path) -> None:
    (tmp_path / "talk.json").write_text(
        json.dumps([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}])
    )
    ways: list[tuple[object, ...]] = [
        ("--system", "Be brief.", QUESTION),
        ("--messages", tmp_path / "talk.json", QUESTION),
        ("--overflow", "drop-oldest", "--messages", tmp_path / "talk.json", QUESTION),
        ("--deadline", "20s", QUESTION),
        ("--fast", QUESTION),
        ("--invariant", QUESTION),
        ("--no-record", "--no-cache", "--plain", QUESTION),
    ]
    for way in ways:
        done = infer("run", "-m", model, "--choices", "no,yes", *way)
        assert (done.code, done.out, done.err) == (0, b"yes\n", ""), way
    assert infer("run", "-m", model, "--choices", "no,yes", stdin=QUESTION.encode()).out == b"yes\n"


def test_the_likelihoods_are_shown_where_that_is_wanted(model: str) -> None:
    done = infer("run", "-m", model, QUESTION, "--choices", "no,yes\x1b[31m", "--stats")
    first, second, statistics = done.err.splitlines()
    assert first.startswith("no ") and "probability 1.0000" in first
    assert "log-probability per token -" in second and "\x1b" not in second
    assert "stop" in statistics


def test_the_settings_that_decide_are_shown(model: str) -> None:
    shown = infer("run", "-m", model, QUESTION, "--choices", "no,yes", "--show-params").err
    assert "choices" in shown and "mode" in shown
    assert "max_tokens" not in shown and "stop" not in shown and "temperature" not in shown


def test_on_a_terminal_it_is_plain_text(model: str) -> None:
    with Terminal("run", "-m", model, "stars", "--choices", "no,*yes*") as terminal:
        shown = terminal.wait_for("stop]")
        assert terminal.end() == 0
    assert shown.splitlines()[0] == "*yes*"
    assert shown.count("log-probability per token -") == 2


# --- against `infer score` ------------------------------------------------------------------------


def of_score(directory: Path, model: object, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = infer(
        "score",
        directory / "rows.jsonl",
        "-o",
        directory / "scored.jsonl",
        "--ordered",
        "-m",
        model,
        "--redo",
    )
    assert done.code == 0, done.err
    return list(lines_of((directory / "scored.jsonl").read_bytes()))


def same_as_score(directory: Path, model: object, question: str, raw: str, words: list[str]) -> None:
    told = [{"role": "user", "content": question}]
    rows: list[dict[str, object]] = [{"messages": told, "continuation": word} for word in words]
    rows += [{"context": raw, "continuation": f" {word}"} for word in words]
    scored = of_score(directory, model, rows)
    given = [flag for word in words for flag in ("--choices", word)]
    spaced = [flag for word in words for flag in ("--choices", f" {word}")]
    asked = ("run", "-m", model, "--invariant", "--json")
    chosen = choices_of(infer(*asked, question, *given).json)
    chosen += choices_of(infer(*asked, "--raw", raw, *spaced).json)
    for choice, line in zip(chosen, scored, strict=True):
        for key in ("logprob", "tokens", "n_tokens", "n_bytes", "logprob_per_token", "logprob_per_byte"):
            assert choice[key] == line[key], key


def test_likelihoods_are_those_of_infer_score(model: str, tmp_path: Path) -> None:
    same_as_score(tmp_path, model, QUESTION, "12345", ["quick", "no", "yes, it"])


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--choices", "yes"], "nothing to choose from"),
        (["--choices", ""], "empty"),
        (["--choices", "yes,"], "a choice is empty"),
        (["--choices", "yes, ,no"], "a choice is empty"),
        (["--choices", "yes,no,yes"], "'yes' is there twice"),
        (["--choices", "yes", "--choices", "yes"], "'yes' is there twice"),
        (["--choices", "a,b", "-t", "1"], "--temperature has no meaning beside --choices"),
        (["--choices", "a,b", "--set", "top_k=3"], "--set top_k"),
        (["--choices", "a,b", "--top-p", "0.5"], "--top-p"),
        (["--choices", "a,b", "--seed", "1"], "--seed"),
        (["--choices", "a,b", "--samples", "2"], "--samples"),
        (["--choices", "a,b", "-n", "5"], "--max-tokens"),
        (["--choices", "a,b", "--stop", "x"], "--stop"),
        (["--choices", "a,b", "--logprobs", "2", "--json"], "--logprobs"),
    ],
)
def test_usage_errors(arguments: list[str], words: str) -> None:
    one_error_line(infer("run", "-m", "fake", "hello", *arguments), 2, words)


def test_a_setting_of_all_commands_is_no_error(model: str) -> None:
    env = {"INFER_TEMPERATURE": "0.7", "INFER_MAX_TOKENS": "5", "INFER_SAMPLES": "3", "INFER_SEED": "4"}
    done = infer("run", "-m", model, QUESTION, "--choices", "no,yes", env=env)
    assert (done.code, done.out) == (0, b"yes\n")


def test_a_prompt_that_does_not_fit(tmp_path: Path) -> None:
    model = script(tmp_path, n_ctx_train=64)
    done = infer("run", "-m", model, "x" * 60, "--choices", "a,bcd")
    one_error_line(done, 5, "the longest choice 3", "window of 64")
    assert infer("run", "-m", model, "x" * 20, "--choices", "a,bcd").code == 0


def test_choices_inside_reasoning_are_told(tmp_path: Path) -> None:
    thinking = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    done = infer("run", "-m", script(tmp_path, template=thinking), "hello", "--choices", "a,b")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err.startswith("warning: the chat template begins each reply with <think>")


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    done = infer("run", "-m", script(tmp_path, nan_after=0), "hello", "--choices", "a,b")
    one_error_line(done, 4, "weights are damaged")
    assert done.out == b""


def test_a_deadline_leaves_no_answer(tmp_path: Path) -> None:
    slow = script(tmp_path, token_s=0.05)
    done = infer("run", "-m", slow, "hello", "--choices", "a,b", "--deadline", "300ms", "--json")
    assert done.code == 7
    assert (done.json["text"], done.json["finish_reason"]) == (None, "deadline")
    assert "choices" not in done.json
    one_error_line(infer("replay", str(newest()["id"])), 2, "ended before its choices were scored")


def test_ctrl_c(tmp_path: Path) -> None:
    slow = script(tmp_path, token_s=0.2)
    process = subprocess.Popen(
        [*INFER, "run", "-m", slow, "hello", "--choices", "a,b"],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, b""), err
    assert b"Traceback" not in err


# --- its record -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [[], ["--fast"], ["--invariant"]])
def test_a_record_is_replayed(model: str, mode: list[str]) -> None:
    for arguments in ([QUESTION, "--choices", "no,yes"], ["--raw", "12345", "--choices", "quick,slow"]):
        reply = infer("run", "-m", model, *arguments, *mode, "--json").json
        kept = newest()
        for key in ("id", "choices", "text", "tokens", "params", "digest", "mode"):
            assert kept[key] == reply[key], key
        done = infer("replay", str(reply["id"]))
        assert (done.code, done.text, done.err) == (0, "identical\n", "")
    shown = infer("records", "show", str(newest()["id"])).text
    assert "choices" in shown and "quick 1.0000, slow 0.0000" in shown


def test_a_replay_says_which_likelihoods_differ(tmp_path: Path) -> None:
    infer("run", "-m", script(tmp_path, default_reply="yes"), QUESTION, "--choices", "no,yes,oh")
    script(tmp_path, default_reply="no")
    done = infer("replay", str(newest()["id"]))
    first, no, yes, *_ = done.text.splitlines()
    assert (done.code, first) == (9, "differs: 'yes', now 'no'")
    assert no.startswith("  'no': log-probability -") and ", now -" in no
    assert yes.startswith("  'yes': log-probability -")
    script(tmp_path, default_reply="you")
    done = infer("replay", str(newest()["id"]))
    assert done.code == 9


def test_a_private_record_has_no_choices(model: str) -> None:
    infer("run", "-m", model, QUESTION, "--choices", "no,a secret", "--private")
    assert "a secret" not in json.dumps(newest())
    one_error_line(infer("replay", str(newest()["id"])), 2, "kept private")
    assert b"a secret" not in store_path().read_bytes()


def test_records_diff_has_the_likelihoods(tmp_path: Path) -> None:
    ids = []
    for reply in ("yes", "no"):
        infer("run", "-m", script(tmp_path, default_reply=reply), QUESTION, "--choices", "no,yes")
        ids.append(str(newest()["id"]))
    done = infer("records", "diff", *ids)
    assert done.code == 9
    assert "log-probability.yes" in done.text and "log-probability.no" in done.text


def test_the_answer_is_a_turn_of_the_conversation(model: str) -> None:
    assert infer("run", "-m", model, QUESTION, "--choices", "no,yes").out == b"yes\n"
    assert infer("run", "-c", "Why?").out == b"because\n"
    third = infer("run", "-c", QUESTION, "--choices", "maybe,yes", "--json").json
    assert third["text"] == "yes"
    assert infer("run", "-c", "Why?").out == b"because\n"
    with Store.open(store_path(), pytest.fail) as store:
        first, *later = [store.get(str(line["id"])) for line in lines_of(infer("records", "export").out)]
    assert [record.turn for record in later] == [2, 3, 4]
    said = b"".join(bytes(i for i in record.prompt_ids or () if i < 256) for record in later[-1:])
    assert b"assistant\nyes\n" in said and said.count(b"yes") == 2
    assert first.choices is not None and later[1].choices is not None
    done = infer("replay", str(later[0].thread))
    assert done.code == 0, done.text
    assert [line.split()[-1] for line in done.text.splitlines()] == ["identical"] * 4


def test_what_a_conversation_was_told_outlives_a_choice(model: str) -> None:
    infer("run", "-m", model, "hello", "-t", "1.5", "--seed", "4", "-n", "3")
    infer("run", "-c", QUESTION, "--choices", "no,yes")
    last = infer("run", "-c", "hello", "--json").json
    params = last["params"]
    assert isinstance(params, dict)
    assert (params["temperature"], params["max_tokens"], last["run_seed"]) == (1.5, 3, 4)


# --- the real model -------------------------------------------------------------------------------


@pytest.mark.weights
def test_likelihoods_of_the_real_model_are_those_of_infer_score(smollm2: Path, tmp_path: Path) -> None:
    words = ["Yes", "No", "I do not know", "Yes, it is."]
    same_as_score(tmp_path, smollm2, "Is the sky blue? Answer yes or no.", "The capital of France is", words)


@pytest.mark.weights
@pytest.mark.parametrize("mode", ["--invariant", "--canonical", "--fast"])
def test_replay_of_the_real_model(smollm2: Path, mode: str) -> None:
    asked = ("Is the sky blue? Answer yes or no.", "--choices", "Yes,No,I do not know")
    first = infer("run", "-m", smollm2, mode, *asked, "--json").json
    assert infer("replay", str(first["id"])).text == "identical\n"
    if mode == "--invariant":
        second = infer("run", "-m", smollm2, mode, "--threads", "1", *asked, "--json").json
        assert choices_of(second) == choices_of(first)
