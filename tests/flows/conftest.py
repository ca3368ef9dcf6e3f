"""Real PostgreSQL, S3 over HTTP, and one Prefect server per test run."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)
from sklearn.linear_model import LogisticRegression

from command import Nightshift, Printed
from nightshift.flows.cli.main import main
from nightshift.flows.config.settings import load_settings
from nightshift.flows.orchestrator.server import prefect_api
from nightshift.flows.register import create_key
from project import MODEL_CODE, Project
from watched import Hanging

_server = ExitStack()
_started: dict[str, Any] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the Prefect server now if a test will want it, so that none has to wait for it."""
    wanted = any("prefect" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        state = _server.enter_context(TemporaryDirectory(prefix="nightshift-prefect-"))
        _started["state"] = Path(state)
        _started["ready"] = _server.enter_context(prefect_api(Path(state)))


def pytest_sessionfinish() -> None:
    _server.close()


@pytest.fixture(scope="session")
def prefect_database(prefect: str) -> Path:
    """Where that server keeps what it knows, in SQLite."""
    state: Path = _started["state"]
    return state / "prefect" / "prefect.db"


@pytest.fixture(scope="session")
def prefect() -> Iterator[str]:
    """The URL of a real Prefect server's API."""
    url = _started["ready"]()
    # To end its heartbeat, each flow run in this process would wait for up to a second.
    with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield url


@pytest.fixture(scope="session")
def s3(s3_server: Any) -> str:
    """The endpoint of an S3 server."""
    endpoint: str = s3_server.endpoint_url
    return endpoint


@pytest.fixture
def reports() -> None:
    """The runs of a test that asks for this draw their reports, which takes half a second each."""


@pytest.fixture
def project(
    tmp_path: Path,
    database: sa.URL,
    engine: sa.Engine,
    s3: str,
    s3_bucket: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """An empty project: a database, an empty bucket, a job file, and nothing scored yet."""
    if "reports" not in request.fixturenames:
        monkeypatch.setattr("nightshift.flows.report.artifacts.render_report", lambda *_: "")
    (tmp_path / "config" / "jobs").mkdir(parents=True)
    (tmp_path / "doubler.py").write_text(MODEL_CODE)
    trust = {"keys": ["keys/local.pub"], "sign_key": "keys/local.pem"}
    settings = {"project": "tests", "retries": 1, "retry_delay": 0.1, "trust": trust}
    settings |= {"database": {"lease": 5}}
    (tmp_path / "config" / "nightshift.yaml").write_text(yaml.safe_dump(settings))
    for name, value in {
        "CONFIG": str(tmp_path / "config" / "nightshift.yaml"),
        "DATABASE__URL": database.render_as_string(hide_password=False),
        "STORE__URL": f"s3://{s3_bucket}/store",
        "STORE__ENDPOINT_URL": s3,
        "STORE__REGION": "us-east-1",
        "STORE__KEY": "key",
        "STORE__SECRET": "secret",
    }.items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, "doubler", raising=False)
    create_key(load_settings())
    project = Project(tmp_path, engine)
    project.write_job()
    return project


@pytest.fixture
def saved(tmp_path: Path) -> tuple[str, str]:
    """A classifier and its training frame, as a data scientist leaves them."""
    frame = pd.DataFrame({"x": np.linspace(0, 300, 50)})
    joblib.dump(LogisticRegression().fit(frame, frame["x"] > 150), tmp_path / "model.joblib")
    frame.to_parquet(tmp_path / "sample.parquet")
    return str(tmp_path / "model.joblib"), str(tmp_path / "sample.parquet")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """What hangs until the test is over."""
    hanging = Hanging()
    monkeypatch.setattr(
        "nightshift.flows.scoring.prediction.timeouts.monotonic", lambda: hanging.now
    )
    monkeypatch.setattr("nightshift.flows.scoring.prediction.timeouts._GLANCE", 0.01)
    yield hanging
    hanging.end()


@pytest.fixture
def nightshift(
    project: Project,
    prefect: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Nightshift:
    """The command line in the project's folder, with the test run's Prefect server."""
    monkeypatch.setenv("PREFECT_API_URL", prefect)
    monkeypatch.chdir(project.folder)

    def call(*arguments: str, code: int = 0) -> Printed:
        monkeypatch.setattr(sys, "argv", ["nightshift", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = Printed(*capfd.readouterr())
        assert (exit_.value.code or 0) == code, printed
        assert "Traceback" not in printed.stdout + printed.stderr
        assert "secret" not in printed.stdout + printed.stderr
        return printed

    return call
