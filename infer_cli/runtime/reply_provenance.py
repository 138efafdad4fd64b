"""What a reply came from: the model's hash, the engine's fingerprint, whether a probe has confirmed it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from infer_cli.runtime.engine_facts import fingerprint
from infer_cli.types import EngineIdentity, ModelIdentity, Provenance

if TYPE_CHECKING:
    from infer_cli.models.installed import InstalledModel
    from infer_cli.runtime.engine_facts import EngineFacts


_F16_PROMPT = {"prompt_weights": "f16"}


class ModelHash:
    """The hash of a model's file. One never seen before is hashed on a thread, beside the generation."""

    def __init__(self, model: InstalledModel) -> None:
        self._model, self._sha256 = model, model.sha256
        self._hashing: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to hash, if there is need."""
        if self._sha256 is None and not self._model.is_fake and self._hashing is None:
            self._hashing = threading.Thread(target=self._hash, daemon=True)
            self._hashing.start()

    def _hash(self) -> None:
        from infer_cli.models.hashes import file_sha256

        self._sha256 = file_sha256(self._model.path)

    def get(self) -> str | None:
        """Waits for it. None for the fake model."""
        self.begin()
        if self._hashing is not None:
            self._hashing.join()
        return self._sha256


class EngineProvenance:
    """Where the replies of one engine come from, gathered when it is first asked for."""

    def __init__(self, name: str, sha256: ModelHash, facts: Callable[[], EngineFacts]) -> None:
        self._name, self._sha256, self._facts = name, sha256, facts
        self._found: Provenance | None = None

    def __call__(self) -> Provenance:
        if self._found is None:
            from infer_cli.runtime.probe_verdicts import was_probed

            facts = self._facts()
            engine = EngineIdentity(facts.infer, facts.llama_cpp, facts.fingerprint, facts.as_json())
            model = ModelIdentity(self._name, self._sha256.get())
            self._found = Provenance(model, engine, was_probed(model.sha256, facts))
        return self._found


def after_f16_prompt(came_from: Provenance) -> Provenance:
    """Of a reply whose prompt F16 weights have read, and then this engine has gone on."""
    facts = {**came_from.engine.facts, **_F16_PROMPT}
    return came_from._replace(engine=came_from.engine._replace(fingerprint=fingerprint(facts), facts=facts))


def has_f16_prompt(facts: Mapping[str, object]) -> bool:
    """Whether F16 weights have read the prompt of a reply with these facts of its engine."""
    return facts.items() >= _F16_PROMPT.items()
