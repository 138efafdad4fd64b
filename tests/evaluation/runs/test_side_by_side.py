"""Work on several things at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from infer_cli.evaluation.runs.side_by_side import in_order


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_results_come_in_order(n_threads: int) -> None:
    def work(n: int) -> int:
        time.sleep(0.002 * (n % 3))
        return n * n

    assert list(in_order(work, range(20), n_threads)) == [n * n for n in range(20)]


def test_several_are_under_way() -> None:
    together = threading.Barrier(3, timeout=5)
    assert list(in_order(lambda n: together.wait() >= 0, range(6), 3)) == [True] * 6


def test_few_are_in_memory() -> None:
    taken = 0

    def things() -> Iterator[int]:
        nonlocal taken
        for n in range(1, 1001):
            taken = n
            yield n

    results = in_order(lambda n: n, things(), 2)
    assert next(results) == 1
    assert taken <= 4
    assert sum(results) == 1000 * 1001 // 2 - 1


def test_what_is_raised_comes_at_its_place() -> None:
    def work(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n

    results = in_order(work, range(1000), 3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
