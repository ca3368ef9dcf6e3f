"""What readers see: the published ranges, and each change of them.

Within a transaction that holds the job's lock.
"""

from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.errors import AlreadyPublished, Quarantined
from nightshift.adapters.ledger.intervals import Interval, replace_range
from nightshift.adapters.ledger.runs import RunRequest, RunState
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
    """The published ranges that overlap this one and are of later runs, which read newer rows."""
    return [
        seen
        for seen in published_ranges(connection, tables, job)
        if seen.run_id > than.run_id and seen.start < than.end and than.start < seen.end
    ]


def refuse_published(
    connection: sa.Connection, tables: LedgerTables, request: RunRequest, since: datetime
) -> None:
    """Raise AlreadyPublished or Quarantined if another worker has since done what is requested."""
    runs, changes = tables.runs, tables.changes
    of_partition = (runs.c.job == request.job) & (runs.c.partition == request.partition)
    if request.unless_changed:
        published = (
            sa.select(changes.c.run_id)
            .where(changes.c.job == request.job, changes.c.action != REPLAY)
            .where(changes.c.changed_at > since)
            .where(changes.c.range_start < (request.end or END))
            .where(changes.c.range_end > (request.start or BEGINNING))
            .order_by(changes.c.change_id.desc())
        )
    else:
        published = (
            sa.select(runs.c.run_id)
            .where(of_partition, runs.c.state == RunState.PUBLISHED, runs.c.published_at > since)
            .where(runs.c.model_name == request.model_name)
            .where(runs.c.model_version == request.model_version)
        )
    run_id = connection.scalar(published.limit(1))
    if run_id is not None:
        raise AlreadyPublished(request.job, request.partition, run_id)
    quarantined = connection.execute(
        sa.select(runs.c.run_id, runs.c.error)
        .where(of_partition, runs.c.role == request.role, runs.c.state == RunState.QUARANTINED)
        .where(runs.c.fingerprint == request.fingerprint, runs.c.started_at > since)
        .limit(1)
    ).first()
    if quarantined is not None:
        raise Quarantined(request.job, request.partition, quarantined.run_id, quarantined.error)


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
    for state, run_ids in ((RunState.SUPERSEDED, hidden), (RunState.PUBLISHED, {new.run_id})):
        connection.execute(sa.update(runs).where(runs.c.run_id.in_(run_ids)).values(state=state))
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
    """Record a change of what readers see in a range."""
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
