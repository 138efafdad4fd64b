"""The process that checks inputs one after another. It may hang, run out of memory or crash: its parent
watches.

Inputs are numbered: first those of the corpus by name, then generated ones. The number of the input in
work is in a small file that the parent maps too. Findings go to stdout, a JSON line each.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import NamedTuple

from fuzz.judge import Fault, judged
from fuzz.target import input_name, input_of, target_class
from infer_cli.settings.sizes import size_text

MOST_ADDRESS_SPACE = 6 * 2**30
BLOATED = 75  # exit code: an input took too much memory; the parent begins another child
DONE = 0

COUNTER = struct.Struct("<q")


class Work(NamedTuple):
    """What a child is told. `place`: of the target; `last` None: until `seconds` are over."""

    place: str
    seed: int
    first: int
    last: int | None
    seconds: float | None
    counter: str
    scratch: str


def main() -> int:
    work = Work(**json.loads(sys.argv[1]))
    target = target_class(work.place)(Path(work.scratch))
    names = list(target.corpus())
    _limit()
    end = None if work.seconds is None else time.monotonic() + work.seconds
    with open(work.counter, "r+b") as file, mmap.mmap(file.fileno(), COUNTER.size) as counter:
        number = work.first
        while work.last is None or number < work.last:
            if end is not None and number >= len(names) and time.monotonic() >= end:
                break
            COUNTER.pack_into(counter, 0, number)
            name = input_name(names, work.seed, number)
            given = input_of(target, name)
            before = _memory()
            _start_clock(target.most_seconds)
            fault = judged(target, given)
            _start_clock(0)
            grown = _memory() - before
            bloated = grown > target.most_memory
            if fault is None and bloated:
                fault = Fault("too much memory", f"{size_text(grown)} more than before")
            if fault is not None:
                print(json.dumps({"input": name, **fault._asdict()}), flush=True)
            number += 1
            if bloated:
                COUNTER.pack_into(counter, 0, number)
                return BLOATED
        COUNTER.pack_into(counter, 0, number)
    return DONE


if sys.platform == "win32":

    def _limit() -> None:
        faulthandler.enable()

    def _start_clock(seconds: float) -> None:
        """The parent's clock has to do."""

    def _memory() -> int:
        return 0

else:
    import resource

    def _limit() -> None:
        faulthandler.enable()
        # Its default action ends the process in native code too, after the traceback.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        faulthandler.register(signal.SIGPROF, all_threads=False, chain=True)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESS_SPACE, resource.RLIM_INFINITY))

    def _start_clock(seconds: float) -> None:
        """End this process after so many seconds of processor time; 0: do not."""
        signal.setitimer(signal.ITIMER_PROF, seconds)

    def _memory() -> int:
        """Bytes that this process, or one that it has waited for, had at its largest."""
        processes = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        peaks = [resource.getrusage(which).ru_maxrss for which in processes]
        if sys.platform == "linux":
            # Linux's getrusage counts what the parent's process had before it started this one.
            status = Path("/proc/self/status").read_text()
            peaks[0] = int(status.partition("VmHWM:")[2].split()[0])
        return max(peaks) * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # threads of a target's server are of no interest
