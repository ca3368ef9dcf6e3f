"""Partitions tile time, in every zone there is and whatever its clocks do."""

import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from nightshift.flows.planning.partitions import (
    Granularity,
    Partition,
    find_latest_partition,
    list_partitions,
    parse_partition,
    shift_partition,
)

INSTANT, MINUTE, HOUR, DAY = (
    timedelta(**{unit: 1}) for unit in ("microseconds", "minutes", "hours", "days")
)
ODD = {
    "America/New_York": "an hour skipped or repeated in the dark",
    "Europe/London": "repeated at offset +00:00",
    "Asia/Kolkata": "half an hour off",
    "Asia/Kathmandu": "three quarters off, and clocks set by a quarter in 1986",
    "Australia/Lord_Howe": "clocks set by half an hour",
    "America/Sao_Paulo": "midnight skipped, or the hour before it repeated",
    "Africa/Cairo": "midnight skipped",
    "Asia/Beirut": "midnight skipped",
    "America/Havana": "midnight repeated",
    "America/St_Johns": "set back at 00:01, so that yesterday comes again",
    "America/Toronto": "23:30 to 00:30 skipped in 1919",
    "Pacific/Apia": "2011-12-30 skipped",
    "Pacific/Kwajalein": "1993-08-21 skipped, nearly a day repeated in 1969",
    "America/Juneau": "a whole day repeated in 1867",
    "Europe/Amsterdam": "offsets with seconds until 1940",
    "Africa/Monrovia": "offsets with seconds until 1972",
    "Antarctica/Troll": "clocks set by two hours",
    "Pacific/Kiritimati": "furthest east",
    "Etc/GMT+12": "furthest west",
    "UTC": "nothing",
}
CHANGES = [  # zone, and a local day about which its clocks change
    ("America/New_York", date(2013, 3, 10)),
    ("America/New_York", date(2013, 11, 3)),
    ("Europe/London", date(2013, 10, 27)),
    ("Asia/Kathmandu", date(1986, 1, 1)),
    ("Australia/Lord_Howe", date(2013, 4, 7)),
    ("Australia/Lord_Howe", date(2013, 10, 6)),
    ("America/Sao_Paulo", date(2018, 2, 18)),
    ("America/Sao_Paulo", date(2018, 11, 4)),
    ("Africa/Cairo", date(2023, 4, 28)),
    ("Asia/Beirut", date(2023, 3, 30)),
    ("America/Havana", date(2013, 11, 3)),
    ("America/St_Johns", date(2010, 11, 7)),
    ("America/Toronto", date(1919, 3, 31)),
    ("Pacific/Apia", date(2011, 12, 30)),
    ("Pacific/Kwajalein", date(1993, 8, 21)),
    ("Pacific/Kwajalein", date(1969, 9, 30)),
    ("Africa/Monrovia", date(1972, 1, 7)),
    ("Antarctica/Troll", date(2013, 10, 27)),
]
GRANULARITIES: list[Granularity] = ["hour", "day", "month"]

UTC_ZONE = ZoneInfo("UTC")
LONG_AGO, LONG_AFTER = datetime.fromisoformat("1800-01-01"), datetime.fromisoformat("2200-01-01")

odd_zones = st.sampled_from(sorted(ODD))
all_zones = st.sampled_from(sorted(available_timezones() - {"localtime"}))
zones = st.builds(ZoneInfo, st.one_of(odd_zones, all_zones))
grids = st.sampled_from(GRANULARITIES)
instants = st.datetimes(LONG_AGO, LONG_AFTER, timezones=st.just(UTC))
seconds_near_changes = st.builds(
    lambda change, seconds: (
        ZoneInfo(change[0]),
        datetime(change[1].year, change[1].month, change[1].day, tzinfo=UTC)
        + timedelta(seconds=seconds),
    ),
    st.sampled_from(CHANGES),
    st.integers(-2 * 86_400, 2 * 86_400),
)
moments = st.one_of(st.tuples(zones, instants), seconds_near_changes)


def bounds(partition: Partition) -> tuple[datetime, datetime]:
    assert partition.start is not None
    assert partition.end is not None
    return partition.start, partition.end


def tried(text: str, by: Granularity, zone: ZoneInfo) -> Partition | str:
    """The partition, or the words in which it was refused."""
    try:
        return parse_partition(text, by, zone)
    except ValueError as error:
        return str(error)


