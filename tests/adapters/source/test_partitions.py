# ruff: noqa: DTZ001  columns without a time zone hold such times
"""Partitions tile the rows: each row is read in one, the one in which readers look for it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from backends import Backend, request_of

NEW_YORK = "America/New_York"
HOUR = timedelta(hours=1)


def midnights(zone: str, *days: tuple[int, int]) -> list[datetime]:
    """When these days (month, day) of 2013 begin."""
    return [datetime(2013, *day, tzinfo=ZoneInfo(zone)).astimezone(UTC) for day in days]


def hours(start: datetime, count: int) -> list[datetime]:
    return [start + number * HOUR for number in range(count)]


def table_of(backend: Backend, kind: Any, times: list[Any]) -> None:
    columns = [
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("at", kind, nullable=False),
        sa.Column("x", sa.Double),
    ]
    rows = [{"id": id_, "at": at, "x": id_ / 2} for id_, at in enumerate(times)]
    backend.table("t", columns, rows)


def tile(backend: Backend, zone: str, bounds: list[datetime]) -> list[list[int]]:
    """The ids read in each partition, from before the first bound to after the last.

    Each is scored and published as a run of its own; readers must see each row, once.
    """
    source = backend.source(table="t", time_column="at", timezone=zone)
    predictions = backend.predictions(source)
    predictions.create()
    ledger = predictions.ledger
    found = []
    for number, (start, end) in enumerate(pairwise([None, *bounds, None])):
        run = ledger.begin(request_of(str(number), start, end), "elsewhere:1:one")
        chunks = backend.read(source, start=start, end=end)
        found.append([id_ for chunk in chunks for id_ in chunk.column("id").to_pylist()])
        for chunk in chunks:
            for time in chunk.column("partition_time").to_pylist():
                assert start is None or start <= time
                assert end is None or time < end
            backend.write(predictions, run, 0, chunk)
        ledger.score(run)
        ledger.publish(run)
    ids = sorted(id_ for part in found for id_ in part)
    assert ids == list(range(len(ids)))
    assert backend.view() == {id_: id_ / 2 for id_ in ids}
    return found


def test_rows_at_the_very_bounds(backend: Backend) -> None:
    zone = "UTC" if backend.is_sqlite else NEW_YORK
    start, end = midnights(zone, (10, 1), (10, 2))
    instant = timedelta(microseconds=1)
    times = [start - instant, start, start + instant, end - instant, end, end + instant]
    kind = sa.DateTime(timezone=not backend.is_sqlite)
    table_of(
        backend, kind, [time.replace(tzinfo=None) if backend.is_sqlite else time for time in times]
    )
    assert tile(backend, zone, [start, end]) == [[0], [1, 2, 3], [4, 5]]


def test_local_times_at_the_very_bounds(backend: Backend) -> None:
    instant = timedelta(microseconds=1)
    start, end = datetime(2013, 10, 1), datetime(2013, 10, 2)
    table_of(backend, sa.DateTime(), [start - instant, start, end - instant, end])
    bounds = midnights(NEW_YORK, (10, 1), (10, 2))
    assert tile(backend, NEW_YORK, bounds) == [[0], [1, 2], [3]]


def test_dates(backend: Backend) -> None:
    days = [datetime(2013, 9, 29).date() + timedelta(days=number) for number in range(4)]
    table_of(backend, sa.Date(), days)
    assert tile(backend, NEW_YORK, midnights(NEW_YORK, (9, 30), (10, 1))) == [[0], [1], [2, 3]]


def test_dates_in_partitions_of_an_hour(backend: Backend) -> None:
    """A date is its first moment, so the first hour of the day has it."""
    days = [datetime(2013, 9, 30).date() + timedelta(days=number) for number in range(3)]
    table_of(backend, sa.Date(), days)
    (midnight,) = midnights(NEW_YORK, (10, 1))
    bounds = [midnight - HOUR, midnight, midnight + HOUR, midnight + 2 * HOUR]
    assert tile(backend, NEW_YORK, bounds) == [[0], [], [1], [], [2]]


QUARTERS = [timedelta(minutes=15 * number) for number in range(4 * 26)]


@pytest.mark.parametrize(
    ("day", "after", "length"), [((3, 10), (3, 11), 23), ((11, 3), (11, 4), 25)]
)
def test_days_when_clocks_change(
    postgres_backend: Backend, day: tuple[int, int], after: tuple[int, int], length: int
) -> None:
    start, end = midnights(NEW_YORK, day, after)
    assert end - start == length * HOUR
    instants = [start - HOUR + step for step in QUARTERS if start - HOUR + step < end + HOUR]
    table_of(postgres_backend, sa.DateTime(timezone=True), instants)
    _, within, _ = tile(postgres_backend, NEW_YORK, [start, end])
    assert len(within) == 4 * length


@pytest.mark.parametrize(
    ("zone", "day", "after"),
    [
        (NEW_YORK, (3, 10), (3, 11)),  # 2:00 to 3:00 is not there
        (NEW_YORK, (11, 3), (11, 4)),  # 1:00 to 2:00 comes twice
        ("America/Sao_Paulo", (10, 20), (10, 21)),  # midnight to 1:00 is not there
        ("America/Sao_Paulo", (2, 17), (2, 18)),  # 23:00 to midnight came twice before it
        ("America/Havana", (11, 3), (11, 4)),  # midnight to 1:00 comes twice
    ],
)
def test_local_times_when_clocks_change(
    backend: Backend, zone: str, day: tuple[int, int], after: tuple[int, int]
) -> None:
    midnight = datetime(2013, *day)
    times = [midnight - HOUR + step for step in QUARTERS]
    table_of(backend, sa.DateTime(), times)
    tile(backend, zone, midnights(zone, day, after))


@pytest.mark.parametrize("day", [(3, 10), (11, 3)])
def test_hours_when_clocks_change(backend: Backend, day: tuple[int, int]) -> None:
    times = [datetime(2013, *day) + step for step in QUARTERS[:20]]
    table_of(backend, sa.DateTime(), times)
    found = tile(backend, NEW_YORK, hours(*midnights(NEW_YORK, day), 7))
    sizes = [len(part) for part in found]
    # In spring the times that are not there are the last moment before; in autumn the repeated
    # hour's times are all its first pass.
    spring, autumn = [0, 4, 8, 4, 4, 0, 0, 0], [0, 4, 4, 0, 4, 4, 4, 0]
    assert sizes == (spring if day == (3, 10) else autumn)


def test_a_date_whose_midnight_is_not_there(backend: Backend) -> None:
    days = [datetime(2013, 10, 18).date() + timedelta(days=number) for number in range(5)]
    table_of(backend, sa.Date(), days)
    zone = "America/Sao_Paulo"
    bounds = midnights(zone, (10, 19), (10, 20), (10, 21))
    assert tile(backend, zone, bounds) == [[0], [1], [2], [3, 4]]


def test_times_as_people_write_them_into_sqlite(lite: Backend) -> None:
    """'2013-10-01 00:00:00' is the bound itself, though less than the text with a fraction."""
    lite.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME NOT NULL, x REAL)")
    times = [
        "2013-09-30 23:59:59", "2013-09-30 23:59:59.999999", "2013-10-01 00:00:00",
        "2013-10-01 00:00:00.0", "2013-10-01 00:00:00.000000", "2013-10-01 23:59:59.9",
        "2013-10-02 00:00:00", "2013-10-02 00:00:00.000000",
    ]  # fmt: skip
    for id_, time in enumerate(times):
        lite.execute(f"INSERT INTO t VALUES ({id_}, '{time}', {id_ / 2})")
    bounds = midnights("UTC", (10, 1), (10, 2))
    assert tile(lite, "UTC", bounds) == [[0, 1], [2, 3, 4, 5], [6, 7]]


def test_the_session_s_time_zone_does_not_matter(postgres_backend: Backend) -> None:
    backend = postgres_backend
    start, end = midnights(NEW_YORK, (10, 1), (10, 2))
    table_of(backend, sa.DateTime(timezone=True), [start - HOUR, start, end - HOUR, end])
    backend.execute(f"ALTER DATABASE {backend.engine.url.database} SET timezone = 'Asia/Tokyo'")
    backend.engine.dispose()
    assert tile(backend, NEW_YORK, [start, end]) == [[0], [1, 2], [3]]
