"""Release, rollback and what the ledger remembers of them; cleaning, origins and outcomes."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
import sqlalchemy as sa

from backends import Backend, request_of
from nightshift.adapters.errors import (
    ColumnNotFound,
    NothingToRollBackTo,
    RunNotQuarantined,
    RunUnknown,
    TableNotFound,
)
from nightshift.adapters.history.evaluation import evaluate_predictions
from nightshift.adapters.history.lineage import trace_row
from nightshift.adapters.history.run_history import History
from nightshift.adapters.ledger.pointer import Pointer
from nightshift.adapters.ledger.runs import CHALLENGER, RejectedRow, Run, RunRequest, RunState
from nightshift.adapters.target import retention
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.adapters.target.retention import Retention

BACKENDS = ("fast", "lite")
ONE = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def predictions(backend: Backend) -> PredictionTable:
    """Of a table with ten rows on each of two days; x is the id."""
    columns = [
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("x", sa.Double),
    ]
    rows = [{"id": i, "at": ONE + (i // 10) * DAY, "x": float(i)} for i in range(20)]
    backend.table("t", columns, rows)
    made = backend.predictions(backend.source(table="t", time_column="at"))
    made.create()
    return made


def run_request(day: int | None = 0, version: int = 1) -> RunRequest:
    start = None if day is None else ONE + day * DAY
    end = None if start is None else start + DAY
    label = "all" if day is None else str(day)
    return request_of(label, start, end, version=version, fingerprint=str(version))


def quarantined(
    backend: Backend, predictions: PredictionTable, request: RunRequest, add: float
) -> Run:
    run = backend.score(predictions, request, lambda row: row["x"] + add, publish=False)
    predictions.ledger.quarantine(run, "the predictions have moved")
    return run


def states(predictions: PredictionTable) -> list[str]:
    return [record.state for record in reversed(History(predictions.ledger).runs())]


def test_readers_do_not_see_a_quarantined_run(
    backend: Backend, predictions: PredictionTable
) -> None:
    backend.score(predictions, run_request(version=1))
    run = quarantined(backend, predictions, run_request(version=2), add=100)
    assert backend.view() == {i: float(i) for i in range(10)}
    assert states(predictions) == [RunState.PUBLISHED, RunState.QUARANTINED]
    (record, _) = History(predictions.ledger).runs()
    assert (record.run_id, record.error) == (run.run_id, "the predictions have moved")
    predictions.ledger.quarantine(run, "again, since the answer got lost")
    again = predictions.ledger.begin(run_request(version=2), "elsewhere:1:b")
    assert again.run_id != run.run_id


def test_a_release_shows_it_and_is_remembered(
    backend: Backend, predictions: PredictionTable
) -> None:
    backend.score(predictions, run_request(version=1))
    run = quarantined(backend, predictions, run_request(version=2), add=100)
    moved = Pointer(predictions.ledger).release(run.run_id, "ann@host", "it was right")
    assert backend.view() == {i: i + 100.0 for i in range(10)}
    assert states(predictions) == [RunState.SUPERSEDED, RunState.PUBLISHED]
    assert (moved.run_id, moved.action, moved.changed_by) == (run.run_id, "release", "ann@host")
    assert (moved.reason, moved.model_version) == ("it was right", 2)
    assert [change.action for change in Pointer(predictions.ledger).changes("job")] == [
        "release",
        "publish",
    ]
    with pytest.raises(RunNotQuarantined, match="it is published"):
        Pointer(predictions.ledger).release(run.run_id, "ann@host", "again")


def test_what_cannot_be_released(backend: Backend, predictions: PredictionTable) -> None:
    pointer = Pointer(predictions.ledger)
    run = quarantined(backend, predictions, run_request(version=1), add=100)
    backend.score(predictions, run_request(None, version=2))
    with pytest.raises(RunNotQuarantined, match="the later run 2 has been published"):
        pointer.release(run.run_id, "ann@host", "late")
    with pytest.raises(RunUnknown):
        pointer.release(77, "ann@host", "no such run")
    assert backend.view() == {i: float(i) for i in range(20)}


def test_what_was_cleaned_is_not_released(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    backend.score(predictions, run_request(version=1))
    for version in (2, 3, 4):
        quarantined(backend, predictions, run_request(version=version), add=100)
    keeper = Retention(ledger, keep=1)
    assert keeper._mark_cleaned("job", 2)  # and killed before a row is deleted
    assert [old.run_id for old in keeper.clean("job", "scores", ("id",))] == [2, 3]
    for run_id in (2, 3):
        with pytest.raises(RunNotQuarantined, match="has deleted its predictions"):
            Pointer(ledger).release(run_id, "ann@host", "late")
    assert backend.view() == {i: float(i) for i in range(10)}
    assert Pointer(ledger).release(4, "ann@host", "it was right").run_id == 4


def test_a_rollback_never_shows_what_was_rolled_back_from(
    backend: Backend, predictions: PredictionTable
) -> None:
    pointer = Pointer(predictions.ledger)

    def back() -> int:
        return pointer.rollback("job", "0", ONE, ONE + DAY, "ann@host", "garbage").run_id

    for version in (1, 2):
        backend.score(
            predictions, run_request(version=version), lambda row, v=version: row["x"] + v
        )
    assert back() == 1
    backend.score(predictions, run_request(version=3))
    assert back() == 1
    assert backend.view() == {i: i + 1.0 for i in range(10)}
    with pytest.raises(NothingToRollBackTo, match="Name one of these with --to: 3, 2"):
        back()


def test_what_a_rollback_of_a_part_leaves_for_the_whole(
    backend: Backend, predictions: PredictionTable
) -> None:
    pointer = Pointer(predictions.ledger)
    for version in (1, 2):
        backend.score(predictions, run_request(None, version), lambda row, v=version: row["x"] + v)
    assert pointer.rollback("job", "0", ONE, ONE + DAY, "ann@host", "worse").run_id == 1
    assert pointer.rollback("job", "all", None, None, "ann@host", "worse").run_id == 1
    assert backend.view() == {i: i + 1.0 for i in range(20)}


def test_rollbacks_go_back_step_by_step(backend: Backend, predictions: PredictionTable) -> None:
    for version in (1, 2, 3):
        backend.score(
            predictions, run_request(version=version), lambda row, v=version: row["x"] + v
        )
    backend.score(predictions, run_request(1))
    pointer = Pointer(predictions.ledger)

    def back(to: int | None = None) -> int:
        return pointer.rollback("job", "0", ONE, ONE + DAY, "ann@host", "worse", to).run_id

    other = {i: float(i) for i in range(10, 20)}
    assert back() == 2
    assert backend.view() == {i: i + 2.0 for i in range(10)} | other
    assert back() == 1
    assert states(predictions) == [
        RunState.PUBLISHED,
        RunState.SUPERSEDED,
        RunState.SUPERSEDED,
        RunState.PUBLISHED,
    ]
    with pytest.raises(NothingToRollBackTo, match="Name one of these with --to: 3, 2"):
        back()
    assert back(to=3) == 3
    with pytest.raises(NothingToRollBackTo, match="to run 4"):
        back(to=4)
    assert backend.view() == {i: i + 3.0 for i in range(10)} | other
    assert [change.run_id for change in pointer.changes("job", ONE, ONE + DAY)] == [
        3,
        1,
        2,
        3,
        2,
        1,
    ]


def test_a_day_goes_back_to_the_run_of_the_whole_table(
    backend: Backend, predictions: PredictionTable
) -> None:
    backend.score(predictions, run_request(None))
    backend.score(predictions, run_request(1, version=2), lambda row: -1.0)
    moved = Pointer(predictions.ledger).rollback(
        "job", "1", ONE + DAY, ONE + 2 * DAY, "ann@host", "worse"
    )
    assert moved.run_id == 1
    assert backend.view() == {i: float(i) for i in range(20)}
    assert states(predictions) == [RunState.PUBLISHED, RunState.SUPERSEDED]


def test_clean_leaves_what_readers_see_and_the_newest(
    backend: Backend, predictions: PredictionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    for version in (1, 2, 3, 4):
        backend.score(
            predictions, run_request(version=version), lambda row, v=version: row["x"] + v
        )
    pointer = Pointer(predictions.ledger)
    pointer.rollback("job", "0", ONE, ONE + DAY, "ann@host", "worse", to=1)
    backend.score(predictions, run_request(1))
    before = backend.view()
    keeper = Retention(predictions.ledger, keep=2)
    assert [old.run_id for old in keeper.removable("job")] == [2]
    gone = list(keeper.clean("job", "scores", ("id",)))
    assert [(old.run_id, old.rows, old.state) for old in gone] == [(2, 10, RunState.SUPERSEDED)]
    assert backend.rows("SELECT DISTINCT run_id FROM scores_runs ORDER BY 1") == [
        (1,),
        (3,),
        (4,),
        (5,),
    ]
    assert backend.view() == before
    assert keeper.removable("job") == []
    with pytest.raises(NothingToRollBackTo):
        pointer.rollback("job", "0", ONE, ONE + DAY, "ann@host", "worse", to=2)


def test_clean_goes_on_after_a_kill(backend: Backend, predictions: PredictionTable) -> None:
    for version in (1, 2):
        backend.score(predictions, run_request(version=version))
    keeper = Retention(predictions.ledger, keep=1)
    assert keeper._mark_cleaned("job", 1)
    backend.execute("DELETE FROM scores_runs WHERE run_id = 1 AND id < 5")
    assert [old.run_id for old in keeper.clean("job", "scores", ("id",))] == [1]
    assert backend.rows("SELECT count(*) FROM scores_runs") == [(10,)]
    assert backend.rows("SELECT count(*) FROM nightshift_chunks") == [(1,)]


def test_a_target_that_was_dropped(backend: Backend, predictions: PredictionTable) -> None:
    for version in (1, 2):
        backend.score(predictions, run_request(version=version))
    backend.execute("DROP VIEW scores", "DROP TABLE scores_runs")
    keeper = Retention(predictions.ledger, keep=1)
    assert [old.run_id for old in keeper.clean("job", "scores", ("id",))] == [1]
    assert backend.rows("SELECT run_id FROM nightshift_chunks") == [(2,)]


def test_a_retry_under_way_pushes_out_nothing(
    backend: Backend, predictions: PredictionTable
) -> None:
    quarantined(backend, predictions, run_request(version=1), add=100)
    predictions.ledger.begin(run_request(version=2), "elsewhere:1:a")
    assert Retention(predictions.ledger, keep=1).removable("job") == []


def test_clean_leaves_a_run_under_way_and_one_that_can_resume(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    for label in ("under way", "to be resumed"):
        run = ledger.begin(request_of(label), "elsewhere:1:a")
        row = {"id": [1], "partition_time": [ONE], "prediction": [1.0]}
        predictions.write(run, 0, pa.table(row))
    ledger.fail(run, "stopped")
    assert states(predictions) == ["running", RunState.FAILED]
    assert list(Retention(ledger, keep=1).clean("job", "scores", ("id",))) == []
    assert backend.rows("SELECT count(*) FROM scores_runs") == [(2,)]


def test_where_a_row_came_from(backend: Backend, predictions: PredictionTable) -> None:
    backend.score(predictions, run_request(version=1), rows=4)
    backend.score(predictions, run_request(version=2), lambda row: row["x"] + 1, rows=4)
    run = predictions.ledger.begin(run_request(version=3), "elsewhere:1:a")
    reject = RejectedRow("[5]", "ValueError", "cannot take it", '{"x": 5.0}')
    empty = pa.table({"id": [4], "partition_time": [ONE], "prediction": [4.0]})
    predictions.write(run, 0, empty, [reject], keys=((0,), (9,)))
    found = trace_row(History(predictions.ledger), "job", "scores", ("id",), ("5",))
    assert [(o.run.run_id, o.visible, o.values, o.error) for o in found] == [
        (3, False, None, "cannot take it"),
        (2, True, {"prediction": 6.0}, None),
        (1, False, {"prediction": 5.0}, None),
    ]
    assert found[0].inputs == '{"x": 5.0}'
    assert trace_row(History(predictions.ledger), "job", "scores", ("id",), ("12345",)) == []
    assert History(predictions.ledger).runs()[0].rejected == 1


def test_predictions_and_what_happened(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    backend.score(predictions, run_request(version=1), lambda row: row["x"] + 9)
    backend.score(predictions, run_request(version=2), lambda row: row["x"] + 1)
    request = run_request(version=3)
    challenger = RunRequest(**{**request.__dict__, "role": CHALLENGER})
    run = ledger.begin(challenger, "elsewhere:1:c")
    rows = {"id": [0, 1], "partition_time": [ONE, ONE], "prediction": [3.0, -2.0]}
    predictions.write(run, 0, pa.table(rows))
    ledger.score(run)
    with pytest.raises(ValueError, match="never published"):
        ledger.publish(run)
    columns = [sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("real", sa.Double)]
    known = [{"id": i, "real": None if i > 3 else float(i)} for i in range(10)]
    actuals = backend.table("happened", columns, known)
    history = History(ledger)
    found = evaluate_predictions(history, "job", "scores", ("id",), actuals, "real", None)
    assert [(o.model, o.role, o.rows, o.mae, o.bias) for o in found] == [
        ("model@3", "challenger", 2, 3.0, 0.0),
        ("model@1", "champion", 4, 9.0, 9.0),
        ("model@2", "champion", 4, 1.0, 1.0),
    ]
    assert found[0].rmse == pytest.approx(3.0)
    with pytest.raises(TableNotFound):
        evaluate_predictions(history, "job", "scores", ("id",), sa.table("no"), "real", None)
    with pytest.raises(ColumnNotFound):
        evaluate_predictions(history, "job", "scores", ("id",), actuals, "unreal", None)
