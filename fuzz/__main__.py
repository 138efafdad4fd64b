"""`python -m fuzz TARGET [--seconds N] [--runs N] [--seed S]`, `python -m fuzz all --seconds-each N`.

Each target ends in one JSON line; the exit code is 1 where something was found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from fuzz.judge import judged
from fuzz.runner import environment, memory_folder, run
from fuzz.target import TARGETS, input_of, target_class


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Attack one target, or all of them.")
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--runs", type=int, help="generated inputs, after those of the corpus")
    parser.add_argument(
        "--seconds", type=float, help="stop after so long (10, where --runs says nothing either)"
    )
    parser.add_argument("--seconds-each", type=float, default=60.0, help="of each target of `all` (60)")
    parser.add_argument("--seed", type=int, default=0, help="another number, other inputs")
    parser.add_argument("--again", metavar="INPUT", help="check one input of an earlier run, in this process")
    parser.add_argument("--keep", metavar="FILE", type=Path, help="with --again: write the input here")
    options = parser.parse_args()
    if options.again is not None:
        return again(options.target, options.again, options.keep)
    seconds = options.seconds if options.seconds is not None or options.runs is not None else 10.0
    found = False
    for name in TARGETS if options.target == "all" else [options.target]:
        limit = options.seconds_each if options.target == "all" else seconds
        outcome = run(name, TARGETS[name], seed=options.seed, runs=options.runs, seconds=limit)
        print(json.dumps(outcome.as_json()), flush=True)
        found = found or bool(outcome.kinds)
    return int(found)


def again(name: str, which: str, keep: Path | None) -> int:
    """One input, by the name that a finding has it under. It may hang or crash here."""
    with tempfile.TemporaryDirectory(prefix="infer-fuzz-", dir=memory_folder()) as scratch:
        os.environ.update(environment(scratch))
        target = target_class(TARGETS[name])(Path(scratch))
        given = input_of(target, which)
        if keep is not None:
            keep.write_bytes(given.data)
        print(f"{len(given.data)} bytes of kind {given.kind!r}: {given.data[:300]!a}", file=sys.stderr)
        fault = judged(target, given)
    print(json.dumps({"input": which, "fault": None if fault is None else fault._asdict()}))
    return int(fault is not None)


if __name__ == "__main__":
    raise SystemExit(main())
