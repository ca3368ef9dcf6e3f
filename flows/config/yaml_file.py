"""YAML files as people mean them, with the line of each key."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nightshift.adapters.errors import ConfigurationError

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML whose keys are strings, each there once: PyYAML would silently keep the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            if isinstance(key, yaml.ScalarNode) and key.value == "on":
                key.tag = _TEXT  # YAML 1.1 takes it for true
            text = isinstance(key, yaml.ScalarNode) and key.tag == _TEXT
            if not text or key.value in seen:
                problem = "appears twice" if text else "must be a string; quote it"
                problem = f"the key {key.value} {problem}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return node


@dataclass(frozen=True)
class YamlFile:
    """What a file says, and where."""

    path: Path
    content: dict[str, Any]
    root: yaml.Node | None

    def locate(self, keys: Sequence[str]) -> str:
        """`config/jobs/churn.yaml, line 7`: the line of the last of these keys that is there."""
        node, line = self.root, None
        for wanted in keys:
            if isinstance(node, yaml.SequenceNode) and wanted.isdigit():
                node = node.value[int(wanted)]
                line = node.start_mark.line + 1
                continue
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            found = next(((key, value) for key, value in pairs if key.value == wanted), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return str(self.path) if line is None else f"{self.path}, line {line}"


def read_yaml(path: Path) -> YamlFile:
    """A YAML file that holds one mapping. Raises ConfigurationError."""
    try:
        with path.open(encoding="utf-8-sig") as stream:  # a stream's errors quote none of its lines
            loader = _Loader(stream)
            root = loader.get_single_node()
            content = None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or the date 2013-13-01
        mark = getattr(error, "problem_mark", None)
        place = str(path) if mark is None else f"{path}, line {mark.line + 1}"
        problem = f"it cannot be read as YAML ({' '.join(str(error).split())})"
        raise ConfigurationError(place, "", problem, "Correct that line.") from error
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        raise ConfigurationError(str(path), "", problem, "Make it a readable file.") from error
    if content is not None and not isinstance(content, dict):
        problem = f"it holds a {type(content).__name__}, not keys and values"
        raise ConfigurationError(str(path), "", problem, "Write `key: value` lines.")
    return YamlFile(path, content or {}, root)
