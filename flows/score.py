"""The flow that scores one partition of one job."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from time import perf_counter
from typing import Any, ParamSpec, TypeVar
from zoneinfo import ZoneInfo

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TagsContext
from prefect.runtime import flow_run
from prefect.task_engine import TaskRunTimeoutError
from prefect.tasks import Task

from nightshift.adapters.errors import (
    AlreadyPublished,
    Leakage,
    NightshiftError,
    OwnershipLost,
    PartitionBusy,
    Quarantined,
    RejectsExceeded,
    RowsMissing,
    RunTimedOut,
    TransientError,
)
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.runs import CHALLENGER, CHAMPION, Run, RunRequest, RunState
from nightshift.adapters.source.source import Source
from nightshift.adapters.store.model_store import Manifest
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.flows.checks.audit import audit_run
from nightshift.flows.checks.custom import require_checks
from nightshift.flows.config.job import Job, load_job
from nightshift.flows.config.resources import JobResources, current_user, open_resources
from nightshift.flows.config.settings import Settings, load_settings
from nightshift.flows.orchestrator.cancellation import Watch
from nightshift.flows.orchestrator.events import emit_published, emit_quarantined
from nightshift.flows.orchestrator.flow_run import choose_partition
from nightshift.flows.orchestrator.states import Held, told
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.report.artifacts import (
    Progress,
    label_run,
    show_failure,
    show_result,
)
from nightshift.flows.scoring.challenger.run import ChallengerRun
from nightshift.flows.scoring.context import RunContext, at_work, shared, sharing
from nightshift.flows.scoring.loaded_model import LoadedModel, opened
from nightshift.flows.scoring.resuming import unchanged
from nightshift.flows.scoring.run import ScoreResult
from nightshift.flows.scoring.shards import counted, remaining, score_shards
from nightshift.flows.scoring.stream import chunk_rows, stream

_JITTER = 0.5  # of a delay, at most, more or less

P = ParamSpec("P")
R = TypeVar("R")


def _run_name() -> str:
    given, common = flow_run.parameters, shared()
    version = "" if common is None else f" v{common.manifest.version}"
    return f"{given['job']} {given.get('partition') or 'latest'}{version}"


@flow(name="score", flow_run_name=_run_name)
@told
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
        partition: A day like 2013-10-01 (an hour, a month: as the job's partition says), or
            `all`. Left empty: the one that the schedule is for, usually the last that has ended.
        model: A model in place of the job's: `name`, `name@alias` or `name@7`.
        allow_leakage: Score rows from before the day through which the model was trained, too.
    """
    settings, spec = load_settings(), load_job(job)
    cell = choose_partition(spec, partition)
    common = shared()
    if common is not None:
        with TagsContext(current_tags=set()):  # for a task's tags, Prefect asks for slots first
            return _score_partition(settings, common, cell, allow_leakage)
    with prepared(settings, spec, model or spec.model) as own, sharing(own):
        tags = [job, own.manifest.name, cell.label]
        label_run(f"{job} {cell.label} v{own.manifest.version}", tags)
        return _score_partition(settings, own, cell, allow_leakage)


@contextmanager
def prepared(settings: Settings, job: Job, reference: str) -> Iterator[RunContext]:
    """Load the model that the reference names now, and have the places ready for it."""
    served = _retried(load_model, settings, job)(settings, reference)
    with open_resources(settings, job) as desk:
        predictions = _retried(check_places, settings, job)(desk, served.manifest)
        yield RunContext(desk, predictions, served, _challenger(settings, desk))


def _challenger(settings: Settings, desk: JobResources) -> LoadedModel | None:
    """The job's challenger; whatever is wrong with it, the night goes on without it."""
    wanted = desk.job.challenger
    if wanted is None:
        return None
    try:
        served = opened(settings, wanted.model)
        desk.source.check(served.manifest.signature)
        desk.predictions(served.manifest.signature).check()
    except Exception as error:  # a model that is opened may raise anything
        get_run_logger().warning("Without the challenger %s: %s", wanted.model, error)
        return None
    return served


def _score_partition(
    settings: Settings, common: RunContext, cell: Partition, allow_leakage: bool
) -> ScoreResult:
    desk, job = common.desk, common.desk.job
    if not allow_leakage:
        _refuse_leakage(common.manifest, cell, job.zone)
    seconds = None if job.timeout is None else job.timeout.total_seconds()
    scoring = _retried(score_rows, settings, job).with_options(timeout_seconds=seconds)
    try:
        run, result = scoring(cell, new_owner())
        with _failing(desk, run), desk.ledger.keep_alive(run):
            result = _retried(audit, settings, job)(cell, run, result)
            _retried(publish, settings, job)(desk, run, result)
    except TaskRunTimeoutError as error:
        raise RunTimedOut(job.name, cell.label, seconds or 0.0) from error
    except (PartitionBusy, OwnershipLost) as error:
        if common.unless_published_since is None:
            raise
        raise Held(str(error)) from error
    show_result(result, job.source_spec())
    return result


