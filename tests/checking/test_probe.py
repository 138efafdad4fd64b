"""`infer probe`: finds that the promises are kept, and that they are not where a policy is broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infer_cli.checking.probe import Answer, Tally, compare
from infer_cli.runtime.fake_loading import FakeLoaded
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.probe_verdicts import keep_verdict, was_probed
from tests.batch_helpers import batch, write_rows
from tests.cli_helpers import REPO, infer, lines_of
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.mark.parametrize("mode", ["canonical", "invariant"])
@pytest.mark.parametrize("how", ["no", "unified", "holes"])
def test_a_broken_policy_is_caught(tiny: Path, mode: str, how: str) -> None:
    """F16 weights: a lone row takes another kernel than two."""
    command = [sys.executable, "-m", "tests.broken_probe_worker", str(tiny), mode, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO)
    found = json.loads(done.stdout)
    assert found["holds"] == (how == "no")
    assert all(way["n"] == 12 for way in found["ways"])


def test_the_table_and_the_verdict(tiny: Path, own_home: Path) -> None:
    few = ("-m", tiny, "--requests", "3", "-n", "3")
    done = infer("probe", *few, "--json")
    assert done.code == 0
    modes: Any = done.json["modes"]
    assert [mode["mode"] for mode in modes] == ["fast", "canonical", "invariant"]
    canonical, invariant = modes[1:]
    assert canonical["holds"] and invariant["holds"]
    assert [way["way"] for way in canonical["ways"]][-1] == "after resume"
    assert all(speed > 0 for speed in canonical["speed"].values())
    assert len(list((own_home / "data" / "probes").iterdir())) == 2

    text = infer("probe", *few).text
    assert "canonical: holds (8 of 8 ways the same to the byte)\n" in text
    assert "invariant: holds (10 of 10 ways the same to the byte)\n" in text
    assert "fast: promises nothing but the seed" in text


def test_replies_say_that_their_promise_was_measured(tiny: Path, own_home: Path, tmp_path: Path) -> None:
    def probed(*mode: str) -> list[object]:
        batched = write_rows(tmp_path / "in.jsonl", "one", "two")
        found = [infer("run", "-m", tiny, "--raw", "hello", "-n", 2, "--json", *mode).json["probed"]]
        done = batch(batched, "-o", "-", "--raw", "-n", 2, "--quiet", *mode, model=str(tiny))
        return found + [line["probed"] for line in lines_of(done.out)]

    assert probed() == [False] * 3
    assert infer("probe", "-m", tiny, "--requests", "2", "-n", "2").code == 0
    assert probed() == [True] * 3
    assert probed("--invariant") == [True] * 3
    assert probed("--fast") == [False] * 3
    last = lines_of(infer("records", "list", "--jsonl").out)
    kept = [
        infer("records", "show", line["id"], "--json").json["probed"]
        for line in last
        if line["kind"] == "run"
    ]
    assert sorted(kept, key=bool) == [False, False, True, True]


def test_a_resumed_job_has_other_neighbours_in_its_slots(tiny: Path) -> None:
    """All requests are answered, in two contexts, none of them as the first way answers it."""
    command = [sys.executable, "-m", "tests.broken_probe_worker", str(tiny), "canonical"]
    for how, same in (("resume", 12), ("resume-unified", range(12))):
        done = subprocess.run([*command, how], capture_output=True, text=True, check=True, cwd=REPO)
        (way,) = json.loads(done.stdout)["ways"]
        assert (way["way"], way["n"]) == ("after resume", 12)
        assert way["same_logits"] == same if isinstance(same, int) else way["same_logits"] in same


def test_what_cannot_be_probed(tmp_path: Path) -> None:
    assert infer("probe", "-m", "fake").code == 2
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    done = infer("probe", "-m", broken)
    assert done.code == 4
    assert done.err.count("\n") == 2
    assert infer("probe", "-m", tmp_path / "none.gguf").code == 3
    assert infer("probe", "--requests", "1").code == 2


def test_equal_tokens_with_other_logits_do_not_hold() -> None:
    one = {0: Answer((1, 2), "a"), 1: Answer((3,), "b")}
    assert compare("w", one, dict(one)).holds
    assert compare("w", one, {0: Answer((1, 2), "x"), 1: Answer((3,), "b")}) == Tally("w", 2, 2, 1)
    assert compare("w", one, {0: Answer((1, 9), "x"), 1: Answer((3,), "b")}) == Tally("w", 2, 1, 1)


def test_a_verdict_is_for_one_model_and_engine_at_any_width(own_home: Path) -> None:
    loaded = FakeLoaded("fake", EngineOptions(2), 16)
    facts = loaded.facts(loaded.policy, loaded.context(loaded.policy, 256))._replace(repack=True)
    path = keep_verdict("ab" * 32, facts, {"holds": True})
    assert was_probed("ab" * 32, facts._replace(width=1, threads=4))
    assert not was_probed("ab" * 32, facts._replace(repack=False))
    assert not was_probed("cd" * 32, facts)
    assert not was_probed(None, facts)
    path.write_text("{")
    assert not was_probed("ab" * 32, facts)
    keep_verdict("ab" * 32, facts, {"holds": False})
    assert not was_probed("ab" * 32, facts)
