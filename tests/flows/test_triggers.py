"""Each way to start a run, against a real server, to its end: the command line, Python, a schedule,
and backfills over REST that fail in part, are repeated, are killed and go on.
"""

import os
import signal
from datetime import datetime
from typing import Any

import pytest
from prefect.deployments import run_deployment

from project import Project
from served import deployment, ended, post, prefect_command, runs_of, serving, start
from waiting import eventually

psutil = pytest.importorskip("psutil")

pytestmark = pytest.mark.heavy

RANGE = {"start": "2024-03-01", "end": "2024-03-04"}


@pytest.fixture
def days(project: Project) -> Project:
    """400 orders over four days."""
    project.fill(400, days=4)
    project.register()
    return project


def test_prefects_command_line_and_python(days: Project, prefect: str) -> None:
    with serving(days, prefect):
        found = eventually(lambda: deployment(prefect, "score/orders").get("id"))
        asked = ["--param", "partition=2024-03-01", "--watch"]
        printed = prefect_command(days.folder, prefect, "deployment", "run", "score/orders", *asked)
        assert "Completed" in printed
        again = {"partition": "2024-03-02"}
        runs = {
            run_deployment(
                "score/orders", parameters=again, idempotency_key="march-2", as_subflow=False,
                timeout=0,
            ).id
            for _ in range(2)
        }  # fmt: skip
        assert len(runs) == 1
        assert ended(prefect, str(runs.pop()))["state_name"] == "Completed"
    assert days.states() == [("2024-03-01", "published"), ("2024-03-02", "published")]
    assert len([run for run in runs_of(prefect, found) if run["name"].startswith("orders 2")]) == 2


def test_a_run_that_falls_due_while_it_is_served(days: Project, prefect: str) -> None:
    """In time, so that `catchup: skip` is nothing to it."""
    schedule = {"cron": "* * * * *", "catchup": "skip"}
    days.write_job(partition_by=None, schedule=schedule)
    with serving(days, prefect):
        found = eventually(lambda: deployment(prefect, "score/orders").get("id"))
        runs = eventually(lambda: _completed(prefect, found))
        days.write_job(partition_by=None)
    due = datetime.fromisoformat(runs[0]["expected_start_time"])
    started = datetime.fromisoformat(runs[0]["start_time"])
    assert abs((started - due).total_seconds()) < 60
    assert days.states()[0] == ("all", "published")
    assert days.scores() == days.expected()


def _completed(api: str, deployed: str) -> list[dict[str, Any]]:
    """Runs that have scored, and were planned by the schedule."""
    runs = [run for run in runs_of(api, deployed) if run["auto_scheduled"]]
    return [run for run in runs if run["state_name"] == "Completed"]


def test_a_backfill_over_rest(days: Project, prefect: str) -> None:
    """Planned, failed in part, and repeated."""
    days.sql("UPDATE orders SET x = -1 WHERE id BETWEEN 101 AND 200")
    days.register(behaviour="negative")
    with serving(days, prefect):
        found = eventually(lambda: deployment(prefect, "backfill/orders").get("id"))

        def start(**parameters: Any) -> dict[str, Any]:
            body = {"parameters": {**RANGE, **parameters}}
            run = post(prefect, f"/deployments/{found}/create_flow_run", body, code=201)
            return ended(prefect, run["id"])

        assert start(dry_run=True)["state_name"] == "Completed"
        assert days.count("nightshift_runs") == 0
        failed = start()
        assert failed["state_name"] == "Failed"
        assert failed["state"]["message"].startswith("1 of 4 partitions failed. 2024-03-02: ")
        assert days.scores() == days.expected("id NOT BETWEEN 101 AND 200")
        days.sql("UPDATE orders SET x = 5 WHERE id BETWEEN 101 AND 200")
        assert start(reprocess="failed")["state_name"] == "Completed"
    assert days.scores() == days.expected()
    assert [state for _, state in days.states()] == ["published"] * 4


def test_a_backfill_whose_process_is_killed_goes_on(days: Project, prefect: str) -> None:
    """kill -9 of all that `nightshift serve` runs; served again and asked again, it goes on."""
    days.register(seconds=1.0)
    days.write_job(chunk_rows=50)
    process = start(days, prefect, "serve")
    found = eventually(lambda: deployment(prefect, "backfill/orders").get("id"))
    path, body = f"/deployments/{found}/create_flow_run", {"parameters": RANGE}
    post(prefect, path, body, code=201)
    eventually(lambda: ("2024-03-02", "running") in _states(days))
    for killed in [*psutil.Process(process.pid).children(recursive=True), process]:
        os.kill(killed.pid, signal.SIGKILL)
    process.communicate()
    before = days.count("nightshift_chunks")
    assert 2 <= before < 8
    with serving(days, prefect):
        assert ended(prefect, post(prefect, path, body)["id"])["state_name"] == "Completed"
    assert days.sql("SELECT count(*) FROM nightshift_backfills") == [(1,)]
    assert days.count("nightshift_chunks") == 8
    assert days.scores() == days.expected()


def _states(project: Project) -> list[tuple[str, str]]:
    return project.states() if project.count("nightshift_runs") else []