def _is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether to try a failed step again: the error's type decides."""
    try:
        state.result()
    except TransientError:
        return True
    except Exception:  # whatever else it is, it would fail again
        return False
    return False


def _retried(step: Task[P, R], settings: Settings, job: Job) -> Task[P, R]:
    """The step with the job's or the operator's retries, each after about twice the time of the
    last: not to the second, or all that a server's restart has stopped would come back at once.
    """
    retries = settings.retries if job.retries is None else job.retries
    delay = settings.retry_delay if job.retry_delay is None else job.retry_delay
    delays = [delay * 2**i for i in range(retries)]
    return step.with_options(
        retries=retries, retry_delay_seconds=delays, retry_jitter_factor=_JITTER
    )


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_transient)
def load_model(settings: Settings, reference: str) -> LoadedModel:
    """Fetch the version that the reference names now, and open it."""
    served = opened(settings, reference)
    get_run_logger().info("Model %s (%s)", served.manifest.reference, served.manifest.adapter)
    return served


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_transient)
def check_places(desk: JobResources, manifest: Manifest) -> PredictionTable:
    """Refuse what cannot work before a row is read; create the tables if they are missing."""
    require_checks(f"job {desk.job.name!r}", desk.job.checks)
    desk.source.check(manifest.signature)
    predictions = desk.predictions(manifest.signature)
    predictions.create()
    return predictions


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_transient)
def score_rows(cell: Partition, owner: str) -> tuple[Run, ScoreResult]:
    """Stream the partition through the model, one transaction per chunk."""
    common, begun = at_work(), perf_counter()
    desk, manifest = common.desk, common.manifest
    log, ledger, source = get_run_logger(), desk.ledger, desk.source
    request = _request(common, cell, manifest)
    run = ledger.begin(request, owner)
    log.info("Run %s begins after %s committed rows", run.run_id, f"{run.seen:,}")
    progress = timings = None
    in_snapshot: tuple[int, ...] = ()
    try:
        with ExitStack() as held:
            held.enter_context(ledger.keep_alive(run))
            opened_at = source.snapshot(manifest.signature, cell.start, cell.end)
            snapshot = held.enter_context(opened_at)
            behind = chunk_rows(desk.job, manifest.signature), manifest.signature.input_names
            if not unchanged(ledger, source, snapshot, run.run_id, *behind):
                log.info("Rows have changed behind its last chunk, so a new run begins")
                run = ledger.begin(request, owner, resume=False)
                held.enter_context(ledger.keep_alive(run))
            if run.state != RunState.SCORED:
                expected = remaining(source, snapshot, ledger.shards(run.run_id))
                rival = held.enter_context(_beside(common, cell, run))
                if rival is not None:
                    rival.allow(desk.job.timeout, expected, begun)
                title, total = f"{desk.job.name} {cell.label}", run.seen + expected
                progress = Progress(title, run.seen, total, at_once=common.alone)
                held.callback(progress.close)
                advance = _watched(held.enter_context(Watch()), progress)
                if desk.job.shards.count > 1:
                    score_shards(desk, common.served, cell, run, snapshot, advance)
                else:
                    work = desk, common.served, common.predictions, snapshot, run
                    keys = source.decode_range(run.last_key, None)
                    stages = stream(*work, keys, expected, advance, rival)
                    timings = stages.to_json()
                progress.close()
                _reconcile(source, expected, progress.done - run.seen)
                if desk.job.shards.count == 1 and not run.seen:
                    in_snapshot = (expected,)
            in_snapshot = in_snapshot or counted(source, snapshot, ledger.shards(run.run_id))
        if run.state != RunState.SCORED:
            ledger.score(run, timings)
    except BaseException as error:
        _note_failure(desk, run, error)
        raise
    rows, seconds = (progress.done, progress.seconds) if progress else (run.seen, 0.0)
    log.info("Scored %s rows in %.1f s", f"{rows:,}", seconds)
    return run, ScoreResult(
        job=desk.job.name,
        partition=cell.label,
        run_id=run.run_id,
        model=manifest.reference,
        target=desk.job.target.table,
        rows=rows,
        resumed_rows=run.seen,
        sql=desk.reading_sql(),
        seconds=seconds,
        snapshot=in_snapshot,
    )


def _watched(watch: Watch, progress: Progress) -> Callable[[int], None]:
    def advance(rows: int) -> None:
        progress.advance(rows)
        watch.raise_if_cancelled()

    return advance


