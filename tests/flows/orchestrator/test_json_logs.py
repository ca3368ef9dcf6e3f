"""What a flow run says of itself: its story, in about ten lines."""

from logging import INFO
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import Log
from prefect.client.schemas.sorting import LogSort
from prefect.states import State

from nightshift.flows.orchestrator.server import flush_logs_and_events
from nightshift.flows.score import score
from project import Project
from waiting import eventually

pytestmark = pytest.mark.usefixtures("prefect")


def story(state: State[Any]) -> list[Log]:
    """The flow run's log, as the UI shows it at first."""
    run = state.state_details.flow_run_id
    assert run is not None
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))

    def found() -> list[Log]:
        flush_logs_and_events()
        with get_client(sync_client=True) as client:
            logs = client.read_logs(of_run, sort=LogSort.TIMESTAMP_ASC)
        return logs if any("Finished in state" in log.message for log in logs) else []

    return [log for log in eventually(found, 20) if log.level >= INFO]


def test_an_ordinary_run(project: Project, reports: None) -> None:
    project.fill()
    project.register()
    logs = story(score("orders", "all", return_state=True))
    messages = [log.message for log in logs if log.level == INFO]
    assert len(messages) <= 13
    assert all(len(line) < 200 and "\n" not in line for line in messages)
    text = "\n".join(messages)
    for part in (
        "Model doubler@1",
        "begins after 0 committed rows",
        "Scored 1,000 rows in",
        "Published 1,000 rows in order_scores",
        "The report of run 1 is",
    ):
        assert part in text


def test_a_run_that_fails_says_why_last(project: Project) -> None:
    project.fill()
    project.register(behaviour="raise")
    logs = story(score("orders", "all", return_state=True))
    assert len(logs) <= 13
    assert "doubler@1 could not predict" in logs[-1].message