def back_from(now: datetime, by: Granularity, zone: ZoneInfo) -> Iterator[Partition]:
    """The partitions that have ended by `now`, the last one first."""
    while True:
        partition = find_latest_partition(now, by, zone)
        yield partition
        now = bounds(partition)[0]


# --- partitions tile time ------------------------------------------------------------------------


@settings(deadline=None)
@given(moments, grids)
def test_the_latest_has_ended_and_the_next_has_not(
    moment: tuple[ZoneInfo, datetime], by: Granularity
) -> None:
    zone, now = moment
    latest = find_latest_partition(now, by, zone)
    ahead = now + {"hour": 2 * HOUR, "day": 4 * DAY, "month": 63 * DAY}[by]
    later = list(
        itertools.takewhile(lambda partition: partition != latest, back_from(ahead, by, zone))
    )
    start, end = bounds(latest)
    assert start < end <= now < bounds(later[-1])[1]


@settings(deadline=None)
@given(moments, grids)
def test_partitions_meet_without_gap_or_overlap(
    moment: tuple[ZoneInfo, datetime], by: Granularity
) -> None:
    zone, now = moment
    partitions = list(itertools.islice(back_from(now, by, zone), 6))
    for later, earlier in itertools.pairwise(partitions):
        assert bounds(earlier)[1] == bounds(later)[0]
        assert earlier.label != later.label
    for partition in partitions:
        _, end = bounds(partition)
        assert parse_partition(partition.label, by, zone) == partition
        assert find_latest_partition(end, by, zone) == partition
        assert find_latest_partition(end - INSTANT, by, zone) != partition


@settings(deadline=None)
@given(moments)
def test_an_instant_is_in_the_partition_its_clock_names(
    moment: tuple[ZoneInfo, datetime],
) -> None:
    zone, now = moment
    local = now.astimezone(zone)
    hours = list(itertools.islice(back_from(now + 2 * HOUR, "hour", zone), 8))
    (hour,) = [
        partition for partition in hours if bounds(partition)[0] <= now < bounds(partition)[1]
    ]
    assert hour.label[:13] == local.isoformat()[:13]
    days = list(itertools.islice(back_from(now + 50 * HOUR, "day", zone), 5))
    (day,) = [partition for partition in days if bounds(partition)[0] <= now < bounds(partition)[1]]
    # Where clocks go back over midnight, yesterday's last hour comes again, and is today's.
    again = {(now - back * MINUTE).astimezone(zone).date() for back in range(1500)}
    assert day.label == max(local.date(), *again).isoformat()


@pytest.mark.parametrize(("name", "day"), CHANGES)
def test_partitions_about_a_change_of_clocks(name: str, day: date) -> None:
    """Against a slow and simple account: look at the clock every minute of five days."""
    zone = ZoneInfo(name)
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - 60 * HOUR
    hours: dict[tuple[str, timedelta | None], list[datetime]] = {}
    days: dict[date, list[datetime]] = {}
    today = date.min
    for minute in range(120 * 60):
        instant = begin + minute * MINUTE
        clock = instant.astimezone(zone)
        hours.setdefault((clock.isoformat()[:13], clock.utcoffset()), []).append(instant)
        today = max(today, clock.date())
        days.setdefault(today, []).append(instant)
    labels = [label for label, _ in hours]
    for (label, offset), minutes in list(hours.items())[1:-1]:
        if labels.count(label) > 1:
            label += minutes[0].astimezone(zone).isoformat()[19:]
        partition = parse_partition(label, "hour", zone)
        assert partition.label == label
        assert (offset, holds(partition, minutes)) == (offset, True)
    for shown, minutes in list(days.items())[1:-1]:
        assert holds(parse_partition(shown.isoformat(), "day", zone), minutes)


def holds(partition: Partition, minutes: list[datetime]) -> bool:
    """Whether these minutes are the partition's, its ends being anywhere within a minute."""
    start, end = bounds(partition)
    return minutes[0] - MINUTE < start <= minutes[0] and minutes[-1] < end <= minutes[-1] + MINUTE


@settings(deadline=None)
@given(st.dates(), zones)
@example(date(2011, 12, 30), ZoneInfo("Pacific/Apia"))
@example(date.min, ZoneInfo("Asia/Tokyo"))
@example(date.max - DAY, ZoneInfo("America/New_York"))
@example(date(2012, 2, 28), ZoneInfo("UTC"))
@example(date(2013, 12, 31), ZoneInfo("Asia/Tokyo"))
def test_any_day_is_a_partition_or_says_why_not(day: date, zone: ZoneInfo) -> None:
    partition = tried(day.isoformat(), "day", zone)
    if isinstance(partition, str):
        assert partition.endswith(("the years 1 to 9999", f"clocks skip it in {zone.key}"))
        return
    assert partition.label == day.isoformat()
    start, end = bounds(partition)
    assert start < end
    following = tried((day + DAY).isoformat(), "day", zone)
    assert isinstance(following, str) or following.start == end


