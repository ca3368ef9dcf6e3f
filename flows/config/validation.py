"""What is wrong with a document of ours, as one error that names the field and the remedy."""

import difflib
import re
from typing import Any, get_args

import pydantic
from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from nightshift.adapters.errors import ConfigurationError


def refused(problem: str, remedy: str, field: str = "") -> PydanticCustomError:
    """For a validator to raise; `field` is where the remedy is due, if below what it checks."""
    context = {"problem": problem, "remedy": remedy, "field": field}
    return PydanticCustomError("refused", "{problem}", context)


def first_problem(
    place: str, error: pydantic.ValidationError, model: type[BaseModel]
) -> ConfigurationError:
    """pydantic's first complaint as one of ours; an unknown key first, as it may explain others."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path, message, found = [str(part) for part in problem["loc"]], problem["msg"], problem["input"]
    remedy = "Correct it."
    match problem["type"]:
        case "extra_forbidden":
            known = known_keys(model, path[:-1])
            near = difflib.get_close_matches(path[-1], known, n=1)
            message = "unknown key"
            remedy = f"Did you mean {near[0]!r}? " if near else ""
            remedy += f"Known keys are {', '.join(known)}."
        case "refused":
            context = problem["ctx"]
            message, remedy = context["problem"], context["remedy"]
            path += filter(None, [context["field"]])
        case "missing":
            message, remedy = "it is required", "Add it."
        case "model_type":
            message, remedy = "it should hold keys and values", "Write `key: value` lines in it."
        case _:
            message = re.sub(r"^\w+ should", "it should", message)
            if found is None or isinstance(found, str | int | float):
                message += f" (found {found!r})"
    return ConfigurationError(place, ".".join(path), message, remedy)


def known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """What may stand at a place within a document of this model."""
    for key in path:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        model = part(fields[key].annotation) or model if key in fields else model
    return [field.alias or name for name, field in model.model_fields.items()]


def part(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that holds keys and values."""
    for kind in (annotation, *get_args(annotation)):  # Schedule, or Schedule | None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
