"""The calendar: partitions from labels and from the clock. Pure.

The hours, days or months of a zone tile all time: every instant is in exactly one. A day begins at
the first instant at which the zone's clock shows its midnight, or has been moved past it. An hour
is the time during which the clock shows that hour at one offset from UTC. So a day may have 23 or
25 hours, an hour half of its minutes, and a day or hour that the clock skips has no partition.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

from nightshift.flows.config.job import Granularity

WHOLE_TABLE = "all"

_EXAMPLES = {"hour": "2013-10-01T05", "day": "2013-10-01", "month": "2013-10"}
_SHAPES = {
    "hour": r"(\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]))(?::00)?(Z|[+-]\d\d:\d\d(?::\d\d)?)?",
    "day": r"\d{4}-\d\d-\d\d",
    "month": r"\d{4}-\d\d",
}
_DAY, _HOUR, _INSTANT = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)


@dataclass(frozen=True)
class Partition:
    """A slice of a job's rows, those with start <= time < end; None stands for no limit."""

    label: str
    start: datetime | None
    end: datetime | None


def parse_partition(text: str, by: Granularity, zone: ZoneInfo) -> Partition:
    """`2013-10-01`, `2013-10`, `2013-10-01T05` or `all` -> the partition.

    An hour that a clock change repeats needs its offset: `2013-11-03T01-04:00`. Raises
    ValueError with a text for people.
    """
    if text == WHOLE_TABLE:
        return Partition(WHOLE_TABLE, None, None)
    if by == WHOLE_TABLE:
        raise ValueError(
            f"{text!r} is not a valid partition: this job has only the whole table, 'all'"
        )
    parts = re.fullmatch(_SHAPES[by], text, re.ASCII)
    if parts is None:
        example = _EXAMPLES[by]
        raise ValueError(
            f"{text!r} is not a valid {by}: write it like {example}, or 'all' for all rows"
        )
    try:
        if by == "hour":
            return _parse_hour(datetime.fromisoformat(parts[1]), parts[2], zone)
        return _day_or_month(date.fromisoformat(text if by == "day" else f"{text}-01"), by, zone)
    except OverflowError as error:
        problem = "it reaches beyond the years 1 to 9999"
        raise ValueError(f"{text!r} is not a valid {by}: {problem}") from error
    except ValueError as error:
        raise ValueError(f"{text!r} is not a valid {by}: {error}") from error


def find_latest_partition(now: datetime, by: Granularity, zone: ZoneInfo) -> Partition:
    """The last partition that has ended by `now`, an instant."""
    current = _find_at(now.astimezone(UTC), by, zone)
    return current if current.start is None else _find_at(current.start - _INSTANT, by, zone)


def shift_partition(partition: Partition, steps: int, by: Granularity, zone: ZoneInfo) -> Partition:
    """The partition that many steps later, or earlier if negative; the whole table stays."""
    for _ in range(abs(steps)):
        if partition.start is None or partition.end is None:
            return partition
        partition = _find_at(partition.end if steps > 0 else partition.start - _INSTANT, by, zone)
    return partition


def list_partitions(
    first: date, last: date, by: Granularity, zone: ZoneInfo
) -> Iterator[Partition]:
    """The partitions that the days from `first` to `last` touch, both included, oldest first."""
    partition, until = (
        _find_at(_find_midnight(first, zone), by, zone),
        _find_midnight(last + _DAY, zone),
    )
    while partition.start is None or partition.start < until:
        yield partition
        if partition.end is None:
            return
        partition = _find_at(partition.end, by, zone)


