"""The pointer: which run readers see for each range of a source's time, and who changed that.

A run's rows are never changed. Publishing, releasing from quarantine and rolling back are each one
small transaction that moves the pointer, and each is recorded in `nightshift_publication_changes`.
"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.errors import NothingToRollBackTo, RunNotQuarantined, RunUnknown
from nightshift.adapters.ledger.intervals import Interval, rollback_stack
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.publications import (
    RELEASE,
    ROLLBACK,
    newer_ranges,
    publish_range,
    published_ranges,
)
from nightshift.adapters.ledger.runs import CHAMPION, RunState


@dataclass(frozen=True)
class PublicationChange:
    """One change of what readers see: from then on, readers saw this run's rows in this range."""

    job: str
    range_start: datetime
    range_end: datetime
    run_id: int
    action: str
    """`publish`, `release` or `rollback`."""
    changed_at: datetime
    changed_by: str
    reason: str | None
    model_name: str
    model_version: int


class Pointer:
    """What people do to the pointer, and its history."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.engine, self.tables = ledger, ledger.engine, ledger.tables

    def release(self, run_id: int, by: str, reason: str) -> PublicationChange:
        """Publish a quarantined run.

        Raises RunUnknown, and RunNotQuarantined: also if a later run has been published since, or
        its rows were deleted.
        """
        runs = self.tables.runs
        with translate_errors(self.engine, "to release a run"), self.engine.begin() as connection:
            row = self._run(connection, run_id)
            self.ledger.lock(connection, row["job"])
            row = self._run(connection, run_id)  # again, now that no other process can change it
            interval = Interval(row["partition_start"], row["partition_end"], run_id)
            if row["state"] != RunState.QUARANTINED:
                raise RunNotQuarantined(run_id, f"it is {row['state']}")
            if row["cleaned_at"] is not None:
                raise RunNotQuarantined(run_id, "`nightshift clean` has deleted its predictions")
            later = [
                seen.run_id for seen in newer_ranges(connection, self.tables, row["job"], interval)
            ]
            if later:
                raise RunNotQuarantined(run_id, f"the later run {max(later)} has been published")
            now = self.ledger.now(connection)
            connection.execute(
                sa.update(runs)
                .where(runs.c.run_id == run_id)
                .values(state=RunState.PUBLISHED, published_at=now)
            )
            publish_range(connection, self.tables, row["job"], interval, RELEASE, now, by, reason)
        return self.changes(row["job"], interval.start, interval.end)[0]

    def rollback(
        self,
        job: str,
        partition: str,
        start: datetime | None,
        end: datetime | None,
        by: str,
        reason: str,
        to: int | None = None,
    ) -> PublicationChange:
        """Show an earlier run's rows between the two instants again.

        Without `to`, it is the run that readers saw before the current one: each rollback goes one
        step further back, and never to a run that was rolled back from. Raises NothingToRollBackTo.
        """
        start, end = start or BEGINNING, end or END
        runs = self.tables.runs
        with translate_errors(self.engine, "to roll back"), self.engine.begin() as connection:
            self.ledger.lock(connection, job)
            now = self.ledger.now(connection)
            shown = {
                seen.run_id
                for seen in published_ranges(connection, self.tables, job)
                if seen.start < end and start < seen.end
            }
            covering = (
                sa.select(runs.c.run_id)
                .where(runs.c.job == job, runs.c.role == CHAMPION)
                .where(runs.c.partition_start <= start, runs.c.partition_end >= end)
                .where(runs.c.published_at.is_not(None), runs.c.cleaned_at.is_(None))
                .where(runs.c.state.in_([RunState.PUBLISHED, RunState.SUPERSEDED]))
                .order_by(runs.c.run_id.desc())
            )
            there = [run for run in connection.scalars(covering) if shown != {run}]
            before = self._shown_before(connection, job, start, end, shown) if to is None else [to]
            wanted = next((run for run in before if run in there), None)
            if wanted is None:
                raise NothingToRollBackTo(job, partition, to, tuple(map(str, there)))
            interval = Interval(start, end, wanted)
            publish_range(connection, self.tables, job, interval, ROLLBACK, now, by, reason)
        return self.changes(job, start, end)[0]

    def changes(
        self, job: str, start: datetime | None = None, end: datetime | None = None
    ) -> list[PublicationChange]:
        """The changes in a range, newest first; None is unbounded."""
        changes, runs = self.tables.changes, self.tables.runs
        statement = (
            sa.select(changes, runs.c.model_name, runs.c.model_version)
            .join(runs, runs.c.run_id == changes.c.run_id)
            .where(changes.c.job == job)
            .where(changes.c.range_start < (end or END), changes.c.range_end > (start or BEGINNING))
            .order_by(changes.c.change_id.desc())
        )
        names = list(PublicationChange.__dataclass_fields__)
        with (
            translate_errors(self.engine, "to list changes"),
            open_reader(self.engine) as connection,
        ):
            found = connection.execute(statement).mappings()
            return [PublicationChange(**{name: row[name] for name in names}) for row in found]

    def _shown_before(
        self, connection: sa.Connection, job: str, start: datetime, end: datetime, shown: set[int]
    ) -> list[int]:
        """The runs that readers of the range saw before the current ones, latest first."""
        changes = self.tables.changes
        statement = (
            sa.select(changes)
            .where(changes.c.job == job)
            .where(changes.c.range_start < end, changes.c.range_end > start)
            .order_by(changes.c.change_id)
        )
        lines = [
            (Interval(line["range_start"], line["range_end"], line["run_id"]), line["action"])
            for line in connection.execute(statement).mappings()
        ]
        runs = rollback_stack([(seen, action == ROLLBACK) for seen, action in lines], start, end)
        now = max((place for place, run in enumerate(runs) if run in shown), default=0)
        return runs[:now][::-1]

    def _run(self, connection: sa.Connection, run_id: int) -> sa.RowMapping:
        runs = self.tables.runs
        row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).mappings().first()
        if row is None:
            raise RunUnknown(run_id)
        return row
