"""All that the ledger knows of a run, whatever has become of it, on each kind of database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
import sqlalchemy as sa

from backends import Backend, request_of
from nightshift.adapters.errors import RunUnknown
from nightshift.adapters.history.run_details import newest_run, read_run_details
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.pointer import Pointer
from nightshift.adapters.ledger.publications import RELEASE
from nightshift.adapters.ledger.runs import CHALLENGER, RejectedRow, RunRequest, RunState
from nightshift.adapters.target.predictions import PredictionTable

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


def run_request(day: int | None, version: int = 1, role: str = "champion") -> RunRequest:
    start = None if day is None else ONE + day * DAY
    end = None if start is None else start + DAY
    label = "all" if day is None else str(day)
    made = request_of(label, start, end, version=version, fingerprint=str(version))
    return replace(made, role=role)


def test_a_published_run_and_the_one_that_took_its_place(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    first = backend.score(predictions, run_request(0, 1), rows=4)
    alone = read_run_details(ledger, first.run_id)
    assert (alone.run.state, alone.run.rows, alone.chunks) == (RunState.PUBLISHED, 10, 3)
    assert (alone.earlier, alone.before, alone.challenger, alone.audit) == (None, None, None, None)
    assert alone.first_commit is not None
    assert alone.last_commit is not None
    assert alone.run.started_at <= alone.first_commit <= alone.last_commit
    assert [shown.run_id for shown in alone.shown] == [first.run_id]
    assert (alone.start, alone.end) == (ONE, ONE + DAY)
    second = backend.score(predictions, run_request(0, 2))
    assert newest_run(ledger, "job") == second.run_id
    assert newest_run(ledger, "another") is None
    found = read_run_details(ledger, second.run_id)
    assert found.before is not None
    assert found.earlier is not None
    assert (found.before.run_id, found.before.rows) == (first.run_id, 10)
    assert found.earlier.run_id == first.run_id
    again = read_run_details(ledger, first.run_id)
    assert again.run.state == RunState.SUPERSEDED
    assert [(shown.run_id, shown.model) for shown in again.shown] == [(second.run_id, "model@2")]
    assert again.before is None
    for seen in (found, again):
        shown = backend.rows(seen.sql.replace("LIMIT", "limit"))
        assert len(shown) == 10


def test_a_quarantined_run_next_to_what_readers_see(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    everything = backend.score(predictions, run_request(None, 1))
    run = backend.score(predictions, run_request(1, 2), lambda row: row["x"] + 100, publish=False)
    ledger.note(run, audit='{"verdict": "fail"}')
    ledger.quarantine(run, "the predictions have moved")
    found = read_run_details(ledger, run.run_id)
    assert (found.run.state, found.run.error) == (
        RunState.QUARANTINED,
        "the predictions have moved",
    )
    assert found.audit == '{"verdict": "fail"}'
    assert [shown.run_id for shown in found.shown] == [everything.run_id]
    assert found.before is not None
    assert (found.before.partition, found.changes) == ("all", [])
    assert len(backend.rows(found.sql)) == 10
    Pointer(ledger).release(run.run_id, "a person", "it is right")
    (change,) = read_run_details(ledger, run.run_id).changes
    assert (change.action, change.changed_by, change.reason) == (RELEASE, "a person", "it is right")


def test_rejects_by_kind_each_with_its_first(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    run = ledger.begin(run_request(0), new_owner())
    (values,) = backend.read(predictions.source, start=ONE, end=ONE + DAY)
    rejects = [
        RejectedRow(f"[{i}]", "NaN" if i else "ValueError", f"error {i}", f'{{"x": {i}}}')
        for i in range(3)
    ]
    rows = values.slice(3).select(predictions.source.kept_columns)
    rows = rows.append_column("prediction", pa.array([1.0] * 7))
    predictions.write(run, 0, rows, rejects, '{"rows": 7}', ((0,), (9,)))
    ledger.fail(run, "too many")
    found = read_run_details(ledger, run.run_id)
    assert (found.run.state, found.run.rows, found.run.rejected) == (RunState.FAILED, 7, 3)
    assert [(kind.kind, kind.rows, kind.key, kind.error) for kind in found.rejects] == [
        ("NaN", 2, "[1]", "error 1"),
        ("ValueError", 1, "[0]", "error 0"),
    ]
    assert found.rejects[0].inputs == '{"x": 1}'
    assert found.profiles == ['{"rows": 7}']


def test_the_challenger_of_a_run_is_the_one_alongside_it(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    runs = []
    for version in (1, 2):
        champion = backend.score(predictions, run_request(0, version), publish=False)
        challenger = backend.score(predictions, run_request(0, 9, CHALLENGER), publish=False)
        ledger.note(challenger, comparison=f'{{"rows": {version}}}')
        ledger.publish(champion)
        runs.append((champion.run_id, challenger.run_id))
    for version, (champion_id, challenger_id) in enumerate(runs, start=1):
        for asked in (champion_id, challenger_id):
            found = read_run_details(ledger, asked)
            assert found.run.run_id == champion_id
            assert found.challenger is not None
            assert found.challenger.run_id == challenger_id
            assert found.comparison == f'{{"rows": {version}}}'
    assert newest_run(ledger, "job") == runs[-1][0]


def test_an_unknown_run(predictions: PredictionTable) -> None:
    with pytest.raises(RunUnknown, match="no run 77"):
        read_run_details(predictions.ledger, 77)
