"""`infer verify --tokens`, and results of another engine: claimed tokens hold, or which do not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infer_cli.answering.likelihood import digest as digest_of_pair
from infer_cli.batch.job import job_path
from infer_cli.checking.claimed_tokens import MARGINS
from infer_cli.runtime.engine_facts import fingerprint
from tests.batch_helpers import batch, lines, prompts, write_rows
from tests.cli.test_verify import change, redigested
from tests.cli_helpers import Outcome, infer, one_error_line, script, verify
from tests.tiny_gguf import write_tiny_gguf

TOKENS = "--tokens"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", *prompts(6))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def told(done: Outcome) -> dict[str, Any]:
    assert done.code in (0, 9), done
    value = done.json
    assert value["check"] == "tokens"
    assert value["margin"] == MARGINS.token
    return value


@pytest.mark.parametrize("mode", [[], ["--fast"], ["--invariant", "--parallel", 3]])
@pytest.mark.parametrize("how", [[], ["-t", 2, "--seed", 4, "--samples", 2, "--stop", "qu", "--top-k", 9]])
def test_claimed_tokens_hold(rows: Path, out: Path, mode: list[object], how: list[object]) -> None:
    write_rows(
        rows,
        *prompts(4),
        {"prompt": "own", "temperature": 1, "seed": 8, "max_tokens": 3},
        {"prompt": "system", "system": "Be brief.", "custom_id": "s", "stop": "y"},
        {"prompt": "slip", "temprature": 1},
        {"prompt": "shown", "logprobs": 2},
        {"prompt": "which?", "choices": ["one", "other"]},
    )
    assert batch(rows, "-o", out, "-n", 9, "--system", "Hi.", *mode, *how).code == 8
    found = told(verify(out, TOKENS, "--json"))
    n = 16 if how else 9
    assert (found["holds"], found["replies"], found["same"], found["farthest"]) == (True, n, n, 0.0), found


SAMPLERS: list[dict[str, object]] = [
    {},
    {"top_k": 0},
    {"top_k": 0, "top_p": 1},
    {"top_k": 5, "top_p": 1, "min_p": 0},
    {"top_k": 0, "top_p": 1, "min_p": 0},
    {"top_k": 12, "top_p": 0.5, "repeat_penalty": 1.3, "repeat_last_n": 7},
    {"frequency_penalty": 0.4, "presence_penalty": 0.2, "repeat_last_n": -1},
]


def test_draws_of_llama_cpp_are_done_again(rows: Path, out: Path, tmp_path: Path) -> None:
    """Its sampler has drawn what is claimed, from the same logits: no token is anywhere else."""
    model = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    write_rows(rows, *({"prompt": f"text {i}", **how} for i, how in enumerate(SAMPLERS * 2)))
    assert batch(rows, "-o", out, "-t", 1.5, "--seed", 3, "--raw", "-n", 20, model=str(model)).code == 0
    found = told(verify(out, TOKENS, "--json", "-m", model))
    assert (found["holds"], found["same"], found["farthest"]) == (True, 2 * len(SAMPLERS), 0.0), found


def test_greedy_replies_with_penalties(rows: Path, out: Path, tmp_path: Path) -> None:
    model = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    arguments = ("--repeat-penalty", 1.4, "--raw", "-n", 20)
    assert batch(rows, "-o", out, *arguments, model=str(model)).code == 0
    assert told(verify(out, TOKENS, "--json", "-m", model))["farthest"] == pytest.approx(0, abs=1e-5)


def test_what_a_sampler_keeps_to_itself_is_not_checked(rows: Path, out: Path) -> None:
    write_rows(rows, *prompts(2), {"prompt": "x", "temperature": 1, "seed": 1, "mirostat": 2})
    assert batch(rows, "-o", out).code == 0
    done = verify(out, TOKENS)
    assert done.code == 0
    assert done.text.startswith(
        "row 2: can't be checked: what mirostat does to a draw can't be told from its tokens\n"
        "holds: 2 of 3 replies\n"
    )


def test_another_model_is_caught(rows: Path, out: Path, tmp_path: Path) -> None:
    """Whatever its hash is said to be."""
    one, other = (write_tiny_gguf(tmp_path / f"{seed}.gguf", seed=seed) for seed in (1, 2))
    for how in ((), ("-t", 1, "--seed", 3)):
        assert batch(rows, "-o", out, "--raw", "-n", 20, "--redo", *how, model=str(one)).code == 0
        assert verify(out, TOKENS, "-m", one).code == 0
        found = told(verify(out, TOKENS, "--json", "-m", other))
        assert not found["holds"]


# --- forgeries ------------------------------------------------------------------------------------


def forged(rows: Path, out: Path, row: int, how: Callable[[dict[str, Any]], object], *words: str) -> None:
    honest = out.read_bytes()
    change(out, row, how)
    done = verify(out, TOKENS)
    assert done.code == 9, done
    for word in words:
        assert re.search(word, done.text), done.text
    out.write_bytes(honest)


def with_tokens(line: dict[str, Any], tokens: list[int]) -> None:
    """As honest as a line with other tokens can be."""
    ids = [token for token in tokens if token < 256]
    line.update(tokens=tokens, text=bytes(ids).decode())
    line["usage"]["completion_tokens"] = len(tokens)
    redigested(line)


@pytest.mark.parametrize("how", [[], ["-t", 0.5, "--seed", 2]])
def test_forged_replies_are_caught(rows: Path, out: Path, how: list[object]) -> None:
    assert batch(rows, "-o", out, "-n", 40, *how).code == 0
    assert verify(out, TOKENS).code == 0

    def another(line: dict[str, Any]) -> None:
        with_tokens(line, [*line["tokens"][:3], 65, *line["tokens"][4:]])

    def shorter(line: dict[str, Any]) -> None:
        with_tokens(line, [*line["tokens"][:5], line["tokens"][-1]])

    def endless(line: dict[str, Any]) -> None:
        with_tokens(line, line["tokens"][:5])

    def longer(line: dict[str, Any]) -> None:
        with_tokens(line, [*line["tokens"], 65])

    def no_text(line: dict[str, Any]) -> None:
        line["text"] += "!"
        redigested(line)

    def other_end(line: dict[str, Any]) -> None:
        line["finish_reason"] = "length"
        redigested(line)

    def unknown(line: dict[str, Any]) -> None:
        line["tokens"][0] = 999
        redigested(line)

    def empty(line: dict[str, Any]) -> None:
        with_tokens(line, [])

    for change_it, words in (
        (another, r"^row 1: differs by (\d+\.\d\d|inf) at token 3: 'A' \(65\), now ' ' \(32\)"),
        (shorter, r"^row 1: differs by (\d+\.\d\d|inf) at token 5: '<\|im_end\|>'"),
        (endless, r"^row 1: nothing ends it after 5 tokens"),
        (longer, r"^row 1: it goes on after token \d+, which ends it \(stop\)"),
        (no_text, r"^row 1: its text is 'You said: question number 1!', now"),
        (other_end, r"^row 1: it ended with length, now with stop"),
        (unknown, r"^row 1: token 999 is outside the vocabulary of 259"),
        (empty, r"^row 1: it has no tokens"),
    ):
        forged(rows, out, 1, change_it, words)


def test_a_forged_seed_is_caught(rows: Path, out: Path) -> None:
    """A row that was drawn with another seed, and says that it was not."""
    script_of_chance = ("-t", 4, "-n", 40)
    assert batch(rows, "-o", out, *script_of_chance, "--seed", 1).code == 0
    assert verify(out, TOKENS).code == 0
    assert batch(rows, "-o", out.with_name("other"), *script_of_chance, "--seed", 2).code == 0
    other = {line["row"]: line for line in lines(out.with_name("other"))}

    def drawn_anew(line: dict[str, Any]) -> None:
        line.update({name: other[1][name] for name in ("tokens", "text", "finish_reason", "usage")})
        redigested(line)

    forged(rows, out, 1, drawn_anew, r"^row 1: (differs by (\d+\.\d\d|inf) at token|its tokens differ by 0)")


def test_forged_log_probabilities_are_caught(rows: Path, out: Path) -> None:
    write_rows(rows, *prompts(3))
    assert batch(rows, "-o", out, "--logprobs", 2, "-n", 3).code == 0

    def shifted(by: float) -> Callable[[dict[str, Any]], None]:
        def shift(line: dict[str, Any]) -> None:
            line["logprobs"][1]["logprob"] -= by

        return shift

    change(out, 2, shifted(MARGINS.logprob / 2))
    assert verify(out, TOKENS).code == 0
    forged(rows, out, 1, shifted(MARGINS.logprob * 2), r"row 1: its logprobs\[1\].logprob is -")


def test_likelihoods_are_near(tmp_path: Path) -> None:
    pairs: list[dict[str, object]] = [{"context": f"text {i}", "continuation": " goes on"} for i in range(4)]
    rows, out = write_rows(tmp_path / "pairs.jsonl", *pairs), tmp_path / "scores.jsonl"
    assert infer("score", rows, "-o", out, "-m", "fake", "--quiet").code == 0
    assert told(verify(out, TOKENS, "--json"))["holds"]

    def shifted(by: float) -> Callable[[dict[str, Any]], None]:
        def shift(line: dict[str, Any]) -> None:
            new = [value + by for value in line["token_logprobs"]]
            line.update(token_logprobs=new, logprob=math.fsum(new))
            line["logprob_per_token"] = line["logprob"] / line["n_tokens"]
            line["logprob_per_byte"] = line["logprob"] / line["n_bytes"]
            context = list(f"text {line['row']}".encode())
            line["digest"] = digest_of_pair(context, line["tokens"], new)

        return shift

    honest = out.read_bytes()
    change(out, 1, shifted(-MARGINS.logprob / 2))
    assert verify(out, TOKENS).code == 0
    out.write_bytes(honest)
    forged(rows, out, 1, shifted(-MARGINS.logprob * 2), r"row 1: its token_logprobs\[0\] is -")


def test_choices_are_as_near(rows: Path, out: Path) -> None:
    write_rows(rows, {"prompt": "which?", "choices": ["You said: which?", "Nothing"]}, "plain")
    assert batch(rows, "-o", out).code == 0
    assert verify(out, TOKENS).code == 0

    def another(line: dict[str, Any]) -> None:
        line.update(text="Nothing", tokens=line["choices"][1]["tokens"])
        redigested(line)

    forged(rows, out, 0, another, "row 0: (its text is 'Nothing'|differs)")


# --- which check is made --------------------------------------------------------------------------


def elsewhere(out: Path) -> None:
    """Let a job say that another build made its results."""

    def moved(value: dict[str, Any]) -> None:
        facts = value["facts"] if "facts" in value else value["engine"]
        facts["llama_cpp"] = "0.1"
        value["fingerprint"] = fingerprint(facts)

    found = lines(out)
    for line in found:
        moved(line["engine"])
        line["engine"]["llama_cpp"] = "0.1"
    out.write_text("".join(json.dumps(line) + "\n" for line in found))
    job = json.loads(job_path(out).read_text())
    moved(job)
    job_path(out).write_text(json.dumps(job))


def test_another_engine_is_checked_by_tokens(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out, "-t", 1, "--seed", 3).code == 0
    assert verify(out, "--json").json["check"] == "answers"
    elsewhere(out)
    done = verify(out)
    assert done.code == 0
    assert done.text == (
        "holds: 6 of 6 replies\n"
        "checked by their tokens: each is at most 0.00 from the one that the model takes here"
        f" ({MARGINS.token:g} is allowed), a reply's on average 0.000 ({MARGINS.mean:g}): another model"
        " that is as near is not told apart\n"
    )
    assert "llama_cpp was 0.1, is fake" in done.err
    done = infer("verify", out, "--fraction", 0.5, "--challenge", "mine")
    assert "3 of 6 rows were checked, drawn by --challenge mine" in done.text


def test_openai_form_has_no_tokens(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out, "--output-format", "openai").code == 0
    one_error_line(verify(out, TOKENS), 2, "OpenAI's form leaves out the tokens", "--tokens")


def test_a_reply_that_a_deadline_cut(rows: Path, out: Path, tmp_path: Path) -> None:
    write_rows(rows, {"prompt": "slow", "deadline": "700ms"}, "good")
    model = script(tmp_path, step_s=0.05, default_reply="word " * 10)
    assert batch(rows, "-o", out, model=model).code == 8
    script(tmp_path, default_reply="word " * 10)
    assert told(verify(out, TOKENS, "--json"))["same"] == 2


@pytest.mark.weights
def test_modes_and_threads_of_the_real_model_are_near(smollm2: Path, tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "Name a colour.", "What is rain?", "Tell a joke.", "2+2?")
    for mode in ("--canonical", "--fast", "--invariant"):
        for sampled in ((), ("-t", 1, "--seed", 3)):
            arguments = ("-n", 24, "--parallel", 4, "--redo", "--logprobs", 0, mode, *sampled)
            assert batch(rows, "-o", out, *arguments, model=str(smollm2)).code == 0
            found = told(verify(out, TOKENS, "--json", "-m", smollm2))
            assert (found["holds"], found["same"]) == (True, 4), found
            if mode == "--invariant":
                assert found["farthest"] == 0.0
