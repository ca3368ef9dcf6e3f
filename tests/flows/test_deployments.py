"""Deployments: registered once, left alone when unchanged, run through every door, over REST."""

from typing import Any

import pytest
from project import Project
from served import deployment, ended, eventually, post, runs_of, say, serving

pytestmark = pytest.mark.heavy

RANGE = {"start": "2024-03-01", "end": "2024-03-02"}


@pytest.fixture
def deployed(project: Project, prefect: str) -> Project:
    project.fill()
    project.publish()
    say(project, prefect, "deploy")
    return project


def test_deploy_is_idempotent_and_tells_what_is_gone(deployed: Project, prefect: str) -> None:
    before = deployment(prefect, "score/orders")
    assert "unchanged  score/orders" in say(deployed, prefect, "deploy")
    assert deployment(prefect, "score/orders")["updated"] == before["updated"]
    deployed.write_job(schedule={"cron": "0 3 * * *", "timezone": "Europe/Berlin"})
    assert "changed    score/orders" in say(deployed, prefect, "deploy")
    (schedule,) = deployment(prefect, "score/orders")["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == ("0 3 * * *", True)
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    deployed.write_job()
    say(deployed, prefect, "deploy")
    assert deployment(prefect, "score/orders")["schedules"] == []
    (deployed.folder / "config" / "jobs" / "orders.yaml").rename(
        deployed.folder / "config" / "jobs" / "others.yaml"
    )
    assert "gone       score/orders" in say(deployed, prefect, "deploy")
    assert "removed    backfill/orders" in say(deployed, prefect, "deploy", "--remove")
    assert deployment(prefect, "score/orders") == {"detail": "Deployment not found"}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"start": "2024-13-01"}, "2024-13-01"),
        ({"start": "2024-02-31"}, "2024-02-31"),
        ({"end": "yesterday"}, "yesterday"),
        ({"end": None}, "None"),
        ({"reprocess": "some"}, "reprocess"),
        ({"order": "random"}, "order"),
        ({"max_parallel": 0}, "max_parallel"),
        ({"max_parallel": 17}, "max_parallel"),
        ({"dry_run": "perhaps"}, "dry_run"),
    ],
)
def test_the_server_refuses_bad_values(
    deployed: Project, prefect: str, wrong: dict[str, Any], text: str
) -> None:
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


def test_runs_over_rest(deployed: Project, prefect: str) -> None:
    """A scoring run, the same again by its idempotency key, and a backfill, in their processes."""
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


def test_one_promotion_scores_and_then_what_waits_for_it(project: Project, prefect: str) -> None:
    """Promote -> event -> score -> event -> the next job scores the same partition."""
    project.fill()
    project.publish()
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
        project.publish()
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
