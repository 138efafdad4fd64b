"""The user's own editor ($VISUAL, $EDITOR)."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from infer_cli.errors import UsageError
from infer_cli.process.child_process import find_program
from infer_cli.prompt.messages import decode_input


def edit_file(path: Path) -> bool:
    """Open a file; returns whether the editor ended well. Raises UsageError where there is no editor."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    command = command or ("notepad" if sys.platform == "win32" else "vi")
    words = shlex.split(command, posix=sys.platform != "win32")
    editor = find_program(words[0]) if words else None
    if editor is None:
        raise UsageError(f"no editor {command!r}", "set EDITOR to one that is installed")
    # Descriptors 1 and 2 belong to native code's log in a worker; where the replies go to a file, the
    # editor's screen does not.
    screen = sys.stdout if sys.stdout.isatty() else sys.stderr
    return (
        subprocess.run(
            [editor, *words[1:], str(path)], stdout=screen, stderr=sys.stderr, check=False
        ).returncode
        == 0
    )


def edit_text(text: str) -> str:
    """What the editor makes of a text; the same text where it fails. Raises UsageError as `edit_file`."""
    handle, name = tempfile.mkstemp(prefix="infer-", suffix=".md")
    path = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        if not edit_file(path):
            return text
        return decode_input(path.read_bytes(), "the edited text").rstrip("\n")
    finally:
        path.unlink(missing_ok=True)
