"""docker-compose.yml as Docker reads it: anchors merged, variables filled in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "docker-compose.yml"

# ${NAME:?message} is required, ${NAME:-default} is not; the file uses no other form.
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(:\?(?P<message>[^}]*)|:-(?P<default>[^}]*))\}")


class VariableMissing(Exception):
    """A required variable is absent or empty."""


@dataclass(frozen=True)
class Process:
    """What a service runs: the command's words, and the variables it gets."""

    command: list[str]
    environment: dict[str, str]


def document() -> dict[str, Any]:
    """The file as it stands, anchors merged."""
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content


def services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services with the variables filled in. Raises VariableMissing."""
    found: dict[str, dict[str, Any]] = _filled(document()["services"], variables)
    return found


def process(service: str, variables: Mapping[str, str]) -> Process:
    found = services(variables)[service]
    environment = {name: str(value) for name, value in found["environment"].items()}
    return Process(list(found["command"]), environment)


def required() -> dict[str, str]:
    """The variables without a default, each with the message if it is missing."""
    matches = _VARIABLE.finditer(FILE.read_text(encoding="utf-8"))
    return {match["name"]: match["message"] for match in matches if match["message"] is not None}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: "re.Match[str]") -> str:
        found = variables.get(match["name"], "")
        if not found and match["default"] is None:
            raise VariableMissing(match["name"], match["message"])
        return found or match["default"]

    return _VARIABLE.sub(fill, value)
