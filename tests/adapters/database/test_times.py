# ruff: noqa: DTZ001  columns without a time zone hold such times
"""Local times and instants: reading back what was meant, on the days when clocks change, too."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nightshift.adapters.database.times import (
    BEGINNING,
    END,
    first_local_time,
    instants,
    out_of_range,
)

ZONES = [
    "UTC",
    "America/New_York",  # back and forth at 2:00
    "America/Sao_Paulo",  # until 2018 forth at midnight, which is not there, and back to 23:00
    "America/Havana",  # back from 1:00, so that midnight comes twice
    "Australia/Lord_Howe",  # by half an hour
    "Asia/Kathmandu",  # 15 minutes off everybody
    "Pacific/Apia",  # without the 30th of December 2011
    "Europe/Dublin",
    "Africa/Casablanca",
]
TIMESTAMP, DATE = pa.timestamp("us"), pa.date32()

zones = st.sampled_from(ZONES)
locals_ = st.datetimes(datetime(2009, 1, 1), datetime(2019, 12, 31))
moments = locals_.map(lambda moment: moment.replace(tzinfo=UTC))


def instant(value: datetime | date, kind: pa.DataType, zone: str) -> datetime:
    (found,) = instants(pa.chunked_array([[value]], kind), zone).to_pylist()
    assert isinstance(found, datetime)
    return found


@given(zone=zones, local=locals_, bound=moments)
@example("America/New_York", datetime(2013, 11, 3, 1, 30), datetime(2013, 11, 3, 6, 0, tzinfo=UTC))
@example("America/New_York", datetime(2013, 11, 3, 1, 30), datetime(2013, 11, 3, 5, 0, tzinfo=UTC))
@example("America/New_York", datetime(2013, 11, 3, 2, 0), datetime(2013, 11, 3, 6, 30, tzinfo=UTC))
@example("America/New_York", datetime(2013, 3, 10, 2, 30), datetime(2013, 3, 10, 7, tzinfo=UTC))
@example("Australia/Lord_Howe", datetime(2013, 4, 7, 1, 45), datetime(2013, 4, 6, 15, tzinfo=UTC))
@example("America/Sao_Paulo", datetime(2013, 10, 20, 0, 30), datetime(2013, 10, 20, 3, tzinfo=UTC))
def test_a_local_time_is_in_the_partition_of_its_instant(
    zone: str, local: datetime, bound: datetime
) -> None:
    local_bound = first_local_time(TIMESTAMP, bound, ZoneInfo(zone))
    assert isinstance(local_bound, datetime)
    assert (local >= local_bound) == (instant(local, TIMESTAMP, zone) >= bound)
    # `local_bound` is the least such time, to the microsecond.
    assert instant(local_bound, TIMESTAMP, zone) >= bound
    assert instant(local_bound - timedelta(microseconds=1), TIMESTAMP, zone) < bound


@given(zone=zones, local=st.dates(date(2009, 1, 1), date(2019, 12, 31)), bound=moments)
@example("America/Sao_Paulo", date(2013, 10, 20), datetime(2013, 10, 20, 3, tzinfo=UTC))
@example("America/Havana", date(2013, 11, 3), datetime(2013, 11, 3, 4, tzinfo=UTC))
@example("Pacific/Apia", date(2011, 12, 30), datetime(2011, 12, 30, 10, tzinfo=UTC))
@example("America/New_York", date(2013, 10, 1), datetime(2013, 10, 1, 4, tzinfo=UTC))
def test_a_date_is_in_the_partition_of_its_first_moment(
    zone: str, local: date, bound: datetime
) -> None:
    local_bound = first_local_time(DATE, bound, ZoneInfo(zone))
    assert not isinstance(local_bound, datetime)
    assert (local >= local_bound) == (instant(local, DATE, zone) >= bound)


@given(zone=zones, bound=moments)
def test_an_instant_is_itself(zone: str, bound: datetime) -> None:
    kind = pa.timestamp("us", "UTC")
    assert first_local_time(kind, bound, ZoneInfo(zone)) == bound
    assert instant(bound, kind, zone) == bound


@given(zone=zones, local=locals_)
def test_a_time_that_is_there_once_means_what_python_says(zone: str, local: datetime) -> None:
    first, second = (
        local.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1)
    )
    found = instant(local, TIMESTAMP, zone)
    if first <= second:  # once, or the first of two
        assert found == first
    else:  # never: the last moment before the clock was put forward
        assert found.astimezone(ZoneInfo(zone)).replace(tzinfo=None) < local
        later = found + timedelta(microseconds=1)
        assert later.astimezone(ZoneInfo(zone)).replace(tzinfo=None) > local


@pytest.mark.parametrize("zone", ZONES)
def test_partitions_at_the_ends_of_time_have_local_bounds(zone: str) -> None:
    for kind in (TIMESTAMP, DATE, pa.timestamp("us", "UTC")):
        for bound in (BEGINNING + timedelta(days=2), END - timedelta(days=2)):
            local_bound = first_local_time(kind, bound, ZoneInfo(zone))
            assert instant(local_bound, kind, zone) >= bound


def test_what_no_time_can_hold() -> None:
    inside = [datetime(1, 1, 1), datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)]
    first, last = (pa.scalar(time, TIMESTAMP).value for time in (inside[0], inside[-1]))
    outside = [first - 1, last + 1, -(2**63) + 1, 2**63 - 1]
    for kind in (TIMESTAMP, pa.timestamp("us", "UTC")):
        times = pa.chunked_array([pa.array([first, None, last, *outside], pa.int64()).cast(kind)])
        assert out_of_range(times).to_pylist() == [False, None, False, True, True, True, True]
    days = pa.array([date(1, 1, 1), None, date(9999, 12, 31)], DATE).cast(pa.int32()).to_pylist()
    days += [days[0] - 1, days[2] + 1, -(2**31), 2**31 - 1]
    dates = pa.chunked_array([pa.array(days, pa.int32()).cast(DATE)])
    assert out_of_range(dates).to_pylist() == [False, None, False, True, True, True, True]
