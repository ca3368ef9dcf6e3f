"""No secret where anyone could read it: after runs that succeed and runs that fail, of each kind,
everything they left is searched, and everything they said."""

import json
import os
import pickle
import sqlite3
import subprocess
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
import sqlalchemy as sa

from nightshift.adapters.errors import ConfigurationError, StatementFailed
from nightshift.flows.config.settings import load_settings
from nightshift.flows.operations.doctor import examine
from nightshift.flows.orchestrator.server import flush_logs_and_events
from nightshift.flows.score import score
from project import Project
from served import start

psutil = pytest.importorskip("psutil")

# With what URLs and shells have to quote.
SECRETS = {
    "DATABASE__PASSWORD": "Sesame-writer/7f3a@9c:1",
    "DATABASE__SOURCE_PASSWORD": "Sesame-reader/2b8d@4e:2",
    "STORE__KEY": "SESAMEKEY5D0E77",
    "STORE__SECRET": "Sesame-store/6a1c+8f=3",
    "ALERTS__WEBHOOK": "https://alerts.example.com/Sesame-webhook/4c7e",
}
PREFECT = "admin:Sesame-prefect/0e9b"
WRONG = "Sesame-mistyped/1d4f@7a"


@dataclass
class Traces:
    """What was said and left, to be searched."""

    said: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, text: str) -> None:
        self.said[place] = self.said.get(place, "") + text

    def error(self, error: BaseException) -> None:
        place = f"the error {type(error).__name__}"
        self.add(place, "".join(traceback.format_exception(error)) + repr(error))
        self.add(f"{place}, pickled", pickle.dumps(error).decode("latin-1"))

    def search(self) -> list[str]:
        """`place: secret` for each secret that can be read somewhere, plain or encoded."""
        known = [*SECRETS.values(), PREFECT, PREFECT.partition(":")[2], WRONG]
        return [
            f"{place}: {secret}"
            for place, text in self.said.items()
            for secret in known
            for form in {secret, quote(secret), quote(secret, safe=""), _base64(secret)}
            if form in text
        ]


