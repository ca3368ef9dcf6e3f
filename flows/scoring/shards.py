"""Scoring one partition in shards: key ranges side by side, on a Prefect task runner.

The run's coordinator holds one snapshot of the source, which each shard's worker joins, and the
run itself. A worker owns its shard: one that is lost is replaced by another, which goes on after
the last committed chunk, and fences out the first should it only have been away.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TagsContext
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from threadpoolctl import threadpool_limits

from nightshift.adapters.errors import LibraryNotInstalled, NightshiftError, RowsMissing, WorkerLost
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.runs import Run
from nightshift.adapters.ledger.shards import Shard
from nightshift.adapters.source.columns import KeyRange, encode_key
from nightshift.adapters.source.snapshot import Snapshot
from nightshift.adapters.source.source import Source
from nightshift.flows.config.job import Shards, load_job
from nightshift.flows.config.resources import JobResources, open_resources
from nightshift.flows.config.settings import Settings, load_settings
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.scoring.loaded_model import LoadedModel, opened
from nightshift.flows.scoring.stream import stream

_LOOK = 1.0  # seconds between two looks at how far the shards are


@dataclass(frozen=True)
class Assignment:
    """What a worker needs to know to score a shard; secrets it has from its own environment."""

    job: str
    reference: str
    """`name@version`"""
    cell: Partition
    run: Run
    """As the coordinator has it."""
    shard: int
    moment: str
    """The coordinator's snapshot."""
    threads: int | None
    """Of BLAS and OpenMP, so that workers on one machine do not fight for its cores."""


def remaining(source: Source, snapshot: Snapshot, shards: list[Shard]) -> int:
    """Rows of the snapshot that no shard is done with."""
    return sum(snapshot.count(_remaining_keys(source, s)) for s in shards if not s.done)


def counted(source: Source, snapshot: Snapshot, shards: list[Shard]) -> tuple[int, ...]:
    """Rows that the snapshot has in each shard, as the database counts them."""
    ranges = [source.decode_range(shard.after, shard.through) for shard in shards]
    return tuple(map(snapshot.count, ranges))


def score_shards(
    desk: JobResources,
    served: LoadedModel,
    cell: Partition,
    run: Run,
    snapshot: Snapshot,
    advance: Callable[[int], None],
) -> None:
    """Have the run's shards scored, at first divided if nothing of it is written yet."""
    plan, ledger = desk.job.shards, desk.ledger
    bounds = [] if run.chunks else [encode_key(key) for key in snapshot.bounds(plan.count)]
    shards = [shard for shard in ledger.split(run, bounds) if not shard.done]
    get_run_logger().info("%s shards on %s", len(shards), plan.on)
    seen, moment = run.seen, snapshot.snapshot_id()
    job, reference = desk.job.name, served.manifest.reference
    with ExitStack() as held:
        held.enter_context(TagsContext(current_tags=set()))
        runner = held.enter_context(task_runner(plan))
        held.enter_context(_handed_out(desk, cell, run))
        futures: list[PrefectFuture[Any]] = []
        for shard in shards:
            number = shard.progress.shard
            work = Assignment(job, reference, cell, run, number, moment, plan.threads)
            futures.append(runner.submit(score_shard, {"work": work}))
        waiting = list(futures)
        while waiting:
            waiting = [future for future in waiting if not _ended(future, _LOOK / len(waiting))]
            done = sum(shard.progress.seen for shard in ledger.shards(run.run_id))
            advance(done - seen)
            seen = done
        for future in futures:
            future.result()


@contextmanager
def _handed_out(desk: JobResources, cell: Partition, run: Run) -> Iterator[None]:
    """Withdraw the run's shards should this context fail, an interrupt say: at its end, the task
    runner waits for the workers, which would score what they have to its end.
    """
    try:
        yield
    except BaseException as error:
        with suppress(NightshiftError):
            desk.ledger.withdraw(run)
        if isinstance(error, BrokenProcessPool):
            raise WorkerLost(desk.job.name, cell.label) from error
        raise


def task_runner(plan: Shards) -> TaskRunner[Any]:
    """Where the shards are scored. Raises LibraryNotInstalled for Dask without its extra."""
    if plan.on == "threads":
        return ThreadPoolTaskRunner(max_workers=plan.workers)
    if plan.on == "processes":
        return ProcessPoolTaskRunner(max_workers=plan.workers)
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ModuleNotFoundError as error:
        raise LibraryNotInstalled("dask", "prefect_dask", "dask") from error
    if plan.address is not None:
        return DaskTaskRunner(address=plan.address)
    cluster = {"n_workers": plan.workers, "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=cluster)


@task(cache_policy=NO_CACHE, task_run_name="shard {work.shard}")
def score_shard(work: Assignment) -> int:
    """Score one shard; the rows it has."""
    settings, job = load_settings(), load_job(work.job)
    served = _opened_once(settings, work.reference)
    signature = served.manifest.signature
    with ExitStack() as held:
        held.enter_context(threadpool_limits(work.threads))
        desk = held.enter_context(open_resources(settings, job))
        ledger, source = desk.ledger, desk.source
        mine = ledger.take(work.run, work.shard, new_owner())
        if not mine.done:
            opened_at = source.snapshot(signature, work.cell.start, work.cell.end, work.moment)
            snapshot = held.enter_context(opened_at)
            keys = _remaining_keys(source, mine)
            expected, read = snapshot.count(keys), 0

            def advance(rows: int) -> None:
                nonlocal read
                read += rows

            run = mine.progress
            work_of = desk, served, desk.predictions(signature), snapshot, run
            stages = stream(*work_of, keys, expected, advance)
            if read != expected:
                raise RowsMissing(str(source.spec), expected, read)
            ledger.finish(run, stages.to_json())
        return ledger.shards(work.run.run_id)[work.shard].progress.seen


def _ended(future: PrefectFuture[Any], seconds: float) -> bool:
    future.wait(seconds)
    return future.state.is_final()


def _remaining_keys(source: Source, shard: Shard) -> KeyRange:
    return source.decode_range(shard.progress.last_key or shard.after, shard.through)


# --- the model, once in each process ------------------------------------------------------------

_served: dict[tuple[str, str], LoadedModel] = {}
_opening = threading.Lock()


def _opened_once(settings: Settings, reference: str) -> LoadedModel:
    place = settings.store_url(), reference
    with _opening:
        if place not in _served:
            _served.clear()  # a process serves one run at a time
            _served[place] = opened(settings, reference)
        return _served[place]
