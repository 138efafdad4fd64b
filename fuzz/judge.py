"""Whether what became of an input is what may become of it."""

from __future__ import annotations

import io
import traceback
from pathlib import Path
from typing import NamedTuple

import infer_cli
from fuzz.target import Broken, Input, Target
from infer_cli.errors import InferError
from infer_cli.process.report import report

MOST_MESSAGE = 4000  # characters of what a user sees of one failure
_PACKAGE = Path(infer_cli.__file__).parent


class Fault(NamedTuple):
    """`kind` names the cause, alike for all inputs that have it; `what` is for a person."""

    kind: str
    what: str


def judged(target: Target, given: Input) -> Fault | None:
    """Check an input. None where all is as it should be."""
    try:
        target.check(given)
    except InferError as error:
        return _unfit(target, error)
    except Broken as error:
        return Fault(f"broken: {str(error).partition(':')[0]}", str(error))
    except Exception as error:
        return Fault(f"{type(error).__name__} in {_place(error)}", _shown(error))
    return None


def _unfit(target: Target, error: InferError) -> Fault | None:
    """What is wrong with how a refusal reads."""
    name = type(error).__name__
    if error.exit_status not in target.statuses:
        return Fault(f"exit code {error.exit_status} ({name})", f"{name}: {error.message[:300]}")
    stream = io.StringIO()
    report(error, stream)
    shown = stream.getvalue()
    try:
        shown.encode()
    except UnicodeEncodeError:
        return Fault(f"a message that can't be written ({name})", ascii(shown[:300]))
    lines = shown.split("\n")
    beginnings = ["error: ", "hint: ", ""] if error.hint else ["error: ", ""]
    if len(lines) != len(beginnings) or not all(map(str.startswith, lines, beginnings)):
        return Fault(f"not one line ({name})", ascii(shown[:300]))
    if not all(line.isprintable() for line in lines) or len(lines[0]) <= len("error: "):
        return Fault(f"not a clear line ({name})", ascii(shown[:300]))
    if len(shown) > MOST_MESSAGE:
        return Fault(f"a message of over {MOST_MESSAGE} characters ({_place(error)})", ascii(shown[:300]))
    return None


def _place(error: BaseException) -> str:
    """The innermost function of ours that the error came through."""
    place = "the harness"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE):
            place = f"{path.relative_to(_PACKAGE).as_posix()}:{frame.f_code.co_name}"
    return place


def _shown(error: Exception) -> str:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return ascii(text[-900:])
