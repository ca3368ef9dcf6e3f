"""Runs that are cancelled in Prefect: they stop within a chunk, and resume when run again."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import CancelledRun
from prefect.runtime import flow_run
from prefect.states import Cancelling

from nightshift.flows.backfill import backfill
from nightshift.flows.cli.main import main
from nightshift.flows.orchestrator.cancellation import CancellationWatch
from nightshift.flows.score import score
from project import Project
from waiting import eventually

pytestmark = pytest.mark.usefixtures("prefect")

DEPTH = 2
"""The length of the queue of chunks that are predicted and not yet written."""


@pytest.fixture
def at_call(project: Project, monkeypatch: pytest.MonkeyPatch) -> dict[int, Callable[[], None]]:
    """20 chunks of 50 orders, over two days. Yields what to do at which of the model's calls."""
    project.fill()
    project.register()
    project.write_job(chunk_rows=50)
    from doubler import Doubler  # type: ignore[import-not-found]

    todo: dict[int, Callable[[], None]] = {}
    original, calls = Doubler.predict, iter(range(1, 1000))

    def predict(self: Any, X: Any) -> Any:  # noqa: N803
        if len(X) > 32:  # no golden rows
            todo.pop(next(calls), lambda: None)()
        return original(self, X)

    monkeypatch.setattr(Doubler, "predict", predict)
    return todo


@pytest.fixture
def cancel(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Cancels the running flow run, as the UI does, and waits until the run has seen it."""
    watching: list[CancellationWatch] = []
    enter = CancellationWatch.__enter__

    def entered(self: CancellationWatch) -> CancellationWatch:
        watching.append(self)
        return enter(self)

    monkeypatch.setattr(CancellationWatch, "__enter__", entered)
    monkeypatch.setattr(CancellationWatch, "INTERVAL", 0.05)

    def cancel() -> None:
        run = flow_run.root_flow_run_id
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Cancelling(), force=True)
        eventually(lambda: watching[0].cancelled)

    return cancel


def test_a_run_stops_within_a_chunk_and_resumes(
    project: Project, at_call: dict[int, Callable[[], None]], cancel: Callable[[], None]
) -> None:
    at_call[4] = cancel
    state = score("orders", "all", return_state=True)
    assert (state.name, state.is_cancelled()) == ("Cancelled", True)
    assert state.message == "cancelled in Prefect; run it again to resume where it stopped"
    committed = project.count("nightshift_chunks")
    assert committed <= 4 + DEPTH
    assert project.states() == [("all", "failed")]
    assert project.scores() == {}
    result = score("orders", "all")
    assert (result.run_id, result.resumed_rows) == (1, 50 * committed)
    assert project.scores() == project.expected()


def test_the_command_ends_with_one_line(
    project: Project,
    at_call: dict[int, Callable[[], None]],
    cancel: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_call[4] = cancel
    monkeypatch.setattr("sys.argv", ["nightshift", "run", "orders", "--partition", "all"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    printed = " ".join(capsys.readouterr().err.split())
    assert "Error: cancelled in Prefect; run it again to resume where it stopped" in printed
    assert "Traceback" not in printed


def test_shards_stop_too(
    project: Project,
    at_call: dict[int, Callable[[], None]],
    cancel: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nightshift.flows.scoring.shards._POLL", 0.05)
    project.write_job(shards={"count": 2, "on": "threads", "at_once": 1}, chunk_rows=50)
    at_call[2] = cancel
    at_call[4] = lambda: eventually(lambda: project.states() == [("all", "failed")] or withdrawn())

    def withdrawn() -> bool:
        return project.sql("SELECT count(*) FROM nightshift_shards WHERE owner <> ''") == [(0,)]

    state = score("orders", "all", return_state=True)
    assert state.name == "Cancelled"
    assert project.count("nightshift_chunks") <= 4
    assert score("orders", "all").run_id == 1
    assert project.scores() == project.expected()


def test_a_backfill_stops_and_resumes_its_plan(
    project: Project, at_call: dict[int, Callable[[], None]], cancel: Callable[[], None]
) -> None:
    days = date(2024, 3, 1), date(2024, 3, 2)
    at_call[4] = cancel
    with pytest.raises(CancelledRun):
        backfill("orders", *days)
    committed = project.count("nightshift_chunks")
    assert committed <= 4 + DEPTH
    steps = project.sql("SELECT state FROM nightshift_backfill_partitions")
    assert [step.state for step in steps] == ["waiting"] * 2
    result = backfill("orders", *days)
    assert (result.backfill_id, result.count("published")) == (1, 2)
    assert project.count("nightshift_chunks") == 20
    assert project.scores() == project.expected()
