"""infer: answers from local language models that can be trusted and repeated."""

__version__ = "0.1.0"
