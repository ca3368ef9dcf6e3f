"""Everything that the ledger knows about one run, for its report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.errors import RunUnknown
from nightshift.adapters.history.run_history import History, RunRecord
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.pointer import PublicationChange
from nightshift.adapters.ledger.runs import CHALLENGER, CHAMPION, RunState
from nightshift.adapters.models.reference import ModelRef

_MOST_KINDS = 10
_MOST_CHALLENGERS = 10
_MOST_SHOWN = 20


@dataclass(frozen=True)
class RejectsOfKind:
    """The rows that a run rejected for one kind of error, with the first as an example."""

    kind: str
    rows: int
    key: str
    """The first row's key as the ledger's JSON."""
    error: str
    inputs: str
    """JSON of the model's inputs."""


@dataclass(frozen=True)
class VisibleRun:
    """A run whose rows readers see, and the range of the source's time where they do."""

    run_id: int
    partition: str
    model: str
    """`name@version`"""
    range_start: datetime
    range_end: datetime
    published_at: datetime | None


@dataclass(frozen=True)
class RunDetails:
    """One run: how it ended, and what it is compared with."""

    run: RunRecord
    start: datetime
    end: datetime
    """Of its partition; BEGINNING and END of adapters/database/times.py if it is unbounded."""
    chunks: int
    first_commit: datetime | None
    last_commit: datetime | None
    profiles: Sequence[str]
    """JSON of each shard's profile, if it was stored."""
    audit: str | None
    """JSON of the audit's checks; None before the audit."""
    timings: Sequence[str]
    """JSON of each shard's stage timings in seconds, if they were stored."""
    rejects: Sequence[RejectsOfKind]
    """The most frequent kinds first, at most 10."""
    challenger: RunRecord | None
    """The run of the challenger alongside it."""
    comparison: str | None
    """JSON of the challenger's comparison with it."""
    earlier: RunRecord | None
    """The run that it is compared with: the last one published before it, of the same partition or
    else of the preceding one."""
    earlier_profiles: Sequence[str]
    before: RunRecord | None
    """The run that readers saw in its range, or in part of it, before it was published; if it was
    not, the one they saw when its last row was scored."""
    shown: Sequence[VisibleRun]
    """What readers see in its partition's range now; at most 20 runs."""
    changes: Sequence[PublicationChange]
    """Each time it was published, by whom, when and why; newest first."""
    sql: str
    """A query for its rows, in the readers' view, or in the table behind it."""
    cleaned: bool
    """Its rows were deleted."""


def newest_run(ledger: Ledger, job: str) -> int | None:
    """The number of a job's newest run; None if there is none."""
    runs = ledger.tables.runs
    newest = sa.select(sa.func.max(runs.c.run_id)).where(runs.c.job == job, runs.c.role == CHAMPION)
    with translate_errors(ledger.engine, "to find a run"), open_reader(ledger.engine) as connection:
        found: int | None = connection.scalar(newest)
        return found


def read_run_details(
    ledger: Ledger, run_id: int, usual: Callable[[str | None], bool] = lambda _: True
) -> RunDetails:
    """The details of a run; for a challenger's, those of the champion alongside which it ran.

    `usual` decides by the JSON of an earlier run's audit whether that run is compared with.
    Raises RunUnknown.
    """
    history = History(ledger)
    with translate_errors(ledger.engine, "to read a run"), open_reader(ledger.engine) as connection:
        reader = _Reader(ledger, connection)
        row = reader.run(run_id)
        run_id = row["run_id"]
        challenger = reader.challenger_of(row)
        chunks, first, last = reader.commits(run_id)
        profiles, timings = reader.documents(run_id)
        shown, changes, target = (
            reader.shown(row),
            reader.changes(run_id),
            reader.target(row["job"]),
        )
        before_id = reader.seen_before(row, changes)
        record = history.run(run_id)
        if record is None:
            raise RunUnknown(run_id)
        rejects = reader.rejects(run_id) if record.rejected else []
    start: datetime = row["partition_start"]
    former = history.earlier_run(record.job, record.partition, start, run_id, usual)
    earlier = None if former is None else history.run(former.run_id)
    before = earlier
    if former is None or before_id != former.run_id:
        before = None if before_id is None else history.run(before_id)
    return RunDetails(
        run=record,
        start=start,
        end=row["partition_end"],
        chunks=chunks,
        first_commit=first,
        last_commit=last,
        profiles=profiles,
        audit=row["audit"],
        timings=timings,
        rejects=rejects,
        challenger=None if challenger is None else history.run(challenger["run_id"]),
        comparison=None if challenger is None else challenger["comparison"],
        earlier=earlier,
        earlier_profiles=() if former is None else former.profiles,
        before=before,
        shown=shown,
        changes=changes,
        sql=_sql(ledger, target, record),
        cleaned=row["cleaned_at"] is not None,
    )


def _sql(ledger: Ledger, target: str, run: RunRecord) -> str:
    """From the readers' view if they see the run there, else from the table with all runs' rows."""
    name = target if run.state == RunState.PUBLISHED else f"{target}_runs"
    table = sa.table(name, schema=ledger.tables.runs.schema)
    select = sa.select(sa.text("*")).select_from(table).limit(10)
    select = select.where(sa.column("run_id", sa.BigInteger) == run.run_id)
    text = select.compile(dialect=ledger.engine.dialect, compile_kwargs={"literal_binds": True})
    return " ".join(str(text).split()) + ";"


