"""The shards of a run: key ranges that are scored side by side, each by one worker at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from nightshift.adapters.ledger.runs import Run, RunState
from nightshift.adapters.ledger.schema import LedgerTables


@dataclass(frozen=True)
class Shard:
    """The rows beyond one key and through another, and how far their worker has come."""

    progress: Run
    after: str | None
    """Keys as the ledger's JSON; None for no bound."""
    through: str | None
    done: bool


def shards_of(
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


def together(shards: Sequence[Shard], owner: str) -> Run:
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


def split(connection: sa.Connection, tables: LedgerTables, run: Run, bounds: Sequence[str]) -> bool:
    """Divide a run of one shard, of which nothing is written, at these keys. False if it is not so.

    Within a transaction that has made sure of the run's owner.
    """
    shards = tables.shards
    mine = shards.c.run_id == run.run_id
    there = shards_of(connection, tables, run.run_id, RunState.RUNNING)
    if len(there) != 1 or there[0].progress.chunks:
        return False
    row = dict(connection.execute(sa.select(shards).where(mine)).mappings().one())
    if bounds:
        connection.execute(sa.update(shards).where(mine).values(through_key=bounds[0]))
    for number, after in enumerate(bounds, start=1):
        through = bounds[number] if number < len(bounds) else None
        bounded = {"shard": number, "after_key": after, "through_key": through}
        connection.execute(sa.insert(shards).values(**{**row, **bounded}))
    return True
