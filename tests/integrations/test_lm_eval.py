"""lm-evaluation-harness evaluates with a model in its own process: each item is what a bare loop over
llama.cpp gives, whatever is computed together, and a killed run goes on."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from infer_cli import InferError
from infer_cli.errors import ExitStatus
from tests.cli_helpers import script
from tests.integrations.extras import attempt, environment, needs, run
from tests.integrations.tasks import TASKS, write_tasks

pytestmark = needs("lm_eval")

_HARNESS = [sys.executable, "-m", "infer_cli.integrations.lm_eval"]


def harness(
    directory: Path, folder: Path, model: dict[str, object], tasks: Sequence[str] = TASKS, **more: object
) -> list[str]:
    """A command that evaluates the tasks and writes `found.json`. `more`: arguments of `simple_evaluate`."""
    asked = {
        "folder": str(folder),
        "tasks": tasks,
        "model": model,
        "out": str(directory / "found.json"),
        "more": more,
    }
    return [sys.executable, "-m", "tests.integrations.evaluate", json.dumps(asked)]


def evaluate(directory: Path, folder: Path, model: dict[str, object], **more: Any) -> Any:
    run(directory, *harness(directory, folder, model, **more))
    return json.loads((directory / "found.json").read_text())


def by_item(found: Any) -> dict[str, Any]:
    """What came of each item, whatever their order."""
    return {
        f"{task}: {json.dumps(doc, sort_keys=True)}": resps
        for task, items in found["samples"].items()
        for doc, resps in items
    }


# --- the same as a bare loop ----------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize(("window", "chat"), [(48, False), (160, True)])
def test_each_item_is_what_a_bare_loop_over_llama_cpp_gives(
    window: int, chat: bool, smollm2: Path, tmp_path: Path
) -> None:
    """A window of 48 makes several parts of a page and leaves out what comes first of some prompts."""
    folder = write_tasks(tmp_path / "tasks")
    out = tmp_path / "reference.json"
    reference = [
        sys.executable,
        "-m",
        "tests.integrations.reference_lm",
        smollm2,
        folder,
        window,
        out,
        *TASKS,
    ]
    run(tmp_path, *reference, REFERENCE_CHAT=str(int(chat)))
    theirs = json.loads(out.read_text())
    model = {"model": str(smollm2), "window": window}
    ours = evaluate(tmp_path, folder, model, apply_chat_template=chat)
    assert by_item(ours) == by_item(theirs)
    assert ours["results"] == theirs["results"]
    assert ours["config"]["promise"] == "invariant"


def hold_for_all_shapes(model: str, tmp_path: Path) -> None:
    asked = {"model": model, "window": 300}
    together = evaluate(tmp_path, write_tasks(tmp_path / "a"), {**asked, "width": 16})
    alone = evaluate(tmp_path, write_tasks(tmp_path / "b"), {**asked, "width": 1})
    backwards = evaluate(tmp_path, write_tasks(tmp_path / "c", backwards=True), {**asked, "width": 3})
    assert by_item(together) == by_item(alone) == by_item(backwards)
    assert together["samples"] != backwards["samples"]
    assert together["config"]["width"] == 16


def test_what_is_computed_together_changes_nothing(tmp_path: Path) -> None:
    hold_for_all_shapes("fake", tmp_path)


@pytest.mark.weights
def test_what_is_computed_together_changes_nothing_of_the_default_model(
    smollm2: Path, tmp_path: Path
) -> None:
    hold_for_all_shapes(str(smollm2), tmp_path)


# --- a killed run ---------------------------------------------------------------------------------


def n_cached(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as cache:
            return int(cache.execute("SELECT COUNT(*) FROM unnamed").fetchone()[0])
    except sqlite3.OperationalError:  # it is being made, or written to
        return 0


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", times=60)
    slow = script(tmp_path, step_s=0.2)
    cache = tmp_path / "cache_rank0.db"
    killed = subprocess.Popen(
        harness(tmp_path, folder, {"model": slow}, tasks=["t_choice"], use_cache=str(tmp_path / "cache")),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 150
    while n_cached(cache) < 512:
        assert killed.poll() is None, "it ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    n_kept = n_cached(cache)
    assert 512 <= n_kept < 1020

    asked = {"tasks": ["t_choice"], "use_cache": str(tmp_path / "cache")}
    resumed = evaluate(tmp_path, folder, {"model": "fake"}, **asked)
    assert resumed["asked"] == 1020 - n_kept
    whole = evaluate(tmp_path, folder, {"model": "fake"}, tasks=["t_choice"])
    assert whole["asked"] == 1020
    assert resumed["samples"] == whole["samples"]
    assert resumed["results"] == whole["results"]


def test_replies_are_kept_as_they_end(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", times=2)
    cached = {"tasks": ["t_answer", "t_page"], "use_cache": str(tmp_path / "cache")}
    crashing = script(tmp_path, crash_signal="SIGKILL", crash_after=60)
    done = attempt(tmp_path, *harness(tmp_path, folder, {"model": crashing, "width": 2}, **cached))
    assert done.returncode == -signal.SIGKILL
    n_kept = n_cached(tmp_path / "cache_rank0.db")
    assert 0 < n_kept < 12 + 4
    resumed = evaluate(tmp_path, folder, {"model": "fake"}, **cached)
    assert resumed["asked"] == 12 + 4 - n_kept
    whole = evaluate(tmp_path, folder, {"model": "fake"}, tasks=cached["tasks"])
    assert resumed["samples"] == whole["samples"]


# --- its command line -----------------------------------------------------------------------------


def test_what_can_not_be_opened_is_one_line(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    flags = ["--include_path", folder, "--tasks", "t_choice"]
    done = attempt(tmp_path, *_HARNESS, "run", "--model", "infer", "--model_args", "model=nothere", *flags)
    assert done.returncode == ExitStatus.MODEL_NOT_FOUND
    assert "error: no model named 'nothere'\nhint: " in done.stdout
    assert "Traceback" not in done.stdout


_WITHOUT = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "lm_eval":
            raise ModuleNotFoundError("No module named 'lm_eval'", name=name)

sys.meta_path.insert(0, Missing())
runpy.run_module("infer_cli.integrations.lm_eval", run_name="__main__")
"""


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    done = attempt(tmp_path, sys.executable, "-c", _WITHOUT)
    assert done.returncode == 1
    assert done.stdout == (
        "error: lm-evaluation-harness is not installed\nhint: pip install 'infer-cli[lm-eval]'\n"
    )


