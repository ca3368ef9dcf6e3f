"""Retention: what readers see and the newest runs stay, the rest goes, on a schedule."""

from typing import Any

import httpx
import pytest
import yaml
from prefect import get_client

from command import Nightshift
from nightshift.adapters.errors import ConfigurationError, Quarantined
from nightshift.flows.clean import clean
from nightshift.flows.config.settings import load_settings
from nightshift.flows.operations.deployments import deploy, wanted_deployments
from nightshift.flows.score import score
from project import Project
from served import deployment, ended, post, serving
from waiting import eventually

pytestmark = pytest.mark.usefixtures("prefect")

NAME = "clean/tests"


def score_repeatedly(project: Project, count: int, **job: Any) -> None:
    project.fill(rows=100)
    project.register()
    project.write_job(**{"keep": 2, "chunk_rows": 30, **job})
    for _ in range(count):
        score("orders", "all")


def settle(project: Project, **retention: object) -> None:
    """Write into nightshift.yaml when old runs go."""
    path = project.folder / "config" / "nightshift.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"retention": retention}))


def kept(project: Project) -> list[int]:
    runs = project.sql("SELECT DISTINCT run_id FROM order_scores_runs ORDER BY run_id")
    return [row.run_id for row in runs]


def test_old_runs_go_and_a_reader_at_that_moment_notices_nothing(project: Project) -> None:
    score_repeatedly(project, 1)
    with project.engine.connect() as reader:
        reader = reader.execution_options(isolation_level="REPEATABLE READ")

        def read() -> list[tuple[Any, ...]]:
            rows = reader.exec_driver_sql("SELECT * FROM order_scores ORDER BY id")
            return [tuple(map(str, row)) for row in rows]

        before = read()
        for _ in range(4):
            score("orders", "all")
        assert clean(dry_run=True) == 300
        assert kept(project) == [1, 2, 3, 4, 5]
        assert clean() == 300
        assert kept(project) == [4, 5]
        assert read() == before
        assert len(before) == 100
    assert project.scores() == project.expected()
    assert clean() == 0
    gone = project.sql("SELECT run_id FROM nightshift_runs WHERE cleaned_at IS NOT NULL")
    assert sorted(row.run_id for row in gone) == [1, 2, 3]
    left = project.sql("SELECT DISTINCT run_id FROM nightshift_chunks")
    assert sorted(row.run_id for row in left) == [4, 5]


@pytest.mark.heavy
def test_what_readers_see_stays_however_old(project: Project, nightshift: Nightshift) -> None:
    score_repeatedly(project, 5, keep=1)
    nightshift("runs", "rollback", "orders", "all", "--to", "2", "--reason", "it was better")
    seen = project.scores()
    clean()
    assert kept(project) == [2, 5]
    assert project.scores() == seen
    nightshift("runs", "rollback", "orders", "all", "--to", "5", "--reason", "it was not")
    clean()
    assert kept(project) == [5]


@pytest.mark.heavy
def test_failed_runs_do_not_push_out_what_could_be_gone_back_to(
    project: Project, nightshift: Nightshift
) -> None:
    score_repeatedly(project, 2)
    project.write_job(keep=2, checks={"predictions": {"between": [0, 1]}})
    for _ in range(3):
        with pytest.raises(Quarantined):
            score("orders", "all")
    assert clean() == 100
    assert kept(project) == [1, 2, 4, 5]
    nightshift("runs", "rollback", "orders", "all", "--reason", "it was better")
    assert project.sql("SELECT DISTINCT run_id FROM order_scores") == [(1,)]


def test_nothing_yet_is_no_failure(project: Project) -> None:
    state = clean(return_state=True)
    assert (state.name, state.message) == (
        "Skipped",
        "the ledger: nothing was scored yet. `nightshift run JOB` begins.",
    )


@pytest.mark.heavy
def test_a_job_file_that_is_wrong_leaves_its_runs_alone(project: Project) -> None:
    score_repeatedly(project, 3, keep=1)
    project.write_job("wrong", keep=0)
    assert clean() == 200
    project.write_job(keep=0)
    score_only = kept(project)
    assert clean() == 0
    assert kept(project) == score_only


@pytest.mark.heavy
def test_it_is_deployed_with_the_jobs(project: Project, prefect: str) -> None:
    def bring_about() -> str:
        outcomes = {found.name: found.outcome for found in deploy(wanted_deployments().deployments)}
        return outcomes[NAME]

    def schedule() -> tuple[str, str, bool]:
        (found,) = deployment(prefect, NAME)["schedules"]
        return found["schedule"]["cron"], found["schedule"]["timezone"], found["active"]

    with get_client(sync_client=True) as client:  # of an earlier test
        if found := deployment(prefect, NAME).get("id"):
            client.delete_deployment(found)
    assert bring_about() == "created"
    assert bring_about() == "unchanged"
    assert schedule() == ("30 12 * * *", "UTC", True)
    settle(project, cron="0 5 * * 0", timezone="Europe/Berlin")
    assert bring_about() == "changed"
    assert schedule() == ("0 5 * * 0", "Europe/Berlin", True)
    settle(project, enabled=False)
    assert bring_about() == "changed"
    assert schedule() == ("30 12 * * *", "UTC", False)
    (project.folder / "config" / "jobs" / "orders.yaml").unlink()
    gone = [found.name for found in deploy(wanted_deployments().deployments, remove=True)]
    assert "score/orders" in gone
    assert deployment(prefect, NAME)["name"] == "tests"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cron": "0 25 * * *"}, "retention.cron: '25' is not a valid hour"),
        ({"timezone": "Berlin"}, "retention.timezone: 'Berlin' is not a time zone"),
        ({"keep": 3}, "retention.keep: unknown key"),
    ],
)
def test_a_schedule_that_is_none_is_refused(
    project: Project, wrong: dict[str, object], says: str
) -> None:
    settle(project, **wrong)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert says in str(refused.value)


@pytest.mark.heavy
def test_the_server_starts_it(project: Project, prefect: str) -> None:
    """In a process of its own, as a schedule or a person has it done."""
    score_repeatedly(project, 4)
    with serving(project, prefect) as printed:
        found = eventually(lambda: deployment(prefect, NAME).get("id"))
        planned = httpx.get(f"{prefect}/deployments/{found}", timeout=30).json()["schedules"]
        assert [each["active"] for each in planned] == [True]
        run = post(prefect, f"/deployments/{found}/create_flow_run", {"parameters": {}})
        assert ended(prefect, run["id"])["state_name"] == "Completed"
    assert "Jobs        orders" in printed
    assert kept(project) == [3, 4]
    assert project.scores() == project.expected()
