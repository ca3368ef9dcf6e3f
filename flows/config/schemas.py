"""JSON schemas of the two kinds of files, for editors to complete and check them."""

import json
from typing import Any

from nightshift.flows.config.environment import SECRETS
from nightshift.flows.config.job import Job
from nightshift.flows.config.settings import Settings


def make_settings_schema() -> dict[str, Any]:
    """Of config/nightshift.yaml: without the secrets, which only the environment may hold."""
    schema = Settings.model_json_schema()
    models = {"database": "DatabaseSettings", "store": "StoreSettings"}
    for section, names in SECRETS.items():
        for name in names:
            del schema["$defs"][models[section]]["properties"][name]
    return schema


SCHEMAS = {"nightshift.json": make_settings_schema, "job.json": Job.model_json_schema}
"""File name -> schema; `nightshift init` writes them to config/schemas."""


def write_schema(name: str) -> str:
    """The text of a schema's file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SCHEMAS[name]()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