# --- the model ------------------------------------------------------------------------------------


@pytest.fixture
def lm() -> Iterator[Any]:
    from infer_cli.integrations.lm_eval.model import InferLM

    model = InferLM("fake", width=4, window=200, seed=3)
    yield model
    model.close()


def instances(kind: str, *arguments: tuple[object, ...], task: str = "t") -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=args, idx=0, metadata=(task, n, 1))
        for n, args in enumerate(arguments)
    ]


def test_sampled_replies_repeat_with_the_seed_alone(lm: Any) -> None:
    from infer_cli.integrations.lm_eval.model import InferLM

    asked = {"until": ["\n"], "max_gen_toks": 30, "do_sample": True, "temperature": 1.5}
    requests = instances("generate_until", *[("say it", asked)] * 3)
    first = lm.generate_until(requests * 2)
    assert len(set(first)) == 6, "each repeat has a seed of its own"
    again = InferLM("fake", width=1, window=400, seed=3)
    assert again.generate_until(list(reversed(requests))) == first[2::-1]
    again.close()
    other = InferLM("fake", seed=4)
    assert other.generate_until(requests) != first[:3]
    other.close()
    given = instances("generate_until", *[("say it", {**asked, "seed": 9})] * 2)
    one, two = lm.generate_until(given)
    assert one == two, "the task gives the seed itself"


def test_stop_strings_are_cut_and_control_tokens_are_not_text(lm: Any) -> None:
    prompt = lm.apply_chat_template([{"role": "user", "content": "one and two and three"}])
    found = lm.generate_until(
        instances("generate_until", (prompt, {"until": ["", " and th"], "max_gen_toks": 60}))
    )
    assert found == ["You said: one and two"]


def test_a_prompt_that_is_too_long_loses_its_beginning(lm: Any) -> None:
    asked = {"until": [], "max_gen_toks": 40}
    long, short = "x" * 500 + "y" * 160, "y" * 160
    one, two = lm.generate_until(instances("generate_until", (long, asked), (short, asked)))
    assert one == two
    scored = lm.loglikelihood(
        instances("loglikelihood", ("x" * 500 + "y" * 197, "abcd"), ("y" * 197, "abcd"))
    )
    assert scored[0] == scored[1]


def test_a_chat_is_made_of_control_tokens(lm: Any) -> None:
    chat = [{"role": "user", "content": "hi"}]
    text = lm.apply_chat_template(chat)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert lm.tok_encode(text)[:1] == [257]
    begun = lm.apply_chat_template([*chat, {"role": "assistant", "content": "Well, "}], False)
    assert begun == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nWell,"
    assert "im_start" in lm.chat_template(True)
    assert lm.chat_template(False) is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"num_beams": 4}, "'num_beams', which infer does not know"),
        ({"max_gen_toks": 300}, "leaves no room in a window of 200 tokens"),
        ({"do_sample": True, "temperature": 0.5, "top_p": 2, "max_gen_toks": 9}, "top_p"),
    ],
)
def test_what_is_asked_and_not_done_ends_the_run(asked: dict[str, object], said: str, lm: Any) -> None:
    with pytest.raises(InferError, match=said):
        lm.generate_until(instances("generate_until", ("q", asked)))


def test_a_context_of_nothing_is_the_prefix_token(lm: Any) -> None:
    pairs = [("", " word"), (" ", "word"), ("<|endoftext|>", " word")]
    nothing, blank, written = lm.loglikelihood(instances("loglikelihood", *pairs))
    assert nothing == blank == written


def test_a_continuation_without_tokens_ends_the_run(lm: Any) -> None:
    with pytest.raises(InferError, match="no tokens"):
        lm.loglikelihood(instances("loglikelihood", ("a context", "")))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ((), 256, {}, None)),
        ({"until": "\n", "max_new_tokens": 9, "do_sample": False}, (("\n",), 9, {}, None)),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9, "seed": 3}, ((), 256, {}, None)),
        ({"temperature": 0.7, "top_p": 0.9, "seed": 3}, ((), 256, {"temperature": 0.7, "top_p": 0.9}, 3)),
        ({"do_sample": True, "top_k": 5}, ((), 256, {"temperature": 1.0, "top_k": 5}, None)),
        ({"repetition_penalty": 1.2}, ((), 256, {"repeat_penalty": 1.2}, None)),
    ],
)
def test_generation_kwargs(asked: dict[str, object], expected: tuple[object, ...]) -> None:
    from infer_cli.integrations.lm_eval.generation import read_generation

    assert tuple(read_generation(asked)) == expected


@pytest.mark.parametrize(("batch_size", "width"), [(None, 16), (1, 16), ("auto:4", 16), (3, 3), ("7", 7)])
def test_a_batch_size_is_a_width(batch_size: int | str | None, width: int) -> None:
    from infer_cli.integrations.lm_eval.model import InferLM

    model = InferLM("fake", batch_size=batch_size)
    assert model.batch_size == width
    model.close()
