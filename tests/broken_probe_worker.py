"""Run as a process of its own: probes a mode whose policy is broken on purpose. Arguments: MODEL MODE HOW.

Prints one JSON line: {"holds": …, "ways": …}. HOW is "no" (as it is), "unified" or "holes"; with "resume-"
before it only what a resumed job would answer is compared.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from infer_cli.backend.spec import ContextSpec
from infer_cli.checking.probe import RESUMED, WIDTH, Probe, compare, ways_of
from infer_cli.engine.mode_policy import ModePolicy
from infer_cli.runtime.llama_loaded import LlamaLoaded
from infer_cli.runtime.llama_loading import LlamaLoader
from infer_cli.runtime.options import EngineOptions
from infer_cli.types import Mode


class HoledModel(LlamaLoaded):
    """Leaves the rows of idle slots out."""

    def choose_policy(self, width: int, *, kv_unified: bool = False, mode: Mode | None = None) -> ModePolicy:
        return super().choose_policy(width, kv_unified=kv_unified, mode=mode)._replace(fill_holes=False)


def unified(context: ContextSpec) -> ContextSpec:
    """All sequences in one buffer, so that cells are freed and taken in any order."""
    return context._replace(kv_unified=True)


def main() -> None:
    model, mode, how = sys.argv[1:]
    resumes, how = how.startswith("resume"), how.removeprefix("resume-")
    options = EngineOptions(threads=2, mode=mode)  # type: ignore[arg-type]
    loaded = LlamaLoader(Path(model), options, WIDTH, os.open(os.devnull, os.O_WRONLY)).loaded()
    if how == "holes":
        loaded.__class__ = HoledModel
    probe = Probe(loaded, 2, 12, 12, unified if how == "unified" else lambda context: context)
    if resumes:
        first, *_ = ways_of(loaded.policy, 2)
        tally = compare(RESUMED.name, probe.answers(first), probe.answers(RESUMED))
        print(json.dumps({"holds": tally.holds, "ways": [tally._asdict()]}))
        return
    result = probe.run(lambda way: None, priced=False)
    print(json.dumps({"holds": result["holds"], "ways": result["ways"]}))


if __name__ == "__main__":
    main()
