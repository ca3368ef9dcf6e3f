"""The time grid: partitions from labels and from the clock. Pure.

The cells of a grid tile all time: every instant is in exactly one. A day begins at the first
instant at which the zone's clock shows its midnight, or has been moved past it. An hour is the
time during which the clock shows that hour at one offset from UTC. So a day may have 23 or 25
hours, an hour half of its minutes, and a day or hour that the clock skips is no cell at all.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Literal
from zoneinfo import ZoneInfo

Granularity = Literal["all", "hour", "day", "month"]

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
    """One cell of a job's grid: the rows with start <= time < end. None is no bound."""

    label: str
    start: datetime | None
    end: datetime | None


def parse_partition(text: str, grid: Granularity, zone: ZoneInfo) -> Partition:
    """`2013-10-01`, `2013-10`, `2013-10-01T05` or `all` -> the partition.

    An hour that a clock change repeats needs its offset: `2013-11-03T01-04:00`. Raises
    ValueError with a text for people.
    """
    if text == WHOLE_TABLE:
        return Partition(WHOLE_TABLE, None, None)
    if grid == WHOLE_TABLE:
        raise ValueError(f"{text!r} is no partition: this job has only the whole table, 'all'")
    parts = re.fullmatch(_SHAPES[grid], text, re.ASCII)
    if parts is None:
        example = _EXAMPLES[grid]
        raise ValueError(f"{text!r} is no {grid}: write it like {example}, or 'all' for all rows")
    try:
        if grid == "hour":
            return _parse_hour(datetime.fromisoformat(parts[1]), parts[2], zone)
        return _cell(date.fromisoformat(text if grid == "day" else f"{text}-01"), grid, zone)
    except OverflowError as error:
        problem = "it reaches beyond the years 1 to 9999"
        raise ValueError(f"{text!r} is no {grid}: {problem}") from error
    except ValueError as error:
        raise ValueError(f"{text!r} is no {grid}: {error}") from error


def latest_partition(now: datetime, grid: Granularity, zone: ZoneInfo) -> Partition:
    """The last cell that has ended by `now`, an instant: what a night scores."""
    current = _cell_at(now.astimezone(UTC), grid, zone)
    return current if current.start is None else _cell_at(current.start - _INSTANT, grid, zone)


def shifted(cell: Partition, steps: int, grid: Granularity, zone: ZoneInfo) -> Partition:
    """The cell that comes so many cells later; earlier, if negative. The whole table stays."""
    for _ in range(abs(steps)):
        if cell.start is None or cell.end is None:
            return cell
        cell = _cell_at(cell.end if steps > 0 else cell.start - _INSTANT, grid, zone)
    return cell


def partitions_between(
    first: date, last: date, grid: Granularity, zone: ZoneInfo
) -> Iterator[Partition]:
    """The cells that the days from `first` to `last` touch, both included, oldest first."""
    cell, until = _cell_at(_midnight(first, zone), grid, zone), _midnight(last + _DAY, zone)
    while cell.start is None or cell.start < until:
        yield cell
        if cell.end is None:
            return
        cell = _cell_at(cell.end, grid, zone)


def _cell_at(instant: datetime, grid: Granularity, zone: ZoneInfo) -> Partition:
    """The cell that an instant is in."""
    if grid == WHOLE_TABLE:
        return Partition(WHOLE_TABLE, None, None)
    local = instant.astimezone(zone)
    offset = local.utcoffset() or timedelta()
    if grid == "hour":
        clock = local.replace(minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
        return _hours(clock, zone)[offset]
    # Set back over midnight, a clock shows yesterday again, but today has begun.
    begun = instant >= _midnight(local.date() + _DAY, zone)
    day = local.date() + _DAY if begun else local.date()
    return _cell(day if grid == "day" else day.replace(day=1), grid, zone)


# --- days and months ----------------------------------------------------------------------------


def _cell(first: date, grid: Granularity, zone: ZoneInfo) -> Partition:
    """The day, or the month, that begins with that day. Raises ValueError if clocks skip it."""
    if grid == "day":
        after, label = first + _DAY, first.isoformat()
    else:
        after, label = (first + 31 * _DAY).replace(day=1), first.isoformat()[:7]
    start, end = _midnight(first, zone), _midnight(after, zone)
    if start == end:
        raise ValueError(f"clocks skip it in {zone.key}")
    return Partition(label, start, end)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant at which the clock shows that midnight, or has been moved past it."""
    midnight = datetime.combine(day, time(), zone)
    first, second = midnight.astimezone(UTC), midnight.replace(fold=1).astimezone(UTC)
    return first if first <= second else _change(second, first, zone)


# --- hours --------------------------------------------------------------------------------------


def _parse_hour(clock: datetime, offset: str | None, zone: ZoneInfo) -> Partition:
    cells = _hours(clock, zone)
    if offset is not None:
        moment = datetime.fromisoformat(f"{clock.isoformat()}{offset}")
        named = cells.get(moment.utcoffset() or timedelta())
        cell = named or _cell_at(moment, "hour", zone)
        if cell != named and cell.start != moment:
            raise ValueError(f"it does not begin with an hour of {zone.key}")
        return cell
    if not cells:
        raise ValueError(f"clocks skip it in {zone.key}")
    if len(cells) > 1:
        labels = " or ".join(cell.label for cell in cells.values())
        raise ValueError(f"clocks repeat it in {zone.key}; write {labels}")
    return next(iter(cells.values()))


def _hours(clock: datetime, zone: ZoneInfo) -> dict[timedelta, Partition]:
    """The cells during which the clock shows that hour, in order, by their offset from UTC."""
    moments = [clock.replace(tzinfo=zone), (clock + _HOUR - _INSTANT).replace(tzinfo=zone)]
    shown = [moment.replace(fold=fold).utcoffset() for moment in moments for fold in (0, 1)]
    offsets = [offset for offset in dict.fromkeys(shown) if offset is not None]
    bounds = {offset: _hour(clock, offset, zone) for offset in offsets}
    found = sorted((both, offset) for offset, both in bounds.items() if both is not None)
    cells = {}
    for (start, end), offset in found:
        label = clock.isoformat()[:13]
        if len(found) > 1:
            label += clock.replace(tzinfo=timezone(offset)).isoformat()[19:]
        cells[offset] = Partition(label, start, end)
    return cells


def _hour(clock: datetime, offset: timedelta, zone: ZoneInfo) -> tuple[datetime, datetime] | None:
    """When the clock shows that hour at that offset, if ever: the clock may change within."""
    start = (clock - offset).replace(tzinfo=UTC)
    end = start + _HOUR
    begun = start.astimezone(zone).utcoffset() == offset
    ended = (end - _INSTANT).astimezone(zone).utcoffset() == offset
    if not begun and not ended:
        return None
    if begun and ended:
        return start, end
    change = _change(start, end, zone)
    return (start, change) if begun else (change, end)


def _change(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """The first second after `low`, up to `high`, at which the zone's offset is another."""
    offset = low.astimezone(zone).utcoffset()

    def changed(seconds: int) -> bool:
        return (low + timedelta(seconds=seconds)).astimezone(zone).utcoffset() != offset

    seconds = range(int((high - low).total_seconds()))
    return low + timedelta(seconds=bisect_left(seconds, True, key=changed))
