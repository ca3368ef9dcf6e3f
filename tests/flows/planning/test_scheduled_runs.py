"""Scheduled runs: which partition, at which time, and what happens to missed ones."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.config.cron import find_cron_problem
from nightshift.flows.config.job import Job, load_job
from nightshift.flows.orchestrator import flow_run
from nightshift.flows.orchestrator.flow_run import choose_partition
from nightshift.flows.planning.scheduled_runs import find_due_partition, find_skip_reason
from project import JOB, Project
from served import deployment, runs_of, say, serving
from waiting import eventually

NIGHTLY = "0 3 * * *"


def job(partition_by: str = "day", zone: str = "UTC", **schedule: Any) -> Job:
    given = {**JOB, "partition_by": partition_by, "timezone": zone}
    return Job.model_validate({**given, "schedule": {"cron": NIGHTLY, **schedule}})


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    ("by", "zone", "scheduled", "offset", "label"),
    [
        ("day", "UTC", "2024-03-02T03:00", 1, "2024-03-01"),
        ("day", "UTC", "2024-03-02T03:00", 2, "2024-02-29"),
        ("day", "UTC", "2024-03-02T03:00", 0, "2024-03-02"),
        ("day", "UTC", "2024-03-02T03:00", -1, "2024-03-03"),
        ("day", "UTC", "2024-03-02T00:00", 1, "2024-03-01"),
        ("day", "America/New_York", "2024-03-10T23:30", 1, "2024-03-09"),  # of 23 hours
        ("day", "America/New_York", "2024-03-11T00:00", 1, "2024-03-10"),
        ("day", "America/New_York", "2024-11-03T23:30", 1, "2024-11-02"),  # of 25 hours
        ("hour", "America/New_York", "2024-11-03T02:05", 1, "2024-11-03T01-05:00"),
        ("hour", "America/New_York", "2024-11-03T02:05", 2, "2024-11-03T01-04:00"),
        ("hour", "America/New_York", "2024-03-10T03:05", 1, "2024-03-10T01"),
        ("month", "UTC", "2024-03-01T03:00", 1, "2024-02"),
        ("month", "UTC", "2024-03-31T03:00", 3, "2023-12"),
        ("all", "UTC", "2024-03-31T03:00", 1, "all"),
    ],
)
def test_the_partition_of_a_scheduled_run(
    by: str, zone: str, scheduled: str, offset: int, label: str
) -> None:
    assert find_due_partition(job(by, zone, offset=offset), at(scheduled, zone)).label == label


@pytest.mark.parametrize(
    ("catchup", "hours", "newer", "scores"),
    [
        ("all", 500, True, True),
        ("skip", 0.9, False, True),
        ("skip", 1.1, False, False),
        ("latest", 0.9, False, True),
        ("latest", 500, False, True),
        ("latest", 25, True, False),
    ],
)
def test_which_missed_runs_score(catchup: str, hours: float, newer: bool, scores: bool) -> None:
    scheduled = at("2024-03-02T03:00")
    following = scheduled + timedelta(days=1) if newer else None
    reason = find_skip_reason(
        job(catchup=catchup), scheduled, scheduled + timedelta(hours=hours), following
    )
    assert (reason is None) == scores
    if reason is not None:
        assert f"`catchup: {catchup}`" in reason
        assert "To score 2024-03-01 anyway" in reason


@pytest.mark.parametrize(
    ("catchup", "started", "partition"),
    [
        ("all", "2024-03-12T10:00", "2024-03-08"),
        ("latest", "2024-03-09T03:30", "2024-03-08"),
        ("latest", "2024-03-10T02:59", "2024-03-08"),
        ("latest", "2024-03-10T03:00", "2024-03-09"),  # 23 hours later
        ("latest", "2026-03-12T10:00", "2026-03-11"),
    ],
)
def test_the_latest_makes_up_for_runs_that_were_never_planned(
    catchup: str, started: str, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = "America/New_York"
    monkeypatch.setattr(flow_run, "_find_newer_run", lambda *_: None)
    start(monkeypatch, at("2024-03-09T03:00", zone), at(started, zone))
    assert choose_partition(job(zone=zone, catchup=catchup), None).label == partition


@pytest.mark.parametrize("catchup", ["skip", "latest"])
def test_a_retry_days_later_is_not_a_missed_run(
    catchup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person clicks Retry on a run that started in time, and failed."""
    scheduled = at("2024-03-02T03:00")
    start(monkeypatch, scheduled, scheduled + timedelta(seconds=20))
    assert choose_partition(job(catchup=catchup), None).label == "2024-03-01"


def start(monkeypatch: pytest.MonkeyPatch, scheduled: datetime, started: datetime) -> None:
    """Be in a flow run that a schedule made."""
    run = FlowRun(
        flow_id=uuid4(), auto_scheduled=True, expected_start_time=scheduled, start_time=started
    )
    context = SimpleNamespace(flow_run=run)
    monkeypatch.setattr(FlowRunContext, "get", lambda: context)


