"""inspect evaluates with a model in its own process: the replies of `infer batch`, and a log of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from infer_cli.backend.fake import CHAT_TEMPLATE
from tests.batch_helpers import batch, by_unit, write_rows
from tests.cli_helpers import script
from tests.integrations.extras import attempt, environment, needs, run

pytestmark = needs("inspect_ai")

_INSPECT = [sys.executable, "-m", "inspect_ai"]

_TASK = """
import json
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def questions():
    with open("questions.jsonl") as file:
        rows = [json.loads(line) for line in file]
    samples = [Sample(input=row["prompt"], target="said", id=row["custom_id"]) for row in rows]
    return Task(dataset=samples, solver=generate(), scorer=includes())
"""


def ask(directory: Path, questions: list[str], model: str, *flags: object) -> tuple[Path, Any]:
    """Evaluate the questions, each a sample; gives the rows for `infer batch`, and the log."""
    rows: list[dict[str, object] | str] = [
        {"custom_id": f"n{n}", "prompt": question} for n, question in enumerate(questions)
    ]
    source = write_rows(directory / "questions.jsonl", *rows)
    (directory / "questions.py").write_text(_TASK)
    command = [*_INSPECT, "eval", "questions.py", "--model", f"infer/{model}", "--display", "plain"]
    run(directory, *command, "--log-dir", "logs", *flags)
    return source, read_log(directory)


def read_log(directory: Path) -> Any:
    from inspect_ai.log import read_eval_log

    (path,) = (directory / "logs").glob("*.eval")
    return read_eval_log(str(path))


def digests_of(log: Any) -> dict[str, str]:
    return {sample.id: sample.output.metadata["digest"] for sample in log.samples}


def digests_of_batch(output: Path) -> dict[str, str]:
    return {line["custom_id"]: line["digest"] for line in by_unit(output).values()}


# --- the same replies -----------------------------------------------------------------------------


def test_sixteen_at_a_time_are_the_replies_of_a_batch(tmp_path: Path) -> None:
    questions = [f"question {n}" for n in range(40)]
    source, log = ask(tmp_path, questions, "fake", "--max-connections", 16)
    done = batch(source, "-o", tmp_path / "out.jsonl", "--invariant")
    assert done.code == 0, done.err
    assert log.status == "success"
    assert digests_of(log) == digests_of_batch(tmp_path / "out.jsonl")
    (score,) = log.results.scores
    assert score.metrics["accuracy"].value == 1.0
    (sample, *_) = log.samples
    assert sample.output.completion == f"You said: {sample.input}"
    assert sample.output.metadata["promise"] == "invariant"
    assert sample.output.stop_reason == "stop"
    usage = sample.output.usage
    assert usage.total_tokens == usage.input_tokens + usage.input_tokens_cache_read + usage.output_tokens


def test_sampled_replies_have_the_seed_and_what_shapes_them(tmp_path: Path) -> None:
    flags = ["--temperature", 0.9, "--top-p", 0.8, "--top-k", 7, "--seed", 5, "--max-tokens", 20]
    source, log = ask(tmp_path, ["one", "two", "three"], "fake", *flags, "--stop-seqs", "zz")
    rows = [{**json.loads(line), "seed": 5} for line in source.read_text().splitlines()]
    source = write_rows(tmp_path / "rows.jsonl", *rows)
    asked = ["-t", 0.9, "--top-p", 0.8, "--top-k", 7, "-n", 20, "--stop", "zz"]
    done = batch(source, "-o", tmp_path / "out.jsonl", "--invariant", *asked)
    assert done.code == 0, done.err
    assert digests_of(log) == digests_of_batch(tmp_path / "out.jsonl")
    assert {sample.output.metadata["seed"] for sample in log.samples} == {5}


@pytest.mark.weights
def test_the_default_models_replies_are_those_of_a_batch(tmp_path: Path, smollm2: Path) -> None:
    countries = ["France", "Italy", "Japan", "Spain", "Chile", "Kenya", "Norway", "Peru"]
    questions = [f"What is the capital of {country}? Say {n} words." for country in countries for n in (1, 9)]
    flags = ["--max-connections", 16, "--max-tokens", 24]
    source, log = ask(tmp_path, questions, str(smollm2), *flags)
    done = batch(source, "-o", tmp_path / "out.jsonl", "--invariant", "-n", 24, model=str(smollm2))
    assert done.code == 0, done.err
    assert digests_of(log) == digests_of_batch(tmp_path / "out.jsonl")


# --- what a reply becomes -------------------------------------------------------------------------


def test_reasoning_limits_and_likelihoods_of_tokens(tmp_path: Path) -> None:
    model = script(
        tmp_path,
        default_reply="<think>hm</think>All of it is said.",
        template=CHAT_TEMPLATE + "{# <think> #}",
    )
    flags = ["--logprobs", "--top-logprobs", 2, "--max-tokens", 25]
    _, log = ask(tmp_path, ["why?"], model, *flags)
    (sample,) = log.samples
    reasoning, text = sample.output.message.content
    assert (reasoning.type, reasoning.reasoning) == ("reasoning", "hm")
    assert text.text == sample.output.completion == "All of i"
    assert sample.output.stop_reason == "max_tokens"
    logprobs = sample.output.choices[0].logprobs.content
    assert len(logprobs) == sample.output.usage.output_tokens == 25
    assert "".join(item.token for item in logprobs) == "<think>hm</think>All of i"
    for item in logprobs:
        assert [top.logprob for top in item.top_logprobs] == sorted(
            (top.logprob for top in item.top_logprobs), reverse=True
        )
        assert len(item.top_logprobs) == 2
        assert item.top_logprobs[0].token == item.token


def test_a_full_window_is_said(tmp_path: Path) -> None:
    model = script(tmp_path, default_reply="x" * 900, n_ctx_train=300)
    _, log = ask(tmp_path, ["q"], model)
    assert log.samples[0].output.stop_reason == "model_length"


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_prompt_that_does_not_fit_is_the_samples_error(tmp_path: Path) -> None:
    _, log = ask(tmp_path, [f"{'long ' * 2000}", "short"], "fake", "--no-fail-on-error")
    samples = {sample.id: sample for sample in log.samples}
    assert "ReplyFailed" in samples["n0"].error.traceback
    assert "tokens" in samples["n0"].error.message
    assert samples["n1"].error is None


@pytest.mark.parametrize(
    ("model", "flags", "said"),
    [
        ("infer/nothere", [], "no model named 'nothere'"),
        ("infer/fake", ["-M", "batch=3"], "no model argument 'batch'; it has mode, width, window"),
        ("infer/fake", ["-M", "mode=quick"], "mode 'quick' is not one of"),
        ("infer/fake", ["--model-base-url", "http://localhost"], "no base URL"),
    ],
)
def test_what_can_not_be_opened_is_one_line(model: str, flags: list[str], said: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "questions.jsonl", {"custom_id": "a", "prompt": "q"})
    (tmp_path / "questions.py").write_text(_TASK)
    command = [*_INSPECT, "eval", "questions.py", "--model", model, "--display", "plain", *flags]
    done = attempt(tmp_path, *command)
    assert done.returncode != 0
    assert said in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"top_p": 0.5}, "top_p has no meaning without a temperature"),
        ({"seed": 3}, "seed has no meaning without a temperature"),
        ({"num_choices": 2}, "one reply"),
        ({"logit_bias": {3: 1.0}}, "logit_bias"),
    ],
)
def test_what_is_asked_and_not_done_is_refused(config: dict[str, Any], said: str) -> None:
    from inspect_ai.model import ChatMessageUser, GenerateConfig

    from infer_cli import InferError
    from infer_cli.integrations.inspect.request import request_of

    with pytest.raises(InferError, match=said):
        request_of([ChatMessageUser(content="q")], [], GenerateConfig(**config))


def test_messages_keep_their_reasoning_beside_the_text() -> None:
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        ContentImage,
        ContentReasoning,
        ContentText,
        GenerateConfig,
    )

    from infer_cli import InferError, Message
    from infer_cli.integrations.inspect.request import request_of

    thought = [ContentReasoning(reasoning="hm"), ContentText(text="four")]
    asked = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content=[ContentText(text="2+2?"), ContentText(text="Say.")]),
        ChatMessageAssistant(content=thought),
    ]
    request = request_of(asked, [], GenerateConfig(temperature=0, seed=3, top_p=0.5))
    assert request.messages == [
        Message("system", "Be brief."),
        Message("user", "2+2?\nSay."),
        Message("assistant", "four", {"reasoning_content": "hm"}),
    ]
    assert (request.sampling, request.seed) == ({}, None)
    picture = ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AAAA")])
    with pytest.raises(InferError, match="image"):
        request_of([picture], [], GenerateConfig())


@pytest.mark.parametrize(
    ("connections", "arguments", "width"), [(None, {}, 8), (5, {}, 5), (5, {"width": 3}, 3)]
)
def test_it_is_as_wide_as_there_are_connections(
    connections: int | None, arguments: dict[str, Any], width: int
) -> None:
    from inspect_ai.model import GenerateConfig

    from infer_cli.integrations.inspect.provider import InferAPI

    api = InferAPI("fake", config=GenerateConfig(max_connections=connections), **arguments)
    assert api.max_connections() == width
    api.close()


# --- the event loop -------------------------------------------------------------------------------

_CONCURRENT = """
import sys, time
import anyio
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model

