"""YAML files as people mean them."""

from pathlib import Path
from typing import Any

import yaml

from nightshift.adapters.errors import ConfigurationError


class _Loader(yaml.SafeLoader):
    """YAML whose keys are texts, each there once: PyYAML would keep the last one in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if isinstance(key, yaml.ScalarNode) and key.value == "on":
                key.tag = "tag:yaml.org,2002:str"  # YAML 1.1 takes it for true
            text = isinstance(key, yaml.ScalarNode) and key.tag == "tag:yaml.org,2002:str"
            if not text or key.value in seen:
                problem = "is there twice" if text else "is no text; put it in quotes"
                problem = f"the key {key.value} {problem}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping. Raises ConfigurationError."""
    try:
        with path.open(encoding="utf-8-sig") as stream:  # a stream's errors quote none of its lines
            content = _Loader(stream).get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or the date 2013-13-01
        problem = f"it cannot be read as YAML ({' '.join(str(error).split())})"
        raise ConfigurationError(str(path), "", problem, "Correct that line.") from error
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        raise ConfigurationError(str(path), "", problem, "Make it a readable file.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        problem = f"it holds a {type(content).__name__}, not keys and values"
        raise ConfigurationError(str(path), "", problem, "Write `key: value` lines.")
    return content
