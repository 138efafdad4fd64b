"""Chat templates that we have read, by their hash. They are rendered in this process.

Each loops over the messages once and writes them: neither its time nor its memory can outgrow the input. That
saves the default model a process. Any other template is untrusted: `infer_cli.prompt.renderer` renders it.
The sandbox counts the work of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from infer_cli.prompt.renderer import TemplateSource, shared
from infer_cli.system.hashing import sha256_hex

if TYPE_CHECKING:
    from infer_cli.prompt.sandbox import BoundedTemplate

# sha256 of the source. None of them reads a clock, tools or variables.
VOUCHED_FOR = {
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": "SmolLM2 Instruct",
    "4f05b98fc0a9dde9a39d4b6e17f3bf427b1eea5b95776755fd5d05cda72a3b35": "the fake model",
}


class TemplateRenderer(Protocol):
    """What renders a template. Raises TemplateFailed, TemplateRaised."""

    def compile(self, source: TemplateSource) -> None: ...

    def render(
        self, source: TemplateSource, variables: Mapping[str, object], *, seconds: float | None = None
    ) -> str: ...


class VouchedRenderer:
    """Renders in this process. `seconds` need no watch: these templates are done at once."""

    def compile(self, source: TemplateSource) -> None:
        _compiled(source.text)

    def render(
        self, source: TemplateSource, variables: Mapping[str, object], *, seconds: float | None = None
    ) -> str:
        return _compiled(source.text).render(variables)


@lru_cache(maxsize=2)
def _compiled(text: str) -> BoundedTemplate:
    from infer_cli.prompt.sandbox import BoundedTemplate

    return BoundedTemplate(text)


def is_vouched_for(text: str) -> bool:
    return sha256_hex(text.encode("utf-8", "surrogatepass")) in VOUCHED_FOR


def renderer_of(text: str) -> TemplateRenderer:
    """What renders a chat template of this source."""
    return VouchedRenderer() if is_vouched_for(text) else shared()


def begin_for(text: str | None) -> None:
    """Begin to start what renders this chat template, if it takes a start. None: it is not known yet."""
    if text is None or not is_vouched_for(text):
        shared().begin()
