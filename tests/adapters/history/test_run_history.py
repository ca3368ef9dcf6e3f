"""What an audit compares a run with, out of a real ledger: the run before, the last published
run, the same weekday's.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from backends import Backend, request_of
from nightshift.adapters.database.times import BEGINNING
from nightshift.adapters.history.run_history import History
from nightshift.adapters.ledger.pointer import Pointer
from nightshift.adapters.ledger.runs import RejectedRow, Run
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.flows.checks.drift import require_repetition
from nightshift.flows.checks.evidence import comparable_rows, is_basis
from nightshift.flows.checks.results import Audit, CheckResult, Level, grade
from nightshift.flows.config.checks import DriftLevels

BACKENDS = ("fast", "lite")
MONDAY = datetime(2024, 3, 4, tzinfo=UTC)
DAY = timedelta(days=1)
LEVELS = DriftLevels(warn=0.1, fail=0.25, at_once=None)


@pytest.fixture
def predictions(backend: Backend) -> PredictionTable:
    backend.numbers("t", 1)
    made = backend.predictions(backend.source(table="t"))
    made.create()
    return made


def scored(predictions: PredictionTable, day: int | None, rows: int = 1, rejects: int = 0) -> Run:
    """A run of that day, of the whole table for None, which has so many rows."""
    start = None if day is None else MONDAY + day * DAY
    end = None if start is None else start + DAY
    run = predictions.ledger.begin(request_of(str(day), start, end), "elsewhere:1:a")
    values = pa.table({"id": range(rows), "prediction": [0.5] * rows})
    odd = [RejectedRow(f"[{rows + i}]", "ValueError", "odd", "{}") for i in range(rejects)]
    predictions.write(run, 0, values, odd)
    predictions.ledger.score(run)
    return run


def score_day(predictions: PredictionTable, day: int | None, drift: float) -> tuple[Run, Level]:
    """Score a day, and publish or reject it for how far its input has drifted."""
    ledger = predictions.ledger
    run = scored(predictions, day)
    start = BEGINNING if day is None else MONDAY + day * DAY
    before = History(ledger).previous_audit("job", str(day), start, run.run_id)
    previous = None if before is None else Audit.from_json(before)
    found: CheckResult = grade("drift", "input x", drift, LEVELS, "x has moved")
    audit = Audit.of([require_repetition(found, drift, LEVELS, previous)])
    ledger.note(run, audit=audit.to_json())
    if audit.reason is None:
        ledger.publish(run)
    else:
        ledger.quarantine(run, audit.reason)
    return run, audit.verdict


def test_one_odd_run_warns_and_what_goes_on_fails(
    backend: Backend, predictions: PredictionTable
) -> None:
    runs = [(0, 0.05, "ok"), (1, 0.3, "warn"), (2, 0.3, "fail"), (3, 0.15, "fail")]
    for day, drift, level in [*runs, (4, 0.05, "ok"), (5, 0.3, "warn")]:
        assert score_day(predictions, day, drift)[1] == level, day
    # Another try is judged by the run of the day before, not by the try that failed.
    assert score_day(predictions, 2, 0.15)[1] == "warn"


def test_of_the_whole_table_the_day_before_is_the_run_before(
    backend: Backend, predictions: PredictionTable
) -> None:
    assert [score_day(predictions, None, drift)[1] for drift in (0.05, 0.3, 0.3, 0.05)] == [
        "ok", "warn", "fail", "ok",
    ]  # fmt: skip


def test_what_was_released_is_not_an_odd_run(
    backend: Backend, predictions: PredictionTable
) -> None:
    score_day(predictions, 0, 0.3)
    run, level = score_day(predictions, 1, 0.3)
    assert level == "fail"
    Pointer(predictions.ledger).release(run.run_id, "ann@host", "so it is now")
    assert score_day(predictions, 2, 0.3)[1] == "warn"


def test_the_last_published_run_to_compare_with(
    backend: Backend, predictions: PredictionTable
) -> None:
    history = History(predictions.ledger)

    def former(day: int) -> int | None:
        found = history.earlier_run("job", str(day), MONDAY + day * DAY, 1000, is_basis)
        return found and found.run_id

    assert former(0) is None
    usual_one, _ = score_day(predictions, 0, 0.05)
    score_day(predictions, 1, 0.3)  # published with a warning
    assert former(2) == usual_one.run_id
    rejected, _ = score_day(predictions, 2, 0.3)
    assert former(3) == usual_one.run_id
    Pointer(predictions.ledger).release(rejected.run_id, "ann@host", "so it is now")
    assert former(3) == rejected.run_id
    assert former(0) == usual_one.run_id  # its own, rather than a later day's
    assert former(1) == usual_one.run_id


def test_rows_of_the_same_weekday(backend: Backend, predictions: PredictionTable) -> None:
    """Of each partition its newest published run, rejects and all."""
    ledger, zone = predictions.ledger, ZoneInfo("UTC")
    for week in range(3):
        ledger.publish(scored(predictions, 7 * week, rows=10 + week, rejects=1))
        ledger.publish(scored(predictions, 7 * week + 1, rows=3))
    ledger.publish(scored(predictions, 7, rows=20))
    ledger.quarantine(scored(predictions, 14, rows=1), "too few")
    ledger.publish(scored(predictions, None, rows=99))
    start, run = MONDAY + 21 * DAY, scored(predictions, 21, rows=4)
    volumes = History(ledger).volumes("job", start, run.run_id)
    assert comparable_rows(start, "day", zone, volumes) == (11, 20, 13)
    assert comparable_rows(start + DAY, "day", zone, volumes) == (3, 3, 3)
    whole = History(ledger).volumes("job", BEGINNING, run.run_id)
    assert comparable_rows(None, "day", zone, whole) == (99,)
