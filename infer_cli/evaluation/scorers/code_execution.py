"""The scorer `code`: does a program with the answer in it come to its end."""

from __future__ import annotations

from infer_cli.evaluation.scorers.answer_template import AnswerTemplate
from infer_cli.evaluation.scorers.code_sandbox import CodeLimits, CodeSandbox, SandboxFailed, find_sandbox
from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed

MOST_SECONDS = 600
_MIB = 1 << 20
_MOST_MIB = 64 << 10
_DEFAULT = CodeLimits()


class CodeExecution:
    """1 for an answer whose program comes to its end, 0 for one whose program raises, exits or meets a limit.

    `program` is a template (`AnswerTemplate`): the answer and the task's tests of it. Each is run in the
    sandbox, with limits of its own; safe to use from several threads. Raises UsageError for options that
    can't be used, and where this system has no sandbox.
    """

    is_code = True
    is_proportion = True
    higher_is_better = True
    worst = 0.0

    def __init__(self, options: ScorerOptions) -> None:
        self.name = options.score_name
        self._limits = _limits_of(options)
        self._program = AnswerTemplate(options, "program")
        self._sandbox: CodeSandbox = find_sandbox()

    def score(self, answer: Answer) -> Score:
        program = self._program.fill(answer)
        try:
            ran = self._sandbox.run(program, self._limits)
        except SandboxFailed as e:
            raise ScorerFailed(f"the sandbox failed: {e}") from None
        return Score(float(ran.passed), ran.why)


def _limits_of(options: ScorerOptions) -> CodeLimits:
    seconds = options.size("seconds", _DEFAULT.seconds)
    if not 0 < seconds <= MOST_SECONDS:
        raise options.wrong("seconds", f"must be above 0 and at most {MOST_SECONDS}, not {seconds}")
    return CodeLimits(
        seconds,
        options.whole("memory_mib", _DEFAULT.memory // _MIB, 64, _MOST_MIB) * _MIB,
        options.whole("files_mib", _DEFAULT.files // _MIB, 1, _MOST_MIB) * _MIB,
        options.whole("threads", _DEFAULT.threads, 1, 1024),
    )
