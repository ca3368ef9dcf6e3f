"""docs/jobs.md and docs/settings.md: every key as in the models, and examples that load."""

import re
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from pydantic import BaseModel

from nightshift.flows.config.job import Job
from nightshift.flows.config.settings import Settings
from nightshift.flows.config.yaml_file import read_yaml

ROOT = Path(__file__).parents[3]
REFERENCE = run_path(str(ROOT / "docs" / "reference.py"))
JOB = {"model": "m", "source": {"table": "t", "key": "id"}, "target": {"table": "p"}}


@pytest.mark.parametrize("file", REFERENCE["FILES"])
def test_the_tables_are_up_to_date(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert REFERENCE["write_tables"](text) == text, "run docs/reference.py"


def test_every_model_has_a_table() -> None:
    assert REFERENCE["find_undocumented"]() == set()


def blocks(file: str, folder: Path) -> Iterator[dict[str, Any]]:
    text = (ROOT / file).read_text(encoding="utf-8")
    for number, found in enumerate(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)):
        path = folder / f"{number}.yaml"
        path.write_text(found)
        yield read_yaml(path).content


def keys_of(content: Any) -> set[str]:
    if isinstance(content, list):
        return {key for item in content for key in keys_of(item)}
    if not isinstance(content, dict):
        return set()
    return set(content) | keys_of(list(content.values()))


@pytest.mark.parametrize(
    ("file", "model", "base"), [("docs/jobs.md", Job, JOB), ("docs/settings.md", Settings, {})]
)
def test_the_examples_load_and_show_the_keys(
    file: str, model: type[BaseModel], base: dict[str, Any], tmp_path: Path
) -> None:
    shown: set[str] = set()
    for content in blocks(file, tmp_path):
        source = {**base.get("source", {}), "time_column": "at"} if base else {}
        model.model_validate({**base, **({"source": source} if base else {}), **content})
        shown |= keys_of(content)
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / file).read_text(), re.MULTILINE))
    assert documented >= {field.alias or name for name, field in model.model_fields.items()}
    if model is Job:
        assert documented <= shown
