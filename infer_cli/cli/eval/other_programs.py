"""What reads other programs' tasks, for those whose runs are scored: loaded where it is needed."""

from __future__ import annotations

from infer_cli.evaluation.runs.graders import Openers
from infer_cli.integrations.lm_eval.evaluation import open_grader
from infer_cli.integrations.lm_eval.names import SOURCE

OPENERS: Openers = {SOURCE: open_grader}
