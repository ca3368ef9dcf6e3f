"""How long a job waits, and how often it tries again: its `timeout`, `retries`, `retry_delay`."""

import logging
import re

import pytest

from nightshift.adapters.errors import ModelNotFound, RunTimedOut, StoreUnavailable
from nightshift.flows.cli.terminal import announcing_retries
from nightshift.flows.score import score
from project import Project

pytestmark = pytest.mark.usefixtures("prefect")


def test_a_timeout_keeps_what_is_committed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.fill()
    project.register(seconds=0.4)
    project.write_job(timeout="1s")
    with pytest.raises(RunTimedOut, match="orders all took longer than 1 s") as caught:
        score("orders", "all")
    assert (caught.value.job, caught.value.partition, caught.value.seconds) == ("orders", "all", 1)
    assert project.states() == [("all", "failed")]
    assert project.scores() == {}
    committed = project.count("nightshift_chunks")
    assert committed < 10
    monkeypatch.setenv("DOUBLER_BEHAVES", "1")
    assert score("orders", "all").resumed_rows == 100 * committed
    assert project.scores() == project.expected()


@pytest.mark.parametrize(
    ("given", "waits"),
    [
        ({}, [r"in 0\.\d+ s \(1 of 1\)"]),  # as the settings say
        (
            {"retries": 2, "retry_delay": 0.05},
            [r"in 0\.\d+ s \(1 of 2\)", r"in 0\.\d+ s \(2 of 2\)"],
        ),
        ({"retries": 0}, []),
    ],
)
@pytest.mark.heavy
def test_what_is_away_is_tried_again_as_the_job_says(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, float],
    waits: list[str],
) -> None:
    project.write_job(**given)
    monkeypatch.setenv("NIGHTSHIFT_STORE__ENDPOINT_URL", "http://127.0.0.1:9")
    said: list[str] = []
    handlers = list(logging.getLogger("prefect.task_runs").handlers)
    with announcing_retries(said.append), pytest.raises(StoreUnavailable):
        score("orders", "all")
    assert len(said) == len(waits)
    for line, wait in zip(said, waits, strict=True):
        assert re.match(f"Trying again {wait}: The model store s3://", line)
    assert logging.getLogger("prefect.task_runs").handlers == handlers


def test_what_is_wrong_is_not_tried_again(project: Project) -> None:
    project.fill()
    said: list[str] = []
    with announcing_retries(said.append), pytest.raises(ModelNotFound):
        score("orders", "all")
    assert said == []
