"""Scoring one partition in shards: key ranges side by side, each by a worker of its own.

The run's coordinator holds one snapshot of the source, which each worker joins, and the run
itself. A worker owns its shard. If it is lost, another takes over after the last committed chunk,
and the first, should it still be alive, can commit nothing more.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from threadpoolctl import threadpool_limits

from nightshift.adapters.errors import NightshiftError, RowsMissing, WorkerLost
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.runs import Run
from nightshift.adapters.source.columns import encode_key
from nightshift.adapters.source.snapshot import Snapshot
from nightshift.flows.config.job import Shards, load_job
from nightshift.flows.config.resources import JobResources, open_resources
from nightshift.flows.config.settings import Settings, load_settings
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.scoring.context import RunContext
from nightshift.flows.scoring.loaded_model import LoadedModel, load
from nightshift.flows.scoring.resuming import remaining_keys
from nightshift.flows.scoring.stream import stream

_POLL = 1.0  # seconds between two looks at how far the shards are


@dataclass(frozen=True)
class Assignment:
    """What a worker needs to score a shard. It reads secrets from its own environment."""

    job: str
    reference: str
    """`name@version`"""
    partition: Partition
    run: Run
    """As the coordinator has it."""
    shard: int
    snapshot_id: str
    """The coordinator's snapshot."""
    threads: int | None
    """Of BLAS and OpenMP, so that workers on one machine do not compete for its cores."""


class PendingShard(Protocol):
    """A shard that a worker has."""

    def wait(self, seconds: float) -> bool:
        """Wait for so long at most; whether it has ended."""

    def result(self) -> object:
        """Raises what scoring it raised."""


Submit = Callable[[Assignment], PendingShard]
OpenWorkers = Callable[[Shards], AbstractContextManager[Submit]]


def score_shards(
    context: RunContext,
    partition: Partition,
    run: Run,
    snapshot: Snapshot,
    open_workers: OpenWorkers,
    advance: Callable[[int], None],
) -> None:
    """Score the run's unfinished shards; split it into shards if nothing is written yet."""
    resources = context.resources
    plan, ledger = resources.job.shards, resources.ledger
    bounds = [] if run.chunks else [encode_key(key) for key in snapshot.bounds(plan.count)]
    shards = [shard for shard in ledger.split(run, bounds) if not shard.done]
    seen, snapshot_id = run.seen, snapshot.snapshot_id()
    with open_workers(plan) as submit, _withdrawing(resources, partition, run):
        pending = [
            submit(
                Assignment(
                    resources.job.name,
                    context.manifest.reference,
                    partition,
                    run,
                    shard.progress.shard,
                    snapshot_id,
                    plan.threads,
                )
            )
            for shard in shards
        ]
        waiting = list(pending)
        while waiting:
            waiting = [shard for shard in waiting if not shard.wait(_POLL / len(waiting))]
            done = sum(shard.progress.seen for shard in ledger.shards(run.run_id))
            advance(done - seen)
            seen = done
        for shard in pending:
            shard.result()


@contextmanager
def _withdrawing(resources: JobResources, partition: Partition, run: Run) -> Iterator[None]:
    """Withdraw the run's shards if this context fails, by an interrupt say: the workers are waited
    for, and would otherwise score all that they have.
    """
    try:
        yield
    except BaseException as error:
        with suppress(NightshiftError):
            resources.ledger.withdraw(run)
        if isinstance(error, BrokenProcessPool):
            raise WorkerLost(resources.job.name, partition.label) from error
        raise


def score_shard(assignment: Assignment) -> int:
    """Score one shard in this process; returns the rows it has."""
    settings, job = load_settings(), load_job(assignment.job)
    model = _load_once(settings, assignment.reference)
    signature, partition = model.manifest.signature, assignment.partition
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(assignment.threads))
        resources = stack.enter_context(open_resources(settings, job))
        ledger, source = resources.ledger, resources.source
        shard = ledger.take(assignment.run, assignment.shard, new_owner())
        if not shard.done:
            opening = source.snapshot(
                signature, partition.start, partition.end, assignment.snapshot_id
            )
            snapshot = stack.enter_context(opening)
            keys = remaining_keys(source, shard)
            expected, read = snapshot.count(keys), 0

            def advance(rows: int) -> None:
                nonlocal read
                read += rows

            predictions, run = resources.predictions(signature), shard.progress
            work = resources, model, predictions, snapshot, run
            timings = stream(*work, keys, expected, advance)
            if read != expected:
                raise RowsMissing(str(source.spec), expected, read)
            ledger.finish(run, timings.to_json())
        return ledger.shards(assignment.run.run_id)[assignment.shard].progress.seen


# --- the model, loaded once in each process -----------------------------------------------------

_loaded: dict[tuple[str, str], LoadedModel] = {}
_loading = threading.Lock()


def _load_once(settings: Settings, reference: str) -> LoadedModel:
    place = settings.store_url(), reference
    with _loading:
        if place not in _loaded:
            _loaded.clear()  # a process works for one run at a time
            _loaded[place] = load(settings, reference)
        return _loaded[place]