class _Reader:
    """The statements, on one connection."""

    def __init__(self, ledger: Ledger, connection: sa.Connection) -> None:
        self.tables, self.connection = ledger.tables, connection

    def run(self, run_id: int) -> sa.RowMapping:
        """The run; of a challenger, the last one of its partition that began before it."""
        runs = self.tables.runs
        found = self._rows(sa.select(runs).where(runs.c.run_id == run_id))
        if found and found[0]["role"] != CHAMPION:
            earlier = self._of_partition(found[0]).where(runs.c.run_id < run_id)
            champions = earlier.where(runs.c.role == CHAMPION).order_by(runs.c.run_id.desc())
            found = self._rows(champions.limit(1)) or found
        if not found:
            raise RunUnknown(run_id)
        return found[0]

    def challenger_of(self, run: sa.RowMapping) -> sa.RowMapping | None:
        """The last one that began after the run, and before the partition's next run."""
        runs = self.tables.runs
        after = self._of_partition(run).where(runs.c.run_id > run["run_id"])
        following = self._rows(after.order_by(runs.c.run_id).limit(_MOST_CHALLENGERS))
        challengers = list(takewhile(lambda row: row["role"] == CHALLENGER, following))
        return challengers[-1] if challengers else None

    def _of_partition(self, run: sa.RowMapping) -> "sa.Select[Any]":
        runs = self.tables.runs
        mine = (runs.c.job == run["job"]) & (runs.c.partition == run["partition"])
        return sa.select(runs).where(mine)

    def commits(self, run_id: int) -> tuple[int, datetime | None, datetime | None]:
        chunks = self.tables.chunks
        at = chunks.c.committed_at
        counted = sa.select(sa.func.count(), sa.func.min(at), sa.func.max(at))
        count, first, last = self.connection.execute(counted.where(chunks.c.run_id == run_id)).one()
        return int(count), first, last

    def documents(self, run_id: int) -> tuple[list[str], list[str]]:
        """The profiles and the timings of its shards, without those that were not stored."""
        shards = self.tables.shards
        kept = sa.select(shards.c.profile, shards.c.timings).where(shards.c.run_id == run_id)
        found = self.connection.execute(kept.order_by(shards.c.shard)).all()
        profiles, timings = ([row[i] for row in found if row[i] is not None] for i in (0, 1))
        return profiles, timings

    def target(self, job: str) -> str:
        jobs = self.tables.jobs
        found = self.connection.execute(sa.select(jobs.c.target).where(jobs.c.job == job))
        return str(found.scalar_one())

    def rejects(self, run_id: int) -> list[RejectsOfKind]:
        rejects = self.tables.rejects
        mine, rows = rejects.c.run_id == run_id, sa.func.count().label("rows")
        counted = (
            sa.select(rejects.c.kind, rows)
            .where(mine)
            .group_by(rejects.c.kind)
            .order_by(rows.desc(), rejects.c.kind)
            .limit(_MOST_KINDS)
        )
        found = []
        for kind, count in self.connection.execute(counted).all():
            of_kind = sa.select(rejects).where(mine, rejects.c.kind == kind)
            order = rejects.c.shard, rejects.c.chunk, rejects.c.position
            (first,) = self._rows(of_kind.order_by(*order).limit(1))
            found.append(
                RejectsOfKind(kind, count, first["row_key"], first["error"], first["inputs"])
            )
        return found

    def shown(self, run: sa.RowMapping) -> list[VisibleRun]:
        published, runs = self.tables.published, self.tables.runs
        overlapping = (
            sa.select(published, runs)
            .join(runs, runs.c.run_id == published.c.run_id)
            .where(published.c.job == run["job"])
            .where(published.c.range_start < run["partition_end"])
            .where(published.c.range_end > run["partition_start"])
            .order_by(published.c.range_start)
            .limit(_MOST_SHOWN)
        )
        return [
            VisibleRun(
                row[published.c.run_id],
                row[runs.c.partition],
                ModelRef(row[runs.c.model_name], row[runs.c.model_version]),
                row[published.c.range_start],
                row[published.c.range_end],
                row[runs.c.published_at],
            )
            for row in self._rows(overlapping)
        ]

    def changes(self, run_id: int) -> list[PublicationChange]:
        changes, runs = self.tables.changes, self.tables.runs
        statement = (
            sa.select(changes, runs.c.model_name, runs.c.model_version)
            .join(runs, runs.c.run_id == changes.c.run_id)
            .where(changes.c.run_id == run_id)
            .order_by(changes.c.change_id.desc())
        )
        names = list(PublicationChange.__dataclass_fields__)
        return [
            PublicationChange(**{name: row[name] for name in names})
            for row in self._rows(statement)
        ]

    def seen_before(self, run: sa.RowMapping, own: Sequence[PublicationChange]) -> int | None:
        changes = self.tables.changes
        earlier = (
            sa.select(changes.c.run_id)
            .where(changes.c.job == run["job"], changes.c.run_id != run["run_id"])
            .where(changes.c.range_start < run["partition_end"])
            .where(changes.c.range_end > run["partition_start"])
            .order_by(changes.c.change_id.desc())
            .limit(1)
        )
        until = own[-1].changed_at if own else run["scored_at"]
        if until is not None:
            earlier = earlier.where(changes.c.changed_at <= until)
        found: int | None = self.connection.scalar(earlier)
        return found

    def _rows(self, statement: "sa.Select[Any]") -> Sequence[sa.RowMapping]:
        return self.connection.execute(statement).mappings().all()