def _find_at(instant: datetime, by: Granularity, zone: ZoneInfo) -> Partition:
    """The partition that contains the instant."""
    if by == WHOLE_TABLE:
        return Partition(WHOLE_TABLE, None, None)
    local = instant.astimezone(zone)
    offset = local.utcoffset() or timedelta()
    if by == "hour":
        clock = local.replace(minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
        return _find_hours(clock, zone)[offset]
    # Set back over midnight, a clock shows yesterday again, but today has started.
    started = instant >= _find_midnight(local.date() + _DAY, zone)
    day = local.date() + _DAY if started else local.date()
    return _day_or_month(day if by == "day" else day.replace(day=1), by, zone)


# --- days and months ----------------------------------------------------------------------------


def _day_or_month(first: date, by: Granularity, zone: ZoneInfo) -> Partition:
    """The day or month that begins with that day. Raises ValueError if clocks skip it."""
    if by == "day":
        after, label = first + _DAY, first.isoformat()
    else:
        after, label = (first + 31 * _DAY).replace(day=1), first.isoformat()[:7]
    start, end = _find_midnight(first, zone), _find_midnight(after, zone)
    if start == end:
        raise ValueError(f"clocks skip it in {zone.key}")
    return Partition(label, start, end)


def _find_midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant at which the clock shows that midnight, or has been moved past it."""
    midnight = datetime.combine(day, time(), zone)
    first, second = midnight.astimezone(UTC), midnight.replace(fold=1).astimezone(UTC)
    return first if first <= second else _find_change(second, first, zone)


# --- hours --------------------------------------------------------------------------------------


def _parse_hour(clock: datetime, offset: str | None, zone: ZoneInfo) -> Partition:
    partitions = _find_hours(clock, zone)
    if offset is not None:
        instant = datetime.fromisoformat(f"{clock.isoformat()}{offset}")
        named = partitions.get(instant.utcoffset() or timedelta())
        partition = named or _find_at(instant, "hour", zone)
        if partition != named and partition.start != instant:
            raise ValueError(f"it does not begin with an hour of {zone.key}")
        return partition
    if not partitions:
        raise ValueError(f"clocks skip it in {zone.key}")
    if len(partitions) > 1:
        labels = " or ".join(partition.label for partition in partitions.values())
        raise ValueError(f"clocks repeat it in {zone.key}; write {labels}")
    return next(iter(partitions.values()))


def _find_hours(clock: datetime, zone: ZoneInfo) -> dict[timedelta, Partition]:
    """The partitions in which the clock shows that hour, in order, by their offset from UTC."""
    instants = [clock.replace(tzinfo=zone), (clock + _HOUR - _INSTANT).replace(tzinfo=zone)]
    shown = [each.replace(fold=fold).utcoffset() for each in instants for fold in (0, 1)]
    offsets = [offset for offset in dict.fromkeys(shown) if offset is not None]
    bounds = {offset: _find_hour(clock, offset, zone) for offset in offsets}
    found = sorted((both, offset) for offset, both in bounds.items() if both is not None)
    partitions = {}
    for (start, end), offset in found:
        label = clock.isoformat()[:13]
        if len(found) > 1:
            label += clock.replace(tzinfo=timezone(offset)).isoformat()[19:]
        partitions[offset] = Partition(label, start, end)
    return partitions


def _find_hour(
    clock: datetime, offset: timedelta, zone: ZoneInfo
) -> tuple[datetime, datetime] | None:
    """When the clock shows that hour at that offset, if ever: the clock may change within."""
    start = (clock - offset).replace(tzinfo=UTC)
    end = start + _HOUR
    at_start = start.astimezone(zone).utcoffset() == offset
    at_end = (end - _INSTANT).astimezone(zone).utcoffset() == offset
    if not at_start and not at_end:
        return None
    if at_start and at_end:
        return start, end
    change = _find_change(start, end, zone)
    return (start, change) if at_start else (change, end)


def _find_change(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """The first second after `low`, up to `high`, at which the zone's offset is different."""
    offset = low.astimezone(zone).utcoffset()

    def changed(seconds: int) -> bool:
        return (low + timedelta(seconds=seconds)).astimezone(zone).utcoffset() != offset

    seconds = range(int((high - low).total_seconds()))
    return low + timedelta(seconds=bisect_left(seconds, True, key=changed))
