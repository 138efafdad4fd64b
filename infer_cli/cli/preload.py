"""What a worker imports while the command line is still being read. Imports nothing by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module


def begin(arguments: Sequence[str]) -> None:
    """Start the worker of a command line that will need one, if its start is worth hurrying."""
    if arguments and arguments[0] in _STEPS and not {"-h", "--help"}.intersection(arguments):
        from infer_cli.process.supervisor import begin_ahead

        begin_ahead(_STEPS[arguments[0]])


def _bindings() -> None:
    from infer_cli.backend import native

    native.bindings()


def _modules(*names: str) -> list[Callable[[], object]]:
    return [partial(import_module, f"infer_cli.{name}") for name in names]


# What a load needs. The rest (numpy foremost) is imported beside the load, and would only delay it here.
_LOAD = [
    _bindings,
    *_modules(
        "runtime.llama_loading",
        "models.gguf.reading",
        "backend.llama_model",
        "models.footprint",
        "models.store",
    ),
]
_STEPS: dict[str, list[Callable[[], object]]] = {
    "run": [*_modules("cli.run.worker"), *_LOAD],
    "chat": [*_LOAD, *_modules("cli.chat.worker")],
}
