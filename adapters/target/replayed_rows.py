"""Rows that were rejected, merged into their run once they have a prediction."""

from collections.abc import Callable, Sequence
from typing import Protocol

import pyarrow as pa
import sqlalchemy as sa

from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.errors import RunNotReplayable, RunUnknown
from nightshift.adapters.ledger.publications import REPLAY, published_ranges, record_change
from nightshift.adapters.ledger.runs import RunState
from nightshift.adapters.target.predictions import PredictionTable


class Reject(Protocol):
    """Where the ledger lists a rejected row of a run."""

    @property
    def shard(self) -> int: ...
    @property
    def chunk(self) -> int: ...
    @property
    def position(self) -> int: ...


def merge(
    predictions: PredictionTable,
    run_id: int,
    rows: pa.Table,
    rejects: Sequence[Reject],
    by: str,
    add_to_profile: Callable[[str | None], str],
) -> None:
    """Add these rows' predictions to a run that has ended, and delete them from its rejects.

    One transaction: readers of a published run see all the rows appear at once. `rows` are as
    `PredictionTable.write` takes them, one for each of the rejects; `add_to_profile` turns a
    shard's profile (JSON) into one that counts them. Raises RunUnknown, and RunNotReplayable for a
    run that has not ended or if another process has merged some of the rows.
    """
    ledger, engine = predictions.ledger, predictions.engine
    tables = ledger.tables
    runs, shards = tables.runs, tables.shards
    with translate_errors(engine, f"to merge rows into run {run_id}"), engine.begin() as connection:
        of_run = sa.select(runs).where(runs.c.run_id == run_id)
        row = connection.execute(of_run).mappings().first()
        if row is None:
            raise RunUnknown(run_id)
        ledger.lock(connection, row["job"])
        row = connection.execute(of_run).mappings().one()
        if (
            row["state"] not in (RunState.PUBLISHED, RunState.QUARANTINED)
            or row["cleaned_at"] is not None
        ):
            raise RunNotReplayable(run_id, f"it is {row['state']}")
        deleted: dict[int, int] = {}
        deleted_of_chunk: dict[tuple[int, int], int] = {}
        for reject in rejects:
            line = tables.rejects.c
            at = (line.shard == reject.shard) & (line.chunk == reject.chunk)
            at &= (line.run_id == run_id) & (line.position == reject.position)
            result = connection.execute(sa.delete(tables.rejects).where(at))
            deleted[reject.shard] = deleted.get(reject.shard, 0) + result.rowcount
            number = reject.shard, reject.chunk
            deleted_of_chunk[number] = deleted_of_chunk.get(number, 0) + result.rowcount
        if sum(deleted.values()) != rows.num_rows:
            raise RunNotReplayable(run_id, "another process has merged some of these rows")
        for shard, count in deleted.items():
            counted = sa.update(shards).where(shards.c.run_id == run_id, shards.c.shard == shard)
            connection.execute(
                counted.values(
                    rows_written=shards.c.rows_written + count,
                    rows_rejected=shards.c.rows_rejected - count,
                )
            )
        chunks = tables.chunks
        for (shard, chunk), count in deleted_of_chunk.items():
            own = (
                (chunks.c.run_id == run_id) & (chunks.c.shard == shard) & (chunks.c.chunk == chunk)
            )
            changed = {"rows": chunks.c.rows + count, "rejected": chunks.c.rejected - count}
            connection.execute(sa.update(chunks).where(own).values(changed))
        one = (shards.c.run_id == run_id) & (shards.c.shard == min(deleted))
        text = connection.scalar(sa.select(shards.c.profile).where(one))
        connection.execute(sa.update(shards).where(one).values(profile=add_to_profile(text)))
        predictions.insert(connection, run_id, rows)
        now = ledger.now(connection)
        for interval in published_ranges(connection, tables, row["job"]):
            if interval.run_id == run_id:
                reason = f"{rows.num_rows:,} rejected rows replayed"
                record_change(connection, tables, row["job"], interval, REPLAY, now, by, reason)
