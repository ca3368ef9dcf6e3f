"""What need not be done, since somebody has done it after it was planned."""

from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.errors import AlreadyPublished, Quarantined
from nightshift.adapters.ledger.publications import REPLAY
from nightshift.adapters.ledger.runs import RunRequest, RunState
from nightshift.adapters.ledger.schema import LedgerTables


def refuse_done(
    connection: sa.Connection, tables: LedgerTables, request: RunRequest, since: datetime
) -> None:
    """Raise AlreadyPublished or Quarantined, as the request says, within its transaction."""
    runs, changes = tables.runs, tables.changes
    mine = (runs.c.job == request.job) & (runs.c.partition == request.partition)
    if request.unless_changed:
        found = (
            sa.select(changes.c.run_id)
            .where(
                changes.c.job == request.job,
                changes.c.action != REPLAY,
                changes.c.changed_at > since,
            )
            .where(changes.c.range_start < (request.end or END))
            .where(changes.c.range_end > (request.start or BEGINNING))
            .order_by(changes.c.change_id.desc())
        )
    else:
        found = (
            sa.select(runs.c.run_id)
            .where(mine, runs.c.state == RunState.PUBLISHED, runs.c.published_at > since)
            .where(runs.c.model_name == request.model_name)
            .where(runs.c.model_version == request.model_version)
        )
    shown = connection.scalar(found.limit(1))
    if shown is not None:
        raise AlreadyPublished(request.job, request.partition, shown)
    rejected = connection.execute(
        sa.select(runs.c.run_id, runs.c.error)
        .where(mine, runs.c.role == request.role, runs.c.state == RunState.QUARANTINED)
        .where(runs.c.fingerprint == request.fingerprint, runs.c.started_at > since)
        .limit(1)
    ).first()
    if rejected is not None:
        raise Quarantined(request.job, request.partition, rejected.run_id, rejected.error)