@settings(deadline=None)
@given(st.dates(max_value=date(9999, 11, 1)), zones)
@example(date(1, 2, 1), ZoneInfo("UTC"))
@example(date(2012, 2, 1), ZoneInfo("UTC"))
@example(date(2013, 12, 1), ZoneInfo("Pacific/Apia"))
def test_a_month_is_its_days(day: date, zone: ZoneInfo) -> None:
    assume(day > date(1, 1, 31))
    month = parse_partition(day.isoformat()[:7], "month", zone)
    first = day.replace(day=1)
    after = (first + 31 * DAY).replace(day=1)
    assert month.label == day.isoformat()[:7]
    assert month.start == parse_partition(first.isoformat(), "day", zone).start
    assert month.end == parse_partition(after.isoformat(), "day", zone).start


# --- ranges -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from(CHANGES), st.integers(-3, 3), st.integers(0, 40), grids)
def test_between_two_days_is_every_partition_that_they_touch(
    change: tuple[str, date], before: int, days: int, by: Granularity
) -> None:
    zone, first = ZoneInfo(change[0]), change[1] + before * DAY
    last = first + days * DAY
    partitions = list(list_partitions(first, last, by, zone))
    for earlier, later in itertools.pairwise(partitions):
        assert bounds(earlier)[1] == bounds(later)[0]
    labels = {partition.label[:10] for partition in partitions}
    for day in (first + n * DAY for n in range(days + 1)):
        try:
            whole = parse_partition(day.isoformat(), "day", zone)
        except ValueError:  # clocks skip it
            continue
        assert day.isoformat()[:7] in {label[:7] for label in labels}
        start, end = bounds(whole)
        assert bounds(partitions[0])[0] <= start < end <= bounds(partitions[-1])[1]
    if by == "day":
        assert all(first.isoformat() <= label <= last.isoformat() for label in labels)


def test_between_ends_before_it_begins() -> None:
    assert list(list_partitions(date(2013, 10, 2), date(2013, 10, 1), "day", UTC_ZONE)) == []


def test_the_whole_table_is_between_any_days() -> None:
    whole = Partition("all", None, None)
    assert list(list_partitions(date(2013, 10, 1), date(2013, 10, 9), "all", UTC_ZONE)) == [whole]
    assert shift_partition(whole, 5, "all", UTC_ZONE) == whole


@settings(deadline=None)
@given(moments, grids, st.integers(-30, 30))
def test_there_and_back_again(
    moment: tuple[ZoneInfo, datetime], by: Granularity, steps: int
) -> None:
    zone, now = moment
    partition = find_latest_partition(now, by, zone)
    there = shift_partition(partition, steps, by, zone)
    assert shift_partition(there, -steps, by, zone) == partition
    assert (bounds(there)[0] > bounds(partition)[0]) == (steps > 0)
    low, high = sorted([partition, there], key=bounds)
    back = itertools.takewhile(lambda other: other != low, back_from(bounds(high)[1], by, zone))
    assert len(list(back)) == abs(steps)


# --- by hand ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label", "start", "hours"),
    [
        ("UTC", "2012-02-29", "2012-02-29T00:00", 24),
        ("America/New_York", "2013-10-01", "2013-10-01T04:00", 24),
        ("America/New_York", "2013-03-10", "2013-03-10T05:00", 23),
        ("America/New_York", "2013-11-03", "2013-11-03T04:00", 25),
        ("Asia/Kolkata", "2014-01-01", "2013-12-31T18:30", 24),
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00", 23),  # begins at 01:00
        ("America/Sao_Paulo", "2018-02-17", "2018-02-17T02:00", 25),
        ("America/Havana", "2013-11-03", "2013-11-03T04:00", 25),  # the first midnight of two
        ("America/Toronto", "1919-03-31", "1919-03-31T04:30", 23.5),  # begins at 00:30
        ("Pacific/Apia", "2011-12-29", "2011-12-29T10:00", 24),
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00", 24),
        ("Australia/Lord_Howe", "2013-04-07", "2013-04-06T13:00", 24.5),
    ],
)
def test_days(name: str, label: str, start: str, hours: float) -> None:
    begin = datetime.fromisoformat(start).replace(tzinfo=UTC)
    expected = Partition(label, begin, begin + timedelta(hours=hours))
    assert parse_partition(label, "day", ZoneInfo(name)) == expected


