"""Could a token have been drawn, had the logits been a little different? Against draws from such logits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from infer_cli.checking.draw_bounds import (
    MOST,
    Penalties,
    _Candidates,
    drawn_distance,
    greedy_distance,
    not_replayed,
)
from infer_cli.types import SamplingParams

PARAMS = [
    SamplingParams(1.0),
    SamplingParams(0.7, top_k=0),
    SamplingParams(1.3, top_k=0, top_p=1.0, min_p=0.02),
    SamplingParams(1.0, top_k=6, top_p=1.0, min_p=0.0),
    SamplingParams(1.0, top_k=0, top_p=1.0, min_p=0.0),
    SamplingParams(1.0, top_k=8, top_p=0.6, min_p=0.3, repeat_penalty=1.3, frequency_penalty=0.2),
]


def penalties(params: SamplingParams) -> Penalties:
    found = Penalties(params, 100)
    found.accept([1, 2, 2, 9, 30])
    return found


def row_of(random: np.random.Generator) -> np.ndarray:
    return (random.standard_normal(40) * 2).astype(np.float32)


@pytest.mark.parametrize("params", PARAMS)
def test_a_draw_from_logits_near_by_is_found_possible(params: SamplingParams) -> None:
    random = np.random.default_rng(1)
    own = penalties(params)
    n_moved = 0
    for _ in range(300):
        row, number, reach = row_of(random), float(random.random()), float(random.choice([0.02, 0.2, 1.0]))
        near = row + random.uniform(-reach, reach, len(row))
        token = _Candidates(near.astype(np.float64), 0, params, own).drawn(number)
        found = drawn_distance(row, token, params, own, (number, number))
        assert found.nats <= 2 * reach + 0.02, (reach, found)
        n_moved += found.nats > 0
        if found.nats == 0:
            assert _Candidates(row.astype(np.float64), token, params, own).could_be((number, number), 1e-4)
    assert n_moved > 20  # else this shows nothing


@pytest.mark.parametrize("params", PARAMS)
def test_any_other_token_is_at_a_distance(params: SamplingParams) -> None:
    random = np.random.default_rng(2)
    own = penalties(params)
    n_doubtful = 0
    for _ in range(50):
        row, number = row_of(random), float(random.random())
        here = _Candidates(row.astype(np.float64), 0, params, own).drawn(number)
        distances = [
            drawn_distance(row, token, params, own, (number, number)).nats for token in range(len(row))
        ]
        assert distances[here] == 0.0
        n_doubtful += sum(distance == 0.0 for distance in distances) > 1  # the number is on a border
        assert all(
            drawn_distance(row, token, params, own, (number, number)).likeliest == here for token in (0, 5)
        )
    assert n_doubtful <= 2


def test_beyond_what_is_told() -> None:
    row = np.zeros(10, np.float32)
    row[3] = 2 * MOST + 1
    params, none = SamplingParams(1.0), Penalties(SamplingParams(1.0), 10)
    assert drawn_distance(row, 5, params, none, (0.4, 0.4)).nats == math.inf
    assert drawn_distance(row, 3, params, none, (0.4, 0.4)).nats == 0.0


def test_greedy_tokens_and_penalties() -> None:
    row = np.array([1.0, 3.0, -2.0, 2.5], np.float32)
    off = SamplingParams()
    assert greedy_distance(row, 1, Penalties(off, 10)) == (0.0, 1)
    assert greedy_distance(row, 3, Penalties(off, 10)) == (0.5, 1)
    on = SamplingParams(repeat_penalty=2.0, repeat_last_n=2)
    own = Penalties(on, 10)
    own.accept([3, 1, 2])  # the last two count
    assert own.applied(row.astype(np.float64)).tolist() == [1.0, 1.5, -4.0, 2.5]
    assert greedy_distance(row, 1, own) == (1.0, 3)
    counted = Penalties(SamplingParams(frequency_penalty=0.5, presence_penalty=1.0), 10)
    counted.accept([1, 1])
    assert counted.applied(row.astype(np.float64))[1] == pytest.approx(3.0 - 2 * 0.5 - 1.0)


def test_what_is_not_done_again_is_named() -> None:
    assert not_replayed(SamplingParams(1.0)) == not_replayed(SamplingParams()) == ""
    for name, value in (
        ("typical_p", 0.5), ("top_n_sigma", 1.0), ("xtc_probability", 0.1), ("dynatemp_range", 0.5),
        ("mirostat", 1), ("dry_multiplier", 0.8),
    ):  # fmt: skip
        assert not_replayed(replace(SamplingParams(1.0), **{name: value})) == name  # type: ignore[arg-type]
        assert not_replayed(replace(SamplingParams(), **{name: value})) == (  # type: ignore[arg-type]
            name if name == "dry_multiplier" else ""
        )
