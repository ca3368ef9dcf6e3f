"""The flow that scores one partition of one job: a ScoringRun, its steps as Prefect tasks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TypeVar, cast

from prefect import flow, get_run_logger
from prefect.context import TagsContext
from prefect.flows import Flow
from prefect.runtime import flow_run
from prefect.states import Cancelled
from prefect.task_engine import TaskRunTimeoutError

from nightshift.adapters.errors import OwnershipLost, PartitionBusy
from nightshift.adapters.ledger.runs import Run
from nightshift.flows.checks.audit import audit_run
from nightshift.flows.checks.custom import require_checks
from nightshift.flows.checks.results import Audit
from nightshift.flows.config.job import Job, Shards, load_job
from nightshift.flows.config.settings import Settings, load_settings
from nightshift.flows.orchestrator.cancellation import CancellationWatch
from nightshift.flows.orchestrator.events import emit_published, emit_quarantined
from nightshift.flows.orchestrator.flow_run import choose_partition, label_run
from nightshift.flows.orchestrator.progress import Listener, Progress
from nightshift.flows.orchestrator.retry import make_task
from nightshift.flows.orchestrator.shard_workers import open_workers
from nightshift.flows.orchestrator.states import BUSY, convert_errors
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.planning.scheduled_runs import find_partition
from nightshift.flows.report.artifacts import show_failure, show_result
from nightshift.flows.scoring.context import RunContext
from nightshift.flows.scoring.recipe import (
    Log,
    Orchestrator,
    ScoringRun,
    StepTimedOut,
    open_context,
)
from nightshift.flows.scoring.run import ScoreResult
from nightshift.flows.scoring.shards import Submit

T = TypeVar("T")


def _run_name() -> str:
    given = flow_run.parameters
    return f"{given['job']} {given.get('partition') or 'latest'}"


@flow(name="score", flow_run_name=_run_name)
@convert_errors
def score(
    job: str,
    partition: str | None = None,
    model: str | None = None,
    allow_leakage: bool = False,
) -> ScoreResult:
    """Score one partition of a job's table and publish the predictions.

    Run again after a failure, it goes on after the last committed chunk.

    Args:
        job: The job, by the name of its file in config/jobs.
        partition: A day like 2013-10-01 (an hour, a month: as the job's partition_by says), or
            `all`. Left empty: the one that the schedule is for, usually the last that has ended.
        model: A model in place of the job's: `name`, `name@alias` or `name@7`.
        allow_leakage: Score rows from before the day through which the model was trained, too.
    """
    return _score(job, partition, model, allow_leakage)


def score_with(listener: Listener | None) -> Flow[..., ScoreResult]:
    """The same flow, with a listener, which cannot be a parameter of a flow run."""

    @flow(name=score.name, flow_run_name=_run_name)
    @convert_errors
    def listened(
        job: str,
        partition: str | None = None,
        model: str | None = None,
        allow_leakage: bool = False,
    ) -> ScoreResult:
        return _score(job, partition, model, allow_leakage, listener)

    return listened


def score_in(
    context: RunContext, listener: Listener | None
) -> Flow[[str, str, str, bool], ScoreResult]:
    """The same flow, with a backfill's context. A partition that another run is scoring does
    not fail: its state is `Busy`.
    """

    @flow(name=score.name, flow_run_name=f"{{job}} {{partition}} v{context.manifest.version}")
    @convert_errors
    def shared(job: str, partition: str, model: str, allow_leakage: bool) -> ScoreResult:
        orchestrator = PrefectOrchestrator(load_settings(), context.resources.job, listener, True)
        value = find_partition(context.resources.job, partition)
        try:
            # For a task's tags, Prefect would ask for free slots before each task.
            with TagsContext(current_tags=set()):
                result = ScoringRun(context, value, orchestrator, allow_leakage).execute()
        except (PartitionBusy, OwnershipLost) as error:
            return cast(ScoreResult, Cancelled(name=BUSY, message=str(error)))
        show_result(context, result, in_backfill=True)
        return result

    return shared


def _score(
    job: str,
    partition: str | None,
    model: str | None,
    allow_leakage: bool,
    listener: Listener | None = None,
) -> ScoreResult:
    settings, spec = load_settings(), load_job(job)
    value = choose_partition(spec, partition)
    orchestrator = PrefectOrchestrator(settings, spec, listener)
    with open_context(settings, spec, model or spec.model, orchestrator) as context:
        manifest = context.manifest
        name = f"{job} {value.label} v{manifest.version}"
        label_run(name, [job, manifest.name, value.label])
        result = ScoringRun(context, value, orchestrator, allow_leakage).execute()
        show_result(context, result, in_backfill=False)
        return result


class PrefectOrchestrator(Orchestrator):
    """Steps as tasks with retries; progress, reports and events where people look for them."""

    def __init__(
        self,
        settings: Settings,
        job: Job,
        listener: Listener | None = None,
        in_backfill: bool = False,
    ) -> None:
        """`in_backfill`: the backfill shows all its partitions in one artifact instead."""
        self.settings, self.job, self.listener = settings, job, listener
        self.in_backfill = in_backfill
        self.flow_run_id = flow_run.id

    @property
    def log(self) -> Log:
        return get_run_logger()

    def call(self, step: Callable[[], T], timeout: float | None = None) -> T:
        task = make_task(step, self.settings, self.job, timeout)
        try:
            return task()
        except TaskRunTimeoutError as error:
            raise StepTimedOut from error

    def require_checks(self, job: Job) -> None:
        require_checks(f"job {job.name!r}", job.checks)

    def audit(
        self, context: RunContext, partition: Partition, run: Run, snapshot: Sequence[int]
    ) -> Audit:
        return audit_run(context.resources, context.model, partition, run, snapshot)

    def open_workers(self, plan: Shards) -> AbstractContextManager[Submit]:
        self.log.info("Up to %s shards at a time on %s", plan.workers, plan.on)
        return open_workers(plan)

    @contextmanager
    def track(self, title: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
        progress = Progress(title, done, total, self.listener, at_once=not self.in_backfill)
        with closing(progress), CancellationWatch() as watch:

            def advance(rows: int) -> None:
                progress.advance(rows)
                watch.raise_if_cancelled()

            yield advance

    def published(self, context: RunContext, result: ScoreResult) -> None:
        emit_published(result)

    def quarantined(self, context: RunContext, result: ScoreResult, reason: str) -> None:
        emit_quarantined(result, reason, self.settings.project)
        show_result(context, result, self.in_backfill)

    def failed(self, context: RunContext, run_id: int) -> None:
        show_failure(context, run_id, self.in_backfill)
