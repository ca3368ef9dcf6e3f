"""The flow that scores one partition of one job."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar
from zoneinfo import ZoneInfo

import pyarrow as pa
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TagsContext
from prefect.runtime import flow_run
from prefect.task_engine import TaskRunTimeoutError
from prefect.tasks import Task

from adapters.database.ledger import SCORED, Run, RunRequest, new_owner
from adapters.database.predictions import Predictions
from adapters.database.source import Source
from adapters.errors import (
    Leakage,
    NightshiftError,
    OwnershipLost,
    PartitionBusy,
    PredictionFailed,
    RowsMissing,
    RunTimedOut,
    TransientError,
)
from adapters.model import Model
from adapters.store import Manifest
from flows.desk import Desk, open_desk, open_store
from flows.endings import Held, Unwanted, told
from flows.events import emit_published
from flows.job import Job, load_job
from flows.partitions import Partition
from flows.pipeline import overlapped
from flows.report import Progress, ScoreResult, label_run, show_result
from flows.schedule import is_late, newer_night, night_to_score, scheduled_time, why_unwanted
from flows.settings import Settings, load_settings

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Prepared:
    """What the runs of one job with one model version work with."""

    desk: Desk
    predictions: Predictions
    manifest: Manifest
    model: Model
    unless_published_since: datetime | None = None
    """For a backfill: leave alone what somebody else published after it was planned."""


shared: ContextVar[Prepared | None] = ContextVar("shared", default=None)
"""Set by a backfill, so that its runs need not prepare anything themselves."""


def _run_name() -> str:
    given, common = flow_run.parameters, shared.get()
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
    cell = _wanted_partition(spec, partition)
    common = shared.get()
    if common is not None:
        with TagsContext(current_tags=set()):  # for a task's tags, Prefect asks for slots first
            return _score_partition(settings, common, cell, allow_leakage)
    with prepared(settings, spec, model or spec.model) as own:
        tags = [job, own.manifest.name, cell.label]
        label_run(f"{job} {cell.label} v{own.manifest.version}", tags)
        return _score_partition(settings, own, cell, allow_leakage)


@contextmanager
def prepared(settings: Settings, job: Job, reference: str) -> Iterator[Prepared]:
    """Load the model that the reference names now, and have the places ready for it."""
    manifest, model = _retried(load_model, settings, job)(settings, reference)
    with open_desk(settings, job) as desk:
        predictions = _retried(check_places, settings, job)(desk, manifest)
        yield Prepared(desk, predictions, manifest, model)


def _wanted_partition(job: Job, label: str | None) -> Partition:
    """The one asked for; of a night, the one that was due at its scheduled time, however late."""
    night = scheduled_time()
    if label or night is None:
        return job.partition_of(label)
    now = datetime.now(UTC)
    newer = newer_night(night, now) if is_late(job, night, now) else None
    reason = why_unwanted(job, night, now, newer)
    if reason is not None:
        raise Unwanted(reason)
    return job.partition_due(night_to_score(job, night, now))


def _score_partition(
    settings: Settings, common: Prepared, cell: Partition, allow_leakage: bool
) -> ScoreResult:
    desk, job = common.desk, common.desk.job
    if not allow_leakage:
        _refuse_leakage(common.manifest, cell, job.zone)
    seconds = None if job.timeout is None else job.timeout.total_seconds()
    scoring = _retried(score_rows, settings, job).with_options(timeout_seconds=seconds)
    try:
        run, result = scoring(common, cell, new_owner())
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
    """The step with the job's or the operator's retries, each after twice the time of the last."""
    retries = settings.retries if job.retries is None else job.retries
    delay = settings.retry_delay if job.retry_delay is None else job.retry_delay
    delays = [delay * 2**i for i in range(retries)]
    return step.with_options(retries=retries, retry_delay_seconds=delays)


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_transient)
def load_model(settings: Settings, reference: str) -> tuple[Manifest, Model]:
    """Fetch the version that the reference names now, and open it."""
    store = open_store(settings)
    manifest = store.resolve(reference)
    model = store.load(manifest)
    get_run_logger().info("Model %s@%s (%s)", manifest.name, manifest.version, manifest.adapter)
    return manifest, model


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_transient)
def check_places(desk: Desk, manifest: Manifest) -> Predictions:
    """Refuse what cannot work before a row is read; create the tables if they are missing."""
    desk.source.check(manifest.signature)
    predictions = desk.predictions(manifest.signature)
    predictions.create()
    return predictions


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_transient)
def score_rows(common: Prepared, cell: Partition, owner: str) -> tuple[Run, ScoreResult]:
    """Stream the partition through the model, one transaction per chunk."""
    desk, manifest, model = common.desk, common.manifest, common.model
    log, ledger, source = get_run_logger(), desk.ledger, desk.source
    request = _request(common, cell)
    run = ledger.begin(request, owner)
    log.info("Run %s begins after %s committed rows", run.run_id, f"{run.rows:,}")
    progress = None
    try:
        if run.state != SCORED:
            after = None if run.last_key is None else source.decode_key(run.last_key)
            opened = source.snapshot(manifest.signature, cell.start, cell.end)
            with ExitStack() as held:
                held.enter_context(ledger.kept_alive(run))
                snapshot = held.enter_context(opened)
                expected = snapshot.count(after)
                if after is not None and snapshot.count(None) - expected != run.rows:
                    log.info("Rows came or went behind its last chunk, so a new run begins")
                    run = ledger.begin(request, owner, resume=False)
                    held.enter_context(ledger.kept_alive(run))
                    after, expected = None, snapshot.count(None)
                alone = shared.get() is None  # a backfill has a picture of all its partitions
                title, total = f"{desk.job.name} {cell.label}", run.rows + expected
                progress = Progress(title, run.rows, total, at_once=alone)
                with closing(snapshot.chunks(after, desk.job.chunk_rows)) as chunks:
                    numbered = enumerate(chunks, start=run.chunks)
                    pipeline = overlapped(
                        numbered,
                        lambda chunk: (chunk[0], _predict(manifest, model, desk, chunk[1])),
                        lambda chunk: common.predictions.write(run, *chunk),
                    )
                    with closing(pipeline) as written:
                        for _, rows in written:
                            progress.advance(rows.num_rows)
                progress.close()
                _reconcile(source, expected, progress.done - run.rows)
            ledger.score(run)
    except BaseException as error:
        _note_failure(desk, run, error)
        raise
    rows, seconds = (progress.done, progress.seconds) if progress else (run.rows, 0.0)
    log.info("Scored %s rows in %.1f s", f"{rows:,}", seconds)
    return run, ScoreResult(
        job=desk.job.name,
        partition=cell.label,
        run_id=run.run_id,
        model=f"{manifest.name}@{manifest.version}",
        target=desk.job.target.table,
        rows=rows,
        resumed_rows=run.rows,
        sql=desk.reading_sql(),
        seconds=seconds,
    )


@task(cache_policy=NO_CACHE, retry_condition_fn=_is_transient)
def publish(desk: Desk, run: Run, result: ScoreResult) -> None:
    """Make this run's predictions the ones that readers see."""
    desk.ledger.publish(run)
    emit_published(result)
    get_run_logger().info("Published %s rows in %s", f"{result.rows:,}", result.target)