async def main():
    model = get_model("infer/" + sys.argv[1], width=1)
    api = model.api
    beats = []

    async def beat():
        while True:
            beats.append(time.monotonic())
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        with anyio.move_on_after(0.5) as late:  # it would take minutes
            await api.generate([ChatMessageUser(content="long")], [], "none", GenerateConfig())
        assert late.cancelled_caught
        started = time.monotonic()
        output = await api.generate([ChatMessageUser(content="short")], [], "none", GenerateConfig())
        assert output.completion == "done", output.completion
        assert time.monotonic() - started < 5, "the reply that was given up is still computed"
        group.cancel_scope.cancel()
    assert max(b - a for a, b in zip(beats, beats[1:])) < 2, "the loop was blocked"
    assert await api.count_tokens("four") == 4
    assert await api.tokenize("ab") == [97, 98]
    await api.aclose()

anyio.run(main)
"""


def test_the_event_loop_goes_on_and_a_sample_can_be_given_up(tmp_path: Path) -> None:
    unlike = "".join(str(n**5) for n in range(900))  # nothing that comes again could be guessed
    slow = script(tmp_path, replies={"long": unlike, "short": "done"}, step_s=0.05)
    run(tmp_path, sys.executable, "-c", _CONCURRENT, slow)


# --- inspect's viewer -----------------------------------------------------------------------------


def test_inspect_view_shows_the_log(tmp_path: Path) -> None:
    ask(tmp_path, ["one", "two"], "fake")
    (path,) = (tmp_path / "logs").glob("*.eval")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*_INSPECT, "view", "start", "--log-dir", "logs", "--port", str(port)]
    viewer = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        page = fetched(viewer, f"http://127.0.0.1:{port}/")
        assert b"Inspect View" in page
        files = json.loads(fetched(viewer, f"http://127.0.0.1:{port}/api/logs"))["files"]
        assert [Path(file["name"]).name for file in files] == [path.name]
    finally:
        viewer.kill()
        viewer.wait()


def fetched(server: subprocess.Popen[bytes], address: str) -> bytes:
    """The body, as soon as the server answers."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return bytes(response.read())
        except OSError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.1)
    raise AssertionError(f"nothing answers at {address}")
