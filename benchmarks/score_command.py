"""`infer score` in a process of its own, and what its work is held against."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import common
from infer_cli.types import Mode


class Row(NamedTuple):
    """A likelihood that is asked for: of the continuation, after the context."""

    context: str
    continuation: str


class Scored(NamedTuple):
    """What came of the rows, in their order. `seconds` is of the whole process, `tokens` are the
    continuations' ids, `prompt_tokens` is how many tokens a row has but for the last, `evaluated` how many
    were computed for all rows."""

    seconds: float
    logprobs: list[float]
    tokens: list[list[int]]
    prompt_tokens: list[int]
    evaluated: int


def score(
    rows: Sequence[Row], model: str, threads: int, mode: Mode, env: Mapping[str, str], folder: Path
) -> Scored:
    """Have `infer score` score the rows, with files in `folder`, and the weights as they are stored.

    Raises BenchmarkError where it fails, or a row does.
    """
    source, out = folder / "rows.jsonl", folder / "scored.jsonl"
    lines, flags = [row_line(n, row) for n, row in enumerate(rows)], tuple[str, ...]()
    if mode == "fast":  # the others have no choice
        lines, flags = common.as_stored(lines), common.AS_STORED
    source.write_text("".join(lines), "utf-8")
    remove_output(out)
    done = common.run([*score_command(source, out, model, threads, mode), *flags], env)
    return scored_of(done.seconds, out.read_text("utf-8").splitlines(), len(rows))


def score_command(source: Path, out: Path, model: str, threads: int, mode: Mode) -> list[str]:
    return [
        *common.INFER, "score", str(source), "-o", str(out), "-m", model, f"--{mode}",
        "--threads", str(threads), "--gpu-layers", "0", "--no-record", "--quiet",
    ]  # fmt: skip


def remove_output(out: Path) -> None:
    """An output, and what makes the next run go on with it."""
    for stale in (out, *out.parent.glob(f"{out.name}.job/*")):
        stale.unlink(missing_ok=True)


def row_line(n: int, row: Row) -> str:
    """The n-th line of the input."""
    line = {"custom_id": str(n), "context": row.context, "continuation": row.continuation}
    return json.dumps(line, ensure_ascii=False) + "\n"


def scored_of(seconds: float, lines: Sequence[str], n_rows: int) -> Scored:
    """Of the lines of the output. Raises BenchmarkError where a row is missing or failed."""
    found = {int(row["custom_id"]): row for row in map(json.loads, lines)}
    if sorted(found) != list(range(n_rows)):
        raise common.BenchmarkError(f"infer scored {len(found)} of {n_rows} rows")
    rows = [found[n] for n in range(n_rows)]
    if failed := [row["error"] for row in rows if row.get("error")]:
        raise common.BenchmarkError(f"infer could not score {len(failed)} rows: {failed[0]}")
    usage = [row["usage"] for row in rows]
    return Scored(
        seconds,
        [row["logprob"] for row in rows],
        [row["tokens"] for row in rows],
        [u["prompt_tokens"] for u in usage],
        sum(u["prompt_tokens"] - u["cached_tokens"] for u in usage),
    )


def n_distinct(sequences: Iterable[Sequence[int]]) -> int:
    """Tokens of all sequences, each common beginning counted once: the nodes of their prefix tree."""
    total = 0
    before: tuple[int, ...] = ()
    for ids in sorted(map(tuple, sequences)):
        total += len(ids) - _common(before, ids)
        before = ids
    return total


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    n = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        n += 1
    return n
