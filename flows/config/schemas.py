"""JSON schemas of the two kinds of files, for editors to complete and check them."""

import json
from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from nightshift.flows.config.environment import SECRETS
from nightshift.flows.config.job import Job
from nightshift.flows.config.quantities import Budget, Tolerance, format_duration
from nightshift.flows.config.settings import Settings


class FileSchema(GenerateJsonSchema):
    """A JSON schema whose defaults are written as in a file: `1h`, `0.1%`."""

    def encode_default(self, dft: Any) -> Any:
        """pydantic's own would write PT1H, and the fields of a share."""
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return str(dft) if isinstance(dft, Budget | Tolerance) else super().encode_default(dft)


def make_job_schema() -> dict[str, Any]:
    """Of config/jobs/<job>.yaml."""
    return Job.model_json_schema(schema_generator=FileSchema)


def make_settings_schema() -> dict[str, Any]:
    """Of config/nightshift.yaml: without the secrets, which only the environment may hold."""
    schema = Settings.model_json_schema(schema_generator=FileSchema)
    models = {"database": "DatabaseSettings", "store": "StoreSettings"}
    for section, names in SECRETS.items():
        for name in names:
            del schema["$defs"][models[section]]["properties"][name]
    return schema


SCHEMAS = {"nightshift.json": make_settings_schema, "job.json": make_job_schema}
"""File name -> schema; `nightshift init` writes them to config/schemas."""


def write_schema(name: str) -> str:
    """The text of a schema's file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SCHEMAS[name]()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
