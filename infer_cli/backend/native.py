"""The one door to llama_cpp: its ctypes bindings, without the high-level package.

`import llama_cpp` would load the `Llama` class with jinja2, diskcache and a log callback that prints;
a bare package object lets the bindings module be imported alone (about a third of the time).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

from infer_cli.backend.spec import Device
from infer_cli.errors import UnexpectedFailure

BUILD_HINT = (
    "install it again: python -m pip install --no-cache-dir --force-reinstall llama-cpp-python==0.3.36"
)

_bindings: Any = None
_keep: list[object] = []  # ctypes callbacks that native code holds


def bindings() -> Any:
    """The module `llama_cpp.llama_cpp`: llama.h function by function. Loaded once a process."""
    global _bindings
    if _bindings is None:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.submodule_search_locations is None:
            raise UnexpectedFailure("llama-cpp-python is not installed", BUILD_HINT)
        if "llama_cpp" not in sys.modules:
            package = types.ModuleType("llama_cpp")
            package.__path__ = list(spec.submodule_search_locations)
            package.__spec__ = spec
            sys.modules["llama_cpp"] = package
        try:
            _bindings = importlib.import_module("llama_cpp.llama_cpp")
        except (OSError, RuntimeError, FileNotFoundError, AttributeError) as e:
            raise UnexpectedFailure(f"llama.cpp's library does not load: {e}", BUILD_HINT) from e
    return _bindings


def function(name: str, restype: Any, *argtypes: Any) -> Any:
    """A function that the bindings do not declare, or declare with another return type.

    A fresh object on the same library: the bindings' own declaration stays as it is.
    """
    lib = bindings()._lib
    try:
        address = ctypes.cast(getattr(lib, name), ctypes.c_void_p).value or 0
    except AttributeError as e:
        raise UnexpectedFailure(f"this build of llama.cpp has no {name}", BUILD_HINT) from e
    return ctypes.CFUNCTYPE(restype, *argtypes)(address)


def log_to(fd: int) -> None:
    """Send native log lines to a file descriptor. For 2 that is llama.cpp's own way, without Python."""
    L = bindings()
    if fd != 2:

        def write(_level: int, text: bytes | None, _user: object) -> None:
            with contextlib.suppress(OSError):
                os.write(fd, text or b"")

        callback = L.llama_log_callback(write)
        _keep.append(callback)
        L.llama_log_set(callback, None)
    L.llama_backend_init()


def last_words_to(fd: int) -> None:
    """Write the message of a failed GGML_ASSERT to a file descriptor before the process aborts."""
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_char_p)

    def write(message: bytes | None) -> None:
        os.write(fd, (message or b"") + b"\n")

    callback = prototype(write)
    _keep.append(callback)
    function("ggml_set_abort_callback", ctypes.c_void_p, prototype)(callback)


def trim_heap() -> None:
    """Give memory that was freed back to the system, where the C library can: a load reads a file's metadata
    into megabytes that it does not keep."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)


def versions() -> dict[str, str]:
    """Versions of the bindings, llama.cpp and ggml, and the CPU features in use."""
    L = bindings()
    return {
        "llama_cpp_python": _bindings_version(),
        "llama_cpp": function("llama_version", ctypes.c_char_p)().decode(),
        "ggml": function("ggml_version", ctypes.c_char_p)().decode(),
        "commit": function("ggml_commit", ctypes.c_char_p)().decode(),
        "system": L.llama_print_system_info().decode(errors="replace").strip(),
    }


def _bindings_version() -> str:
    """Of the distribution, whose metadata come from this line: to ask those would load a mail parser."""
    init = Path(bindings().__file__).with_name("__init__.py").read_text("utf-8")
    if found := re.search(r'^__version__ = "([^"]+)"$', init, re.MULTILINE):
        return found[1]
    from importlib.metadata import version

    return version("llama_cpp_python")


def supports_gpu() -> bool:
    return bool(bindings().llama_supports_gpu_offload())


_KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accel", 4: "meta"}


def device_handles() -> list[int]:
    """ggml_backend_dev_t of every device."""
    count = function("ggml_backend_dev_count", ctypes.c_size_t)()
    get = function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    return [get(i) for i in range(count)]


def devices() -> list[Device]:
    """Every device that this build of llama.cpp can use, the CPU among them."""
    name = function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    description = function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    kind = function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    memory = function(
        "ggml_backend_dev_memory",
        None,
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_size_t),
        ctypes.POINTER(ctypes.c_size_t),
    )
    found = []
    for handle in device_handles():
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        memory(handle, ctypes.byref(free), ctypes.byref(total))
        found.append(
            Device(
                name=name(handle).decode(errors="replace"),
                description=description(handle).decode(errors="replace"),
                kind=_KINDS.get(kind(handle), "accel"),  # type: ignore[arg-type]  # values of _KINDS
                free=free.value,
                total=total.value,
            )
        )
    return found