@contextmanager
def _beside(common: RunContext, cell: Partition, run: Run) -> Iterator[ChallengerRun | None]:
    """The challenger's run beside the champion's, if the job has one and it can be had."""
    if common.challenger is None or common.desk.job.challenger is None:
        yield None
        return
    request = _request(common, cell, common.challenger.manifest, CHALLENGER)
    log = get_run_logger()
    champion, challenger = common.served, common.challenger
    with ChallengerRun.beside(
        common.desk, champion, challenger, request, run, log.warning
    ) as rival:
        yield rival


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_transient)
def audit(cell: Partition, run: Run, result: ScoreResult) -> ScoreResult:
    """Compare what was scored with what is usual; what fails is quarantined, not published."""
    common, log = at_work(), get_run_logger()
    desk = common.desk
    found = audit_run(desk, common.served, cell, run, result.snapshot)
    for check in found.findings:
        log.warning("%s: %s", check.level.upper(), check.text)
    if found.not_judged:
        log.info("%s (%s checks not judged)", found.not_judged[0].text, len(found.not_judged))
    desk.ledger.note(run, audit=found.to_json())
    rejected = found.result("rejects")
    result = replace(
        result,
        rejected=0 if rejected is None else int(rejected.value or 0),
        verdict=found.verdict,
        remarks=tuple(check.text for check in found.findings),
        not_judged=len(found.not_judged),
    )
    if found.reason is not None:
        desk.ledger.quarantine(run, found.reason)
        emit_quarantined(result, found.reason, load_settings().project)
        show_result(result, desk.job.source_spec())
        raise Quarantined(desk.job.name, cell.label, run.run_id, found.reason)
    return result


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_transient)
def publish(desk: JobResources, run: Run, result: ScoreResult) -> None:
    """Make this run's predictions the ones that readers see."""
    desk.ledger.publish(run, current_user())
    emit_published(result)
    get_run_logger().info("Published %s rows in %s", f"{result.written:,}", result.target)


def leaks(manifest: Manifest, start: datetime | None, zone: ZoneInfo) -> bool:
    """Whether the model was trained on days of a partition that starts then."""
    through = manifest.trained_through
    return through is not None and (start is None or start.astimezone(zone).date() <= through)


def _refuse_leakage(manifest: Manifest, cell: Partition, zone: ZoneInfo) -> None:
    """A model looks better than it is on the rows it was trained on."""
    if leaks(manifest, cell.start, zone):
        raise Leakage(manifest.reference, str(manifest.trained_through), cell.label)


def _reconcile(source: Source, expected: int, found: int) -> None:
    if found != expected:
        raise RowsMissing(str(source.spec), expected, found)


def _request(
    common: RunContext, cell: Partition, manifest: Manifest, role: str = CHAMPION
) -> RunRequest:
    desk, job = common.desk, common.desk.job
    names = [*job.source.key, *manifest.signature.input_names]
    decisive = {
        "model": manifest.blob.digest,
        "source": job.source.model_dump(mode="json"),
        "types": desk.source.types(names),
        "outputs": [column.model_dump(mode="json") for column in manifest.signature.outputs],
        "target": job.target.table,
        "partition": [cell.label, str(cell.start), str(cell.end)],
        "timezone": job.timezone,
        "chunk_rows": chunk_rows(job, manifest.signature),
        "shards": job.shards.count,
    }
    text = json.dumps(decisive, sort_keys=True)
    return RunRequest(
        job=job.name,
        target=job.target.table,
        partition=cell.label,
        start=cell.start,
        end=cell.end,
        model_name=manifest.name,
        model_version=manifest.version,
        model_digest=manifest.blob.digest,
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        role=role,
        flow_run_id=flow_run.id,
        unless_published_since=common.unless_published_since if role == CHAMPION else None,
        unless_changed=common.unless_changed,
    )


@contextmanager
def _failing(desk: JobResources, run: Run) -> Iterator[None]:
    """Have a run that is scored, but neither published nor rejected, fail with what went wrong."""
    try:
        yield
    except (Quarantined, AlreadyPublished, OwnershipLost):
        raise
    except BaseException as error:
        _note_failure(desk, run, error)
        raise


def _note_failure(desk: JobResources, run: Run, error: BaseException) -> None:
    """Enter the failure in the ledger, if it can be reached; the run is resumable either way."""
    interrupted = isinstance(error, KeyboardInterrupt)
    reason = "interrupted" if interrupted else str(error) or type(error).__name__
    try:
        # What was rejected already would be too much again: the next run begins anew.
        desk.ledger.fail(run, reason, resumable=not isinstance(error, RejectsExceeded))
    except NightshiftError as second:
        get_run_logger().warning("The failure could not be entered in the ledger: %s", second)
        return
    if isinstance(error, Exception) and not isinstance(error, TransientError):  # nor tried again
        show_failure(run.run_id, desk.job.source_spec())
