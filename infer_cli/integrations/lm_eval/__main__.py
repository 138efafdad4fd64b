"""lm-evaluation-harness's own command line, with one model more: `--model infer`.

It knows no plugins, so the model is made known before its command line runs.
"""

from __future__ import annotations

import sys

from infer_cli.api import InferError

_NAME = "infer"


def main() -> int:
    """Runs `sys.argv`. What infer refuses is one line and one of its exit codes."""
    try:
        from lm_eval.__main__ import cli_evaluate
        from lm_eval.api.registry import model_registry
    except ImportError as e:
        if e.name != "lm_eval":
            raise
        print("error: lm-evaluation-harness is not installed", file=sys.stderr)
        print("hint: pip install 'infer-cli[lm-eval]'", file=sys.stderr)
        return 1
    model_registry.register(_NAME, target="infer_cli.integrations.lm_eval.model:InferLM")
    try:
        cli_evaluate()
    except InferError as e:
        print(f"error: {e.message}", file=sys.stderr)
        if e.hint:
            print(f"hint: {e.hint}", file=sys.stderr)
        return int(e.exit_status)
    return 0


if __name__ == "__main__":
    sys.exit(main())
