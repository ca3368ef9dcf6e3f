"""Prefect's workers run the flows, whether `nightshift` or `prefect deploy` registered them."""

import httpx
import pytest
import yaml
from command import Nightshift
from project import Project
from served import deployment, ended, post, prefect_command

POOL = "processes"


@pytest.mark.heavy
def test_a_worker_of_a_pool_runs_what_either_has_deployed(
    project: Project, prefect: str, nightshift: Nightshift
) -> None:
    project.fill()
    project.publish()
    post(prefect, "/work_pools/", {"name": POOL, "type": "process"}, code=201)
    assert f"run by workers of the pool {POOL}" in nightshift("deploy", "--work-pool", POOL).stdout
    theirs = {
        "name": "by-hand",
        "entrypoint": "flows.score.score",  # a file's would import this package's parts twice
        "parameters": {"job": "orders"},
        "work_pool": {"name": POOL},
        "schedules": [{"cron": "0 3 * * *", "timezone": "Europe/Berlin"}],
    }
    prefect_yaml = yaml.safe_dump({"name": "nights", "deployments": [theirs]})
    (project.folder / "prefect.yaml").write_text(prefect_yaml)
    prefect_command(project.folder, prefect, "--no-prompt", "deploy", "--all")
    days = {"score/orders": "2024-03-01", "score/by-hand": "2024-03-02"}
    runs = {}
    for name, day in days.items():
        found = deployment(prefect, name)
        assert (found["work_pool_name"], found["entrypoint"]) == (POOL, "flows.score.score")
        path = f"/deployments/{found['id']}/create_flow_run"
        runs[name] = post(prefect, path, {"parameters": {"partition": day}})["id"]
    worker = ["worker", "start", "--pool", POOL, "--type", "process", "--run-once"]
    prefect_command(project.folder, prefect, *worker)
    assert {ended(prefect, run)["state_name"] for run in runs.values()} == {"Completed"}
    assert sorted(project.states()) == [(day, "published") for day in sorted(days.values())]
    for name in days:
        httpx.delete(f"{prefect}/deployments/{deployment(prefect, name)['id']}", timeout=30)
