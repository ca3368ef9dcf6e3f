"""The JSON schemas that editors use: up to date, and of one mind with the models."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.config.job import load_job
from nightshift.flows.config.scaffold import write_project
from nightshift.flows.config.schemas import SCHEMAS, write_schema
from nightshift.flows.config.settings import load_settings
from nightshift.flows.config.yaml_file import read_yaml

ROOT = Path(__file__).parents[3]
JOB = "model: m\nsource: {table: t, key: id}\ntarget: {table: p}\n"


def accepts(schema: str, content: Any) -> bool:
    kind = jsonschema.Draft202012Validator
    kind.check_schema(SCHEMAS[schema]())
    return bool(kind(SCHEMAS[schema]()).is_valid(content))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_repositorys_schemas_are_up_to_date(name: str) -> None:
    assert (ROOT / "config" / "schemas" / name).read_text(encoding="utf-8") == write_schema(name)


def test_every_file_names_its_schema(tmp_path: Path) -> None:
    write_project(tmp_path, tmp_path / "config", "embedded", "store", "")
    for root in (ROOT, tmp_path):
        for path in (root / "config").rglob("*.yaml"):
            first, *_ = path.read_text(encoding="utf-8").splitlines()
            reference = first.removeprefix("# yaml-language-server: $schema=")
            schema = (path.parent / reference).resolve()
            assert schema.is_file(), path
            assert accepts(schema.name, read_yaml(path).content), path


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", True),
        ("timeout: 90s", True),
        ("timeout: 90", False),
        ("timeout: 0s", False),
        ("max_rejects: 0.1%", True),
        ("max_rejects: 10", True),
        ("max_rejects: -1", False),
        ("max_rejects: some", False),
        ("challenger: m@2", True),
        ("challenger: {model: m@2, tolerance: 5%}", True),
        ("challenger: {tolerance: 5%}", False),
        ("shards: 4", True),
        ("shards: {count: 4, on: threads}", True),
        ("shards: 0", False),
        ("checks: {inputs: {unseen: off, nulls: {fail: 0.5}}}", True),
        ("checks: {inputs: {unseen: on}}", False),
        ("checks: {predictions: {between: [0, null]}}", True),
        ("checks: {volume: off, sql: [{name: a, query: SELECT 1, timeout: 1h}]}", True),
        ("checks: {sql: [{name: a}]}", False),
        ("checks: {columns: {x: {drift: {at_once: 9}, outside: off}}}", True),
        ("schedule: {cron: 0 3 * * *, catchup: latest, misfire_grace_time: 2h}", True),
        ("schedule: {cron: 0 3 * * *, catchup: never}", False),
        ("schedule: {catchup: all}", False),
        ("on: {event: loaded, match: {a: b}}", True),
        ("parition_by: day", False),
        ("chunk_rows: yes", False),
        ("retries: '3'", False),
    ],
)
def test_jobs(text: str, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", str(tmp_path / "nightshift.yaml"))
    path = tmp_path / "jobs" / "orders.yaml"
    path.parent.mkdir()
    path.write_text(f"{JOB}{text}\n")
    assert accepts("job.json", read_yaml(path).content) is good
    if good:
        load_job("orders")
    else:
        with pytest.raises(ConfigurationError):
            load_job("orders")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", True),
        ("database: {url: embedded, schema: s, lease: 5}", True),
        ("database: {lease: 0}", False),
        ("database: {password: x}", False),
        ("store: {url: s3://b/p, region: eu-central-1, secret: x}", False),
        ("store: {url: s3://b/p, region: eu-central-1}", True),
        ("trust: {keys: [k.pub], pickle: never}", True),
        ("trust: {pickle: sometimes}", False),
        ("retention: {cron: 0 1 * * *, timezone: UTC, enabled: false}", True),
        ("alerts: {webhook: https://alerts.example.com, late_after: 60}", True),
        ("alerts: {late_after: 1}", False),
        ("retires: 3", False),
    ],
)
def test_settings(text: str, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nightshift.yaml"
    path.write_text(text)
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", str(path))
    assert accepts("nightshift.json", yaml.safe_load(text) or {}) is good
    if good:
        load_settings()
    else:
        with pytest.raises(ConfigurationError):
            load_settings()
