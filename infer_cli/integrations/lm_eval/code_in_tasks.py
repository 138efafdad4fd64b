"""Whether a task of the harness is code: found in its files before the harness reads them, as it runs what
they name while it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from infer_cli.errors import UsageError

_PLAIN = "tag:yaml.org,2002:"
_FUNCTION = "!function"


def code_of_file(path: Path, seen: frozenset[Path] = frozenset()) -> str | None:
    """What a task's YAML, or one that it includes, has run; None for nothing. Nothing is constructed of it.

    Raises UsageError for a file that can't be read.
    """
    path = path.expanduser().resolve()
    if path in seen:
        return None
    try:
        root = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError) as e:
        raise UsageError(f"{path} can't be read: {' '.join(str(e).split())}") from None
    for node in _nodes(root):
        if node.tag == _FUNCTION:
            return f"{node.value} in {path}"
        if not node.tag.startswith(_PLAIN) or node.tag.startswith(f"{_PLAIN}python"):
            return f"{node.tag} in {path}"
    for included in _included(root):
        if (found := code_of_file(path.parent / included, seen | {path})) is not None:
            return found
    return None


def code_of_config(config: Mapping[str, object], known_metrics: Mapping[str, object]) -> str | None:
    """What a task's values have run, functions left aside: code of the hub, or what a model writes."""
    if config.get("unsafe_code"):
        return "unsafe_code"
    arguments = config.get("dataset_kwargs")
    if isinstance(arguments, dict) and arguments.get("trust_remote_code"):
        return "trust_remote_code"
    for metric in _dicts(config.get("metric_list")):
        name = metric.get("metric")
        if metric.get("hf_evaluate") or (isinstance(name, str) and name not in known_metrics):
            return f"the metric {name} of the hub"
    return None


def _dicts(value: object) -> list[Mapping[str, object]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Of a document. An alias is the node that it names: each is looked at once."""
    waiting, seen = [root] if root is not None else [], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _included(root: yaml.Node | None) -> list[str]:
    if not isinstance(root, yaml.MappingNode):
        return []
    found: list[str] = []
    for key, value in root.value:
        if key.value == "include":
            found += (
                [each.value for each in value.value]
                if isinstance(value, yaml.SequenceNode)
                else [value.value]
            )
    return found
