"""A loaded model with its engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_cli.engine.policy import Policy

if TYPE_CHECKING:
    from infer_cli.backend.base import Backend
    from infer_cli.engine.service import Service


@dataclass(frozen=True)
class Running:
    """A loaded model with its engine. `facts` gathers what the fingerprint is taken of."""

    service: Service
    backend: Backend
    policy: Policy
    facts: Callable[[], dict[str, object]]
