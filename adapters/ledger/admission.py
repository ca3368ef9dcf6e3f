"""Who may begin: one owner at a time per partition, which resumes its run or starts a new one.

Called in a transaction that holds the job's lock.
"""

from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.errors import OwnershipLost, PartitionBusy, TargetMismatch
from nightshift.adapters.ledger import leases, shards
from nightshift.adapters.ledger.intervals import Interval
from nightshift.adapters.ledger.publications import newer_ranges
from nightshift.adapters.ledger.runs import CHAMPION, Run, RunRequest, RunState
from nightshift.adapters.ledger.schema import LedgerTables


def bind_target(connection: sa.Connection, tables: LedgerTables, job: str, target: str) -> None:
    """Bind the job to its target, for good: two jobs in one view would double rows.

    Raises TargetMismatch.
    """
    jobs = tables.jobs
    found = connection.execute(
        sa.select(jobs).where(sa.or_(jobs.c.job == job, jobs.c.target == target))
    ).mappings()
    for row in found:
        if row["target"] != target:
            problem = f"job {job!r} writes to {row['target']!r}"
            raise TargetMismatch(target, problem, "Keep its target, or give the job a new name.")
        if row["job"] != job:
            problem = f"it belongs to job {row['job']!r}"
            raise TargetMismatch(target, problem, "Give each job a target of its own.")
        return
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(jobs).values(job=job, target=target))
    except sa.exc.IntegrityError:  # another worker has just done it
        bind_target(connection, tables, job, target)


def find_resumable(
    connection: sa.Connection,
    tables: LedgerTables,
    request: RunRequest,
    owner: str,
    before: int | None,
    lease: float,
    now: datetime,
) -> sa.RowMapping | None:
    """The partition's run to resume, if there is one; other unfinished runs are closed.

    Only the newest run is resumed, and not if readers already see a later one: it would read older
    source rows. `before` is the run that this owner began earlier. Raises PartitionBusy,
    OwnershipLost.
    """
    runs = tables.runs
    of_partition = (runs.c.job == request.job) & (runs.c.partition == request.partition)
    of_partition &= runs.c.role == request.role
    last = connection.scalar(sa.select(sa.func.max(runs.c.run_id)).where(of_partition))
    # A smaller number than before means that a failover lost the newest runs, not that another
    # process replaced this owner.
    if before is not None and last is not None and last >= before:
        last_owner = connection.scalar(sa.select(runs.c.owner).where(runs.c.run_id == last))
        if last_owner != owner:
            raise OwnershipLost(before)
    open_states = [RunState.RUNNING, RunState.FAILED]
    if request.role == CHAMPION:  # a challenger's run ends once it is scored
        open_states.append(RunState.SCORED)
    unfinished = connection.execute(
        sa.select(runs, leases.last_written(tables).label("written_at")).where(
            of_partition, runs.c.state.in_(open_states)
        )
    ).mappings()
    resumable = None
    for row in unfinished.all():
        if row["state"] != RunState.FAILED:
            if row["owner"] != owner:
                _refuse_alive(connection, tables, row, lease, now)
            _close(connection, tables, row)
        if row["run_id"] == last and row["fingerprint"] == request.fingerprint:
            range_ = Interval(row["partition_start"], row["partition_end"], last)
            if not newer_ranges(connection, tables, request.job, range_):
                resumable = row
    return resumable


def _refuse_alive(
    connection: sa.Connection, tables: LedgerTables, row: sa.RowMapping, lease: float, now: datetime
) -> None:
    """Raise PartitionBusy while the run's owner is alive."""
    owner, silent = row["owner"], leases.silence(now, row["heartbeat_at"], row["written_at"])
    alive = leases.is_alive(owner, silent, lease)
    # A commit may take longer than the lease.
    if not alive and not leases.is_dead(owner):
        alive = leases.is_committing(connection, tables, row["run_id"])
    if alive:
        raise PartitionBusy(row["job"], row["partition"], row["run_id"], owner, silent)


def _close(connection: sa.Connection, tables: LedgerTables, row: sa.RowMapping) -> None:
    """Fail a run, so that its former owner can neither write into it nor publish it."""
    shards.fence(connection, tables, row["run_id"])
    closed = sa.update(tables.runs).where(tables.runs.c.run_id == row["run_id"])
    reason = f"abandoned by {row['owner']}"
    connection.execute(closed.values(state=RunState.FAILED, error=reason))


def resume(
    connection: sa.Connection,
    tables: LedgerTables,
    row: sa.RowMapping,
    owner: str,
    flow_run_id: str | None,
    now: datetime,
) -> Run:
    """Hand an unfinished run to this owner."""
    runs, run_id = tables.runs, row["run_id"]
    state = RunState.SCORED if row["scored_at"] else RunState.RUNNING
    shards.fence(connection, tables, run_id, owner)  # waits for a chunk that is being committed
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_id == run_id)
        .values(owner=owner, state=state, heartbeat_at=now, flow_run_id=flow_run_id, error=None)
    )
    return shards.add_up(shards.read_shards(connection, tables, run_id, state), owner)


def start(
    connection: sa.Connection,
    tables: LedgerTables,
    request: RunRequest,
    owner: str,
    now: datetime,
) -> Run:
    """Insert a new run, as one shard."""
    inserted = connection.execute(
        sa.insert(tables.runs).values(
            job=request.job,
            role=request.role,
            partition=request.partition,
            partition_start=request.start or BEGINNING,
            partition_end=request.end or END,
            model_name=request.model_name,
            model_version=request.model_version,
            model_digest=request.model_digest,
            fingerprint=request.fingerprint,
            flow_run_id=request.flow_run_id,
            state=RunState.RUNNING,
            owner=owner,
            heartbeat_at=now,
            started_at=now,
        )
    )
    run_id = int(inserted.inserted_primary_key[0])  # type: ignore[index]
    shards.add_shard(connection, tables, run_id, 0, owner, now)
    return Run(run_id, owner, RunState.RUNNING, chunks=0, rows=0, last_key=None)
