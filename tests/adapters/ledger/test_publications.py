"""Readers see each key once, from the newest run that is published for its time."""

import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import Backend, request_of, sign
from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.errors import AlreadyPublished, OwnershipLost, StatementFailed
from nightshift.adapters.history.run_history import History
from nightshift.adapters.ledger.intervals import Interval, replace_range, subtract_ranges
from nightshift.adapters.ledger.pointer import Pointer
from nightshift.adapters.ledger.runs import RunRequest, RunState
from nightshift.adapters.source.columns import ALL_KEYS
from nightshift.adapters.target.predictions import PredictionTable

# The ledger is one and the same in both backends of PostgreSQL.
BACKENDS = ("fast", "lite")

FIRST = datetime(2013, 10, 1, tzinfo=UTC)
DAY = timedelta(days=1)


# --- carving ------------------------------------------------------------------------------------


def interval(start: int, end: int, run_id: int) -> Interval:
    return Interval(FIRST + start * DAY, FIRST + end * DAY, run_id)


spans = st.tuples(st.integers(0, 20), st.integers(1, 21)).filter(lambda span: span[0] < span[1])


def who(published: Sequence[Interval], day: int) -> list[int]:
    """The runs that readers see on that day."""
    moment = FIRST + day * DAY
    return [line.run_id for line in published if line.start <= moment < line.end]


@given(st.lists(spans, max_size=12))
def test_each_moment_is_the_last_run_s(published: list[tuple[int, int]]) -> None:
    lines: list[Interval] = []
    oracle: dict[int, int] = {}
    for run_id, (start, end) in enumerate(published):
        new = interval(start, end, run_id)
        lines = replace_range(lines, new)
        oracle |= dict.fromkeys(range(start, end), run_id)
        assert new in lines
        assert replace_range(lines, new) == lines  # twice is once
    assert {day: who(lines, day) for day in range(22)} == {
        day: [oracle[day]] if day in oracle else [] for day in range(22)
    }
    assert lines == sorted(lines)
    assert all(line.start < line.end for line in lines)
    assert len({line.start for line in lines}) == len(lines)  # the table's key


@given(st.permutations(range(8)), st.lists(spans, min_size=8, max_size=8))
def test_each_moment_is_the_newest_run_s_whatever_the_order(
    order: list[int], ranges: list[tuple[int, int]]
) -> None:
    lines: list[Interval] = []
    for run_id in order:
        new = interval(*ranges[run_id], run_id)
        for piece in subtract_ranges(new, [line for line in lines if line.run_id > run_id]):
            lines = replace_range(lines, piece)
    for day in range(22):
        covering = [run_id for run_id, (start, end) in enumerate(ranges) if start <= day < end]
        assert who(lines, day) == covering[-1:]


def test_the_whole_table_around_a_day() -> None:
    whole, day = Interval(BEGINNING, END, 1), interval(3, 4, 2)
    around = [Interval(BEGINNING, day.start, 1), day, Interval(day.end, END, 1)]
    assert replace_range([whole], day) == around
    assert replace_range(around, whole) == [whole]


# --- what readers see ---------------------------------------------------------------------------

DAYS = 5


def days_of(backend: Backend) -> PredictionTable:
    """Five days of three rows each: ids 10 x day, + 1, + 2."""
    columns = [
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("x", sa.Double),
    ]
    rows = [
        {
            "id": 10 * day + row,
            "at": (FIRST + day * DAY + row * DAY / 3).replace(tzinfo=None),
            "x": 0,
        }
        for day in range(DAYS)
        for row in range(3)
    ]
    backend.table("t", columns, rows)
    predictions = backend.predictions(backend.source(table="t", time_column="at"))
    predictions.create()
    return predictions


def run_request(days: tuple[int, int] | None, version: int) -> RunRequest:
    start, end = (None, None) if days is None else (FIRST + days[0] * DAY, FIRST + days[1] * DAY)
    return request_of(str(days), start, end, fingerprint=str(version), version=version)


# A day or more of them, the whole table, or days that have no rows.
ranges = st.none() | st.sampled_from(
    [(0, 1), (2, 3), (4, 5), (0, 2), (1, 4), (0, 5), (5, 7), (-2, 1)]
)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(published=st.lists(ranges, min_size=1, max_size=6))
def test_the_view_is_as_a_dict_would_be(
    backend: Backend, published: list[tuple[int, int] | None]
) -> None:
    if not sa.inspect(backend.engine).has_table("t"):
        days_of(backend)
    backend.ledger().create()
    ledger_tables = ("published", "publication_changes", "chunks", "shards", "runs", "jobs")
    backend.execute(*(f"DELETE FROM nightshift_{name}" for name in ledger_tables))
    predictions = backend.predictions(backend.source(table="t", time_column="at"))
    predictions.create()
    backend.execute("DELETE FROM scores_runs")
    seen: dict[int, float] = {}
    live: dict[int, int] = {}
    for version, days in enumerate(published, 1):
        run = backend.score(
            predictions, run_request(days, version), lambda row, v=version: v, rows=2
        )
        first, last = days or (0, DAYS)
        for day in range(max(first, 0), min(last, DAYS)):
            seen |= {10 * day + row: version for row in range(3)}
        # Which runs have a part of time left, rows in it or not.
        covered = range(first, last) if days else range(-10, 20)
        live |= dict.fromkeys(covered, run.run_id)
        assert backend.view() == seen
        assert backend.view(value="model_version") == seen
        states = dict(backend.rows("SELECT run_id, state FROM nightshift_runs"))
        for run_id, state in states.items():
            assert state == (RunState.PUBLISHED if run_id in live.values() else RunState.SUPERSEDED)


