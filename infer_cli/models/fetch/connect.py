"""Whether a server can be reached at all, decided within a few seconds."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

from infer_cli.models.fetch.base import SourceFailure, reason_of

CONNECT_S = 5.0


def reach(url: str) -> None:
    """Raise SourceFailure unless the URL's host (or the proxy for it) takes a connection within 5 s.

    HTTP libraries allow their connect timeout to every address of a name, and none to its lookup: on a
    network that drops packets that adds up to minutes.
    """
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url, get_environ_proxies(url))
    try:
        target = urlsplit(proxy if proxy and "://" in proxy else f"//{proxy}" if proxy else url)
        host, port = target.hostname, target.port
    except ValueError as error:
        raise SourceFailure(f"{proxy or url!r} is not a URL: {error}") from None
    if not host:
        raise SourceFailure(f"{proxy or url!r} is not a URL with a host")
    port = port or (443 if target.scheme == "https" else 80)
    what = f"{host} (proxy)" if proxy else host
    outcome: list[OSError | ValueError] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_S).close()
        except (OSError, ValueError) as error:  # ValueError: no name can be so, such as a..b
            outcome.append(error)

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(CONNECT_S)
    if attempt.is_alive() or (outcome and isinstance(outcome[0], TimeoutError)):
        raise SourceFailure(f"no connection to {what} within {CONNECT_S:g} s")
    if outcome:
        cause = outcome[0]
        if isinstance(cause, (socket.gaierror, ValueError)):
            raise SourceFailure(f"the name {what} cannot be looked up")
        raise SourceFailure(f"no connection to {what}: {cause.strerror or reason_of(cause)}")