@pytest.mark.parametrize(
    ("name", "text", "label", "start", "minutes"),
    [
        ("UTC", "2013-10-01T05", "2013-10-01T05", "2013-10-01T05:00", 60),
        ("UTC", "2013-10-01T05:00", "2013-10-01T05", "2013-10-01T05:00", 60),
        ("UTC", "2013-10-01T05Z", "2013-10-01T05", "2013-10-01T05:00", 60),
        ("America/New_York", "2013-10-01T05Z", "2013-10-01T01", "2013-10-01T05:00", 60),
        ("America/New_York", "2013-10-01T05+02:00", "2013-09-30T23", "2013-10-01T03:00", 60),
        ("America/New_York", "2013-11-03T01-04:00", "2013-11-03T01-04:00", "2013-11-03T05:00", 60),
        ("America/New_York", "2013-11-03T06Z", "2013-11-03T01-05:00", "2013-11-03T06:00", 60),
        ("America/New_York", "2013-11-03T02", "2013-11-03T02", "2013-11-03T07:00", 60),
        ("Asia/Kolkata", "2013-10-01T05", "2013-10-01T05", "2013-09-30T23:30", 60),
        ("Asia/Kolkata", "2013-10-01T05+05:30", "2013-10-01T05", "2013-09-30T23:30", 60),
        ("Australia/Lord_Howe", "2013-10-06T02", "2013-10-06T02", "2013-10-05T15:30", 30),
        (
            "Australia/Lord_Howe",
            "2013-04-07T01+10:30",
            "2013-04-07T01+10:30",
            "2013-04-06T15:00",
            30,
        ),
        (
            "Australia/Lord_Howe",
            "2013-04-07T01+11:00",
            "2013-04-07T01+11:00",
            "2013-04-06T14:00",
            60,
        ),
    ],
)
def test_hours(name: str, text: str, label: str, start: str, minutes: int) -> None:
    begin = datetime.fromisoformat(start).replace(tzinfo=UTC)
    expected = Partition(label, begin, begin + minutes * MINUTE)
    assert parse_partition(text, "hour", ZoneInfo(name)) == expected


