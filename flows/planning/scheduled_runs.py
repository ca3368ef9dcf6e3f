"""Which partition a run scores, and whether a scheduled run that starts late still runs. Pure."""

from datetime import UTC, datetime

from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.config.job import Job
from nightshift.flows.planning.partitions import (
    Partition,
    find_latest_partition,
    parse_partition,
    shift_partition,
)


def find_due_partition(job: Job, at: datetime) -> Partition:
    """The partition that the job's schedule scores at that time."""
    latest = find_latest_partition(at, job.partition_by, job.zone)
    return shift_partition(latest, 1 - job.offset, job.partition_by, job.zone)


def find_partition(job: Job, label: str | None) -> Partition:
    """The partition with that label, or the one that is due now. Raises ConfigurationError."""
    if not label:
        return find_due_partition(job, datetime.now(UTC))
    try:
        return parse_partition(label, job.partition_by, job.zone)
    except ValueError as error:
        remedy = f"The job is partitioned by {job.partition_by!r}."
        raise ConfigurationError(f"job {job.name!r}", "partition", str(error), remedy) from error


def is_missed(job: Job, scheduled: datetime, started: datetime) -> bool:
    """Whether a run started so late that the job's `catchup` decides about it."""
    return job.schedule is not None and started - scheduled > job.schedule.misfire_grace_time


def find_skip_reason(
    job: Job, scheduled: datetime, started: datetime, newer: datetime | None
) -> str | None:
    """Why the run scheduled for `scheduled` does not score; None if it does.

    `newer` is the latest time up to `started` for which the schedule has another run.
    """
    schedule = job.schedule
    if schedule is None or not is_missed(job, scheduled, started) or schedule.catchup == "all":
        return None
    missed = f"the scheduled run of {scheduled:%Y-%m-%d %H:%M} UTC was missed"
    remedy = f"To score {find_due_partition(job, scheduled).label} anyway, run a backfill."
    if schedule.catchup == "skip":
        return f"{missed}, and the job says `catchup: skip`. {remedy}"
    if newer is not None:
        instead = f"the run of {newer:%Y-%m-%d %H:%M} UTC takes its place"
        return f"{missed}, and as the job says `catchup: latest`, {instead}. {remedy}"
    return None
