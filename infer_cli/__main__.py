"""`infer` and `python -m infer_cli`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    from infer_cli.child_process import leave_working_directory

    leave_working_directory()  # before anything else is imported

    from infer_cli.filtered import filter_streams

    filter_streams()

    from infer_cli.cli.ahead import begin

    arguments = sys.argv[1:]
    begin(arguments)

    from infer_cli.cli.app import call
    from infer_cli.report import run_guarded

    status = run_guarded(lambda: call(arguments), verbose="--verbose" in arguments)
    os._exit(status)  # all is flushed; taking the interpreter down would cost milliseconds


if __name__ == "__main__":
    main()
