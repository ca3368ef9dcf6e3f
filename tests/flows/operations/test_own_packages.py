"""A project with `flows` and `adapters` of its own: each way to start a run, for real.

Most Prefect projects have a folder or a module `flows`; PyPI has a package `adapters`.
"""

import os

import pytest

from project import Project
from served import deployment, ended, post, runs_of, say, serving
from waiting import eventually

pytestmark = pytest.mark.heavy

OWN = 'raise ImportError("the project has a package of its own")\n'


@pytest.mark.parametrize("place", ["{}/__init__.py", "{}.py"])
def test_its_own_flows_and_adapters_do_not_get_in_the_way(
    place: str, project: Project, prefect: str
) -> None:
    for name in ("flows", "adapters", "config"):
        path = project.folder / place.format(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(OWN)
    assert os.environ["PYTHONPATH"].startswith(str(project.folder))  # before all that is installed
    project.fill(400, days=2)
    project.register()
    schedule = {"cron": "* * * * *"}
    project.write_job(partition_by=None, schedule=schedule, on={"model_promoted": "rescore_latest"})
    project.write_job("by_hand", target={"table": "by_hand"})
    with serving(project, prefect):
        by_hand = eventually(lambda: deployment(prefect, "score/by_hand").get("id"))
        body = {"parameters": {"partition": "2024-03-01"}}
        run = post(prefect, f"/deployments/{by_hand}/create_flow_run", body, code=201)
        assert ended(prefect, run["id"])["state_name"] == "Completed"

        backfill = deployment(prefect, "backfill/by_hand")["id"]
        body = {"parameters": {"start": "2024-03-01", "end": "2024-03-02"}}
        run = post(prefect, f"/deployments/{backfill}/create_flow_run", body, code=201)
        assert ended(prefect, run["id"])["state_name"] == "Completed"

        scheduled = deployment(prefect, "score/orders")["id"]
        assert eventually(lambda: _completed(prefect, scheduled, by_schedule=True))

        project.register()
        say(project, prefect, "promote", "doubler", "1")
        assert eventually(lambda: _completed(prefect, scheduled, by_schedule=False))
    assert project.count("by_hand") == 400
    assert project.scores() == project.expected()


def _completed(api: str, deployed: str, by_schedule: bool) -> bool:
    runs = [run for run in runs_of(api, deployed) if run["state_name"] == "Completed"]
    return any(run["auto_scheduled"] == by_schedule for run in runs)
