"""Instants, and the local times and dates by which a source may state them. Pure.

A date means its first moment in the job's time zone. A local time that clocks repeat means its
first occurrence; one that they skip means the last moment before the jump. The two functions agree
to the microsecond: `t >= first_local_time(i)` exactly if `instants(t) >= i`, so that every row is
read in the one partition in which readers look for it.
"""

from bisect import bisect_left
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

# A partition without bounds: the widest range that drivers can return in any session's zone.
BEGINNING = datetime(1, 1, 2, tzinfo=UTC)
END = datetime(9999, 12, 31, tzinfo=UTC)

_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001
_DAY = 86_400  # seconds


def instants(times: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    """Dates or timestamps, with or without a zone -> timestamp[us, UTC]."""
    skipped = "earliest"
    if pa.types.is_date(times.type):
        times, skipped = times.cast(pa.timestamp("us")), "latest"
    if times.type.tz is None:
        times = pc.assume_timezone(times, zone, ambiguous="earliest", nonexistent=skipped)
    return times.cast(pa.timestamp("us", "UTC"))


def first_local_time(kind: pa.DataType, instant: datetime, zone: ZoneInfo) -> datetime | date:
    """The least value of a column of that Arrow type that is at or after the instant."""
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return instant
    local = instant.astimezone(zone)
    if pa.types.is_date(kind):
        days = (local.date() + timedelta(days=days) for days in (-1, 0, 1))  # clocks skip days, too
        return next(day for day in days if _start_of(day, zone) >= instant)
    first = local.replace(tzinfo=None, fold=0)
    if not local.fold:
        return first
    # The second pass of a repeated hour: local times mean the first pass, so the least time at or
    # after the instant is the first one that is not repeated.
    start = first.replace(microsecond=0)
    return start + timedelta(
        seconds=bisect_left(
            range(_DAY), True, key=lambda s: not _is_repeated(start + timedelta(seconds=s), zone)
        )
    )


def out_of_range(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which dates or timestamps are infinite or outside the years 1 to 9999.

    Databases hold such values; drivers let them overflow, and models cannot take them.
    """
    kind = times.type
    first, last = _FIRST, _LAST
    if pa.types.is_timestamp(kind):
        times = times.cast(pa.timestamp("us"))
        low, high = pa.scalar(first, times.type), pa.scalar(last, times.type)
    else:
        low, high = pa.scalar(first.date(), kind), pa.scalar(last.date(), kind)
    return pc.or_(pc.less(times, low), pc.greater(times, high))


def _start_of(day: date, zone: ZoneInfo) -> datetime:
    start: datetime = instants(pa.chunked_array([[day]], pa.date32()), zone.key)[0].as_py()
    return start


def _is_repeated(local: datetime, zone: ZoneInfo) -> bool:
    first, second = (local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    return first is not None and second is not None and first > second