def test_an_older_run_is_published_around_what_is_newer(backend: Backend) -> None:
    predictions = days_of(backend)
    ledger = predictions.ledger
    whole = backend.score(predictions, run_request(None, 1), lambda row: 1, publish=False)
    backend.score(predictions, run_request((1, 3), 2), lambda row: 2)
    ledger.publish(whole)
    assert backend.view() == {
        10 * day + row: 2 if day in {1, 2} else 1 for day in range(DAYS) for row in range(3)
    }
    moved = [(change.run_id, change.range_start) for change in Pointer(ledger).changes("job")]
    assert moved == [(1, FIRST + 3 * DAY), (1, BEGINNING), (2, FIRST + DAY)]
    backend.score(predictions, run_request(None, 3), lambda row: 3)
    assert set(backend.view().values()) == {3}


def test_an_older_run_that_readers_would_not_see(backend: Backend) -> None:
    predictions = days_of(backend)
    ledger = predictions.ledger
    day = backend.score(predictions, run_request((1, 2), 1), lambda row: 1, publish=False)
    backend.score(predictions, run_request(None, 2), lambda row: 2)
    with pytest.raises(AlreadyPublished, match=r"Run 2 is already published"):
        ledger.publish(day)
    assert set(backend.view().values()) == {2}
    assert [run.state for run in History(ledger).runs()] == [
        RunState.PUBLISHED,
        RunState.SUPERSEDED,
    ]
    assert ledger.begin(run_request((1, 2), 1), "elsewhere:1:b").run_id == 3


def test_a_run_is_not_resumed_behind_what_is_newer(backend: Backend) -> None:
    predictions = days_of(backend)
    ledger = predictions.ledger
    ledger.fail(ledger.begin(run_request(None, 1), "elsewhere:1:a"), "stopped")
    backend.score(predictions, run_request((1, 2), 1))
    again = ledger.begin(run_request(None, 1), "elsewhere:1:b")
    assert (again.run_id, again.seen) == (3, 0)


def test_what_else_the_view_tells(backend: Backend) -> None:
    predictions = days_of(backend)
    run = backend.score(predictions, run_request((0, 1), 7))
    columns = [c["name"] for c in sa.inspect(backend.engine).get_columns("scores")]
    assert columns == [
        "id", "partition_time", "prediction", "model_version", "run_id", "scored_at",
    ]  # fmt: skip
    found = backend.rows("SELECT model_version, run_id, scored_at FROM scores")
    assert {row[:2] for row in found} == {(7, run.run_id)}
    assert all(row[2] is not None for row in found)


def test_the_same_partition_twice_leaves_one_copy(backend: Backend) -> None:
    predictions = days_of(backend)
    first = backend.score(predictions, run_request(None, 1), lambda row: 1)
    second = backend.score(predictions, run_request(None, 1), lambda row: 2)
    assert second.run_id != first.run_id
    values = backend.view()
    assert len(values) == 3 * DAYS
    assert set(values.values()) == {2}
    assert backend.rows("SELECT count(*) FROM nightshift_published") == [(1,)]


def test_nothing_is_seen_before_it_is_published(backend: Backend) -> None:
    predictions = days_of(backend)
    ledger = predictions.ledger
    run = ledger.begin(run_request(None, 1), "elsewhere:1:a")
    with predictions.source.snapshot(sign(), None, None) as snapshot:
        for number, chunk in enumerate(snapshot.chunks(ALL_KEYS, 4)):
            backend.write(predictions, run, number, chunk)
            assert backend.view() == {}
    with pytest.raises(OwnershipLost):
        ledger.publish(run)
    ledger.score(run)
    assert backend.view() == {}
    ledger.publish(run)
    assert len(backend.view()) == 3 * DAYS


