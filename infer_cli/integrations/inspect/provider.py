"""A model provider of inspect that computes in inspect's own process: no server."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput
from inspect_ai.tool import ToolChoice, ToolInfo

from infer_cli.api import InferError, Model, Reply, Request
from infer_cli.integrations.inspect.output import output_of
from infer_cli.integrations.inspect.request import request_of

if TYPE_CHECKING:
    from infer_cli.types import Mode

_log = logging.getLogger(__name__)

WINDOW = 4096
WIDTH = 8  # samples at a time, where --max-connections does not say


class ReplyFailed(Exception):
    """What is wrong with one request: inspect shows it as the sample's error."""


class InferAPI(ModelAPI):  # type: ignore[misc]  # inspect's types are not read
    """`infer/NAME`: NAME is a name, a path or a source, as `-m` takes it."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **model_args: Any,
    ) -> None:
        """Loads the model. `model_args` are those of `open_model`. Raises PrerequisiteError, which inspect
        shows as one line."""
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        if base_url is not None:
            raise PrerequisiteError(f"infer/{model_name} has no base URL: it computes in this process")
        known = inspect.signature(open_model).parameters
        if unknown := set(model_args) - set(known):
            names = ", ".join(list(known)[2:])
            raise PrerequisiteError(
                f"infer/{model_name} has no model argument {min(unknown)!r}; it has {names}"
            )
        connections = None if config is None else config.max_connections
        try:
            self._model = open_model(model_name, connections, **model_args)
        except InferError as e:
            raise PrerequisiteError(f"infer/{model_name}: {e.in_full}") from e
        self._key = f"{model_name} {sorted(model_args.items())}"
        if self._model.promise != self._model.mode != "fast":
            _log.warning(
                "infer promises %r, not %r, with %s here", self._model.promise, self._model.mode, model_name
            )

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Raises ReplyFailed."""
        try:
            request = request_of(input, tools, config)
            reply = await self._reply(request)
        except InferError as e:
            raise ReplyFailed(e.in_full) from e
        if reply.error is not None:
            raise ReplyFailed(reply.error["message"])
        return output_of(reply, self.model_name, self._model.detokenize)

    async def _reply(self, request: Request) -> Reply:
        """Waits in a thread: the event loop goes on, and a sample that is given up ends its reply."""
        stream = await to_thread.run_sync(self._model.submit, request)
        try:
            own = CapacityLimiter(1)  # the common one has few threads, and each of these waits for long
            reply: Reply = await to_thread.run_sync(stream.reply, abandon_on_cancel=True, limiter=own)
            return reply
        finally:
            stream.cancel()

    async def count_text_tokens(self, text: str) -> int:
        return len(await self.tokenize(text))

    async def tokenize(self, text: str) -> list[int]:
        """Ids of plain text."""
        ids: list[int] = await to_thread.run_sync(self._model.tokenize, text)
        return ids

    def max_connections(self) -> int:
        return self._model.width

    def connection_key(self) -> str:
        """Each model that is loaded has connections of its own."""
        return self._key

    def close(self) -> None:
        self._model.close()


def open_model(
    name: str,
    connections: int | None,
    *,
    mode: Mode = "invariant",
    width: int | None = None,
    window: int = WINDOW,
    threads: int | None = None,
    gpu_layers: int | str = "auto",
    chat_template: str | None = None,
    download: bool = False,
) -> Model:
    """`Model.open` with defaults for evaluation: as wide as there are connections. Raises InferError as it
    does."""
    return Model.open(
        name,
        mode=mode,
        width=width or connections or WIDTH,
        window=window,
        threads=threads,
        gpu_layers=gpu_layers,
        chat_template=chat_template,
        download=download,
    )
