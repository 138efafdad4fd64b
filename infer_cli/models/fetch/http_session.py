"""HTTP requests whose answers are not trusted: each redirect is checked, and nothing is read unasked.

Imports requests; import this module inside functions.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from infer_cli.models.fetch.base import SourceFailure
from infer_cli.models.fetch.connect import CONNECT_S
from infer_cli.models.sources import LOOPBACK

MAX_REDIRECTS = 10
# What a malformed answer makes the libraries raise. requests' own exceptions are OSErrors; others pass it.
# RecursionError: deeply nested JSON.
MALFORMED = (OSError, ValueError, urllib3.exceptions.HTTPError, http.client.HTTPException, RecursionError)
MOST_BYTES = 1 << 44  # of a file; the largest models have some 2 TB
_NUMBER = re.compile(r"[0-9]{1,18}")  # Python refuses to read much longer ones


class Session(requests.Session):
    """A session that follows no redirect, and so does not read its body, which may have no end."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


@contextmanager
def answer_to(
    session: Session,
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    read_s: float,
    stay: bool = False,
) -> Iterator[requests.Response]:
    """The answer to a request, its body unread, behind at most `MAX_REDIRECTS` redirects.

    The headers' token goes to no other host. With `stay` a redirect to another host is itself the answer.
    Raises SourceFailure for a redirect that is refused, and requests' exceptions.
    """
    sent = {"Accept-Encoding": "identity", "User-Agent": "infer", **headers}
    for _ in range(MAX_REDIRECTS + 1):
        response = session.request(
            method,
            url,
            headers=sent,
            auth=_as_it_is if "Authorization" in sent else None,
            stream=True,
            timeout=(CONNECT_S, read_s),
            allow_redirects=False,
        )
        with response:
            target = _redirect_target(response, url)
            if target is None or (stay and urlsplit(target).netloc != urlsplit(url).netloc):
                yield response
                return
        check_redirect(url, target)
        if session.should_strip_auth(url, target):
            sent.pop("Authorization", None)
        url = target
    raise SourceFailure(f"the server redirects more than {MAX_REDIRECTS} times")


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from replacing the token by what ~/.netrc says of the host."""
    return request


def _redirect_target(response: requests.Response, url: str) -> str | None:
    """Where a redirect leads; None if the answer is none. Raises SourceFailure if it leads nowhere."""
    if not response.is_redirect:
        return None
    try:
        # http.client reads headers as Latin-1, servers write UTF-8.
        target = urljoin(url, response.headers["Location"].encode("latin-1").decode("utf-8"))
        parts = urlsplit(target)
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        raise SourceFailure("the server redirects to what is no URL") from None
    if not parts.hostname:
        raise SourceFailure("the server redirects to a URL without a host")
    return target


def check_redirect(url: str, target: str) -> None:
    """Raise SourceFailure unless a redirect from `url` may be followed.

    To https: always. To http: never from https, and from http only to the same host, or on this machine: what
    the user allowed for one host is not allowed for another.
    """
    here, there = urlsplit(url), urlsplit(target)
    if there.scheme == "https":
        return
    if there.scheme != "http":
        raise SourceFailure(f"the server redirects to {there.scheme}:, which is no web address")
    if here.scheme == "https":
        raise SourceFailure(f"the server redirects from https: to http: (host {there.hostname})")
    if there.hostname != here.hostname and not {here.hostname, there.hostname} <= set(LOOPBACK):
        raise SourceFailure(f"the server redirects to {there.hostname} by http:, which is not encrypted")


def number_in(text: str | None) -> int | None:
    """A length that a server states; None where it states none. Raises SourceFailure if it is no number,
    or more than any model has: a lie must not be taken for a want of room on the disk."""
    if text is None:
        return None
    if not _NUMBER.fullmatch(text.strip()):
        raise SourceFailure(f"the server states a length that is no number: {text[:40]!r}")
    if (length := int(text)) > MOST_BYTES:
        raise SourceFailure(f"the server states a length of {length} bytes, which no model has")
    return length
