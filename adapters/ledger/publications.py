"""How the pointer moves, within a transaction that holds the job's lock."""

from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.ledger.intervals import Interval, replace_range
from nightshift.adapters.ledger.runs import RunState
from nightshift.adapters.ledger.schema import LedgerTables

PUBLISH, RELEASE, ROLLBACK, REPLAY = "publish", "release", "rollback", "replay"


def published_ranges(connection: sa.Connection, tables: LedgerTables, job: str) -> list[Interval]:
    """Which run readers see, for each range."""
    published = tables.published
    statement = sa.select(published).where(published.c.job == job)
    return [
        Interval(line["range_start"], line["range_end"], line["run_id"])
        for line in connection.execute(statement).mappings()
    ]


def newer_ranges(
    connection: sa.Connection, tables: LedgerTables, job: str, than: Interval
) -> list[Interval]:
    """What readers see of this interval from runs that have begun, and read the source, later."""
    return [
        seen
        for seen in published_ranges(connection, tables, job)
        if seen.run_id > than.run_id and seen.start < than.end and than.start < seen.end
    ]


def publish_range(
    connection: sa.Connection,
    tables: LedgerTables,
    job: str,
    new: Interval,
    action: str,
    now: datetime,
    by: str,
    reason: str | None,
) -> None:
    """Have readers see the run in its range. Runs that they no longer see are superseded."""
    published, runs = tables.published, tables.runs
    before = published_ranges(connection, tables, job)
    after = replace_range(before, new)
    for gone in set(before) - set(after):
        connection.execute(
            sa.delete(published).where(
                published.c.job == job, published.c.range_start == gone.start
            )
        )
    for added in set(after) - set(before):
        connection.execute(
            sa.insert(published).values(
                job=job, range_start=added.start, range_end=added.end, run_id=added.run_id
            )
        )
    hidden = {line.run_id for line in before} - {line.run_id for line in after}
    for state, changed in ((RunState.SUPERSEDED, hidden), (RunState.PUBLISHED, {new.run_id})):
        connection.execute(sa.update(runs).where(runs.c.run_id.in_(changed)).values(state=state))
    record_change(connection, tables, job, new, action, now, by, reason)


def record_change(
    connection: sa.Connection,
    tables: LedgerTables,
    job: str,
    seen: Interval,
    action: str,
    now: datetime,
    by: str,
    reason: str | None,
) -> None:
    """Leave a line about what became of what readers see."""
    connection.execute(
        sa.insert(tables.changes).values(
            job=job,
            range_start=seen.start,
            range_end=seen.end,
            run_id=seen.run_id,
            action=action,
            changed_at=now,
            changed_by=by,
            reason=reason,
        )
    )
