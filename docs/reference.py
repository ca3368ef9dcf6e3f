#!/usr/bin/env python3
"""Write the tables of keys in docs/jobs.md and docs/settings.md, and config/schemas again.

Each table stands between `<!-- keys: Model -->` and `<!-- end -->`; what is around it is written by
hand. A test fails if the tables are not those of the models.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from nightshift.flows.config import checks, job, settings
from nightshift.flows.config.environment import SECRETS, name_variable
from nightshift.flows.config.schemas import SCHEMAS, FileSchema, write_schema
from nightshift.flows.config.validation import find_model

ROOT = Path(__file__).resolve().parents[1]
FILES = ("docs/jobs.md", "docs/settings.md")
_TABLE = re.compile(r"(<!-- keys: (\w+)(?: (\S+))? -->\n).*?(<!-- end -->)", re.DOTALL)
# In the order of search: how a part of a field's annotation is called.
_TYPES = {
    "_check_zone": "time zone",
    "_check_cron": "cron line",
    "timedelta": "duration",
    "Budget": "count or share",
    "Tolerance": "number or share",
    "dict[": "keys and values",
    "tuple[float": "[low, high]",
    "tuple[": "list",
    "frozenset": "list",
    "SecretStr": "text",
    "Path": "file",
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "str": "text",
}


def write_tables(text: str) -> str:
    """The document, with the tables of its models as they are now."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{_table(found[2], found[3])}\n{found[4]}", text)


def find_undocumented() -> set[str]:
    """Models with keys that have no table in any document."""
    texts = "".join((ROOT / file).read_text(encoding="utf-8") for file in FILES)
    documented = {found[2] for found in _TABLE.finditer(texts)}
    return {model.__name__ for model in _models(job.Job, settings.Settings)} - documented


def _models(*roots: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in roots:
        yield model
        inner = (find_model(field.annotation) for field in model.model_fields.values())
        yield from _models(*(found for found in inner if found is not None))


def _table(name: str, section: str | None) -> str:
    model = next(getattr(room, name) for room in (job, settings, checks) if hasattr(room, name))
    is_setting = model.__module__ == settings.__name__
    heads = ["key", *(["variable"] if is_setting else []), "type", "default", "meaning"]
    schema = model.model_json_schema(schema_generator=FileSchema)
    schema = next((part for part in schema.get("anyOf", ()) if "properties" in part), schema)
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for field_name, field in model.model_fields.items():
        key = field.alias or field_name
        secret = key in SECRETS.get(section or "", ())
        path = [section, key] if section else [key]
        inner = is_setting and find_model(field.annotation) is not None
        variable = "" if inner else f"`{name_variable(*path)}`"
        fields = [
            "" if secret else f"`{key}`",
            *([variable] if is_setting else []),
            _type(field),
            _default(schema["properties"][key], key in schema.get("required", ())),
            " ".join((field.description or "").split()).replace("|", "\\|"),
        ]
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines)


def _type(field: Any) -> str:
    text = f"{field.annotation} {field.metadata}"
    model = find_model(field.annotation)
    if model is not None and not text.startswith(("tuple", "dict")):
        return "levels" if model.__name__.endswith("Levels") else "section"
    choice = re.search(r"Literal\[([^]]*)\]", text)
    if choice:
        return ", ".join(f"`{each.strip().strip(chr(39))}`" for each in choice[1].split(","))
    return next(word for part, word in _TYPES.items() if part in text)


def _default(schema: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = schema.get("default")
    if default in (None, "", {}, []):
        return ""
    if isinstance(default, dict):  # the levels of a check, or a section with defaults of its own
        given = {name: value for name, value in default.items() if value is not None}
        if not all(isinstance(value, float) for value in given.values()):
            return ""
        return f"`{{{', '.join(f'{name}: {value:g}' for name, value in given.items())}}}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


if __name__ == "__main__":
    for file in FILES:
        path = ROOT / file
        path.write_text(write_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
    for name in SCHEMAS:
        (ROOT / "config" / "schemas" / name).write_text(write_schema(name), encoding="utf-8")
