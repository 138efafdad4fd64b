"""The templates of the harness's tasks, which it renders without a sandbox: here they have one."""

from __future__ import annotations

from jinja2.sandbox import SandboxedEnvironment
from lm_eval import utils


def use_sandbox() -> None:
    """Render the tasks' templates in this process as the harness does, but without Python behind them.

    A template that reaches for it fails. What others may render is the same text.
    """
    theirs = utils.env
    if isinstance(theirs, SandboxedEnvironment):
        return
    ours = SandboxedEnvironment(
        loader=theirs.loader, undefined=theirs.undefined, keep_trailing_newline=theirs.keep_trailing_newline
    )
    ours.filters.update(theirs.filters)
    utils.env = ours
