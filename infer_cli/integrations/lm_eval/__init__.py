"""lm-evaluation-harness: `model.InferLM` is one of its models, `python -m infer_cli.integrations.lm_eval` is
its own command line, which knows that model as `infer`."""
