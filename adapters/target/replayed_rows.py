"""Rows that got no prediction at first, merged into their run once they have one."""

from collections.abc import Callable, Sequence

import pyarrow as pa
import sqlalchemy as sa

from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.errors import RunNotReplayable, RunUnknown
from nightshift.adapters.history.run_history import RejectRecord
from nightshift.adapters.ledger.publications import REPLAY, published_ranges, record_change
from nightshift.adapters.ledger.runs import RunState
from nightshift.adapters.target.predictions import Predictions


def merge(
    predictions: Predictions,
    run_id: int,
    rows: pa.Table,
    rejects: Sequence[RejectRecord],
    by: str,
    profiled: Callable[[str | None], str],
) -> None:
    """Add these rows' predictions to a run that has ended, and strike them off its rejects.

    One transaction: readers of a published run see the rows appear together. `rows` are as
    `Predictions.write` takes them, one for each of the rejects; `profiled` adds them to a shard's
    profile. Raises RunNotReplayable for a run that has not ended, and if somebody has merged some
    of the rows meanwhile.
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
        struck: dict[int, int] = {}
        in_chunks: dict[tuple[int, int], int] = {}
        for reject in rejects:
            line = tables.rejects.c
            place = (line.shard == reject.shard) & (line.chunk == reject.chunk)
            place &= (line.run_id == run_id) & (line.position == reject.position)
            gone = connection.execute(sa.delete(tables.rejects).where(place))
            struck[reject.shard] = struck.get(reject.shard, 0) + gone.rowcount
            its = reject.shard, reject.chunk
            in_chunks[its] = in_chunks.get(its, 0) + gone.rowcount
        if sum(struck.values()) != rows.num_rows:
            raise RunNotReplayable(run_id, "somebody else has merged some of these rows meanwhile")
        for shard, count in struck.items():
            counted = sa.update(shards).where(shards.c.run_id == run_id, shards.c.shard == shard)
            connection.execute(
                counted.values(
                    rows_written=shards.c.rows_written + count,
                    rows_rejected=shards.c.rows_rejected - count,
                )
            )
        chunks = tables.chunks
        for (shard, chunk), count in in_chunks.items():  # from which a row's chunk is counted
            own = (
                (chunks.c.run_id == run_id) & (chunks.c.shard == shard) & (chunks.c.chunk == chunk)
            )
            changed = {"rows": chunks.c.rows + count, "rejected": chunks.c.rejected - count}
            connection.execute(sa.update(chunks).where(own).values(changed))
        one = (shards.c.run_id == run_id) & (shards.c.shard == min(struck))
        text = connection.scalar(sa.select(shards.c.profile).where(one))
        connection.execute(sa.update(shards).where(one).values(profile=profiled(text)))
        predictions.insert(connection, run_id, rows)
        now = ledger.now(connection)
        for interval in published_ranges(connection, tables, row["job"]):
            if interval.run_id == run_id:
                reason = f"{rows.num_rows:,} rows that had been rejected"
                record_change(connection, tables, row["job"], interval, REPLAY, now, by, reason)
