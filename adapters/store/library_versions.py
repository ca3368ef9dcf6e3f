"""Which libraries a model is made of, and whether they are installed here in the same versions."""

import contextlib
import functools
import importlib.metadata
import pickle
import platform
import sys
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from nightshift.adapters.models.model import Model

_ALWAYS = ("numpy", "pandas")  # they carry every model's inputs
_NETWORKS = {"torch", "tensorflow", "keras"}  # gigabytes that consist of nothing else
_NEVER = {"nightshift", "pydantic"}  # ours: how an adapter is written, not how a model predicts


class _Roots(pickle.Pickler):
    """Keeps of a model only the modules that its parts come from; its bytes go nowhere."""

    def __init__(self) -> None:
        super().__init__(self, protocol=5, buffer_callback=lambda _: None)
        self.parts: set[tuple[str, str]] = set()

    def write(self, data: object) -> int:
        return 0

    def persistent_id(self, part: Any) -> str | None:
        named = isinstance(part, type | FunctionType | BuiltinFunctionType)
        owner = part if named else type(part)
        module = owner.__module__ or "builtins"
        self.parts.add((module, owner.__qualname__))
        return "a network" if module.partition(".")[0] in _NETWORKS else None  # look no deeper


def parts_of(model: Model) -> set[tuple[str, str]]:
    """Module and name of every class and function in the model, as far as a pickle would see."""
    roots = _Roots()
    with contextlib.suppress(Exception):  # what cannot be pickled has its adapter's imports alone
        roots.dump(model)
    return roots.parts


def libraries_of(model: Model) -> dict[str, str]:
    """The installed version of each library that the model or its adapter is made of."""
    modules = {module for module, _ in parts_of(model)}
    for value in vars(sys.modules[type(model).__module__]).values():
        origin = value.__name__ if isinstance(value, ModuleType) else _origin(value)
        modules.add(origin)
    roots = {module.partition(".")[0] for module in modules}
    known = _distributions()
    names = {name for root in roots for name in known.get(root, ())} | set(_ALWAYS)
    versions = {name: importlib.metadata.version(name) for name in sorted(names - _NEVER)}
    return {"python": platform.python_version()} | versions


def version_mismatches(libraries: dict[str, str]) -> tuple[str, ...]:
    """What is installed here in another version than then, one text each."""
    found = []
    for name, then in libraries.items():
        now = platform.python_version() if name == "python" else _installed(name)
        if now != then:
            found.append(f"{name} {then} then, {now or 'missing'} now")
    return tuple(found)


def major_mismatches(libraries: dict[str, str]) -> tuple[str, ...]:
    """The libraries that are installed here in another major version than then: pandas 3 has other
    texts and missing values than pandas 2, and golden rows need not show it.
    """
    found = {name: _installed(name) for name in libraries if name != "python"}
    return tuple(
        name
        for name, now in found.items()
        if now is not None and now.partition(".")[0] != libraries[name].partition(".")[0]
    )


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Distributions by top-level module; found by reading every installed one, so only once."""
    return importlib.metadata.packages_distributions()


def _origin(value: object) -> str:
    module = getattr(value, "__module__", None)
    return module if isinstance(module, str) else "builtins"


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
