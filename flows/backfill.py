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
from nightshift.flows.orchestrator.cancellation import CANCELLED, Watch
from nightshift.flows.orchestrator.states import BUSY, told
from nightshift.flows.orchestrator.states import SKIPPED as UNWANTED
from nightshift.flows.planning.backfill_plan import Order, Reprocess, plan_steps
from nightshift.flows.planning.partitions import Partition, list_partitions, shift_partition
from nightshift.flows.report.artifacts import label_run, listening
from nightshift.flows.report.backfill import BackfillProgress, show_plan, show_steps
from nightshift.flows.score import leaks, prepared, score
from nightshift.flows.scoring.context import RunContext, sharing
from nightshift.flows.scoring.run import ScoreResult

MOST_PARTITIONS = 50_000

# A form has a date picker; over REST, a pattern is what the server refuses other texts by: all
# days of the calendar, and the 29th of each February.
_LONG = r"(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])"
_SHORT = r"(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|[12]\d)"
_PATTERN = rf"^[12]\d{{3}}-({_LONG}|{_SHORT})$"
Day = Annotated[date, Field(json_schema_extra={"pattern": _PATTERN})]


@dataclass(frozen=True)
class BackfillResult:
    """What became of the partitions of a range, or, of a dry run, what would."""

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
@told
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
    """Score a range of a job's partitions, one after the other, each published when it is done.

    Killed and started again with the same values within a day, it goes on with its own plan, unless
    `model` names another version by now. A partition that fails does not stop the others; started
    again with `failed`, it does only those.

    Args:
        job: The job, by the name of its file in config/jobs.
        start: The first day to score. Of a monthly job, all of its month.
        end: The last day to score, itself included.
        reprocess: `missing`: what is not published yet. `failed`: what failed when it was last
            tried. `stale_model`: what is published with another model version. `all`: everything.
        model: A model in place of the job's: `name`, `name@alias` or `name@7`. It is turned into
            one version at the start, for the whole range.
        order: Which partitions come first.
        max_parallel: How many partitions are scored side by side, from 1 to 16.
        dry_run: Only show the plan: what would be scored, what not, and why.
        allow_leakage: Score rows from before the day through which the model was trained, too.
    """
    settings, spec = load_settings(), load_job(job)
    cells = _cells(spec, start, end)
    given = {"start": start, "end": end, "reprocess": reprocess, "model": model, "order": order}
    parameters = json.dumps({**given, "allow_leakage": allow_leakage}, default=str)
    with open_resources(settings, spec) as desk:
        backfills, manifest = Backfills(desk.ledger), _resolved(settings, model or spec.model)
        version, owner, run_id = (manifest.name, manifest.version), new_owner(), flow_run.id
        going_on, facts = None, PartitionStatus()
        if not dry_run or desk.ledger.exists():
            desk.ledger.create()
            going_on = backfills.unfinished(job, parameters, version)
            if going_on is not None and not dry_run:
                going_on = backfills.take_over(going_on, owner, run_id)
            if going_on is None:
                facts = backfills.read_status(job, cells[0].start, cells[-1].end)
        if going_on is not None:
            steps = list(going_on.steps)
        else:
            steps = _planned(desk, cells, facts, reprocess, manifest, order, allow_leakage)
        label_run(_run_name(), [job, manifest.name])
        _tell_plan(steps, manifest, going_on)
        show_steps(manifest.reference, steps)
        if dry_run:
            show_plan(job, spec.partition_by, manifest.reference, steps)
            return BackfillResult(job, manifest.reference, None, steps)
        plan = going_on or backfills.begin(job, parameters, version, steps, owner, run_id, facts.at)
        waiting = [step for step in plan.steps if step.state == StepState.WAITING]
        title = f"{job} {start} to {end}"
        progress = BackfillProgress(
            title, job, spec.partition_by, manifest.reference, plan, backfills
        )
        with _carried_out(backfills, plan), progress:
            if waiting:
                with prepared(settings, spec, manifest.reference) as common:
                    common = replace(
                        common,
                        unless_published_since=plan.planned_at,
                        unless_changed=reprocess != "all",
                        alone=False,
                    )
                    runner = _Runner(settings, common, plan, backfills, allow_leakage)
                    runner.run(waiting, max_parallel)
    return _ended(job, manifest, plan)


# --- planning -----------------------------------------------------------------------------------


def _cells(job: Job, start: date, end: date) -> list[Partition]:
    if end < start:
        problem = f"{end} is before the start, {start}"
        raise ConfigurationError("backfill", "end", problem, "Both days are included.")
    between = list_partitions(start, end, job.partition_by, job.zone)
    cells = list(islice(between, MOST_PARTITIONS + 1))
    if len(cells) > MOST_PARTITIONS:
        problem = f"the range has more than {MOST_PARTITIONS:,} partitions"
        raise ConfigurationError("backfill", "end", problem, "Take a shorter range.")
    return cells


def _resolved(settings: Settings, reference: str) -> Manifest:
    """The version that the reference names now."""
    return open_store(settings).resolve(reference)


