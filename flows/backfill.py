"""The flow that scores a range of partitions, each in a run of its own, after a durable plan."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import islice
from typing import Annotated

import prefect
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.flows import Flow
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from pydantic import Field

from nightshift.adapters.errors import (
    BackfillFailed,
    ConfigurationError,
    NightshiftError,
    TransientError,
)
from nightshift.adapters.ledger.backfills import (
    Backfill,
    Backfills,
    PartitionStatus,
    Step,
    StepState,
)
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.source.estimates import estimate_rows
from nightshift.adapters.store.model_store import Manifest
from nightshift.flows.config.job import Job, load_job
from nightshift.flows.config.resources import JobResources, open_resources, open_store
from nightshift.flows.config.settings import Settings, load_settings
from nightshift.flows.orchestrator.cancellation import CANCELLED, CancellationWatch
from nightshift.flows.orchestrator.flow_run import label_run
from nightshift.flows.orchestrator.progress import Listener
from nightshift.flows.orchestrator.states import BUSY, SKIPPED, convert_errors
from nightshift.flows.planning.backfill_plan import Order, Reprocess, plan_steps
from nightshift.flows.planning.partitions import Partition, list_partitions, shift_partition
from nightshift.flows.report.backfill import BackfillProgress, Watched, show_plan
from nightshift.flows.score import PrefectOrchestrator, score_in
from nightshift.flows.scoring.context import RunContext
from nightshift.flows.scoring.recipe import open_context
from nightshift.flows.scoring.run import ScoreResult, leaks

MOST_PARTITIONS = 50_000

# A form has a date picker; over REST, a pattern is what the server refuses other texts by: all
# days of the calendar, and the 29th of each February.
_LONG = r"(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])"
_SHORT = r"(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|[12]\d)"
_PATTERN = rf"^[12]\d{{3}}-({_LONG}|{_SHORT})$"
Day = Annotated[date, Field(json_schema_extra={"pattern": _PATTERN})]


@dataclass(frozen=True)
class BackfillResult:
    """What became of each partition of the range, or would in a dry run."""

    job: str
    model: str
    """`name@version`"""
    backfill_id: int | None
    """None for a dry run."""
    steps: list[Step]

    def count(self, state: str) -> int:
        return sum(step.state == state for step in self.steps)


def _run_name() -> str:
    given = flow_run.parameters
    dry = " (dry run)" if given.get("dry_run") else ""
    return f"{given['job']} {given['start']} to {given['end']}{dry}"


@flow(name="backfill", flow_run_name=_run_name)
@convert_errors
def backfill(
    job: str,
    start: Day,
    end: Day,
    reprocess: Reprocess = "missing",
    model: str | None = None,
    order: Order = "oldest_first",
    max_parallel: Annotated[int, Field(ge=1, le=16)] = 1,
    dry_run: bool = False,
    allow_leakage: bool = False,
) -> BackfillResult:
    """Score a range of a job's partitions, each published when it is done.

    If it is killed and started again with the same values within a day, it resumes its plan, unless
    `model` names another version by now. A partition that fails does not stop the others; with
    `reprocess=failed` only those are scored again.

    Args:
        job: The job, by the name of its file in config/jobs.
        start: The first day to score. Of a monthly job, all of its month.
        end: The last day to score, itself included.
        reprocess: `missing`: what is not published yet. `failed`: what failed when it was last
            tried. `stale_model`: what is published with another model version. `all`: everything.
        model: A model in place of the job's: `name`, `name@alias` or `name@7`. It is turned into
            one version at the start, for the whole range.
        order: Which partitions come first.
        max_parallel: How many partitions are scored at a time, from 1 to 16.
        dry_run: Only show the plan: what would be scored, what not, and why.
        allow_leakage: Score rows from before the day through which the model was trained, too.
    """
    choice = reprocess, model, order, max_parallel, dry_run, allow_leakage
    return _backfill(job, start, end, *choice)


def backfill_with(listener: Listener | None, watched: Watched) -> Flow[..., BackfillResult]:
    """The same flow, with what cannot be a parameter of a flow run: a listener, and where the
    caller sees the steps while they change, however the backfill ends.
    """

    @flow(name=backfill.name, flow_run_name=_run_name)
    @convert_errors
    def listened(
        job: str,
        start: Day,
        end: Day,
        reprocess: Reprocess,
        model: str | None,
        order: Order,
        max_parallel: Annotated[int, Field(ge=1, le=16)],
        dry_run: bool,
        allow_leakage: bool,
    ) -> BackfillResult:
        choice = reprocess, model, order, max_parallel, dry_run, allow_leakage
        return _backfill(job, start, end, *choice, listener, watched)

    return listened


def _backfill(
    job: str,
    start: date,
    end: date,
    reprocess: Reprocess,
    model: str | None,
    order: Order,
    max_parallel: int,
    dry_run: bool,
    allow_leakage: bool,
    listener: Listener | None = None,
    watched: Watched | None = None,
) -> BackfillResult:
    settings, spec = load_settings(), load_job(job)
    partitions = _partitions(spec, start, end)
    given = {"start": start, "end": end, "reprocess": reprocess, "model": model, "order": order}
    parameters = json.dumps({**given, "allow_leakage": allow_leakage}, default=str)
    with open_resources(settings, spec) as resources:
        backfills = Backfills(resources.ledger)
        manifest = open_store(settings).resolve(model or spec.model)
        version, owner, run_id = (manifest.name, manifest.version), new_owner(), flow_run.id
        unfinished, status = None, PartitionStatus()
        if not dry_run or resources.ledger.exists():
            resources.ledger.create()
            unfinished = backfills.unfinished(job, parameters, version)
            if unfinished is not None and not dry_run:
                unfinished = backfills.take_over(unfinished, owner, run_id)
            if unfinished is None:
                status = backfills.read_status(job, partitions[0].start, partitions[-1].end)
        if unfinished is not None:
            steps = list(unfinished.steps)
        else:
            steps = _plan(resources, partitions, status, reprocess, manifest, order, allow_leakage)
        label_run(_run_name(), [job, manifest.name])
        _log_plan(steps, manifest, unfinished)
        if watched is not None:
            watched.model, watched.steps = manifest.reference, steps
        if dry_run:
            show_plan(job, spec.partition_by, manifest.reference, steps)
            return BackfillResult(job, manifest.reference, None, steps)
        plan = unfinished
        if plan is None:
            plan = backfills.begin(job, parameters, version, steps, owner, run_id, status.at)
        waiting = [step for step in plan.steps if step.state == StepState.WAITING]
        title = f"{job} {start} to {end}"
        progress = BackfillProgress(
            title, job, spec.partition_by, manifest.reference, plan, backfills, listener
        )
        with _carrying_out(backfills, plan), progress:
            if waiting:
                orchestrator = PrefectOrchestrator(settings, spec)
                reference = manifest.reference
                with open_context(settings, spec, reference, orchestrator) as context:
                    context = replace(
                        context,
                        unless_published_since=plan.planned_at,
                        unless_changed=reprocess != "all",
                    )
                    runner = _Runner(settings, context, plan, backfills, allow_leakage)
                    runner.run(waiting, max_parallel)
    return _result(job, manifest, plan)


# --- planning -----------------------------------------------------------------------------------


def _partitions(job: Job, start: date, end: date) -> list[Partition]:
    if end < start:
        problem = f"{end} is before the start, {start}"
        raise ConfigurationError("backfill", "end", problem, "Both days are included.")
    between = list_partitions(start, end, job.partition_by, job.zone)
    partitions = list(islice(between, MOST_PARTITIONS + 1))
    if len(partitions) > MOST_PARTITIONS:
        problem = f"the range has more than {MOST_PARTITIONS:,} partitions"
        raise ConfigurationError("backfill", "end", problem, "Take a shorter range.")
    return partitions


def _plan(
    resources: JobResources,
    partitions: list[Partition],
    status: PartitionStatus,
    reprocess: Reprocess,
    manifest: Manifest,
    order: Order,
    allow_leakage: bool,
) -> list[Step]:
    model = (manifest.name, manifest.version)
    ordered = partitions if order == "oldest_first" else partitions[::-1]
    due = _due(resources.job)
    steps = plan_steps(ordered, status, reprocess, model, due, datetime.now(UTC))
    for step in steps:
        leaking = not allow_leakage and leaks(manifest, step.start, resources.job.zone)
        if step.state == StepState.WAITING and leaking:
            step.state = StepState.SKIPPED
            step.reason = f"{manifest.reference} was trained on it (allow_leakage scores it)"
        if step.state == StepState.WAITING:
            step.rows = estimate_rows(resources.source, step.start, step.end)
    return steps


def _due(job: Job) -> Callable[[Partition], datetime]:
    """When a schedule with the job's offset would score a partition: by default at its end."""
    long_ago = datetime.min.replace(tzinfo=UTC)

    def due(partition: Partition) -> datetime:
        return (
            shift_partition(partition, job.offset - 1, job.partition_by, job.zone).end or long_ago
        )

    return due


