"""How quickly a model computes: on the fake model, with a clock that its calls set, and through llama.cpp."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.backend.base import DecodeStatus
from infer_cli.backend.fake import FakeBackend
from infer_cli.backend.spec import ContextSpec
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.errors import UnexpectedFailure
from infer_cli.runtime.calibration import (
    WIDTHS,
    best_width,
    pace,
    quickest_pace,
    rates_by_width,
    reading_tps,
)
from infer_cli.runtime.fake_loading import FakeLoaded
from infer_cli.runtime.options import EngineOptions
from infer_cli.types import Mode
from tests.batch_helpers import batch, prompts, write_rows
from tests.cli_helpers import infer
from tests.tiny_gguf import write_tiny_gguf


class _Timed(FakeLoaded):
    """A call takes `call_s` and `row_s` for each of its rows."""

    def __init__(self, mode: Mode, call_s: float, row_s: float, most_width: int = 1000) -> None:
        super().__init__("fake", EngineOptions(1, mode=mode), 16)
        self.call_s, self.row_s, self.most_width = call_s, row_s, most_width
        self.now = 0.0
        self.row_counts: list[int] = []
        self.fails = False

    def clock(self) -> float:
        return self.now

    def fits(self, policy: ModePolicy, n_ctx_seq: int) -> bool:
        return policy.width <= self.most_width

    def open(self, context: ContextSpec) -> FakeBackend:
        loading = self

        class Backend(FakeBackend):
            def decode(self, tokens, positions, seqs, outputs):  # type: ignore[no-untyped-def]
                loading.now += loading.call_s + len(tokens) * loading.row_s
                loading.row_counts.append(len(tokens))
                status = super().decode(tokens, positions, seqs, outputs)
                return DecodeStatus.FAILED if loading.fails else status

        return Backend(self._script, context)


class _Tiring(_Timed):
    """Each call takes a millisecond more than the one before it."""

    def clock(self) -> float:
        n_calls = len(self.row_counts)
        return self.now + 0.001 * n_calls * (n_calls - 1) / 2


@pytest.mark.parametrize(
    ("mode", "n_replies", "n_rows", "n_computed"),
    [("canonical", 100, 16, 16), ("canonical", 3, 3, 16), ("fast", 100, 16, 16), ("fast", 3, 3, 3)],
)
def test_a_pace_is_that_of_the_shapes_of_the_mode(
    mode: Mode, n_replies: int, n_rows: int, n_computed: int
) -> None:
    loading = _Timed(mode, call_s=0.01, row_s=0.0001)
    found = pace(loading, loading.policy, n_replies, 1000, loading.clock)
    assert found.step_s == pytest.approx(0.01 + n_computed * 0.0001)
    assert found.decode_tps == pytest.approx(n_rows / found.step_s)
    chunk = 64 if mode == "canonical" else 512
    assert found.prefill_tps == pytest.approx(chunk / (0.01 + chunk * 0.0001))
    short = pace(loading, loading.policy, n_replies, 20, loading.clock)
    assert short.prefill_tps == pytest.approx(20 / (0.01 + 20 * 0.0001))


@pytest.mark.parametrize("mode", ["canonical", "fast", "invariant"])
def test_a_slow_model_is_not_measured_for_long(mode: Mode) -> None:
    loading = _Timed(mode, call_s=0, row_s=0.02)
    found = pace(loading, loading.policy, 100, 1000, loading.clock)
    assert found.prefill_tps == pytest.approx(50)
    assert max(loading.row_counts) == 64
    assert loading.now < 3


def test_the_time_of_a_job() -> None:
    loading = _Timed("canonical", call_s=0.01, row_s=0)
    found = pace(loading, loading.policy, 100, 1000, loading.clock)
    prefill_s = 640 / found.prefill_tps
    assert prefill_s == pytest.approx(0.1)
    assert found.seconds(640, 1600, 10) == pytest.approx(prefill_s + 100 * 0.01)
    assert found.seconds(640, 1601, 10) == pytest.approx(prefill_s + 101 * 0.01)
    assert found.seconds(640, 1600, 300) == pytest.approx(prefill_s + 300 * 0.01)


@pytest.mark.parametrize("mode", ["fast", "invariant"])
def test_the_best_width(mode: Mode) -> None:
    by_call, by_row, mixed = _Timed(mode, 0.01, 0), _Timed(mode, 0, 0.001), _Timed(mode, 0.01, 0.02)
    rates = rates_by_width(by_call, 4096, 100, by_call.clock)
    assert rates == pytest.approx({width: width / 0.01 for width in WIDTHS})
    assert best_width(rates) == 32
    assert best_width(rates_by_width(by_row, 4096, 100, by_row.clock)) == 1
    assert best_width(rates_by_width(mixed, 4096, 100, mixed.clock)) == 8  # 1/0.03, 4/0.09, 8/0.17, 16/0.33


@pytest.mark.parametrize(
    ("n_replies", "most_width", "widths"),
    [(8, 1000, [1, 4, 8]), (9, 1000, [1, 4, 8, 16]), (100, 8, [1, 4, 8]), (100, 0, [1])],
)
def test_only_widths_that_can_be_had_are_tried(n_replies: int, most_width: int, widths: list[int]) -> None:
    loading = _Timed("fast", 0.01, 0, most_width)
    assert list(rates_by_width(loading, 4096, n_replies, loading.clock)) == widths
    assert max(loading.row_counts) == widths[-1]


def test_a_slow_model_is_tried_in_few_widths() -> None:
    loading = _Timed("fast", 0, 0.2)
    assert list(rates_by_width(loading, 4096, 100, loading.clock)) == [1, 4, 8, 16]


def test_a_call_that_fails() -> None:
    loading = _Timed("fast", 0, 0.2)
    loading.fails = True
    with pytest.raises(UnexpectedFailure):
        rates_by_width(loading, 4096, 100, loading.clock)


@pytest.mark.parametrize(("row_s", "n_calls"), [(0.0001, 3), (0.005, 2), (0.1, 1)])
def test_reading_is_measured_a_few_times_at_most(row_s: float, n_calls: int) -> None:
    loading = _Timed("fast", 0.01, row_s)
    assert reading_tps(loading, loading.clock) == pytest.approx(128 / (0.01 + 128 * row_s))
    assert loading.row_counts == [128] * n_calls


@pytest.mark.parametrize(("n_replies", "n_rows"), [(100, 16), (3, 3)])
def test_the_quickest_pace(n_replies: int, n_rows: int) -> None:
    """Each call takes longer than the one before it: the first of a kind counts."""
    loading = _Timed("fast", call_s=0.01, row_s=0.001)
    slow = quickest_pace(loading, loading.policy, n_replies, loading.clock)
    assert slow.prefill_tps == pytest.approx(128 / (0.01 + 128 * 0.001))
    assert slow.n_rows == n_rows
    assert slow.step_s == pytest.approx(0.01 + n_rows * 0.001)
    assert loading.now < 1
    tired = _Tiring("fast", call_s=0.01, row_s=0.001)
    found = quickest_pace(tired, tired.policy, n_replies, tired.clock)
    assert found.prefill_tps == pytest.approx(slow.prefill_tps)
    assert found.step_s == pytest.approx(slow.step_s + 0.004)  # after three of reading and one of warming up


@pytest.mark.parametrize("mode", ["canonical", "fast", "invariant"])
def test_through_llama_cpp(tmp_path: Path, mode: Mode) -> None:
    """F16 weights: in invariant mode a lone row has a dummy beside it."""
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    rows = write_rows(tmp_path / "in.jsonl", *prompts(10))
    flags = [f"--{mode}"]
    dry = batch(rows, "--dry-run", "--raw", "-n", 4, *flags, model=str(path))
    assert dry.code == 0, dry.err
    found = dict(line.split("\t") for line in dry.text.splitlines())
    assert float(found["prompt_tokens_per_s"]) > 0
    assert float(found["generated_tokens_per_s"]) > 0
    out = tmp_path / "out.jsonl"
    done = batch(rows, "-o", out, "--raw", "-n", 4, *flags, model=str(path))
    assert done.code == 0, done.err
    assert ("side by side: tokens a second are" in done.err) == (mode != "canonical")
    assert batch(rows, "-o", out, "--raw", "-n", 4, *flags, model=str(path)).code == 0
    if mode != "fast":
        assert infer("verify", out, "-m", path, "--fraction", 1).text == "holds: 10 of 10 replies\n"
