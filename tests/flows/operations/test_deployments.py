"""Deployments: registered once, left alone when unchanged, run through every door, over REST."""

import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from command import Nightshift
from nightshift.flows.operations.deployments import _list_tagged, wanted_deployments
from nightshift.flows.operations.deployments import deploy as bring_about
from project import Project
from served import deployment, ended, post, runs_of, say, serving
from waiting import eventually

RANGE = {"start": "2024-03-01", "end": "2024-03-02"}


def deploy(remove: bool = False) -> dict[str, str]:
    """Bring the server to what the job files ask for; what became of each deployment.

    The same server has those of other tests.
    """
    outcomes = bring_about(wanted_deployments().deployments, remove)
    return {deployed.name: deployed.outcome for deployed in outcomes}


@pytest.fixture
def deployed(project: Project, prefect: str) -> Project:
    deploy(remove=True)
    return project


def test_deploy_is_idempotent_and_tells_what_is_gone(deployed: Project, prefect: str) -> None:
    same = {"clean/tests": "unchanged", "backfill/orders": "unchanged"}
    assert deploy() == {**same, "score/orders": "unchanged"}
    deployed.write_job(schedule={"cron": "0 3 * * *", "timezone": "Europe/Berlin"})
    assert deploy() == {**same, "score/orders": "changed"}
    (schedule,) = deployment(prefect, "score/orders")["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == ("0 3 * * *", True)
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    found = deployment(prefect, "score/orders")["id"]
    httpx.delete(f"{prefect}/deployments/{found}/schedules/{schedule['id']}", timeout=30)
    assert deploy()["score/orders"] == "changed"  # it is there again
    assert deploy()["score/orders"] == "unchanged"
    deployed.write_job()
    deploy()
    assert deployment(prefect, "score/orders")["schedules"] == []
    (deployed.folder / "config" / "jobs" / "orders.yaml").rename(
        deployed.folder / "config" / "jobs" / "others.yaml"
    )
    assert deploy()["score/orders"] == "gone"
    assert deploy(remove=True)["backfill/orders"] == "removed"
    assert deployment(prefect, "score/orders") == {"detail": "Deployment not found"}


def test_what_another_project_has_registered_is_left_alone(
    deployed: Project, prefect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (deployed.folder / "config" / "jobs" / "orders.yaml").unlink()
    monkeypatch.setenv("NIGHTSHIFT_PROJECT", "others")
    assert deploy(remove=True) == {"clean/others": "created"}
    assert deployment(prefect, "score/orders")["tags"] == ["nightshift:tests", "orders"]
    monkeypatch.delenv("NIGHTSHIFT_PROJECT")
    assert deploy(remove=True)["score/orders"] == "removed"


def test_a_job_that_another_project_has_is_refused(
    deployed: Project, prefect: str, nightshift: Nightshift, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is deployed of it stays as it is, and the other jobs are registered."""
    before = {name: deployment(prefect, name) for name in ("score/orders", "backfill/orders")}
    deployed.write_job(max_parallel=3)
    deployed.write_job("ours", target={"table": "our_scores"})
    monkeypatch.setenv("NIGHTSHIFT_PROJECT", "others")
    printed = nightshift("deploy", code=2)
    assert "created    score/ours" in printed.stdout
    assert "job 'orders': the Prefect server already has score/orders of the project 'tests'" in (
        " ".join(printed.stderr.split())
    )
    assert "another name" in printed.stderr
    for name, there in before.items():
        assert deployment(prefect, name) == there
    wanted = wanted_deployments()
    assert list(wanted.wrong) == ["orders"]
    assert [d.name for d in wanted.deployments] == ["ours", "ours", "others"]
    monkeypatch.setenv("NIGHTSHIFT_PROJECT", "tests")
    (deployed.folder / "config" / "jobs" / "ours.yaml").unlink()
    assert deploy() == {
        "score/orders": "changed", "backfill/orders": "changed", "clean/tests": "unchanged",
    }  # fmt: skip
    monkeypatch.setenv("NIGHTSHIFT_PROJECT", "others")
    assert deploy(remove=True)["score/ours"] == "removed"


def test_of_many_deployments_all_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [SimpleNamespace(name=f"job-{number}") for number in range(5)]

    def read(offset: int, **_: Any) -> list[Any]:
        return there[offset : offset + 2]

    assert _list_tagged(cast(Any, SimpleNamespace(read_deployments=read)), "a tag") == there


def test_late_runs_stay_when_their_job_changes(
    deployed: Project, prefect: str, prefect_database: Path
) -> None:
    found = deployment(prefect, "score/orders")["id"]
    late = post(prefect, f"/deployments/{found}/create_flow_run", {"parameters": {}})["id"]
    with closing(sqlite3.connect(prefect_database, timeout=30)) as connection, connection:
        connection.execute(  # as if its schedule had made it
            "UPDATE flow_run SET auto_scheduled = true, next_scheduled_start_time = ?,"
            " expected_start_time = ? WHERE id = ?",
            ("2024-03-02 03:00:00.000000", "2024-03-02 03:00:00.000000", late),
        )
    deployed.write_job(schedule={"cron": "0 4 * * *"}, max_parallel=3)
    assert deploy()["score/orders"] == "changed"
    (run,) = (run for run in runs_of(prefect, found) if run["id"] == late)
    assert (run["auto_scheduled"], run["state_type"]) == (True, "SCHEDULED")


def test_in_a_git_checkout_what_is_not_committed_counts(
    project: Project, prefect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ["init", "remote add origin https://git.example.com/team/scoring.git"]:
        subprocess.run(["git", *command.split()], check=True, capture_output=True)
    user = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    commit = ["commit", "--allow-empty", "--message", "Jobs"]
    subprocess.run(["git", *user, *commit], check=True, capture_output=True)
    deploy(remove=True)
    assert deploy()["score/orders"] == "unchanged"
    project.write_job(max_parallel=3)
    assert deploy()["score/orders"] == "changed"


def test_as_many_at_once_as_the_job_says(deployed: Project, prefect: str) -> None:
    def limit() -> int:
        return int(deployment(prefect, "score/orders")["global_concurrency_limit"]["limit"])

    assert limit() == 1
    deployed.write_job(max_parallel=3)
    assert deploy()["score/orders"] == "changed"
    assert limit() == 3


def test_a_job_file_that_is_wrong_does_not_stop_the_others(
    deployed: Project, prefect: str, nightshift: Nightshift
) -> None:
    deployed.write_job(schedule={"cron": "0 3 * *"})
    deployed.write_job("good", target={"table": "good_scores"})
    printed = nightshift("deploy", "--remove", code=2)
    assert "created    backfill/good" in printed.stdout
    assert "orders.yaml, line 5: schedule.cron: '0 3 * *' has 4 fields, not 5" in printed.stderr
    assert deployment(prefect, "score/orders")["name"] == "orders"  # what there was of it


def test_a_work_pool_that_is_not_there(nightshift: Nightshift) -> None:
    error = nightshift("deploy", "--work-pool", "nowhere", code=2).stderr
    assert (
        "no work pool 'nowhere'. Create it, for example: prefect work-pool create nowhere" in error
    )


def test_the_server_refuses_bad_values(deployed: Project, prefect: str) -> None:
    for wrong, text in [
        ({"stat": "2024-03-01"}, "'stat' was unexpected"),
        ({"job": "others"}, "'others' is not one of ['orders']"),
        ({"start": "2024-13-01"}, "2024-13-01"),
        ({"start": "2024-02-31"}, "2024-02-31"),
        ({"end": "yesterday"}, "yesterday"),
        ({"end": None}, "None"),
        ({"reprocess": "some"}, "reprocess"),
        ({"order": "random"}, "order"),
        ({"max_parallel": 0}, "max_parallel"),
        ({"max_parallel": 17}, "max_parallel"),
        ({"dry_run": "perhaps"}, "dry_run"),
    ]:
        path = f"/deployments/{deployment(prefect, 'backfill/orders')['id']}/create_flow_run"
        answer = post(prefect, path, {"parameters": {**RANGE, **wrong}}, code=409)
        assert text in answer["detail"]


def test_every_field_of_the_form_has_a_sentence(deployed: Project, prefect: str) -> None:
    for name in ("score/orders", "backfill/orders"):
        schema = deployment(prefect, name)["parameter_openapi_schema"]
        for field, said in schema["properties"].items():
            assert said.get("description", "").endswith("."), (name, field)
    assert schema["required"] == ["job", "start", "end"]
    assert schema["properties"]["start"]["format"] == "date"
    assert schema["properties"]["reprocess"]["enum"] == ["missing", "failed", "stale_model", "all"]


@pytest.mark.heavy
def test_runs_over_rest(deployed: Project, prefect: str) -> None:
    """A scoring run, the same again by its idempotency key, and a backfill, in their processes."""
    deployed.fill()
    deployed.register()
    scoring = deployment(prefect, "score/orders")["id"]
    body = {"parameters": {"partition": "2024-03-01"}, "idempotency_key": "march-1"}
    with serving(deployed, prefect):
        first = post(prefect, f"/deployments/{scoring}/create_flow_run", body)
        again = post(prefect, f"/deployments/{scoring}/create_flow_run", body)
        assert again["id"] == first["id"]
        run = ended(prefect, first["id"])
        assert (run["name"], run["state_name"]) == ("orders 2024-03-01 v1", "Completed")
        path = f"/deployments/{deployment(prefect, 'backfill/orders')['id']}/create_flow_run"
        backfill = post(prefect, path, {"parameters": RANGE})
        assert ended(prefect, backfill["id"])["state_name"] == "Completed"
    assert deployed.states() == [("2024-03-01", "published"), ("2024-03-02", "published")]


@pytest.mark.heavy
def test_a_job_that_is_added_while_serving_is_served(project: Project, prefect: str) -> None:
    project.fill()
    project.register()
    with serving(project, prefect, ending=signal.SIGTERM) as printed:
        project.write_job("later", target={"table": "later_scores"})
        found = eventually(lambda: deployment(prefect, "score/later").get("id"))
        body = {"parameters": {"partition": "2024-03-02"}}
        run = post(prefect, f"/deployments/{found}/create_flow_run", body)
        assert ended(prefect, run["id"])["state_name"] == "Completed"
        project.write_job("later", model=None)
        eventually(lambda: any("later.yaml: model: " in line for line in printed))
    assert "score/later was created" in printed


@pytest.mark.heavy
def test_one_promotion_scores_and_then_what_waits_for_it(project: Project, prefect: str) -> None:
    """Promote -> event -> score -> event -> the next job scores the same partition."""
    project.fill()
    project.register()
    project.write_job(on={"model_promoted": "rescore_latest"})
    match = {"nightshift.job": "orders"}
    project.write_job(
        "copies",
        target={"table": "copied_scores"},
        on={"event": "nightshift.partition.published", "match": match},
    )
    with serving(project, prefect):
        ids = {
            name: eventually(lambda name=name: deployment(prefect, f"score/{name}").get("id"))
            for name in ("orders", "copies")
        }
        earlier = {run["id"] for found in ids.values() for run in runs_of(prefect, found)}
        project.register()
        say(project, prefect, "promote", "doubler", "2")

        def triggered(deployed: str) -> list[str]:
            return [run["id"] for run in runs_of(prefect, deployed) if run["id"] not in earlier]

        runs = {
            name: eventually(lambda found=found: triggered(found))[0] for name, found in ids.items()
        }
        over = {name: ended(prefect, run) for name, run in runs.items()}
    assert {run["state_name"] for run in over.values()} == {"Completed"}
    assert over["orders"]["parameters"]["model"] == "doubler@2"
    scored = project.sql(
        "SELECT job, partition, model_version FROM nightshift_runs ORDER BY run_id"
    )
    assert [row.job for row in scored] == ["orders", "copies"]
    assert scored[0].partition == scored[1].partition == over["copies"]["parameters"]["partition"]
