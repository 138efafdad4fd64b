"""A text from a web address, because it was asked for by name. What comes is not trusted."""

from __future__ import annotations

import re
import time
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from infer_cli.errors import SourceUnreachable, UsageError
from infer_cli.models.fetch.base import GONE, NOTHING_THERE, SourceFailure, innermost_reason, plain
from infer_cli.models.fetch.connect import reach
from infer_cli.system.files import MOST_INPUT

if TYPE_CHECKING:
    import requests

_READ_S = 30.0  # a server that sends nothing for so long has gone
_MOST_S = 120.0  # for all of a page
_STEP = 1 << 16
# `text/…` is text, and these are too, as is what ends in +json, +xml or +yaml.
_TEXTS = re.compile(
    r"text/.*|application/(.*\+)?(json|xml|yaml|toml|javascript|sql|x-ndjson|x-sh|x-yaml|jsonl|ld\+json)"
)
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)
_SAVE_IT = "save it in a file, and give -f FILE"
_TEXT_ONLY = "-f takes text: save the page as text, and name that file"


def fetch_text(url: str) -> str:
    """The text at a web address, as it is: HTML keeps its tags. No cookie, token or password is sent.

    Raises SourceUnreachable, also where what comes is no text; UsageError for an address that can't be asked,
    and for a text of more bytes than a file may have.
    """
    _check(url)
    try:
        return _fetched(url.partition("#")[0])
    except SourceFailure as error:
        raise SourceUnreachable(
            f"{plain(url)}: {error.reason}", error.hint or "try again, or save it in a file"
        ) from None


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is no number
    except ValueError as error:
        raise UsageError(f"{plain(url)} is no web address: {error}") from None
    if not parts.hostname or not url.isprintable() or " " in url:
        raise UsageError(f"{plain(url)} is no web address", "write https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"a user and a password are not sent to {parts.hostname}", _SAVE_IT)


def _fetched(url: str) -> str:
    from infer_cli.models.fetch.http_session import MALFORMED, Session, answer_to

    reach(url)
    try:
        with Session() as session:
            session.auth = _no_credentials
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            with answer_to(session, "GET", url, {"Accept": "text/*, */*;q=0.5"}, read_s=_READ_S) as response:
                return _text_of(response)
    except MALFORMED as error:
        raise SourceFailure(innermost_reason(error)) from error


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from sending what ~/.netrc or the address says of the host."""
    return request


def _text_of(response: requests.Response) -> str:
    if response.status_code >= 400:
        raise SourceFailure(
            f"the server answers {response.status_code} {response.reason or ''}".strip(),
            NOTHING_THERE if response.status_code in GONE else "",
        )
    declared = response.headers.get("Content-Type", "")
    kind = declared.partition(";")[0].strip().lower()
    if kind and not _TEXTS.fullmatch(kind):
        raise SourceFailure(f"it is {kind}, and no text", _TEXT_ONLY)
    data = _body(response)
    charset = _CHARSET.search(declared)
    try:
        text = data.decode(charset[1] if charset else "utf-8")
    except LookupError:
        raise SourceFailure(f"its character set is not known here: {declared}") from None
    except UnicodeDecodeError as error:
        raise SourceFailure(f"it is not {error.encoding}: byte {error.start} is wrong") from None
    if "\0" in text:
        raise SourceFailure("it is binary, and no text", _TEXT_ONLY)
    return text.removeprefix("\ufeff")


def _body(response: requests.Response) -> bytes:
    deadline = time.monotonic() + _MOST_S
    data = bytearray()
    for piece in response.iter_content(_STEP):
        data += piece
        if len(data) > MOST_INPUT:
            raise UsageError(
                f"{plain(response.url)}: more than {MOST_INPUT // 10**6} MB of text",
                "give the part that matters",
            )
        if time.monotonic() > deadline:
            raise SourceFailure(f"it did not come within {_MOST_S:.0f} s")
    return bytes(data)
