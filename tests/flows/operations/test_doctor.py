"""`nightshift doctor`: each thing that can be missing is found, with how to fix it."""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.history import health
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.flows.cli.main import app
from nightshift.flows.operations import doctor
from nightshift.flows.operations.doctor import Finding, examine
from nightshift.flows.score import score
from project import Project


@pytest.fixture
def healthy(project: Project, prefect: str) -> Project:
    """A project in which nothing is wrong."""
    project.fill(rows=20)
    project.register()
    return project


def wrong(*checks: str) -> list[Finding]:
    """What is not well, of these checks or of all."""
    found = [finding for finding in examine() if finding.state in {"fail", "warn"}]
    return [finding for finding in found if not checks or finding.check in checks]


def test_all_is_well(healthy: Project) -> None:
    findings = examine()
    assert [finding for finding in findings if finding.state != "ok"] == []
    checks = list(dict.fromkeys(finding.check for finding in findings))
    assert checks == [
        "settings", "versions", "disk", "keys", "store", "database", "jobs", "prefect",
    ]  # fmt: skip


def _no_database(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", "postgresql://someone@127.0.0.1:1/x")


def _no_such_database(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    url = project.engine.url.set(drivername="postgresql", database="nowhere")
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", url.render_as_string())


def _no_schema(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__SCHEMA", "predictions")


def _no_source(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__SOURCE_URL", "postgresql://someone@127.0.0.1:1/x")


def _no_bucket(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE__URL", "s3://no-such-bucket/store")


def _no_store(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE__ENDPOINT_URL", "http://127.0.0.1:1")


def _half_a_key(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTSHIFT_STORE__SECRET")


def _no_key(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "keys" / "local.pub").unlink()


def _open_key(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "keys" / "local.pem").chmod(0o644)


def _other_key(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    public = "ed25519:" + "A" * 43 + "="
    (project.folder / "keys" / "local.pub").write_text(public)


def _bad_job(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write_job("sales", chunk_rows="many")


def _no_table(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write_job("sales", source={"table": "sales", "key": "id"}, partition_by=None)


def _no_model(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write_job("sales", model="oracle")


def _no_job(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "config" / "jobs" / "orders.yaml").unlink()


def _no_prefect(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")


def _no_prefect_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL")


@pytest.mark.parametrize(
    ("fault", "check", "state", "text", "remedy"),
    [
        (_no_database, "database", "fail", "cannot be reached", ""),
        (_no_such_database, "database", "fail", "does not exist", "DATABASE__PASSWORD"),
        (
            _no_schema,
            "database",
            "fail",
            "the schema 'predictions' does not exist",
            "CREATE SCHEMA",
        ),
        (_no_source, "source", "fail", "cannot be reached", ""),
        (_no_bucket, "store", "fail", "does not exist", ""),
        (_no_store, "store", "fail", "cannot be reached", ""),
        (_half_a_key, "store", "fail", "go together", "NIGHTSHIFT_STORE__SECRET"),
        (_no_key, "keys", "fail", "cannot be read", "keys create"),
        (_open_key, "keys", "warn", "other users may read", "chmod 600"),
        (_other_key, "keys", "warn", "are not trusted here", "trust.keys"),
        (_bad_job, "jobs", "fail", "sales: chunk_rows", "Correct it"),
        (_no_table, "jobs", "fail", "sales: The source database has no table", ""),
        (_no_model, "jobs", "fail", "is not in the model store", ""),
        (_no_job, "jobs", "warn", "no job file yet", "config/jobs"),
        (_no_prefect, "prefect", "fail", "no Prefect server answers", "PREFECT_API_URL"),
        (_no_prefect_named, "prefect", "warn", "no server is set", "nightshift up"),
    ],
)
def test_what_is_wrong_is_found(
    healthy: Project,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Project, pytest.MonkeyPatch], None],
    check: str,
    state: str,
    text: str,
    remedy: str,
) -> None:
    fault(healthy, monkeypatch)
    (found,) = wrong(check)
    assert found.state == state
    assert text in found.text
    assert remedy in found.remedy


def test_settings_that_cannot_be_read_are_the_first_finding(
    healthy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_RETRIES", "many")
    findings = examine()
    assert (findings[0].check, findings[0].state) == ("settings", "fail")
    assert "NIGHTSHIFT_RETRIES" in findings[0].text
    assert {f.state for f in findings if f.check in doctor.CHECKS} == {"skip"}


def test_a_missing_privilege_is_fixed_by_what_is_said(
    healthy: Project, database: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy.sql("CREATE ROLE patient")
    healthy.sql("ALTER ROLE patient LOGIN; CREATE SCHEMA mine; GRANT SELECT ON orders TO patient")
    try:
        url = database.set(drivername="postgresql", username="patient")
        monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", url.render_as_string(hide_password=False))
        monkeypatch.setenv("NIGHTSHIFT_DATABASE__SCHEMA", "mine")
        (found,) = wrong("database")
        assert "may not create tables" in found.text
        healthy.sql(found.remedy.rstrip("."))
        assert wrong("database") == []
        assert score("orders", "2024-03-01").rows == 10
        assert wrong() == []
    finally:
        healthy.sql("DROP OWNED BY patient CASCADE")
        healthy.sql("DROP ROLE patient")


def test_a_ledger_that_was_changed_by_hand_is_reported(healthy: Project) -> None:
    score("orders", "2024-03-01")
    healthy.sql("ALTER TABLE nightshift_runs DROP COLUMN role CASCADE")
    found = wrong("database")[0]
    assert found.text.endswith("they lack nightshift_runs.role")


@pytest.mark.parametrize("state", ["running", pytest.param("scored", marks=pytest.mark.heavy)])
def test_an_abandoned_run_goes_on_with_what_is_said(healthy: Project, state: str) -> None:
    score("orders", "2024-03-01")
    assert wrong() == []
    healthy.sql(
        f"UPDATE nightshift_runs SET state = '{state}', published_at = NULL,"
        " owner = 'elsewhere:1:x', heartbeat_at = now() - interval '1 hour'"
    )
    healthy.sql("UPDATE nightshift_shards SET written_at = now() - interval '1 hour'")
    if state == "running":
        healthy.sql("UPDATE nightshift_runs SET scored_at = NULL")
        healthy.sql("UPDATE nightshift_shards SET done = false")
    (found,) = wrong()
    assert "run 1 (orders 2024-03-01) was abandoned by elsewhere:1:x" in found.text
    assert "60.0 min" in found.text
    command = found.remedy.partition("nightshift ")[2].split()
    assert command == ["run", "orders", "--partition", "2024-03-01"]
    assert score(command[1], command[3]).rows == 10
    assert wrong() == []


def test_a_live_run_is_not_abandoned(healthy: Project) -> None:
    """Its heart has not beaten for longer than the lease, but a chunk was just committed."""
    score("orders", "2024-03-01")
    healthy.sql(
        "UPDATE nightshift_runs SET state = 'running', owner = 'elsewhere:1:x',"
        " heartbeat_at = now() - interval '1 hour'"
    )
    assert wrong() == []
    ledger = Ledger(healthy.engine, lease=3600 * 24)
    assert health.find_abandoned_runs(ledger) == []


@pytest.mark.parametrize(
    ("clock_skew", "says"), [(90.0, "1.5 min ahead"), (-7200.0, "2.0 h behind"), (1.0, "")]
)
def test_a_wrong_clock_is_reported(engine: sa.Engine, clock_skew: float, says: str) -> None:
    seen = health.contact(engine)
    assert abs(seen.clock_skew) < doctor.MAX_CLOCK_SKEW
    contact = health.Contact(**{**asdict(seen), "clock_skew": clock_skew})
    lines = [
        f.text for f in doctor._describe_contact("database", engine, contact) if f.state == "warn"
    ]
    assert [line for line in lines if "clock" in line] == ([f"its clock is {says}"] if says else [])


@pytest.mark.skipif(sys.platform != "linux", reason="connects to a socket whose queue is full")
def test_what_never_answers_is_given_up(
    healthy: Project, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once, so that the time for one is the time for all."""
    url = f"postgresql://someone@127.0.0.1:{silent}/x"
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", url)
    monkeypatch.setenv("NIGHTSHIFT_STORE__ENDPOINT_URL", f"http://127.0.0.1:{silent}")
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{silent}/api")
    found = {f.check: f for f in examine(deadline=0.5)}
    for check in ("database", "store", "jobs", "prefect"):
        assert found[check].text == "no answer within 0 s", check
    assert found["disk"].state == "ok"


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener.getsockname()[1]


def test_an_sqlite_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'missing' / 'x.db'}")
    assert health.find_write_problems(Ledger(engine)) == [
        f"the folder {tmp_path / 'missing'} does not exist; create it"
    ]
    engine.dispose()


def test_the_command_says_it_all_and_its_exit_code(
    healthy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    well = runner.invoke(app, ["doctor"])
    assert well.exit_code == 0, well.output
    assert "0 failed, 0 warnings, " in well.output
    monkeypatch.setenv("NIGHTSHIFT_STORE__URL", "s3://no-such-bucket/store")
    ill = runner.invoke(app, ["doctor"])
    assert ill.exit_code == 1
    assert "no-such-bucket" in ill.output
    as_json = runner.invoke(app, ["doctor", "--json"])
    assert as_json.exit_code == 1
    found = json.loads(as_json.output)
    assert {"check", "state", "text", "remedy"} == found[0].keys()
    assert [line["check"] for line in found if line["state"] == "fail"] == ["store", "jobs"]


def test_a_new_project_gets_the_next_step(project: Project) -> None:
    (job,) = [finding for finding in examine() if finding.check == "jobs"]
    assert (job.state, job.text) == ("warn", "orders: no model is registered yet")
    assert job.remedy.startswith("Next: nightshift register FILE --name doubler --sample FILE")
