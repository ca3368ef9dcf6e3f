"""The history of runs: lists, what an audit compares a run with, and rejected rows."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.times import BEGINNING
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.publications import RELEASE
from nightshift.adapters.ledger.runs import CHALLENGER, CHAMPION, RunState

_WAS_PUBLISHED = (RunState.PUBLISHED, RunState.SUPERSEDED)
_LOOKED_AT = 60  # runs, at most, to find one with a usual audit


@dataclass(frozen=True)
class RunRecord:
    """One line of a job's history."""

    run_id: int
    job: str
    role: str
    partition: str
    model_name: str
    model_version: int
    state: RunState
    rows: int
    rejected: int
    started_at: datetime
    scored_at: datetime | None
    published_at: datetime | None
    flow_run_id: str | None
    error: str | None


@dataclass(frozen=True)
class EarlierRun:
    """An earlier published run, which a later one is compared with."""

    run_id: int
    partition: str
    model_name: str
    model_version: int
    rows: int
    """Its predictions."""
    profiles: tuple[str, ...]
    """JSON of each shard's profile; empty if none was stored."""


@dataclass(frozen=True)
class RejectRecord:
    """A row that got no prediction."""

    run_id: int
    shard: int
    chunk: int
    position: int
    key: str
    """As the ledger's JSON."""
    kind: str
    error: str
    inputs: str
    """What the model was given, as JSON."""


