"""Cron lines and time zones, as files write them."""

import difflib
import re
from functools import cache
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator

from nightshift.flows.config.validation import refused

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# crontab(5): each field's name, lowest and highest number, and names that stand for numbers.
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _WEEKDAYS),
)


@cache
def list_time_zones() -> frozenset[str]:
    """The names of all time zones; looked up once, as each is a file.

    `localtime` is left out: it differs from machine to machine.
    """
    return frozenset(available_timezones() - {"localtime"})


def find_cron_problem(cron: str) -> str | None:
    """What is wrong with a cron line, or None."""
    parts = cron.split()
    if len(parts) != len(_FIELDS):
        return f"{cron!r} has {len(parts)} fields, not {len(_FIELDS)}"
    for part, (name, low, high, names) in zip(parts, _FIELDS, strict=True):
        numbers = {text: number for number, text in enumerate(names, start=low)}
        for item in part.lower().split(","):
            span, _, step = item.partition("/")
            bounds = [str(low), str(high)] if span == "*" else span.split("-")
            values = [numbers.get(bound, bound) for bound in bounds]
            good = all(str(v).isdecimal() and low <= int(v) <= high for v in values)
            stepped = "/" not in item or (re.fullmatch(r"[1-9]\d*", step) and span)
            if not good or len(values) > 2 or not stepped or int(values[0]) > int(values[-1]):
                return f"{item!r} is not a valid {name} ({low}-{high})"
    return None


def _check_cron(value: str) -> str:
    problem = find_cron_problem(value)
    if problem is not None:
        raise refused(problem, "Write it like `0 3 * * *`: minute, hour, day, month, weekday.")
    return value


def _check_zone(value: str) -> str:
    if value not in list_time_zones():
        near = difflib.get_close_matches(value, sorted(list_time_zones()), n=1)
        remedy = f"Did you mean {near[0]}?" if near else "Write it like America/New_York."
        raise refused(f"{value!r} is not a time zone", remedy)
    return value


Cron = Annotated[str, AfterValidator(_check_cron)]
"""Five fields: minute, hour, day, month, weekday."""

TimeZone = Annotated[str, AfterValidator(_check_zone)]
"""A name of the IANA database, like America/New_York."""
