"""Every failure a user can meet, with its exit code.

InferError
├── UsageError            2   the command line or an input file is wrong
├── ModelNotFound         3   no such model, or it is not installed and may not be fetched
├── ModelInvalid          4   the file is there but is not a model that can be used
├── ContextOverflow       5   the prompt does not fit the window
├── OutOfMemory           6   model, cache or buffers do not fit in memory
├── DeadlineExceeded      7   a deadline or budget ended the work
├── CheckFailed           9   what was checked is not as it should be
├── SourceUnreachable    10   a download failed from every source
├── NativeCrash          11   llama.cpp ended the process
└── UnexpectedFailure     1   anything else

An error is one line: what was wrong; `hint` says what to do next.
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit codes of the `infer` command."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    MODEL_NOT_FOUND = 3
    MODEL_INVALID = 4
    DOES_NOT_FIT = 5
    OUT_OF_MEMORY = 6
    DEADLINE = 7
    SOME_ROWS_FAILED = 8
    CHECK_FAILED = 9
    UNREACHABLE = 10
    NATIVE_CRASH = 11
    INTERRUPTED = 130
    READER_GONE = 141


class InferError(Exception):
    """Base of all errors shown to the user as one line.

    `message` names what was wrong, `hint` what to do next (may be empty). `native`: llama.cpp failed,
    and its last log lines belong to the explanation.
    """

    exit_status: ExitStatus = ExitStatus.UNEXPECTED

    def __init__(self, message: str, hint: str = "", *, native: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.native = native

    @property
    def in_full(self) -> str:
        """Message and hint in one line, for where there is no second one."""
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UnexpectedFailure(InferError):
    """Something failed that no other class names (a disk error, a bug)."""


class UsageError(InferError):
    exit_status = ExitStatus.USAGE


class ModelNotFound(InferError):
    exit_status = ExitStatus.MODEL_NOT_FOUND


class ModelInvalid(InferError):
    exit_status = ExitStatus.MODEL_INVALID


class ContextOverflow(InferError):
    exit_status = ExitStatus.DOES_NOT_FIT


class OutOfMemory(InferError):
    exit_status = ExitStatus.OUT_OF_MEMORY


class DeadlineExceeded(InferError):
    exit_status = ExitStatus.DEADLINE


class CheckFailed(InferError):
    exit_status = ExitStatus.CHECK_FAILED


class SourceUnreachable(InferError):
    exit_status = ExitStatus.UNREACHABLE


class NativeCrash(InferError):
    exit_status = ExitStatus.NATIVE_CRASH
