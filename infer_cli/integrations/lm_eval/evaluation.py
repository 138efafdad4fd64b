"""lm-evaluation-harness's tasks in runs of `infer eval`: what the command line needs, light until used."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infer_cli.errors import UsageError

if TYPE_CHECKING:
    from infer_cli.evaluation.runs.folder import RunFolder
    from infer_cli.evaluation.runs.graders import FolderGrader
    from infer_cli.integrations.lm_eval.harness import Harness


def open_harness(names: Sequence[str], include: Sequence[str], *, allow_code: bool, offline: bool) -> Harness:
    """Its tasks of these names, groups among them. Raises UsageError for one that can't be used, and where
    the harness is not installed."""
    if offline:
        os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    _make_ready()
    from infer_cli.integrations.lm_eval.harness import Harness

    return Harness(names, include, allow_code=allow_code)


def open_grader(folder: RunFolder, *, allow_code: bool, by_rule_alone: bool = False) -> FolderGrader:
    """Of the copy in a run's folder: no data is read. Raises UsageError as `open_harness`."""
    _make_ready()
    from infer_cli.integrations.lm_eval.harness_grader import grader_of_copy

    return grader_of_copy(folder.task, allow_code=allow_code, by_rule_alone=by_rule_alone)


def _make_ready() -> None:
    """Without bars and talk of its own: what is wrong is one line of ours. The libraries read the variables
    when they are imported."""
    os.environ |= {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    for name in ("lm_eval", "datasets"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        import lm_eval  # noqa: F401
    except ImportError as e:
        if e.name != "lm_eval":
            raise
        raise UsageError(
            "lm-evaluation-harness is not installed", "pip install 'infer-cli[lm-eval]'"
        ) from None