@dataclass(frozen=True)
class ComparedRun:
    """A challenger's run that has ended."""

    run_id: int
    partition: str
    state: RunState
    error: str | None
    """Why the challenger was stopped."""
    comparison: str
    """JSON of its comparison with the champion."""


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

    def target(self, job: str) -> str | None:
        """The name of the view that readers of the job's predictions use."""
        jobs = self.tables.jobs
        with translate_errors(self.engine, "to read a job"), open_reader(self.engine) as connection:
            name: str | None = connection.scalar(sa.select(jobs.c.target).where(jobs.c.job == job))
            return name

    def earlier_run(
        self,
        job: str,
        partition: str,
        start: datetime,
        before: int,
        usual: Callable[[str | None], bool],
    ) -> EarlierRun | None:
        """The last run published before the run `before`: of the same partition, or else of the
        nearest earlier one. A run whose audit is not `usual` (asked with its JSON) does not count,
        unless a person has released it.
        """
        runs, shards = self.tables.runs, self.tables.shards
        earlier = (
            sa.select(runs, self._released().label("released"))
            .where(runs.c.job == job, runs.c.role == CHAMPION, runs.c.run_id < before)
            .where(runs.c.state.in_(_WAS_PUBLISHED), runs.c.cleaned_at.is_(None))
            .where(sa.or_(runs.c.partition == partition, runs.c.partition_start < start))
            .order_by(
                sa.case((runs.c.partition == partition, 0), else_=1),
                runs.c.partition_start.desc(),
                runs.c.run_id.desc(),
            )
            .limit(_LOOKED_AT)
        )
        with (
            translate_errors(self.engine, "to read an earlier run"),
            open_reader(self.engine) as connection,
        ):
            found = connection.execute(earlier).mappings().all()
            row = next((r for r in found if r["released"] or usual(r["audit"])), None)
            if row is None:
                return None
            of_it = sa.select(shards).where(shards.c.run_id == row["run_id"])
            parts = connection.execute(of_it).mappings().all()
        return EarlierRun(
            row["run_id"],
            row["partition"],
            row["model_name"],
            row["model_version"],
            sum(part["rows_written"] for part in parts),
            tuple(part["profile"] for part in parts if part["profile"]),
        )

    def previous_audit(self, job: str, partition: str, start: datetime, before: int) -> str | None:
        """JSON of the audit of the preceding partition, published or not; without partitions, of
        the preceding run. None if a person has released that one.
        """
        runs = self.tables.runs
        nearest = sa.select(runs.c.audit, self._released().label("released")).where(
            runs.c.job == job,
            runs.c.role == CHAMPION,
            runs.c.run_id < before,
            runs.c.audit.is_not(None),
        )
        if start > BEGINNING:
            nearest = nearest.where(runs.c.partition_start < start)
        else:
            nearest = nearest.where(runs.c.partition == partition)
        nearest = nearest.order_by(runs.c.partition_start.desc(), runs.c.run_id.desc()).limit(1)
        with (
            translate_errors(self.engine, "to read an audit"),
            open_reader(self.engine) as connection,
        ):
            row = connection.execute(nearest).first()
            return None if row is None or row.released else row.audit

    def volumes(
        self, job: str, start: datetime, before: int, limit: int = 1000
    ) -> list[tuple[datetime | None, int]]:
        """The start of each partition published before, oldest first, and its rows, rejects
        included. Without partitions, one entry for each run, with None as its start.
        """
        runs, shards = self.tables.runs, self.tables.shards
        whole = start == BEGINNING
        then = runs.c.partition_start
        published = (
            sa.select(runs.c.run_id if whole else sa.func.max(runs.c.run_id))
            .where(runs.c.job == job, runs.c.role == CHAMPION, runs.c.run_id < before)
            .where(runs.c.state.in_(_WAS_PUBLISHED), then == start if whole else then < start)
        )
        if not whole:
            published = published.where(then > BEGINNING).group_by(runs.c.partition)
        rows = sa.func.sum(shards.c.rows_written + shards.c.rows_rejected)
        statement = (
            sa.select(then, rows)
            .join(shards, shards.c.run_id == runs.c.run_id)
            .where(runs.c.run_id.in_(published))
            .group_by(runs.c.run_id, then)
            .order_by(then.desc(), runs.c.run_id.desc())
            .limit(limit)
        )
        with (
            translate_errors(self.engine, "to read volumes"),
            open_reader(self.engine) as connection,
        ):
            found = connection.execute(statement).all()
        return [(None if whole else first, int(count)) for first, count in reversed(found)]

    def _released(self) -> "sa.Exists":
        """Whether a person has released the run from quarantine."""
        changes, runs = self.tables.changes, self.tables.runs
        return sa.exists().where(changes.c.run_id == runs.c.run_id, changes.c.action == RELEASE)

    def rejects(
        self, run_id: int, limit: int, after: RejectRecord | None = None
    ) -> list[RejectRecord]:
        """The rows of a run that got no prediction, in the order in which they were read; only
        those behind `after`, if it is given.
        """
        rejects = self.tables.rejects
        statement = (
            sa.select(rejects, rejects.c.row_key.label("key"))
            .where(rejects.c.run_id == run_id)
            .order_by(rejects.c.shard, rejects.c.chunk, rejects.c.position)
            .limit(limit)
        )
        if after is not None:
            shard, chunk, position = rejects.c.shard, rejects.c.chunk, rejects.c.position
            later = (chunk > after.chunk) | ((chunk == after.chunk) & (position > after.position))
            later = (shard > after.shard) | ((shard == after.shard) & later)
            statement = statement.where(later)
        names = list(RejectRecord.__dataclass_fields__)
        with (
            translate_errors(self.engine, "to list rejects"),
            open_reader(self.engine) as connection,
        ):
            found = connection.execute(statement).mappings()
            return [RejectRecord(**{name: row[name] for name in names}) for row in found]

    def reject_kinds(self, run_id: int) -> dict[str, int]:
        """How many rows of a run got no prediction, by kind, the most frequent first."""
        rejects, rows = self.tables.rejects, sa.func.count().label("rows")
        statement = (
            sa.select(rejects.c.kind, rows)
            .where(rejects.c.run_id == run_id)
            .group_by(rejects.c.kind)
            .order_by(rows.desc(), rejects.c.kind)
        )
        with (
            translate_errors(self.engine, "to count rejects"),
            open_reader(self.engine) as connection,
        ):
            return {kind: int(count) for kind, count in connection.execute(statement)}

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
        with translate_errors(self.engine, "to list runs"), open_reader(self.engine) as connection:
            return [
                RunRecord(**{**row, "rows": int(row["rows"]), "rejected": int(row["rejected"])})
                for row in connection.execute(statement).mappings()
            ]


def read_newest_comparison(
    ledger: Ledger, job: str, model: str, version: int
) -> ComparedRun | None:
    """The last run in which this model version was the job's challenger; None if there is none."""
    runs = ledger.tables.runs
    names = list(ComparedRun.__dataclass_fields__)
    statement = (
        sa.select(*(runs.c[name] for name in names))
        .where(runs.c.job == job, runs.c.role == CHALLENGER)
        .where(runs.c.model_name == model, runs.c.model_version == version)
        .where(runs.c.comparison.is_not(None))
        .order_by(runs.c.run_id.desc())
        .limit(1)
    )
    with (
        translate_errors(ledger.engine, "to read a comparison"),
        open_reader(ledger.engine) as connection,
    ):
        row = connection.execute(statement).mappings().first()
    return None if row is None else ComparedRun(**row)
