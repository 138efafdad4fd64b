"""Every width that can be asked for keeps the canonical promise, on kernels that take rows in groups too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_cli.backend.fake import FakeBackend, FakeScript
from infer_cli.backend.spec import ContextSpec
from infer_cli.batch.job import MAX_WIDTH
from infer_cli.checking.probe import ODD, Probe
from infer_cli.engine.engine import Engine
from infer_cli.engine.mode_policy import ModelTraits, canonical_width, choose, why_width_breaks
from infer_cli.runtime.engine_facts import fingerprint
from infer_cli.runtime.fake_loading import FakeLoaded
from infer_cli.runtime.options import EngineOptions
from infer_cli.types import EngineRequest, Finished, SamplingParams
from tests.batch_helpers import batch, by_unit, digests, lines, prompts, write_rows
from tests.cli_helpers import REPO, infer, lines_of
from tests.engine_helpers import Clock, request

GROUPED = FakeScript(row_group=4)


@pytest.fixture
def grouped(tmp_path: Path) -> str:
    """A fake model whose rows beyond the last four get other logits."""
    path = tmp_path / "grouped.json"
    path.write_text(json.dumps({"row_group": 4}))
    return f"fake:{path}"


# --- the widths -----------------------------------------------------------------------------------


def test_widths_are_whole_groups_of_rows() -> None:
    assert [canonical_width(n) for n in range(1, 10)] == [1, 2, 3, 4, 8, 8, 8, 8, 12]
    assert all(n <= canonical_width(n) < n + 4 for n in range(1, MAX_WIDTH + 1))
    assert all(not why_width_breaks("canonical", canonical_width(n)) for n in range(1, MAX_WIDTH + 1))
    assert canonical_width(MAX_WIDTH) == canonical_width(MAX_WIDTH - 3) == MAX_WIDTH


def test_only_canonical_rounds_a_width() -> None:
    assert choose("canonical", 5, ModelTraits()).width == 8
    assert choose("invariant", 5, ModelTraits()).width == choose("fast", 5, ModelTraits()).width == 5
    assert not why_width_breaks("invariant", 5)
    assert not why_width_breaks("fast", 5)


def test_a_width_that_is_taken_as_it_was_promises_nothing() -> None:
    policy = choose("canonical", 5, ModelTraits(), exact_width=True)
    assert (policy.width, policy.promise) == (5, "seed-only")
    assert "a width of 5 keeps no promise" in policy.weaker_because
    assert choose("canonical", 8, ModelTraits(), exact_width=True).promise == "canonical"
    assert choose("invariant", 5, ModelTraits(), exact_width=True).promise == "invariant"


def replies(width: int, order: list[EngineRequest], *, exact: bool = False) -> dict[str, Finished]:
    policy = choose("canonical", width, ModelTraits(), exact_width=exact)
    spec = ContextSpec(512, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 1)
    engine = Engine(FakeBackend(GROUPED, spec), policy, Clock(), 512)
    for one in order:
        engine.submit(one, 0.0)
    found: dict[str, Finished] = {}
    while not engine.idle:
        found.update({e.request_id: e for e in engine.step() if isinstance(e, Finished)})
    return found


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=12),
    width=st.integers(1, 11),
    data=st.data(),
)
def test_a_reply_does_not_depend_on_its_slot(lengths: list[int], width: int, data: st.DataObject) -> None:
    """Prompts of all lengths: their tails of 1 to 65 rows are odd too, but lie where they lie."""
    sampled = SamplingParams(temperature=1.5)
    asked = [
        request(str(i), "x" * n, max_tokens=data.draw(st.integers(1, 9)), sampling=sampled, seed=i)
        for i, n in enumerate(lengths)
    ]
    alone: dict[str, Finished] = {}
    for one in asked:
        alone |= replies(width, [one])
    n_shards = data.draw(st.integers(1, 4))
    sharded: dict[str, Finished] = {}
    for i in range(n_shards):
        sharded |= replies(width, asked[i::n_shards])
    for found in (replies(width, asked), replies(width, data.draw(st.permutations(asked))), sharded):
        assert {i: end.tokens for i, end in found.items()} == {i: end.tokens for i, end in alone.items()}


@pytest.mark.parametrize("width", [5, 6, 7])
def test_at_an_odd_width_it_would(width: int) -> None:
    """The test above can fail."""
    asked = [request(str(i), f"number {i}", max_tokens=9) for i in range(width)]
    whole = replies(width, asked, exact=True)
    alone = [replies(width, [one], exact=True)[one.id] for one in asked]
    assert [whole[end.request_id].tokens == end.tokens for end in alone] == [i < 4 for i in range(width)]


# --- the commands ---------------------------------------------------------------------------------


def named(n: int) -> list[dict[str, object] | str]:
    return [{"prompt": text, "custom_id": text} for text in prompts(n)]


def test_shards_lone_rows_and_samples_at_an_odd_width(grouped: str, tmp_path: Path) -> None:
    flags = ("--canonical", "--parallel", 7, "-n", 12, "-t", 2, "--seed", 3, "--quiet")
    rows = write_rows(tmp_path / "in.jsonl", *named(14))
    assert batch(rows, "-o", tmp_path / "whole", *flags, model=grouped).code == 0
    whole = digests(tmp_path / "whole")
    for i in (1, 2, 3):
        shard = ("--shard", f"{i}/3", "-o", tmp_path / f"shard{i}")
        assert batch(rows, *shard, *flags, model=grouped).code == 0
        assert digests(tmp_path / f"shard{i}").items() <= whole.items()
    alone = write_rows(tmp_path / "alone.jsonl", named(14)[6])
    assert batch(alone, "-o", tmp_path / "alone", *flags, model=grouped).code == 0
    assert digests(tmp_path / "alone")[0, 0] == whole[6, 0]
    resumed = tmp_path / "resumed.jsonl"
    for n in (3, 14):  # the second time others lie in the first slots
        write_rows(resumed, *named(n))
        assert batch(resumed, "-o", tmp_path / "resumed", *flags, model=grouped).code == 0
    assert digests(tmp_path / "resumed") == whole
    assert by_unit(tmp_path / "whole")[6, 0]["engine"]["facts"]["width"] == 8

    run = ("run", "-m", grouped, "hello", "-t", 1, "--seed", 1, "-n", 9, "--json", "--samples")
    found = [[one["digest"] for one in lines_of(infer(*run, n).out)] for n in (5, 6, 8)]
    assert found[0] == found[1][:5] == found[2][:5]


def test_the_width_that_is_taken_is_told(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "one")
    done = batch(rows, "-o", tmp_path / "out", "--canonical", "--parallel", 5)
    assert "8 replies side by side: canonical has no width of 5" in done.err
    for flags in (("--canonical", "--parallel", 8), ("--invariant", "--parallel", 5)):
        done = batch(rows, "-o", tmp_path / str(flags[-1]), *flags)
        assert (done.code, "canonical has no width" in done.err) == (0, False)


def written_at(width: int, out: Path) -> None:
    """Make of a job one that an older version wrote at a width of 5: as 8 was computed here."""
    path = Path(f"{out}.job") / "job.json"
    job = json.loads(path.read_text())
    job["engine"]["width"] = job["width"] = width
    job["fingerprint"] = fingerprint(job["engine"])
    path.write_text(json.dumps(job))
    changed = lines(out)
    for line in changed:
        line["engine"] |= {"fingerprint": job["fingerprint"], "facts": job["engine"]}
    out.write_text("".join(json.dumps(line) + "\n" for line in changed))


def test_a_job_of_a_width_that_is_now_another_is_refused_by_name(tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "in.jsonl", *prompts(6)), tmp_path / "out"
    arguments = (rows, "-o", out, "-n", 5)
    assert batch(*arguments, "--canonical", "--parallel", 5).code == 0
    written_at(5, out)
    for flags in ((), ("--parallel", 5)):
        done = batch(*arguments, *flags)
        assert done.code == 2
        assert "width was 5, is 8" in done.err and "--redo answers all rows again" in done.err
    assert batch(*arguments, "--redo").code == 0
    assert {line["engine"]["facts"]["width"] for line in lines(out)} == {8}


def test_verify_computes_at_the_stored_width_and_says_what_it_is_worth(grouped: str, tmp_path: Path) -> None:
    flags = ("-n", 5, "--canonical", "--parallel", 8, "--quiet")
    rows, out = write_rows(tmp_path / "in.jsonl", *prompts(3)), tmp_path / "out"
    assert batch(rows, "-o", out, *flags, model=grouped).code == 0
    written_at(5, out)
    done = infer("verify", out, "--fraction", 1)
    assert (done.code, done.text) == (0, "holds: 3 of 3 replies\n"), "3 rows of 5 lie in the first four"
    assert "warning: not canonical, only the seed is kept: a width of 5 keeps no promise" in done.err

    rows = write_rows(rows, *prompts(6))
    assert batch(rows, "-o", out, *flags, "--redo", model=grouped).code == 0
    written_at(5, out)
    done = infer("verify", out, "--fraction", 1)
    assert done.code == 9
    assert done.text.startswith("row 4: differs at token 1: ")
    assert "  a width of 5 keeps no promise, its last rows take other kernels than the first\n" in done.text


def test_replay_computes_at_the_recorded_width(grouped: str, own_home: Path) -> None:
    infer("run", "-m", grouped, "hello", "-t", 1, "--seed", 1, "-n", 5, "--samples", 5, "--json")
    last: dict[str, Any] = lines_of(infer("records", "export").out)[-1]
    assert last["engine"]["width"] == 8
    assert infer("replay", last["id"]).text == "identical\n"


# --- the probe ------------------------------------------------------------------------------------


class GroupedModel(FakeLoaded):
    """`exact`: takes odd widths as they are."""

    def __init__(self, *, exact: bool) -> None:
        super().__init__("fake", EngineOptions(1, exact_width=exact), 16)
        self._script = GROUPED


@pytest.mark.parametrize("exact", [False, True])
def test_the_probe_finds_what_depends_on_the_slot(exact: bool) -> None:
    probe = Probe(GroupedModel(exact=exact), 1, 14, 6)
    found: Any = probe.run(lambda way: None, priced=False)
    broken = {way["way"] for way in found["ways"] if way["same_logits"] < way["n"]}
    assert broken == ({f"{ODD} wide, alone", f"{ODD} wide, shards"} if exact else set())
    assert found["holds"] == (not exact)


# --- the real kernels -----------------------------------------------------------------------------

_QUANTIZE = """
import sys
import llama_cpp.llama_cpp as L
params = L.llama_model_quantize_default_params()
params.ftype, params.allow_requantize = L.LLAMA_FTYPE_MOSTLY_Q3_K_M, True
sys.exit(L.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""


@pytest.mark.weights
def test_odd_widths_on_repacked_k_quants(smollm2: Path, tmp_path: Path) -> None:
    """Q3_K_M holds Q4_K, which is repacked: rows that made no whole group had other logits there."""
    model = tmp_path / "q3_k_m.gguf"
    command = [sys.executable, "-c", _QUANTIZE, str(smollm2), str(model)]
    subprocess.run(command, check=True, capture_output=True)
    worker = [sys.executable, "-m", "tests.determinism_worker", str(model), "canonical"]
    ways = ["5:", "6:alone", "7:shards"]
    done = subprocess.run(
        [*worker, *ways],
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=True,
        cwd=REPO,
    )
    found = {line["way"]: line["replies"] for line in map(json.loads, done.stdout.splitlines())}
    assert len(found) == len(ways)
    assert all(one == found["5:"] for one in found.values()), "all three are 8 rows"
