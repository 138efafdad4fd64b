"""What a reply came from: the model's hash, the engine's fingerprint, whether a probe has confirmed it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infer_cli.types import Provenance

if TYPE_CHECKING:
    from infer_cli.models.installed import InstalledModel


class Description:
    """The model and engine parts of a reply. Hashing a model never seen before runs beside the generation."""

    def __init__(
        self, model: InstalledModel | None, name: str | None, facts: Callable[[], dict[str, object]]
    ) -> None:
        self._model, self._name, self._facts = model, name, facts
        self._found: Provenance | None = None
        self._sha256 = model.sha256 if model is not None else None
        self._hashing: threading.Thread | None = None
        if model is not None and self._sha256 is None:
            self._hashing = threading.Thread(target=self._hash, args=(model.path,), daemon=True)
            self._hashing.start()

    def _hash(self, path: Path) -> None:
        from infer_cli.models.hashes import file_sha256

        self._sha256 = file_sha256(path)

    def get(self) -> Provenance:
        if self._found is None:
            from infer_cli.runtime.fingerprint import fingerprint
            from infer_cli.runtime.verdicts import was_probed

            facts = self._facts()
            engine = {
                "infer": facts["infer"],
                "llama_cpp": facts["llama_cpp"],
                "fingerprint": fingerprint(facts),
                "facts": facts,
            }
            if self._hashing is not None:
                self._hashing.join()
            name = self._model.name if self._model is not None else self._name
            model: dict[str, object] = {"name": name, "sha256": self._sha256}
            self._found = Provenance(model, engine, was_probed(self._sha256, facts))
        return self._found
