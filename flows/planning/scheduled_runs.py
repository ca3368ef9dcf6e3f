"""Nights: what a scheduled run is for, and whether one that comes late is still wanted."""

import asyncio
import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Literal
from zoneinfo import available_timezones

if TYPE_CHECKING:
    from nightshift.flows.config.job import Job

Catchup = Literal["latest", "all", "skip"]

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# crontab(5): each field's name, least and greatest number, and names that stand for numbers.
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _WEEKDAYS),
)


@cache
def time_zones() -> frozenset[str]:
    """The names there are, of which each is a file: looked up once.

    `localtime` is another one on another machine.
    """
    return frozenset(available_timezones() - {"localtime"})


def cron_problem(cron: str) -> str | None:
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
                return f"{item!r} is no {name} ({low}-{high})"
    return None


def scheduled_time() -> datetime | None:
    """When this flow run was to begin, if its schedule made it; None if a person or an event did.

    Not when it did begin, and not when it was tried again: the first of all.
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or not run.auto_scheduled or run.expected_start_time is None:
        return None
    return run.expected_start_time.astimezone(UTC)


def first_begun() -> datetime:
    """When this flow run was begun for the first time: tried again later, it is no later night."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    begun = None if run is None else run.start_time
    return datetime.now(UTC) if begun is None else begun.astimezone(UTC)


def newer_night(scheduled: datetime, now: datetime) -> datetime | None:
    """The newest time up to now for which the same schedule has planned another run."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.runtime import deployment

    due = filters.FlowRunFilterExpectedStartTime(after_=scheduled, before_=now)
    of_deployment = filters.FlowRunFilterDeploymentId(any_=[deployment.id])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=filters.FlowRunFilter(
                expected_start_time=due, deployment_id=of_deployment
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        )
    nights = [run.expected_start_time for run in runs if run.auto_scheduled]
    return next((night for night in nights if night is not None and night > scheduled), None)


def why_unwanted(
    job: "Job", scheduled: datetime, now: datetime, newer: datetime | None
) -> str | None:
    """Why the run that was to begin at `scheduled` shall not score now; None if it shall.

    `newer` is the newest time at which another run of the schedule was to begin by now.
    """
    schedule = job.schedule
    if schedule is None or not is_late(job, scheduled, now) or schedule.catchup == "all":
        return None
    missed = f"this night of {scheduled:%Y-%m-%d %H:%M} UTC was missed"
    remedy = f"A backfill scores {job.partition_due(scheduled).label} if it is wanted."
    if schedule.catchup == "skip":
        return f"{missed}, and the job says `catchup: skip`. {remedy}"
    if newer is not None:
        one = f"the one of {newer:%Y-%m-%d %H:%M} UTC makes up for it"
        return f"{missed}, and as the job says `catchup: latest`, {one}. {remedy}"
    return None


def night_to_score(job: "Job", scheduled: datetime, now: datetime) -> datetime:
    """The night that a wanted run scores: its own, or, making up for others, the last of all.

    While Prefect's server is down, it does not plan runs for the nights that pass.
    """
    schedule = job.schedule
    if schedule is None or not is_late(job, scheduled, now) or schedule.catchup != "latest":
        return scheduled
    return last_tick(schedule.cron, schedule.timezone or job.timezone, scheduled, now)


def is_late(job: "Job", scheduled: datetime, now: datetime) -> bool:
    return job.schedule is not None and now - scheduled > job.schedule.misfire_grace_time


def last_tick(cron: str, timezone: str, after: datetime, until: datetime) -> datetime:
    """The last time up to `until` at which Prefect's scheduler would start a run, or `after`."""
    from prefect.server.schemas.schedules import CronSchedule

    schedule = CronSchedule(cron=cron, timezone=timezone)
    last = after
    while dates := asyncio.run(schedule.get_dates(n=500, start=last, end=until)):
        newest = datetime.fromtimestamp(dates[-1].timestamp(), UTC)
        if newest <= last:
            break
        last = newest
    return last