@pytest.mark.parametrize(
    ("name", "now", "by", "label"),
    [
        ("America/New_York", "2013-10-02T03:59:59", "day", "2013-09-30"),
        ("America/New_York", "2013-10-02T04:00", "day", "2013-10-01"),
        ("America/New_York", "2013-10-02T03:59", "month", "2013-09"),
        ("UTC", "2014-01-01T00:00", "month", "2013-12"),
        ("UTC", "2013-12-31T23:59:59", "month", "2013-11"),
        ("UTC", "2012-03-01T12:00", "day", "2012-02-29"),
        ("America/New_York", "2013-11-03T06:30", "hour", "2013-11-03T01-04:00"),
        ("America/New_York", "2013-11-03T07:00", "hour", "2013-11-03T01-05:00"),
        ("Asia/Kolkata", "2013-10-01T05:00", "hour", "2013-10-01T09"),  # it is 10:30 there
        ("Pacific/Apia", "2011-12-30T10:00", "day", "2011-12-29"),  # not the day that never was
        ("America/St_Johns", "2010-11-07T02:45", "day", "2010-11-06"),  # 23:15 of 11-06 again
    ],
)
def test_the_latest(name: str, now: str, by: Granularity, label: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert find_latest_partition(moment, by, ZoneInfo(name)).label == label


@pytest.mark.parametrize("by", get_args(Granularity))
def test_the_whole_table(by: Granularity) -> None:
    whole = Partition("all", None, None)
    assert parse_partition("all", by, ZoneInfo("UTC")) == whole
    assert find_latest_partition(datetime.now(UTC), "all", ZoneInfo("UTC")) == whole


# --- what is not a label -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "text", "says"),
    [
        ("day", "", "write it like 2013-10-01, or 'all' for all rows"),
        ("day", "ALL", "write it like 2013-10-01, or 'all' for all rows"),
        ("day", "yesterday", "write it like"),
        ("day", "2013-10", "write it like"),
        ("day", "2013-10-1", "write it like"),
        ("day", "20131001", "write it like"),
        ("day", "2013-W40-2", "write it like"),
        ("day", "2013-10-01T05", "write it like"),
        ("day", " 2013-10-01", "write it like"),
        ("day", "2013-10-01\n", "write it like"),
        ("day", "2013-10-01\0", "write it like"),
        ("day", "٢٠١٣-١٠-٠١", "write it like"),
        ("day", "2013-10-0١", "write it like"),
        ("day", "-013-10-01", "write it like"),
        ("day", "12013-10-01", "write it like"),
        ("day", "2013-13-01", "month must be in 1..12"),
        ("day", "2013-00-01", "month must be in 1..12"),
        ("day", "2013-02-30", "day is out of range for month"),
        ("day", "2013-02-29", "day is out of range for month"),
        ("day", "0000-01-01", "year 0 is out of range"),
        ("day", "9999-12-31", "it reaches beyond the years 1 to 9999"),
        ("month", "2013-13", "month must be in 1..12"),
        ("month", "9999-12", "it reaches beyond the years 1 to 9999"),
        ("month", "2013-10-01", "write it like 2013-10, or"),
        ("hour", "2013-10-01", "write it like 2013-10-01T05, or"),
        ("hour", "2013-10-01 05", "write it like"),
        ("hour", "2013-10-01t05", "write it like"),
        ("hour", "2013-10-01T24", "write it like"),
        ("hour", "2013-10-01T05:30", "write it like"),
        ("hour", "2013-10-01T05:00:00", "write it like"),
        ("hour", "2013-10-01T05+25:00", "offset must be"),
        ("hour", "2013-02-30T05", "day is out of range for month"),
        ("hour", "9999-12-31T23", "it reaches beyond the years 1 to 9999"),
        ("all", "2013-10-01", "this job has only the whole table, 'all'"),
        ("all", "", "this job has only the whole table, 'all'"),
    ],
)
def test_what_is_not_a_label(by: Granularity, text: str, says: str) -> None:
    with pytest.raises(ValueError, match="is not a valid ") as raised:
        parse_partition(text, by, ZoneInfo("UTC"))
    assert str(raised.value).startswith(repr(text))
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("name", "by", "text", "says"),
    [
        ("America/New_York", "hour", "2013-03-10T02", "clocks skip it in America/New_York"),
        ("Pacific/Apia", "hour", "2011-12-30T12", "clocks skip it in Pacific/Apia"),
        ("Pacific/Apia", "day", "2011-12-30", "clocks skip it in Pacific/Apia"),
        ("Pacific/Kwajalein", "day", "1993-08-21", "clocks skip it in Pacific/Kwajalein"),
        (
            "America/New_York",
            "hour",
            "2013-11-03T01",
            "clocks repeat it in America/New_York; write 2013-11-03T01-04:00 or"
            " 2013-11-03T01-05:00",
        ),
        ("Asia/Kolkata", "hour", "2013-10-01T05Z", "does not begin with an hour of Asia/Kolkata"),
        ("America/New_York", "hour", "2013-11-03T01-04:30", "does not begin with an hour of"),
        ("Asia/Tokyo", "day", "0001-01-01", "it reaches beyond the years 1 to 9999"),
        ("Asia/Tokyo", "hour", "0001-01-01T00", "it reaches beyond the years 1 to 9999"),
        ("America/New_York", "hour", "9999-12-31T22", "it reaches beyond the years 1 to 9999"),
    ],
)
def test_what_is_not_a_label_there(name: str, by: Granularity, text: str, says: str) -> None:
    with pytest.raises(ValueError, match="is not a valid ") as raised:
        parse_partition(text, by, ZoneInfo(name))
    assert says in str(raised.value)


looks_like_one = st.from_regex(r"\A\d{4}-[01]\d-[0-3]\dT[0-2]\d(:00)?(Z|[+-]\d\d:\d\d)?\Z")
almost_labels = st.one_of(st.text(max_size=25), st.from_regex(r"\A\d{4}-\d\d(-\d\d)?\s?\Z"))


@settings(deadline=None)
@given(st.one_of(almost_labels, looks_like_one), st.sampled_from(get_args(Granularity)), zones)
def test_any_text_is_a_label_or_a_value_error(text: str, by: Granularity, zone: ZoneInfo) -> None:
    partition = tried(text, by, zone)
    if isinstance(partition, str):
        assert partition.startswith(repr(text))
        return
    assert parse_partition(partition.label, by, zone) == partition
    assert partition.label.isascii()
