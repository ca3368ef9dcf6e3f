"""Plans of backfills in the ledger, and what others have done since a plan was made."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from backends import Backend, request_of
from nightshift.adapters.errors import AlreadyPublished, Quarantined
from nightshift.adapters.ledger.backfills import Backfill, Backfills, Step, StepState
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.pointer import Pointer
from nightshift.adapters.ledger.runs import RunRequest
from nightshift.adapters.target.predictions import PredictionTable

BACKENDS = ("fast", "lite")
ONE = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def predictions(backend: Backend) -> PredictionTable:
    """Of a table with ten rows on one day."""
    columns = [
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("x", sa.Double),
    ]
    backend.table("t", columns, [{"id": i, "at": ONE, "x": float(i)} for i in range(10)])
    made = backend.predictions(backend.source(table="t", time_column="at"))
    made.create()
    return made


def run_request(version: int = 1, whole: bool = False) -> RunRequest:
    start, end = (None, None) if whole else (ONE, ONE + DAY)
    label = "all" if whole else "2024-03-01"
    return request_of(label, start, end, version=version, fingerprint=str(version))


def planned(ledger: Ledger, request: RunRequest, moved: bool) -> RunRequest:
    """The same, as a backfill asks for it that is planned now."""
    with ledger.engine.begin() as connection:
        now = ledger.now(connection)
    return replace(request, unless_published_since=now, unless_changed=moved)


@pytest.mark.parametrize("moved", [True, False])
def test_what_was_published_since(
    backend: Backend, predictions: PredictionTable, moved: bool
) -> None:
    ledger = predictions.ledger
    backend.score(predictions, run_request())
    request = planned(ledger, run_request(), moved)
    ledger.fail(ledger.begin(request, "elsewhere:1:a"), "stopped")
    backend.score(predictions, run_request())
    with pytest.raises(AlreadyPublished):
        ledger.begin(request, "elsewhere:1:b")


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_published_with_another_model(
    backend: Backend, predictions: PredictionTable, whole: bool
) -> None:
    """Is it better? Who asked for all to be scored again wants theirs; who only wanted what is
    missing, or old, does not.
    """
    ledger = predictions.ledger
    missing, everything = (planned(ledger, run_request(), moved) for moved in (True, False))
    newer = backend.score(predictions, run_request(2, whole))
    with pytest.raises(AlreadyPublished) as caught:
        ledger.begin(missing, "elsewhere:1:a")
    assert caught.value.run_id == newer.run_id
    assert ledger.begin(everything, "elsewhere:1:a").run_id > newer.run_id


def test_what_was_rolled_back_since(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    for version in (1, 2):
        backend.score(predictions, run_request(version))
    request = planned(ledger, run_request(3), moved=True)
    Pointer(ledger).rollback("job", "2024-03-01", ONE, ONE + DAY, "ann@host", "worse")
    with pytest.raises(AlreadyPublished):
        ledger.begin(request, "elsewhere:1:a")


def test_what_was_quarantined_since(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    request = planned(ledger, run_request(), moved=True)
    run = backend.score(predictions, run_request(), publish=False)
    ledger.quarantine(run, "the predictions have moved")
    with pytest.raises(Quarantined) as caught:
        ledger.begin(request, "elsewhere:1:a")
    assert (caught.value.run_id, caught.value.reason) == (run.run_id, "the predictions have moved")
    assert (
        ledger.begin(planned(ledger, run_request(), moved=True), "elsewhere:1:a").run_id
        > run.run_id
    )


def test_who_does_not_carry_out_a_plan_any_more_enters_nothing(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = backend.ledger(lease=-1)
    backfills = Backfills(ledger)
    ledger.create()
    step = Step(0, "2024-03-01", ONE, ONE + DAY, StepState.WAITING, "not published yet")
    zombie = backfills.begin("job", "{}", ("model", 1), [step], "elsewhere:1:a", None, None)
    step.state = StepState.RUNNING
    backfills.record_step(zombie, step)

    def left() -> Backfill:
        found = backfills.unfinished("job", "{}", ("model", 1))
        assert found is not None
        return found

    assert [kept.state for kept in left().steps] == [StepState.RUNNING]
    heir = backfills.take_over(left(), "elsewhere:1:b", None)
    assert heir is not None
    assert [kept.state for kept in heir.steps] == [StepState.WAITING]
    step.state = StepState.FAILED
    backfills.record_step(zombie, step)
    assert [kept.state for kept in left().steps] == [StepState.RUNNING]
    backfills.record_step(heir, step)
    assert [kept.state for kept in left().steps] == [StepState.FAILED]
    assert backfills.unfinished("job", "{}", ("model", 2)) is None


@pytest.mark.parametrize(("ahead", "alive"), [(-10, True), (10, True), (-90, False), (90, False)])
def test_a_heartbeat_counts_for_one_lease(
    backend: Backend, predictions: PredictionTable, ahead: int, alive: bool
) -> None:
    """Also one from the future, which a clock that was set back has left."""
    ledger = backend.ledger(lease=60)
    backfills = Backfills(ledger)
    plan = backfills.begin("job", "{}", ("model", 1), [], "elsewhere:1:a", None, None)
    with ledger.engine.begin() as connection:
        beat = ledger.now(connection) + timedelta(seconds=ahead)
        connection.execute(sa.update(ledger.tables.backfills).values(heartbeat_at=beat))
    assert (backfills.unfinished("job", "{}", ("model", 1)) is None) == alive
    backfills.leave(plan)
    assert backfills.unfinished("job", "{}", ("model", 1)) is not None