def _log_plan(steps: list[Step], manifest: Manifest, resumed: Backfill | None) -> None:
    log = get_run_logger()
    if resumed is not None:
        log.info("Resuming plan %s of %s UTC", resumed.backfill_id, resumed.planned_at)
    waiting = [step for step in steps if step.state == StepState.WAITING]
    rows = sum(step.rows or 0 for step in waiting)
    log.info(
        "%s: %s partitions to score with about %s rows, %s not",
        manifest.reference,
        len(waiting),
        f"{rows:,}",
        len(steps) - len(waiting),
    )


# --- carrying out -------------------------------------------------------------------------------


@contextmanager
def _carrying_out(backfills: Backfills, plan: Backfill) -> Iterator[None]:
    """Ends the plan, or, if this context fails, leaves it to the next attempt."""
    try:
        yield
    except BaseException:
        with suppress(NightshiftError):  # then the next one waits until the lease has ended
            backfills.leave(plan)
        raise
    backfills.renew(plan, ended=True)


class _Runner:
    """Carries out the steps of a plan, several at a time."""

    def __init__(
        self,
        settings: Settings,
        context: RunContext,
        plan: Backfill,
        backfills: Backfills,
        allow_leakage: bool,
    ) -> None:
        self.settings, self.context, self.plan = settings, context, plan
        self.backfills, self.allow_leakage = backfills, allow_leakage
        self.log = get_run_logger()
        self._stopping, self._watch = threading.Event(), CancellationWatch()
        self._flow = score_in(context, self._stop_if_asked)

    def run(self, steps: list[Step], max_parallel: int) -> None:
        """Score each step's partition; those that other runs have are tried again at the end."""
        self._score_all(steps, max_parallel)
        busy = [step for step in steps if step.state == StepState.WAITING]
        if not busy:
            return
        # Their owners may be dead; once the lease has ended, that is certain.
        self.log.info("Waiting for %s partitions that other runs are scoring", len(busy))
        time.sleep(self.settings.database.lease + 1)
        self._score_all(busy, max_parallel)
        for step in busy:
            if step.state == StepState.WAITING:  # its owner is alive, and may or may not publish it
                step.state = StepState.FAILED
                self._enter(step)

    def _score_all(self, steps: list[Step], max_parallel: int) -> None:
        # The backfill's own heartbeat is enough; those of its runs would cost a second each.
        no_heartbeats = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with CancellationWatch() as self._watch, no_heartbeats:
            if max_parallel == 1:  # in the main thread, where timeouts and signals work best
                for step in steps:
                    self._score(step)
                return
            executor = ThreadPoolExecutor(max_parallel, "partition")
            try:
                futures = [executor.submit(copy_context().run, self._score, s) for s in steps]
                for future in futures:
                    future.result()
            except BaseException:  # Ctrl-C, say, which only the main thread gets
                self._stopping.set()
                raise
            finally:
                executor.shutdown(cancel_futures=True)

    def _stop_if_asked(self, _done: int, _total: int) -> None:
        """Called after each chunk of a partition."""
        if self._stopping.is_set():
            raise KeyboardInterrupt
        self._watch.raise_if_cancelled()

    def _score(self, step: Step) -> None:
        self._watch.raise_if_cancelled()
        step.state = StepState.RUNNING
        self._enter(step)
        started = time.monotonic()
        try:
            job, manifest = self.context.resources.job.name, self.context.manifest
            with prefect.tags(job, manifest.name, step.partition):
                state: State[ScoreResult] = self._flow(
                    job, step.partition, manifest.reference, self.allow_leakage, return_state=True
                )
            reason = state.message or state.name or ""
        except Exception as error:  # the Prefect server is away, say; the others may still work
            state, reason = prefect.states.Failed(), f"{type(error).__name__}: {error}"
        step.seconds = time.monotonic() - started
        if state.is_completed():
            step.state, step.rows = StepState.PUBLISHED, state.result().rows
        elif state.name == BUSY:
            step.state, step.reason = StepState.WAITING, reason
        elif state.name == CANCELLED and self._watch.cancelled:  # all of it, not only this one
            step.state = StepState.WAITING
            self._enter(step)
            self._watch.raise_if_cancelled()
        elif state.name in {SKIPPED, CANCELLED}:
            step.state, step.reason = StepState.SKIPPED, reason
        else:
            step.state, step.reason = StepState.FAILED, reason
            self.log.error("%s failed: %s", step.partition, reason)
        self._enter(step)

    def _enter(self, step: Step) -> None:
        try:
            self.backfills.record_step(self.plan, step)
        except TransientError as error:  # a resumed plan reads the runs in the ledger anyway
            self.log.warning("Step %s could not be entered: %s", step.partition, error)


def _result(job: str, manifest: Manifest, plan: Backfill) -> BackfillResult:
    failures = [
        (step.partition, step.reason) for step in plan.steps if step.state == StepState.FAILED
    ]
    if failures:
        raise BackfillFailed(job, len(plan.steps), tuple(failures))
    return BackfillResult(job, manifest.reference, plan.backfill_id, list(plan.steps))