@pytest.mark.parametrize(
    "good",
    ["* * * * *", "0 3 * * *", "*/15 0-6 1,15 jan-mar mon", "0/5 * * * *", "59 23 31 12 7"],
)
def test_cron_lines(good: str) -> None:
    assert find_cron_problem(good) is None


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("0 3 * *", "4 fields, not 5"),
        ("60 3 * * *", "'60' is not a valid minute"),
        ("0 24 * * *", "'24' is not a valid hour"),
        ("0 3 0 * *", "'0' is not a valid day"),
        ("0 3 * 13 *", "'13' is not a valid month"),
        ("0 3 * * 8", "'8' is not a valid weekday"),
        ("a 3 * * *", "'a' is not a valid minute"),
        ("5-1 3 * * *", "'5-1' is not a valid minute"),
        ("*/0 3 * * *", "is not a valid minute"),
        ("1--2 3 * * *", "is not a valid minute"),
        (", 3 * * *", "is not a valid minute"),
    ],
)
def test_bad_cron_lines(bad: str, problem: str) -> None:
    assert problem in str(find_cron_problem(bad))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"schedule": {"cron": "0 3 * *"}}, "schedule.cron: .* 4 fields"),
        (
            {"schedule": {"cron": NIGHTLY, "misfire_grace_time": 5}},
            "schedule.misfire_grace_time: .*Write it like",
        ),
        ({"schedule": {"cron": NIGHTLY, "catchupp": "all"}}, "Did you mean 'catchup'"),
        ({"schedule": {"cron": NIGHTLY, "timezone": "Berlin"}}, "Did you mean Europe/Berlin"),
        ({"on": {"match": {"a": "b"}}}, "on: it names no event"),
        ({"on": {"evnt": "x"}}, "Did you mean 'event'"),
        (
            {"model": "doubler@7", "on": {"model_promoted": "rescore_latest"}},
            "on.model_promoted: the job's model is doubler@7, .* like doubler@champion",
        ),
        ({"timeout": "0s"}, "timeout: it is not a length of time"),
        ({"max_parallel": 99}, "max_parallel: it should be less than or equal to 16"),
    ],
)
def test_a_job_file_that_is_wrong(project: Project, changes: dict[str, Any], text: str) -> None:
    project.write_job(**changes)
    with pytest.raises(ConfigurationError, match=text):
        load_job("orders")


def test_on_needs_no_quotes(project: Project) -> None:
    project.write_job()
    path = project.folder / "config" / "jobs" / "orders.yaml"
    path.write_text(path.read_text() + "on: {model_promoted: rescore_latest}\n")
    on = load_job("orders").on
    assert on is not None
    assert on.model_promoted == "rescore_latest"


@pytest.mark.heavy
def test_late_runs_on_a_real_server(project: Project, prefect: str, prefect_database: Path) -> None:
    """Runs fall due while nothing serves; then each job's `catchup` decides."""
    project.fill()
    project.register()
    (project.folder / "config" / "jobs" / "orders.yaml").unlink()
    jobs = ["every", "newest", "none"]
    for name, catchup in zip(jobs, ["all", "latest", "skip"], strict=True):
        schedule = {"cron": NIGHTLY, "catchup": catchup}
        project.write_job(name, target={"table": f"{name}_scores"}, schedule=schedule)
    assert "created    score/every" in say(project, prefect, "deploy")
    ids = {name: deployment(prefect, f"score/{name}")["id"] for name in jobs}
    for found in ids.values():  # Prefect's scheduler plans ahead
        eventually(lambda found=found: len(runs_of(prefect, found)) == 14)
    today = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0)
    times = [today - timedelta(days=days) for days in (4, 3, 2)]
    _move(prefect_database, list(ids.values()), times)
    for found in ids.values():  # its server notices
        eventually(lambda found=found: _late(prefect, found) == 3)

    assert "unchanged  score/every" in say(project, prefect, "deploy")  # what is late stays
    with serving(project, prefect):
        ended = eventually(lambda: _all_ended(prefect, list(ids.values()), 9))
    outcomes = {
        name: [run["state_name"] for run in ended if run["deployment_id"] == found]
        for name, found in ids.items()
    }
    assert outcomes == {
        "every": ["Completed"] * 3,
        "newest": ["Skipped", "Skipped", "Completed"],
        "none": ["Skipped"] * 3,
    }
    reasons = [run["state"]["message"] for run in ended if run["state_name"] == "Skipped"]
    assert all(reason.startswith("the scheduled run of ") for reason in reasons)
    scored = project.sql("SELECT job, partition FROM nightshift_runs ORDER BY job, partition")
    days = [f"{scheduled - timedelta(days=1):%Y-%m-%d}" for scheduled in times]
    now = datetime.now(UTC) - timedelta(hours=3)
    newest = f"{now - timedelta(days=1):%Y-%m-%d}"
    assert [tuple(row) for row in scored] == [*(("every", day) for day in days), ("newest", newest)]


def _all_ended(api: str, deployments: list[str], count: int) -> list[dict[str, Any]] | None:
    """The runs that have ended, by the time for which they were planned, if so many have."""
    runs = [run for deployed in deployments for run in runs_of(api, deployed)]
    ended = [run for run in runs if run["state_type"] in {"COMPLETED", "CANCELLED", "FAILED"}]
    in_time = sorted(ended, key=lambda run: run["expected_start_time"])
    return in_time if len(ended) == count else None


def _late(api: str, deployed: str) -> int:
    return sum(run["state_name"] == "Late" for run in runs_of(api, deployed))


def _move(database: Path, deployments: list[str], times: list[datetime]) -> None:
    """Pretend that the first runs planned were planned for those times."""
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        for deployed in deployments:
            rows = connection.execute(
                "SELECT id FROM flow_run WHERE deployment_id = ? ORDER BY expected_start_time",
                (deployed,),
            ).fetchall()
            for (run,), scheduled in zip(rows, times, strict=False):
                text = scheduled.strftime("%Y-%m-%d %H:%M:%S.000000")
                connection.execute(
                    "UPDATE flow_run SET expected_start_time = ?, next_scheduled_start_time = ?"
                    " WHERE id = ?",
                    (text, text, run),
                )
