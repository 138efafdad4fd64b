"""`infer` and `python -m infer_cli`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping

# What is made while starting stays: looking for garbage among it, as Python does at 700, costs some per cent.
_OBJECTS_BEFORE_COLLECTION = 100_000


def main() -> None:
    """Run the command line and leave the process: from the first line on, an interrupt is an exit code."""
    status = 130
    try:
        sys.unraisablehook = _leave_if_interrupted
        gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
        from infer_cli.process.child_process import leave_working_directory

        leave_working_directory()  # before anything else is imported
        status = _run(sys.argv[1:])
    except KeyboardInterrupt:
        pass
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # nothing of ours could be imported
        status = 1
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)  # all is flushed; taking the interpreter down would cost milliseconds


def _run(arguments: list[str]) -> int:
    from infer_cli.process.report import report_failures_of_threads, run_guarded

    verbose = "--verbose" in arguments

    def work() -> int:
        from infer_cli.process.streams import open_standard_fds

        open_standard_fds()
        from infer_cli.process.stream_filter import filter_streams

        filter_streams()
        report_failures_of_threads(verbose=verbose)
        from infer_cli.cli.preload import begin
        from infer_cli.cli.translation import with_our_command

        ours = with_our_command(arguments, _flags_of_run)
        begin(ours)

        from infer_cli.cli.app import call

        return call(ours)

    return run_guarded(work, verbose=verbose)


def _flags_of_run() -> Mapping[str, bool]:
    from infer_cli.cli.app import flags_of

    return flags_of("run")


def _leave_if_interrupted(unraisable: sys.UnraisableHookArgs) -> None:
    """An interrupt that arrives in a callback of the interpreter (as each import has one) can't be raised."""
    if unraisable.exc_type is KeyboardInterrupt:
        os._exit(130)
    sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    main()
