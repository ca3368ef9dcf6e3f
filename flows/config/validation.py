"""What is wrong with a file or a variable, as errors that name the field and the remedy."""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

import pydantic
from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from nightshift.adapters.errors import ConfigurationError


def refused(problem: str, remedy: str, field: str = "") -> PydanticCustomError:
    """For a validator to raise; `field` is the one to fix, if it is below the one checked."""
    context = {"problem": problem, "remedy": remedy, "field": field}
    return PydanticCustomError("refused", "{problem}", context)


def accept_also(short: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """For `json_schema_extra`: the JSON schema of a mapping accepts this short form, too."""

    def extend(schema: dict[str, Any]) -> None:
        mapping = dict(schema)
        schema.clear()
        schema["anyOf"] = [short, mapping]

    return extend


def describe_problems(
    error: pydantic.ValidationError,
    model: type[BaseModel],
    locate: Callable[[Sequence[str]], str],
) -> list[ConfigurationError]:
    """pydantic's complaints as ours, unknown keys first, as these may explain others.

    `locate` gives the place of a path of keys, for example `config/jobs/churn.yaml, line 7`.
    """
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    return [_describe(problem, model, locate) for problem in problems]


def _describe(
    problem: Any, model: type[BaseModel], locate: Callable[[Sequence[str]], str]
) -> ConfigurationError:
    path, message, found = [str(part) for part in problem["loc"]], problem["msg"], problem["input"]
    remedy = "Correct it."
    match problem["type"]:
        case "extra_forbidden":
            known = list_keys(model, path[:-1])
            near = difflib.get_close_matches(path[-1], known, n=1)
            message = "unknown key"
            remedy = f"Did you mean {near[0]!r}? " if near else ""
            remedy += f"Known keys are {', '.join(known)}."
        case "refused":
            context = problem["ctx"]
            message, remedy = context["problem"], context["remedy"]
            path += filter(None, context["field"].split("."))
        case "missing":
            message, remedy = "it is required", "Add it."
        case "model_type":
            message, remedy = "it should hold keys and values", "Write `key: value` lines in it."
        case _:
            message = re.sub(r"^\w+ should", "it should", message)
            if found is None or isinstance(found, str | int | float):
                message += f" (found {found!r})"
    return ConfigurationError(locate(path), ".".join(path), message, remedy)


def list_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys that may stand at a place within a document of this model."""
    for key in path:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        model = (find_model(fields[key].annotation) or model) if key in fields else model
    return [field.alias or name for name, field in model.model_fields.items()]


def find_model(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that holds keys and values."""
    for kind in (annotation, *get_args(annotation)):  # Schedule, or Schedule | None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
