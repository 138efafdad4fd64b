"""A model that a program has opened: its engines, who may use it, and its end."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakSet

from infer_cli.errors import ContextOverflow, UsageError

if TYPE_CHECKING:
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.runtime.session import Session


class ModelGone(UsageError):
    """The model is closed, or another process's: no single request's fault."""


class OpenModel:
    """A session and its engines. Safe to use from several threads.

    `window`: tokens that a prompt and its reply may fill together. Raises what `session.start` does.
    """

    def __init__(self, session: Session, window: int) -> None:
        self.session = session
        self.window = min(window, session.loaded.window)
        self.running = session.start(self.window)
        self._scoring: RunningEngine | None = None
        self._using = threading.Lock()  # the model in memory, beside the engines
        self._is_closed = False
        self._owner = os.getpid()
        self._n = count()
        _open_models().add(self)

    def check(self) -> None:
        """Raises ModelGone."""
        if self._is_closed:
            raise ModelGone("the model is closed", "open it again")
        if self._owner != os.getpid():
            raise ModelGone("the model was opened before this process was forked", "open it in this process")

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Session]:
        """The session, for one thread at a time, and not closed meanwhile. Raises ModelGone."""
        with self._using:
            self.check()
            yield self.session

    @property
    def scoring(self) -> RunningEngine:
        """The engine that takes requests for likelihoods: made when it is first asked for, with a window of
        its own. Raises ModelGone, OutOfMemory."""
        with self.in_use() as session:
            if self._scoring is None:
                self._scoring = session.start_scoring(self.window)
            return self._scoring

    def check_fits(self, n_tokens: int, what: str, hint: str = "") -> None:
        """Raises ContextOverflow where that is more than the window. `hint`: what else there is to do."""
        if n_tokens > self.window:
            raise ContextOverflow(
                f"{what} {n_tokens} tokens, and the model was opened for {self.window}",
                f"{hint}open the model with window={n_tokens}",
            )

    def new_id(self) -> str:
        """Of a request to an engine: those of the program may be there twice."""
        return str(next(self._n))

    def close(self) -> None:
        """End what is under way, without replies, and give the memory back. A second time does nothing."""
        with self._using:
            if self._is_closed:
                return
            self._is_closed = True
            _open_models().discard(self)
            if self._owner != os.getpid():  # a fork has no engine, and must leave alone what it shares
                return
            self.running.close()
            if self._scoring is not None:
                self._scoring.close()
            self.session.close()


@cache
def _open_models() -> WeakSet[OpenModel]:
    """Models to be closed with the interpreter: an engine must not compute while it is taken apart."""
    models: WeakSet[OpenModel] = WeakSet()

    def close_all() -> None:
        for model in list(models):
            model.close()

    atexit.register(close_all)
    return models
