"""inspect (inspect_ai): the model provider `infer/NAME`, which inspect finds as an entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspect_ai.model import modelapi

if TYPE_CHECKING:
    from inspect_ai.model import ModelAPI


@modelapi(name="infer")  # type: ignore[untyped-decorator]  # inspect's types are not read
def infer() -> type[ModelAPI]:
    """The provider, loaded when a model of it is asked for."""
    from infer_cli.integrations.inspect.provider import InferAPI

    return InferAPI
