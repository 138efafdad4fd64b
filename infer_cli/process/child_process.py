"""How this program starts others: nothing that lies in the working directory is run.

Python puts the working directory first on its path for `-m` and `-c`, and anyone may have put files there. A
script gets its own folder instead. `-P` would do too, but not in Python 3.10; `-I` would hide PYTHONPATH and
the user's own packages.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(_HERE)
_ROOT = os.path.dirname(_PACKAGE)
_STARTER = os.path.join(_HERE, "starter", "run_module.py")


def leave_working_directory() -> None:
    """Take the working directory off this process's path, unless this package was found there.

    It is there after `python -m`, and after a PYTHONPATH with an empty entry.
    """
    try:
        here = os.getcwd()
    except OSError:  # it was removed: nothing is found there
        return
    if here == _ROOT:
        return
    if sys.path and sys.path[0] in ("", here):
        del sys.path[0]
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here in sys.path and here not in named and any(map(_is_here, named)):
        sys.path.remove(here)


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line of `python -m MODULE ARGUMENTS`, in the isolation that this process has itself."""
    options = []
    if sys.flags.isolated:
        options.append("-I")
    elif sys.flags.ignore_environment:
        options.append("-E")
    if sys.flags.no_user_site and not sys.flags.isolated:
        options.append("-s")
    return _module_command(options, module, arguments)


def same_command() -> list[str]:
    """This process's own command line, interpreter options included."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or spec.name == "__main__":  # a script, whose own folder is on the path
        return [sys.executable, *sys.orig_argv[1:]]
    *options, last = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    flag = last[: last.index("m")] if last.startswith("-") else options.pop()[:-1]  # -mNAME or -m NAME
    if flag not in ("", "-"):
        options.append(flag)
    return _module_command(options, spec.name.removesuffix(".__main__"), sys.argv[1:])


def environment() -> dict[str, str]:
    """This process's environment for a child: no entry of PYTHONPATH is the working directory."""
    # PYTHONINSPECT would import readline before the child's first statement.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONINSPECT"}
    if "PYTHONPATH" in kept:
        entries = kept.pop("PYTHONPATH").split(os.pathsep)
        if found := [entry for entry in entries if not _is_here(entry)]:
            kept["PYTHONPATH"] = os.pathsep.join(found)
    return kept


def find_program(name: str) -> str | None:
    """The full path of a program; None if there is none on PATH. One in the working directory does not count,
    as it would on Windows, and with an empty entry of PATH."""
    import shutil

    if os.path.dirname(name):
        return shutil.which(name)
    folders = filter(os.path.isabs, os.environ.get("PATH", os.defpath).split(os.pathsep))
    found = shutil.which(name, path=os.pathsep.join(folders))
    return found if found is not None and os.path.isabs(found) else None


def _module_command(options: list[str], module: str, arguments: list[str] | tuple[str, ...]) -> list[str]:
    root = _ROOT if module.partition(".")[0] == os.path.basename(_PACKAGE) else ""
    return [sys.executable, *options, _STARTER, root, module, *arguments]


def _is_here(entry: str) -> bool:
    """Whether an entry of a path means the working directory wherever that is."""
    return os.path.normpath(entry) == os.curdir
