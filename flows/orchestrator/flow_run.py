"""The current flow run, as Prefect knows it: which partition it scores, its name and tags."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext, SyncClientContext
from prefect.runtime import deployment

from nightshift.flows.config.job import Job
from nightshift.flows.orchestrator.states import Skipped
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.planning.scheduled_runs import (
    find_due_partition,
    find_partition,
    find_skip_reason,
    is_missed,
)


def choose_partition(job: Job, label: str | None) -> Partition:
    """The partition that the current flow run scores: the one with that label; for a scheduled
    run, the one due at its scheduled time, however late it starts.

    Raises Skipped if the run was missed and the job's `catchup` does not make up for it.
    """
    run = _get_run()
    if label or run is None or not run.auto_scheduled or run.expected_start_time is None:
        return find_partition(job, label)
    scheduled: datetime = run.expected_start_time.astimezone(UTC)
    # A retry days later is not missed: its first start counts.
    started = (run.start_time or datetime.now(UTC)).astimezone(UTC)
    missed = is_missed(job, scheduled, started)
    newer = _find_newer_run(scheduled, started) if missed else None
    reason = find_skip_reason(job, scheduled, started, newer)
    if reason is not None:
        raise Skipped(reason)
    if missed and job.schedule is not None and job.schedule.catchup == "latest":
        # A server that was down has planned no runs for the times that have passed.
        zone = job.schedule.timezone or job.timezone
        scheduled = find_last_tick(job.schedule.cron, zone, scheduled, started)
    return find_due_partition(job, scheduled)


def label_run(name: str, tags: Iterable[str]) -> None:
    """Give this flow run a name, and tags to filter by."""
    context, api = FlowRunContext.get(), SyncClientContext.get()
    if context is None or context.flow_run is None or api is None:
        return
    run = context.flow_run
    api.client.update_flow_run(run.id, name=name, tags={*run.tags, *tags})


def find_last_tick(cron: str, timezone: str, after: datetime, until: datetime) -> datetime:
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


def _get_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return None if context is None else context.flow_run


def _find_newer_run(scheduled: datetime, now: datetime) -> datetime | None:
    """The latest time up to now for which the same schedule has planned another run."""
    due = filters.FlowRunFilterExpectedStartTime(after_=scheduled, before_=now)
    of_deployment = filters.FlowRunFilterDeploymentId(any_=[deployment.id])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=filters.FlowRunFilter(
                expected_start_time=due, deployment_id=of_deployment
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        )
    times = [run.expected_start_time for run in runs if run.auto_scheduled]
    return next((time for time in times if time is not None and time > scheduled), None)
