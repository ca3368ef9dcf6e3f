"""Prefect's workers run the flows, whether `nightshift` or `prefect deploy` registered them."""

import os
import subprocess
import sys

import httpx
import pytest
import yaml

from command import Nightshift
from project import Project
from served import deployment, ended, eventually, post, prefect_command

psutil = pytest.importorskip("psutil")

POOL = "processes"
WORKER = ("worker", "start", "--pool", POOL, "--type", "process")


def pool(prefect: str) -> None:
    if httpx.get(f"{prefect}/work_pools/{POOL}", timeout=30).is_error:
        post(prefect, "/work_pools/", {"name": POOL, "type": "process"}, code=201)


@pytest.mark.heavy
def test_a_worker_of_a_pool_runs_what_either_has_deployed(
    project: Project, prefect: str, nightshift: Nightshift
) -> None:
    project.fill()
    project.register()
    pool(prefect)
    assert f"run by workers of the pool {POOL}" in nightshift("deploy", "--work-pool", POOL).stdout
    theirs = {
        "name": "by-hand",
        "entrypoint": "nightshift.flows.score.score",
        "parameters": {"job": "orders"},
        "work_pool": {"name": POOL},
        "schedules": [{"cron": "0 3 * * *", "timezone": "Europe/Berlin"}],
    }
    prefect_yaml = yaml.safe_dump({"name": "scoring", "deployments": [theirs]})
    (project.folder / "prefect.yaml").write_text(prefect_yaml)
    prefect_command(project.folder, prefect, "--no-prompt", "deploy", "--all")
    days = {"score/orders": "2024-03-01", "score/by-hand": "2024-03-02"}
    runs = {}
    for name, day in days.items():
        found = deployment(prefect, name)
        assert (found["work_pool_name"], found["entrypoint"]) == (
            POOL,
            "nightshift.flows.score.score",
        )
        path = f"/deployments/{found['id']}/create_flow_run"
        runs[name] = post(prefect, path, {"parameters": {"partition": day}})["id"]
    prefect_command(project.folder, prefect, *WORKER, "--run-once")
    assert {ended(prefect, run)["state_name"] for run in runs.values()} == {"Completed"}
    assert sorted(project.states()) == [(day, "published") for day in sorted(days.values())]
    for name in days:
        httpx.delete(f"{prefect}/deployments/{deployment(prefect, name)['id']}", timeout=30)


@pytest.mark.heavy
def test_what_a_killed_worker_had_under_way_goes_on_with_the_next(
    project: Project, prefect: str, nightshift: Nightshift, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of the worker and of the flow's process, as when their machine is gone."""
    monkeypatch.setenv(
        "NIGHTSHIFT_DATABASE__LEASE", "3"
    )  # the flow's dead process may not be reaped
    project.fill()
    project.register(seconds=1.0)
    pool(prefect)
    nightshift("deploy", "--work-pool", POOL)
    deployed = deployment(prefect, "score/orders")["id"]
    day = {"parameters": {"partition": "2024-03-01"}}
    dead = post(prefect, f"/deployments/{deployed}/create_flow_run", day)["id"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", *WORKER],
        cwd=project.folder,
        env=os.environ | {"PREFECT_API_URL": prefect},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: project.count("nightshift_chunks") or worker.poll() is not None)
    finally:
        for killed in psutil.Process(worker.pid).children(recursive=True):
            killed.kill()
        worker.kill()
        worker.wait()
    before = project.count("nightshift_chunks")
    assert 1 <= before < 5
    # Until the state is set, Prefect takes it to be running, and lets no other begin.
    crashed = {"state": {"type": "CRASHED"}, "force": True}
    post(prefect, f"/flow_runs/{dead}/set_state", crashed)

    next_one = post(prefect, f"/deployments/{deployed}/create_flow_run", day)["id"]
    eventually(lambda: silent_for(project, 3))
    prefect_command(project.folder, prefect, *WORKER, "--run-once")

    assert ended(prefect, next_one)["state_name"] == "Completed"
    assert project.states() == [("2024-03-01", "published")]
    assert project.count("nightshift_chunks") == 5
    assert project.scores() == project.expected("id <= 500")
    httpx.delete(f"{prefect}/deployments/{deployed}", timeout=30)


def silent_for(project: Project, seconds: int) -> bool:
    silent = f"clock_timestamp() - heartbeat_at > interval '{seconds} s'"
    return project.sql(f"SELECT {silent} FROM nightshift_runs") == [(True,)]
