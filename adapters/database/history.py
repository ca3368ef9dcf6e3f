"""What became of runs: lists, what an audit compares a run with, and where a row came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from adapters.database.engine import translated
from adapters.database.ledger import Ledger
from adapters.database.moving import PUBLISHED, SUPERSEDED
from adapters.database.run import CHAMPION

_WAS_PUBLISHED = (PUBLISHED, SUPERSEDED)


@dataclass(frozen=True)
class RunRecord:
    """One line of a job's history."""

    run_id: int
    job: str
    role: str
    partition: str
    model_name: str
    model_version: int
    state: str
    rows: int
    rejected: int
    started_at: datetime
    scored_at: datetime | None
    published_at: datetime | None
    flow_run_id: str | None
    error: str | None


@dataclass(frozen=True)
class Former:
    """A run that was published before: what a later one is compared with."""

    run_id: int
    partition: str
    start: datetime
    rows: int
    """Predictions and rejects: the rows that the source had."""
    profiles: Sequence[str]
    """JSON of each shard's profile; empty where none was kept."""
    audit: str | None


class History:
    """Reads one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.engine, self.tables = ledger, ledger.engine, ledger.tables

    def runs(self, job: str | None = None, limit: int = 20) -> list[RunRecord]:
        """The newest runs, newest first."""
        statement = self._records().order_by(self.tables.runs.c.run_id.desc()).limit(limit)
        if job is not None:
            statement = statement.where(self.tables.runs.c.job == job)
        return self._read(statement)

    def run(self, run_id: int) -> RunRecord | None:
        found = self._read(self._records().where(self.tables.runs.c.run_id == run_id))
        return found[0] if found else None

    def former(
        self, job: str, partition: str, start: datetime, before: int, limit: int
    ) -> list[Former]:
        """Published runs that began before the run `before`: of the same partition, if there is
        one, then of those that came before it in time, nearest first.
        """
        runs = self.tables.runs
        earlier = (
            sa.select(runs)
            .where(runs.c.job == job, runs.c.role == CHAMPION, runs.c.run_id < before)
            .where(runs.c.state.in_(_WAS_PUBLISHED))
            .where(sa.or_(runs.c.partition == partition, runs.c.partition_start < start))
            .order_by(
                sa.case((runs.c.partition == partition, 0), else_=1),
                runs.c.partition_start.desc(),
                runs.c.run_id.desc(),
            )
            .limit(limit)
        )
        with translated(self.engine, "to read former runs"), self.engine.connect() as connection:
            rows = connection.execute(earlier).mappings().all()
            shards = self.tables.shards
            of_them = sa.select(shards).where(shards.c.run_id.in_([row["run_id"] for row in rows]))
            parts = connection.execute(of_them).mappings().all()
        return [
            Former(
                row["run_id"],
                row["partition"],
                row["partition_start"],
                sum(
                    part["rows_written"] + part["rows_rejected"]
                    for part in parts
                    if part["run_id"] == row["run_id"]
                ),
                [
                    part["profile"]
                    for part in parts
                    if part["run_id"] == row["run_id"] and part["profile"]
                ],
                row["audit"],
            )
            for row in rows
        ]

    def document(self, run_id: int, name: str) -> str | None:
        """The JSON kept with a run: its `audit`, a challenger's `comparison`."""
        runs = self.tables.runs
        with translated(self.engine, "to read a run"), self.engine.connect() as connection:
            text: str | None = connection.scalar(
                sa.select(runs.c[name]).where(runs.c.run_id == run_id)
            )
            return text

    def _records(self) -> "sa.Select[tuple[object, ...]]":
        runs, shards = self.tables.runs, self.tables.shards
        own = shards.c.run_id == runs.c.run_id
        names = [name for name in RunRecord.__dataclass_fields__ if name in runs.c]
        written, rejected = (
            sa.select(sa.func.coalesce(sa.func.sum(counted), 0)).where(own).scalar_subquery()
            for counted in (shards.c.rows_written, shards.c.rows_rejected)
        )
        return sa.select(
            *(runs.c[name] for name in names), written.label("rows"), rejected.label("rejected")
        )

    def _read(self, statement: "sa.Select[tuple[object, ...]]") -> list[RunRecord]:
        with translated(self.engine, "to list runs"), self.engine.connect() as connection:
            return [
                RunRecord(**{**row, "rows": int(row["rows"]), "rejected": int(row["rejected"])})
                for row in connection.execute(statement).mappings()
            ]