def _base64(secret: str) -> str:
    return b64encode(secret.encode()).decode().rstrip("=")


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def guarded(
    project: Project, database: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """The project, with a database that asks for passwords, and secrets of its own everywhere."""
    project.fill(days=3)
    project.register()
    roles = {"sesame_writer": "PASSWORD", "sesame_reader": "SOURCE_PASSWORD"}
    file = Path(project.sql("SHOW hba_file")[0][0])
    before = file.read_text()
    for role, name in roles.items():
        secret = SECRETS[f"DATABASE__{name}"]
        project.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{secret}'")
    project.sql("GRANT SELECT ON orders TO sesame_reader")
    project.sql("CREATE SCHEMA predictions AUTHORIZATION sesame_writer")
    lines = "".join(f"local all {role} scram-sha-256\n" for role in roles)
    file.write_text(lines + before)
    project.sql("SELECT pg_reload_conf()")
    for name, value in {
        **SECRETS,
        "DATABASE__URL": _plain(database.set(username="sesame_writer")),
        "DATABASE__SOURCE_URL": _plain(database.set(username="sesame_reader")),
        "DATABASE__SCHEMA": "predictions",
    }.items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", PREFECT)
    yield project
    file.write_text(before)
    project.sql("SELECT pg_reload_conf()")
    for role in roles:
        project.sql(f"DROP OWNED BY {role} CASCADE")
        project.sql(f"DROP ROLE {role}")


def _plain(url: sa.URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _no_such_bucket(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE__URL", "s3://no-such-bucket/store")


def _no_store(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE__ENDPOINT_URL", "http://127.0.0.1:1")


def _wrong_password(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__PASSWORD", WRONG)


def _password_in_the_url(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    url = os.environ["NIGHTSHIFT_DATABASE__SOURCE_URL"]
    monkeypatch.delenv("NIGHTSHIFT_DATABASE__SOURCE_PASSWORD")
    password = quote(WRONG, safe="")
    monkeypatch.setenv(
        "NIGHTSHIFT_DATABASE__SOURCE_URL", url.replace("sesame_reader", f"sesame_reader:{password}")
    )


def _database_away(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://sesame_writer@127.0.0.1:1/x"
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", url)


def _no_privilege(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.sql("REVOKE SELECT ON orders FROM sesame_reader")


def _bad_query(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write_job(source={"query": "SELECT 1 / 0 AS x, id FROM orders", "key": "id"})


def _bad_model(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.register(behaviour="raise")


FAILURES: list[Callable[[Project, pytest.MonkeyPatch], None]] = [
    _no_such_bucket,
    _no_store,
    _wrong_password,
    _password_in_the_url,
    _database_away,
    _no_privilege,
    _bad_query,
    _bad_model,
]


@pytest.mark.heavy
def test_no_secret_in_what_runs_leave_and_say(
    guarded: Project,
    prefect: str,
    prefect_database: Path,
    traces: Traces,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert score("orders", "2024-03-01").rows > 0
    for fail in FAILURES:
        with monkeypatch.context() as patched:
            fail(guarded, patched)
            traces.error(_error_of(score, "orders", "2024-03-02"))
            findings = examine()
            traces.add(f"doctor, {fail.__name__}", repr(findings))
        guarded.write_job()
        guarded.sql("GRANT SELECT ON orders TO sesame_reader")
    flush_logs_and_events()
    captured = capfd.readouterr()
    traces.add("standard output and error", captured.out + captured.err)
    traces.add("log records", caplog.text)
    traces.add("settings", repr(load_settings()) + str(load_settings()))
    traces.add("Prefect's database", _sqlite_rows(prefect_database))
    traces.add("the ledger and the predictions", _postgres_rows(guarded))
    traces.add("the model store", _storage())
    for path in (*guarded.folder.rglob("*"), *prefect_database.parent.rglob("*.log")):
        if path.is_file():
            traces.add(str(path), path.read_bytes().decode("latin-1"))
    assert "predict" in traces.said["Prefect's database"]  # it is the right one, and it is read
    assert "2024-03-02" in traces.said["the ledger and the predictions"]
    assert traces.search() == []


def _error_of(act: Callable[..., object], *arguments: str) -> BaseException:
    """What it raised, of whatever kind."""
    try:
        act(*arguments)
    except Exception as error:
        return error
    pytest.fail("it did not fail")


def test_a_secret_would_be_found(traces: Traces) -> None:
    """The search itself: plain, quoted, in an error's cause, in a pickle."""
    error = ConfigurationError("x", "", "y", "z")
    error.__cause__ = ValueError(SECRETS["STORE__SECRET"])
    traces.error(error)
    traces.error(StatementFailed("to connect", quote(WRONG, safe="")))
    traces.add("a header", f"Basic {b64encode(PREFECT.encode()).decode()}")
    found = {line.partition(":")[0] for line in traces.search()}
    assert found >= {"a header", "the error ConfigurationError", "the error StatementFailed"}
    assert "the error StatementFailed, pickled" in found


@pytest.mark.heavy
def test_no_secret_in_the_process_list_or_on_a_terminal(
    guarded: Project, prefect: str, traces: Traces
) -> None:
    """`nightshift run`, with a server of its own, and all processes it starts."""
    (guarded.folder / "config").mkdir(exist_ok=True)
    for name, arguments in {
        "good": ("run", "orders", "--partition", "2024-03-01"),
        "bad": ("run", "orders", "--model", "missing"),
        "doctor": ("doctor",),
    }.items():
        process = start(guarded, "", *arguments)  # no PREFECT_API_URL: it starts a server
        seen = set()
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                family = [psutil.Process(process.pid)]
                family += family[0].children(recursive=True)
                seen |= {" ".join(member.cmdline()) for member in family}
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        output, _ = process.communicate()
        traces.add(f"command lines, {name}", "\n".join(seen))
        traces.add(f"terminal, {name}", output)
        assert any("nightshift.flows.cli.main" in line for line in seen)
    home = guarded.folder / ".nightshift" / "prefect"
    traces.add("Prefect's database", _sqlite_rows(home / "prefect.db"))
    traces.add("the server's log", (home / "server.log").read_text())
    assert "Published" in traces.said["terminal, good"]
    assert any("server start" in text for text in traces.said.values())
    assert traces.search() == []


def _sqlite_rows(path: Path) -> str:
    """Every value of every table: runs, states, parameters, logs, artifacts, events, variables."""
    texts = []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in found.fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                texts += [_text(value) for value in row]
    return "\n".join(texts)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _postgres_rows(project: Project) -> str:
    """Every row of every table, and the comments and definitions of views."""
    tables = project.sql(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
        " WHERE schemaname IN ('public', 'predictions')"
    )
    texts = [
        str(row) for (table,) in tables for row in project.sql(f"SELECT t::text FROM {table} t")
    ]
    return "\n".join(texts) + str(project.sql("SELECT definition FROM pg_views"))


def _storage() -> str:
    """Every object of the model store: manifests say who registered a model, and where."""
    settings = load_settings().store
    bucket = settings.url.removeprefix("s3://").partition("/")[0]
    access = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    with closing(
        boto3.client("s3", endpoint_url=settings.endpoint_url, region_name="us-east-1", **access)
    ) as client:
        keys = [line["Key"] for line in client.list_objects_v2(Bucket=bucket)["Contents"]]
        bodies = [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys]
    return json.dumps(keys) + "".join(body.decode("latin-1") for body in bodies)
