"""Totals of each job's runs, for metrics: counted by the database when asked."""

from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.ledger.leases import last_written, silence
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.runs import RunState


@dataclass
class JobTotals:
    """All runs of one job."""

    job: str
    runs: dict[str, int] = field(default_factory=dict)
    """How many are in each state."""
    rows: int = 0
    """Predictions written."""
    rejected: int = 0
    """Rows that got no prediction."""
    last_rows: int = 0
    """Predictions of the newest run that was scored to its end."""
    last_seconds: float = 0.0
    """From its start to its last commit, pauses included."""
    published_at: datetime | None = None
    """When readers last saw something new."""
    silent: float = 0.0
    """Seconds since the last sign of life of the running run with the oldest one."""


def read_job_totals(ledger: Ledger) -> list[JobTotals]:
    """The totals of each job, by name; empty if nothing was ever scored."""
    if not ledger.exists():
        return []
    runs, shards = ledger.tables.runs, ledger.tables.shards
    found: dict[str, JobTotals] = {}
    with translate_errors(ledger.engine, "to count runs"), open_reader(ledger.engine) as connection:
        now = ledger.now(connection)
        states = sa.select(
            runs.c.job,
            runs.c.state,
            sa.func.count(),
            sa.func.max(runs.c.published_at, type_=runs.c.published_at.type),
        ).group_by(runs.c.job, runs.c.state)
        for job, state, count, published_at in connection.execute(states):
            line = found.setdefault(job, JobTotals(job))
            line.runs[state] = count
            times = [time for time in (line.published_at, published_at) if time is not None]
            line.published_at = max(times, default=None)
        running = sa.select(runs.c.job, runs.c.heartbeat_at, last_written(ledger.tables))
        for job, *signs in connection.execute(running.where(runs.c.state == RunState.RUNNING)):
            found[job].silent = max(found[job].silent, silence(now, *signs))
        written = (
            sa.select(
                runs.c.job,
                sa.func.sum(shards.c.rows_written),
                sa.func.sum(shards.c.rows_rejected),
            )
            .join(shards, shards.c.run_id == runs.c.run_id)
            .group_by(runs.c.job)
        )
        for job, rows, rejected in connection.execute(written):
            found[job].rows, found[job].rejected = int(rows), int(rejected)
        newest = sa.select(sa.func.max(runs.c.run_id)).where(runs.c.scored_at.is_not(None))
        last = (
            sa.select(
                runs.c.job,
                runs.c.started_at,
                runs.c.scored_at,
                sa.func.sum(shards.c.rows_written),
            )
            .join(shards, shards.c.run_id == runs.c.run_id)
            .where(runs.c.run_id.in_(newest.group_by(runs.c.job)))
            .group_by(runs.c.job, runs.c.started_at, runs.c.scored_at)
        )
        for job, started, ended, rows in connection.execute(last):
            found[job].last_rows = int(rows)
            found[job].last_seconds = (ended - started).total_seconds()
    return [found[job] for job in sorted(found)]
