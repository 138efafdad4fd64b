"""Imports go one way, without circles; `infer --help` is light; each library has its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_helpers import REPO

PACKAGE = REPO / "infer_cli"

# Packages and loose modules from the ground up: each imports from those before it, or its own.
ORDER = [
    "errors", "types", "system", "text", "settings", "process", "backend", "engine", "models", "vocab",
    "prompt", "runtime", "answering", "scoring", "prefix_cache", "records", "conversation", "sinks", "batch",
    "checking", "evaluation", "program", "api", "integrations", "cli", "__main__",
]  # fmt: skip

# Who may import a library; others may not. Heavy ones only inside functions, or in modules that --help skips.
ONLY_IN = {
    "llama_cpp": {"backend.native"},
    "ctypes": {"backend", "prompt.renderer_process", "evaluation.scorers.code_runner"},
    "typer": {"cli"},
    "rich": {"cli", "sinks"},
    "jinja2": {
        "prompt.sandbox",
        "prompt.template_charges",
        "prompt.template_work",
        "prompt.renderer_process",
    },
    "tiktoken": {"vocab"},
    "tomlkit": {"models.catalogue_edit", "settings.config_edit"},
    "platformdirs": {"system.paths"},
    "huggingface_hub": {"models.fetch"},
    "requests": {"models.fetch"},
    "filelock": {"models", "records", "system", "batch"},
    "sqlite3": {"records"},
    "prompt_toolkit": {"cli"},
    "wcwidth": {"text.graphemes"},
    "re2": {"evaluation.scorers.linear_regex"},
    "jsonpath_rfc9535": {"evaluation.scorers.json_path"},
    "jsonschema_rs": {"evaluation.scorers.json_schema"},
    "lm_eval": {"integrations.lm_eval"},
    "inspect_ai": {"integrations.inspect"},
    "matplotlib": {"evaluation.comparing.picture", "evaluation.report.plots"},
    # Only tests compare with them.
    "scipy": set(),
    "statsmodels": set(),
}

HEAVY = {
    "llama_cpp", "numpy", "jinja2", "rich", "tiktoken", "sqlite3", "huggingface_hub", "requests", "tomllib",
    "tomlkit", "prompt_toolkit", "wcwidth", "re2", "jsonpath_rfc9535", "jsonschema_rs", "matplotlib",
    "infer_cli.engine.engine", "infer_cli.models.store", "infer_cli.cli.flags.options", "ctypes",
}  # fmt: skip


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "infer_cli"


def _modules() -> dict[str, ast.Module]:
    return {_name(path): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}


def _imports(tree: ast.Module) -> set[str]:
    """Full names of everything imported, inside functions and for type checking too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _graph() -> dict[str, set[str]]:
    """Each module of ours with those that it imports."""
    modules = _modules()
    graph: dict[str, set[str]] = {}
    for module, tree in modules.items():
        graph[module] = set()
        for full in _imports(tree):
            target = full.removeprefix("infer_cli").removeprefix(".") if full.startswith("infer_cli") else ""
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != module:
                graph[module].add(target)
    return graph


def _place(module: str) -> int:
    top = module.partition(".")[0]
    assert top in ORDER, f"{top} has no place in ORDER: say what it is built on"
    return ORDER.index(top)


def test_the_order_names_what_is_there() -> None:
    there = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - {"__init__", "__pycache__"} == set(ORDER)


def test_few_modules_are_loose() -> None:
    loose = [path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]
    assert len(loose) <= 5, loose


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_down_only(package: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in _graph().items()
        if module.partition(".")[0] == package
        for target in targets
        if _place(target) > _place(module)
    ]
    assert not wrong


def _circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Strongly connected parts of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> Iterator[list[str]]:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in graph[module]:
            if target not in index:
                yield from visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            part = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(part) > 1:
                yield part

    for module in graph:
        if module not in index:
            yield from visit(module)


def test_no_circles() -> None:
    assert list(_circles(_graph())) == []


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert [sorted(part) for part in _circles(graph)] == [["a", "b", "c"]]


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
