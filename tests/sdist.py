"""What llama.cpp ships in the sdist of llama-cpp-python: vocabularies with expected ids, real chat templates.

`INFER_TEST_SDIST` names its unpacked directory; without it the sdist is downloaded once, as pip is
configured to.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import pytest

_SDIST = os.environ.get("INFER_TEST_SDIST")
_KEPT = ("ggml-vocab-", "templates/")  # of vendor/llama.cpp/models


def models_dir(cache: pytest.Cache) -> Path:
    """Where ggml-vocab-*.gguf, .inp and .out are, and the folder `templates`."""
    if _SDIST is not None:
        found = Path(_SDIST) / "vendor" / "llama.cpp" / "models"
        assert found.is_dir(), f"INFER_TEST_SDIST={_SDIST} is no unpacked sdist: no {found}"
        return found
    wanted = version("llama_cpp_python")
    kept = Path(cache.mkdir(f"llama-cpp-python-{wanted}"))
    found = kept / "llama.cpp-models"
    if not found.is_dir():
        package = f"llama-cpp-python=={wanted}"
        options = ["--quiet", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(kept)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True, timeout=540)
        (archive,) = kept.glob("*.tar.gz")
        _unpack(archive, found)
        archive.unlink()
    return found


def _unpack(archive: Path, target: Path) -> None:
    partial = target.with_name("models.part")
    (partial / "templates").mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            _, folder, path = member.name.partition("/vendor/llama.cpp/models/")
            if folder and path.startswith(_KEPT) and member.isfile():
                file = tar.extractfile(member)
                assert file is not None
                parts = PurePosixPath(path).parts
                (partial / ("templates" if len(parts) > 1 else "") / parts[-1]).write_bytes(file.read())
    partial.rename(target)