def test_a_run_of_no_rows(backend: Backend) -> None:
    predictions = days_of(backend)
    backend.score(predictions, run_request((3, 4), 1), lambda row: 1)
    backend.execute("DELETE FROM t WHERE id BETWEEN 30 AND 39")
    assert len(backend.view()) == 3
    run = backend.score(predictions, run_request((3, 4), 2))
    assert backend.view() == {}  # the rows are gone, and so are their predictions
    (record, old) = History(predictions.ledger).runs()
    assert (record.run_id, record.state, record.rows) == (run.run_id, RunState.PUBLISHED, 0)
    assert old.state == RunState.SUPERSEDED


def test_publishing_twice_changes_nothing(backend: Backend) -> None:
    predictions = days_of(backend)
    ledger = predictions.ledger
    first = backend.score(predictions, run_request(None, 1), lambda row: 1)
    before = backend.rows("SELECT * FROM nightshift_runs"), backend.view()
    ledger.publish(first)
    assert (backend.rows("SELECT * FROM nightshift_runs"), backend.view()) == before
    second = backend.score(predictions, run_request(None, 2), lambda row: 2)
    with pytest.raises(OwnershipLost):  # superseded is not published
        ledger.publish(first)
    assert set(backend.view().values()) == {2}
    ledger.publish(second)
    assert set(backend.view().values()) == {2}


def test_publishing_happens_wholly_or_not_at_all(backend: Backend) -> None:
    if backend.is_duckdb:
        pytest.skip("DuckDB has no triggers to fail with")
    predictions = days_of(backend)
    backend.score(predictions, run_request(None, 1), lambda row: 1)
    run = backend.score(predictions, run_request((1, 3), 2), lambda row: 2, publish=False)
    before = backend.rows("SELECT * FROM nightshift_published ORDER BY 2")
    if backend.is_sqlite:
        backend.execute(
            "CREATE TRIGGER stop BEFORE INSERT ON nightshift_published WHEN new.range_start >"
            " '2013-10-03' BEGIN SELECT RAISE(ABORT, 'stopped'); END"
        )
    elif backend.is_mysql:
        backend.execute(
            "CREATE TRIGGER stop BEFORE INSERT ON nightshift_published FOR EACH ROW IF"
            " new.range_start > '2013-10-03' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT ="
            " 'stopped'; END IF"
        )
    else:
        backend.execute(
            "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION ''stopped''; END'",
            "CREATE TRIGGER stop BEFORE INSERT ON nightshift_published FOR EACH ROW WHEN"
            " (new.range_start > '2013-10-03') EXECUTE FUNCTION stop()",
        )
    with pytest.raises(StatementFailed, match=r"to publish a run.*stopped"):
        predictions.ledger.publish(run)
    assert backend.rows("SELECT * FROM nightshift_published ORDER BY 2") == before
    assert set(backend.view().values()) == {1}
    assert History(predictions.ledger).runs()[0].state == RunState.SCORED
    table = " ON nightshift_published" if backend.is_postgres else ""
    backend.execute(f"DROP TRIGGER stop{table}")
    predictions.ledger.publish(run)
    assert backend.view() == {
        10 * day + row: 2 if day in {1, 2} else 1 for day in range(DAYS) for row in range(3)
    }


def test_readers_always_see_each_key_once(backend: Backend) -> None:
    """While days and whole tables are published over one another, many times."""
    predictions = days_of(backend)
    ledger = predictions.ledger
    backend.score(predictions, run_request(None, 0), lambda row: 0)
    ids = [10 * day + row for day in range(DAYS) for row in range(3)]
    published, looks = threading.Event(), 0
    problems: list[Sequence[sa.Row[Any]]] = []

    def look() -> None:
        nonlocal looks
        with backend.engine.connect() as connection:
            connection.execution_options(nightshift_read_only=True)
            while not published.is_set():
                found = connection.exec_driver_sql("SELECT id, prediction FROM scores").all()
                connection.rollback()
                looks += 1
                time.sleep(0.001)
                of_days = {(id_ // 10, value) for id_, value in found}
                if sorted(id_ for id_, _ in found) != ids or len(of_days) != DAYS:
                    problems.append(found)

    chance = random.Random(7)
    ranges = [None, (0, 1), (2, 3), (1, 4), (0, 5)]
    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        version = 0
        while version < 25 or (looks < 50 and not problems):
            version += 1
            days = chance.choice(ranges)
            run = ledger.begin(run_request(days, version), "elsewhere:1:writer")
            moments = {
                10 * day + row: FIRST + day * DAY + row * DAY / 3
                for day in range(*(days or (0, DAYS)))
                for row in range(3)
            }
            rows = {
                "id": pa.array(moments, pa.int64()),
                "partition_time": pa.array(moments.values(), pa.timestamp("us", "UTC")),
                "prediction": pa.array([float(version)] * len(moments)),
            }
            predictions.write(run, 0, pa.table(rows))
            ledger.score(run)
            ledger.publish(run)
    finally:
        published.set()
        for reader in readers:
            reader.join()
    assert not problems, problems[0]