def _predict(manifest: Manifest, model: Model, desk: Desk, chunk: pa.Table) -> pa.Table:
    """One chunk of the source -> its keys, times and predictions."""
    signature = manifest.signature
    features = signature.features(chunk)
    try:
        values = model.predict_batch(features)
    except Exception as error:  # a model may raise anything
        first, last = (
            tuple(chunk.column(name)[row].as_py() for name in desk.job.source.key)
            for row in (0, chunk.num_rows - 1)
        )
        place = f"the rows with {desk.job.source.key} from {first} to {last}"
        problem = f"{type(error).__name__}: {error}"
        raise PredictionFailed(f"{manifest.name}@{manifest.version}", place, problem) from error
    predicted = signature.predictions(values, chunk.num_rows)
    rows = chunk.select(desk.source.kept_columns)
    for name in predicted.column_names:
        rows = rows.append_column(name, predicted.column(name))
    return rows


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


def _request(common: Prepared, cell: Partition) -> RunRequest:
    desk, job, manifest = common.desk, common.desk.job, common.manifest
    names = [*job.source.key, *manifest.signature.input_names]
    decisive = {
        "model": manifest.blob.digest,
        "source": job.source.model_dump(mode="json"),
        "types": desk.source.types(names),
        "outputs": [column.model_dump(mode="json") for column in manifest.signature.outputs],
        "target": job.target.table,
        "partition": [cell.label, str(cell.start), str(cell.end)],
        "timezone": job.timezone,
        "chunk_rows": job.chunk_rows,
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
        flow_run_id=flow_run.id,
        unless_published_since=common.unless_published_since,
    )


def _note_failure(desk: Desk, run: Run, error: BaseException) -> None:
    """Enter the failure in the ledger, if it can be reached; the run is resumable either way."""
    interrupted = isinstance(error, KeyboardInterrupt)
    reason = "interrupted" if interrupted else str(error) or type(error).__name__
    try:
        desk.ledger.fail(run, reason)
    except NightshiftError as second:
        get_run_logger().warning("The failure could not be entered in the ledger: %s", second)
