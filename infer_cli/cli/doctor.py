"""`infer doctor`: what is installed, what is missing, what to do about it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import typer

from infer_cli.cli.flags.lists import AsJson, AsJsonl, print_objects, wants_json
from infer_cli.errors import ExitStatus, InferError

_GPU_HINT = (
    'a GPU needs another build: CMAKE_ARGS="-DGGML_CUDA=on" (or -DGGML_METAL=on, -DGGML_VULKAN=on,'
    " -DGGML_HIP=on) python -m pip install --no-cache-dir --force-reinstall --no-deps"
    " llama-cpp-python==0.3.36"
)


_INDENT = 6


class Finding(NamedTuple):
    ok: bool
    what: str
    hint: str = ""


def doctor(
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="llama.cpp's log on stderr.")] = False,
) -> int:
    """Check the installation. Exit code 1 where something does not work."""
    from infer_cli.process.supervisor import supervise
    from infer_cli.process.worker import Worker

    in_json = wants_json(as_json, as_jsonl)

    def work(worker: Worker) -> int:
        from infer_cli.backend import native

        native.log_to(worker.native_fd)
        failed: list[Finding] = []

        def findings() -> Iterator[Finding]:
            for finding in _findings():
                if not finding.ok:
                    failed.append(finding)
                yield finding

        if in_json:
            print_objects((finding._asdict() for finding in findings()), lines=as_jsonl)
        else:
            for finding in findings():
                print("ok  " if finding.ok else "FAIL", _indented(finding.what).removeprefix(" " * 5))
                if finding.hint:
                    print(" " * _INDENT + finding.hint)  # it may hold a command, to be copied as it is
                sys.stdout.flush()  # a crash in the next check must not take this line along
        return ExitStatus.UNEXPECTED if failed else ExitStatus.OK

    return supervise(work, verbose=verbose)


def _indented(text: str) -> str:
    """Right of the outcomes; on a terminal what is too long goes on in the next line."""
    from infer_cli.cli.screen.terminal import columns_of
    from infer_cli.text.graphemes import wrapped

    if sys.stdout.isatty():
        return "\n".join(wrapped(text, _INDENT, columns_of(sys.stdout)))
    return " " * _INDENT + text


def _findings() -> Iterator[Finding]:
    from infer_cli import __version__
    from infer_cli.backend import native
    from infer_cli.settings.sizes import size_text
    from infer_cli.system import paths
    from infer_cli.system.memory import available_memory
    from infer_cli.system.processors import default_threads

    yield Finding(True, f"infer {__version__}, Python {platform.python_version()}, {platform.platform()}")
    versions = native.versions()
    yield Finding(
        True,
        f"llama-cpp-python {versions['llama_cpp_python']}, llama.cpp {versions['commit']}",
    )
    yield Finding(True, versions["system"])
    for device in native.devices():
        yield Finding(True, f"device {device.name}: {device.description}, {size_text(device.free)} free")
    yield Finding(True, "GPU offload" if native.supports_gpu() else "no GPU offload in this build",
                  "" if native.supports_gpu() else _GPU_HINT)  # fmt: skip
    memory = available_memory()
    yield Finding(
        True,
        f"{default_threads()} threads by default, "
        f"{size_text(memory) if memory is not None else 'an unknown amount'} of memory available",
    )
    for name, directory in (
        ("models", paths.models_dir()),
        ("data", paths.data_dir()),
        ("cache", paths.cache_dir()),
        ("configuration", paths.config_dir()),
    ):
        yield _directory(name, str(directory))
    yield _default_model()


def _directory(name: str, path: str) -> Finding:
    existing = path
    while not os.path.exists(existing) and os.path.dirname(existing) != existing:
        existing = os.path.dirname(existing)
    if os.access(existing, os.W_OK):
        return Finding(True, f"{name}: {path}")
    return Finding(False, f"{name}: {path} cannot be written", "set INFER_HOME to another directory")


def _default_model() -> Finding:
    """Whether the default model is here and computes: a wrong CPU build fails at the first product."""
    from infer_cli.models.store import resolve

    try:
        model = resolve(None, offline=True)
    except InferError as e:
        return Finding(True, f"default model not installed: {e.message}", e.hint)
    return _decodes(model.name, str(model.path))


def _decodes(name: str, path: str) -> Finding:
    from pathlib import Path

    import numpy as np

    from infer_cli.backend.base import DecodeStatus
    from infer_cli.backend.llama import LlamaBackend
    from infer_cli.backend.llama_model import LlamaModel
    from infer_cli.backend.spec import ContextSpec, ModelSpec
    from infer_cli.models.gguf.check import check_model
    from infer_cli.models.gguf.reading import read_model_header
    from infer_cli.system.processors import default_threads

    try:
        check_model(read_model_header(Path(path)))
        model = LlamaModel(ModelSpec(Path(path)))
        backend = LlamaBackend(model, ContextSpec(256, 1, 32, 1, default_threads()))
        status = backend.decode([1], [0], [0], [True])
        finite = status is DecodeStatus.OK and bool(np.isfinite(backend.logits(1)).all())
    except InferError as e:
        return Finding(False, f"default model {name}: {e.message}", e.hint)
    return Finding(finite, f"default model {name} {'computes' if finite else 'does not compute'}: {path}")