def _planned(
    desk: JobResources,
    cells: list[Partition],
    facts: PartitionStatus,
    reprocess: Reprocess,
    manifest: Manifest,
    order: Order,
    allow_leakage: bool,
) -> list[Step]:
    model = (manifest.name, manifest.version)
    ordered = cells if order == "oldest_first" else cells[::-1]
    due = _due(desk.job)
    steps = plan_steps(ordered, facts, reprocess, model, due, datetime.now(UTC))
    for step in steps:
        leaking = not allow_leakage and leaks(manifest, step.start, desk.job.zone)
        if step.state == StepState.WAITING and leaking:
            step.state = StepState.SKIPPED
            step.reason = f"{manifest.reference} was trained on it (allow_leakage scores it)"
        if step.state == StepState.WAITING:
            step.rows = estimate_rows(desk.source, step.start, step.end)
    return steps


def _due(job: Job) -> Callable[[Partition], datetime]:
    """When a schedule with the job's offset would score a partition: by default at its end."""
    long_ago = datetime.min.replace(tzinfo=UTC)

    def due(cell: Partition) -> datetime:
        return shift_partition(cell, job.offset - 1, job.partition_by, job.zone).end or long_ago

    return due


def _tell_plan(steps: list[Step], manifest: Manifest, resumed: Backfill | None) -> None:
    log = get_run_logger()
    if resumed is not None:
        log.info("Going on with plan %s of %s UTC", resumed.backfill_id, resumed.planned_at)
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
def _carried_out(backfills: Backfills, plan: Backfill) -> Iterator[None]:
    """The plan ends with this context; should it fail, the plan is left to the next attempt."""
    try:
        yield
    except BaseException:
        with suppress(NightshiftError):  # or the next one finds it silent
            backfills.leave(plan)
        raise
    backfills.renew(plan, ended=True)


class _Runner:
    """Carries out the steps of a plan, some of them side by side."""

    def __init__(
        self,
        settings: Settings,
        common: RunContext,
        plan: Backfill,
        backfills: Backfills,
        allow_leakage: bool,
    ) -> None:
        self.settings, self.common, self.plan = settings, common, plan
        self.backfills, self.allow_leakage = backfills, allow_leakage
        self.log = get_run_logger()
        self._stopping, self._watch = threading.Event(), Watch()

    def run(self, steps: list[Step], max_parallel: int) -> None:
        """Score each step's partition; those that others hold are tried once more at the end."""
        self._side_by_side(steps, max_parallel)
        held = [step for step in steps if step.state == StepState.WAITING]
        if not held:
            return
        # Their owners may be dead without a sign of it; by then they count as dead.
        self.log.info("Waiting for %s partitions that others are scoring", len(held))
        time.sleep(self.settings.database.lease + 1)
        self._side_by_side(held, max_parallel)
        for step in held:
            if step.state == StepState.WAITING:  # whether they get it published, nobody knows yet
                step.state = StepState.FAILED
                self._keep(step)

    def _side_by_side(self, steps: list[Step], max_parallel: int) -> None:
        with Watch() as self._watch, _sharing(self.common), listening(self._stop_if_asked):
            if max_parallel == 1:  # in the main thread, where timeouts and signals work best
                for step in steps:
                    self._score(step)
                return
            executor = ThreadPoolExecutor(max_parallel, "partition")
            try:
                futures = [executor.submit(copy_context().run, self._score, s) for s in steps]
                for future in futures:
                    future.result()
            except BaseException:  # Ctrl-C, say, of which only the main thread hears
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
        self._keep(step)
        begun = time.monotonic()
        try:
            with prefect.tags(self.common.desk.job.name, self.common.manifest.name, step.partition):
                state: State[ScoreResult] = score(
                    self.common.desk.job.name,
                    step.partition,
                    self.common.manifest.reference,
                    self.allow_leakage,
                    return_state=True,
                )
            reason = state.message or state.name or ""
        except Exception as error:  # the Prefect server is away, say: the others may still work
            state, reason = prefect.states.Failed(), f"{type(error).__name__}: {error}"
        step.seconds = time.monotonic() - begun
        if state.is_completed():
            step.state, step.rows = StepState.PUBLISHED, state.result().rows
        elif state.name == BUSY:
            step.state, step.reason = StepState.WAITING, reason
        elif state.name == CANCELLED and self._watch.called_off:  # all of it, not only this one
            step.state = StepState.WAITING
            self._keep(step)
            self._watch.raise_if_cancelled()
        elif state.name in {UNWANTED, CANCELLED}:
            step.state, step.reason = StepState.SKIPPED, reason
        else:
            step.state, step.reason = StepState.FAILED, reason
            self.log.error("%s failed: %s", step.partition, reason)
        self._keep(step)

    def _keep(self, step: Step) -> None:
        try:
            self.backfills.record_step(self.plan, step)
        except TransientError as error:  # whoever goes on with the plan looks at the ledger anyway
            self.log.warning("Step %s could not be entered: %s", step.partition, error)


@contextmanager
def _sharing(common: RunContext) -> Iterator[None]:
    # The backfill's own heartbeat serves; those of its runs would cost a second's wait each.
    with sharing(common), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def _ended(job: str, manifest: Manifest, plan: Backfill) -> BackfillResult:
    failures = [
        (step.partition, step.reason) for step in plan.steps if step.state == StepState.FAILED
    ]
    if failures:
        raise BackfillFailed(job, len(plan.steps), tuple(failures))
    return BackfillResult(job, manifest.reference, plan.backfill_id, list(plan.steps))
