"""Imports go one way, `infer --help` is light, and each library has its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.cli_helpers import REPO

PACKAGE = REPO / "infer_cli"

# Rooms from the bottom up: a module imports from rooms below its own, or its own.
ROOMS = [
    {"infer_cli", "errors", "types", "paths", "private_files", "sha256", "ids", "alike", "child_process",
     "starter", "template_errors", "backend.spec", "backend.base"},
    {"given", "durations", "report", "machine", "textstream", "reasoning", "seeds", "reply",
     "settings", "sizes", "files", "toml_file", "userconfig", "sandbox", "renderer", "renderer_link",
     "renderer_process", "gguf", "sources", "digests",
     "streams", "json_text", "gguf_check", "seams",
      "bpe_vocab", "pretokenizers", "attachments", "overflow", "shortening", "summarizing", "context_budget",
     "sanitize", "filtered"},
    {"installed", "memory", "expansion", "records", "tokenizer", "tiktoken_file", "neighbours", "template",
     "template_check", "promptlib", "prompt", "supervisor", "catalogue", "prefix_store", "backend.native",
     "backend.llama_model", "backend.fake", "engine.history", "engine.scheduler", "engine.policy",
     "engine.drafting", "engine.admission", "fetch"},
    {"shelf", "catalogue_edit", "model_facts", "backend.llama", "engine.engine", "fingerprint", "sinks"},
    {"engine.service"},
    {"loading"},
    {"oneshot", "conversation", "pace", "probing", "verdicts", "prefix_cache"},
    {"replaying", "continuing", "batch"},
    {"cli"},
    {"__main__"},
]  # fmt: skip

# Who may import a library. None: anyone, inside functions only.
ONLY_IN = {
    "llama_cpp": {"backend.native"},
    "ctypes": {"backend", "renderer_process"},
    "typer": {"cli"},
    "rich": {"cli", "sinks"},
    "jinja2": {"sandbox", "renderer_process"},
    "tiktoken": {"tokenizer"},
    "platformdirs": {"paths"},
    "huggingface_hub": {"fetch"},
    "requests": {"fetch"},
    "filelock": {"shelf", "records", "batch"},
    "sqlite3": {"records"},
    "prompt_toolkit": {"cli"},
}

HEAVY = {
    "llama_cpp", "numpy", "jinja2", "rich", "tiktoken", "sqlite3", "huggingface_hub", "requests", "tomllib",
    "prompt_toolkit",
    "infer_cli.engine.engine", "infer_cli.models.shelf", "ctypes",
}  # fmt: skip


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "infer_cli"


def _modules() -> dict[str, ast.Module]:
    return {_name(path): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}


def _imports(tree: ast.Module) -> set[str]:
    """Full names of everything imported, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _room_of(module: str) -> int:
    """The room of the longest name that `module` begins with."""
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        name = ".".join(parts[:size])
        for i, room in enumerate(ROOMS):
            if name in room:
                return i
    raise AssertionError(f"{module} has no room: give it one in tests/project/test_imports.py")


def test_imports_go_down_only() -> None:
    modules = _modules()
    wrong = []
    for module, tree in modules.items():
        for full in _imports(tree):
            if not full.startswith("infer_cli"):
                continue
            target = full.removeprefix("infer_cli").removeprefix(".")
            while target and target not in modules:
                target = target.rpartition(".")[0]
            target = target or "infer_cli"
            if _room_of(target) > _room_of(module):
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_each_library_has_its_room() -> None:
    wrong = []
    for module, tree in _modules().items():
        for full in _imports(tree):
            allowed = ONLY_IN.get(full.partition(".")[0])
            if allowed is not None and not any(module == a or module.startswith(a + ".") for a in allowed):
                wrong.append(f"{module} imports {full}")
    assert not wrong


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['infer', '--help']\n"
        "from infer_cli.__main__ import main\n"
        "import os\n"
        "os._exit = lambda status: print('\\n'.join(sys.modules), file=sys.stderr)\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "run" in done.stdout
    loaded = set(done.stderr.split())
    assert "infer_cli.cli.app" in loaded
    assert not HEAVY & loaded
