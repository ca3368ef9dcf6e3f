"""The shards of a run: key ranges that are scored in parallel, each by one worker at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.errors import OwnershipLost
from nightshift.adapters.ledger.leases import NO_OWNER
from nightshift.adapters.ledger.runs import RejectedRow, Run, RunState
from nightshift.adapters.ledger.schema import LedgerTables


@dataclass(frozen=True)
class Shard:
    """The rows after one key, through another, and how far their worker has come."""

    progress: Run
    after: str | None
    """Keys as the ledger's JSON; None if unbounded."""
    through: str | None
    done: bool


def read_shards(
    connection: sa.Connection, tables: LedgerTables, run_id: int, state: RunState
) -> list[Shard]:
    """A run's shards in the order of their keys. `state` is the run's."""
    shards, chunks = tables.shards, tables.chunks
    last = (chunks.c.run_id == shards.c.run_id) & (chunks.c.shard == shards.c.shard)
    last &= chunks.c.chunk == shards.c.chunks_written - 1
    found = connection.execute(
        sa.select(shards, chunks.c.last_key)
        .outerjoin(chunks, last)
        .where(shards.c.run_id == run_id)
        .order_by(shards.c.shard)
    ).mappings()
    return [
        Shard(
            Run(
                run_id,
                row["owner"],
                state,
                row["chunks_written"],
                row["rows_written"],
                row["last_key"],
                row["rows_rejected"],
                row["profile"],
                row["shard"],
            ),
            row["after_key"],
            row["through_key"],
            row["done"],
        )
        for row in found
    ]


def add_up(shards: Sequence[Shard], owner: str) -> Run:
    """A run as the sum of its shards."""
    first = shards[0].progress
    if len(shards) == 1:
        return first
    parts = [shard.progress for shard in shards]
    return replace(
        first,
        owner=owner,
        chunks=sum(part.chunks for part in parts),
        rows=sum(part.rows for part in parts),
        rejected=sum(part.rejected for part in parts),
        last_key=None,
        profile=None,
    )


def add_shard(
    connection: sa.Connection,
    tables: LedgerTables,
    run_id: int,
    shard: int,
    owner: str,
    now: datetime,
) -> None:
    """Insert an empty shard, without bounds."""
    connection.execute(
        sa.insert(tables.shards).values(
            run_id=run_id,
            shard=shard,
            owner=owner,
            written_at=now,
            done=False,
            chunks_written=0,
            rows_written=0,
            rows_rejected=0,
        )
    )


def split(connection: sa.Connection, tables: LedgerTables, run: Run, bounds: Sequence[str]) -> None:
    """Divide a run at these keys, if it has one shard that holds nothing yet.

    Within a transaction that has checked the run's owner.
    """
    shards = tables.shards
    of_run = shards.c.run_id == run.run_id
    there = read_shards(connection, tables, run.run_id, RunState.RUNNING)
    if len(there) != 1 or there[0].progress.chunks:
        return
    row = dict(connection.execute(sa.select(shards).where(of_run)).mappings().one())
    if bounds:
        connection.execute(sa.update(shards).where(of_run).values(through_key=bounds[0]))
    for number, after in enumerate(bounds, start=1):
        through = bounds[number] if number < len(bounds) else None
        bounded = {"shard": number, "after_key": after, "through_key": through}
        connection.execute(sa.insert(shards).values(**{**row, **bounded}))


def fence(
    connection: sa.Connection, tables: LedgerTables, run_id: int, owner: str = NO_OWNER
) -> None:
    """Hand the run's shards to another owner, so that no other process writes into them."""
    shards = tables.shards
    connection.execute(sa.update(shards).where(shards.c.run_id == run_id).values(owner=owner))


def take(connection: sa.Connection, tables: LedgerTables, run: Run, shard: int, owner: str) -> None:
    """Own a shard, unless the run's shards were withdrawn. Raises OwnershipLost."""
    shards = tables.shards
    place = (shards.c.run_id == run.run_id) & (shards.c.shard == shard)
    offered = sa.update(shards).where(place, shards.c.owner != NO_OWNER)
    if connection.execute(offered.values(owner=owner)).rowcount != 1:
        raise OwnershipLost(run.run_id)


def finish(connection: sa.Connection, tables: LedgerTables, run: Run, timings: str | None) -> None:
    """All rows of the shard are written. Raises OwnershipLost."""
    shards = tables.shards
    own = (shards.c.run_id == run.run_id) & (shards.c.shard == run.shard)
    own &= shards.c.owner == run.owner
    ended = sa.update(shards).where(own).values(done=True, timings=timings)
    if connection.execute(ended).rowcount != 1:
        raise OwnershipLost(run.run_id)


def record_chunk(
    connection: sa.Connection,
    tables: LedgerTables,
    run: Run,
    chunk: int,
    keys: tuple[str, str],
    rows: int,
    rejects: Sequence[RejectedRow],
    profile: str | None,
    checksum: str | None,
    now: datetime,
) -> None:
    """What `Ledger.record_chunk` says."""
    shards = tables.shards
    statement = (
        sa.update(shards)
        .where(shards.c.run_id == run.run_id, shards.c.shard == run.shard)
        .where(shards.c.owner == run.owner, sa.not_(shards.c.done))
        .where(shards.c.chunks_written == chunk)
        .values(
            chunks_written=chunk + 1,
            rows_written=shards.c.rows_written + rows,
            rows_rejected=shards.c.rows_rejected + len(rejects),
            written_at=now,
            profile=profile,
        )
    )
    if connection.execute(statement).rowcount != 1:
        raise OwnershipLost(run.run_id)
    place = {"run_id": run.run_id, "shard": run.shard, "chunk": chunk}
    connection.execute(
        sa.insert(tables.chunks).values(
            **place,
            first_key=keys[0],
            last_key=keys[1],
            rows=rows,
            rejected=len(rejects),
            checksum=checksum,
            committed_at=now,
        )
    )
    lines = [
        {
            **place,
            "position": position,
            "row_key": row.key,
            "kind": row.kind,
            "error": row.error,
            "inputs": row.inputs,
        }
        for position, row in enumerate(rejects)
    ]
    if lines:
        connection.execute(sa.insert(tables.rejects), lines)
