"""Deletes the predictions of runs that are no longer needed, in bounded batches.

A run stays if readers see any of its rows, if it is running, or if it is among the newest of its
partition: of the published runs, for rollbacks, and of the others, for release or resumption. Its
entry in the ledger stays in any case. Queries that are running keep their own snapshot.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.types import reflect_table
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.runs import RunState

BATCH = 50_000  # rows per transaction


@dataclass(frozen=True)
class Removable:
    """A run whose predictions can go."""

    run_id: int
    partition: str
    role: str
    state: str
    started_at: datetime
    rows: int


class Retention:
    """Keeps what readers see and, for each partition and role, the newest `keep` published runs
    and the newest `keep` others, so that failed runs cannot push out the last good one.
    """

    def __init__(self, ledger: Ledger, keep: int) -> None:
        self.ledger, self.engine, self.tables, self.keep = (
            ledger,
            ledger.engine,
            ledger.tables,
            keep,
        )

    def removable(self, job: str) -> list[Removable]:
        """What `clean` would delete now, oldest first."""
        runs, shards, chunks = self.tables.runs, self.tables.shards, self.tables.chunks
        published = self.tables.published
        alike = [runs.c.role, runs.c.partition, runs.c.published_at.is_(None)]
        age = (
            sa.func.row_number()
            .over(partition_by=alike, order_by=runs.c.run_id.desc())
            .label("age")
        )
        ended = sa.select(runs, age).where(runs.c.job == job, runs.c.state != RunState.RUNNING)
        ranked = ended.subquery()  # a running retry pushes out nothing
        rows = (
            sa.select(sa.func.coalesce(sa.func.sum(shards.c.rows_written), 0))
            .where(shards.c.run_id == ranked.c.run_id)
            .scalar_subquery()
        )
        seen = sa.exists().where(published.c.run_id == ranked.c.run_id)
        left = sa.exists().where(chunks.c.run_id == ranked.c.run_id)  # chunks are deleted last
        statement = (
            sa.select(ranked, rows.label("rows"))
            .where(sa.not_(seen), left)
            .where((ranked.c.age > self.keep) | ranked.c.cleaned_at.is_not(None))
            .order_by(ranked.c.run_id)
        )
        names = list(Removable.__dataclass_fields__)
        with (
            translate_errors(self.engine, "to list old runs"),
            open_reader(self.engine) as connection,
        ):
            found = connection.execute(statement).mappings()
            return [Removable(**{name: row[name] for name in names}) for row in found]

    def clean(self, job: str, target: str, key: Sequence[str]) -> Iterator[Removable]:
        """Delete what is removable and yield each run once deleted. It can be resumed if killed.

        `target` and `key` are the job's: `<target>_runs` is where the predictions are.
        """
        for old in self.removable(job):
            if self._mark_cleaned(job, old.run_id):
                with translate_errors(self.engine, f"to clean run {old.run_id}"):
                    self._delete(target, key, old.run_id)
                yield old

    def _mark_cleaned(self, job: str, run_id: int) -> bool:
        """Exclude the run from rollbacks from now on. False if readers see it by now."""
        runs, published = self.tables.runs, self.tables.published
        with translate_errors(self.engine, "to clean a run"), self.engine.begin() as connection:
            self.ledger.lock(connection, job)
            seen = sa.select(sa.func.count()).where(published.c.run_id == run_id)
            if connection.scalar(seen):
                return False
            now = self.ledger.now(connection)
            mine = sa.update(runs).where(runs.c.run_id == run_id, runs.c.state != RunState.RUNNING)
            return connection.execute(mine.values(cleaned_at=now)).rowcount == 1

    def _delete(self, target: str, key: Sequence[str], run_id: int) -> None:
        with suppress(sa.exc.NoSuchTableError):  # the table was dropped, and the rows with it
            table = reflect_table(self.engine, f"{target}_runs", self.tables.runs.schema)
            self._delete_rows(table, key, run_id)
        shards = self.tables.shards
        with self.engine.begin() as connection:
            for lines in (self.tables.rejects, self.tables.chunks):
                connection.execute(sa.delete(lines).where(lines.c.run_id == run_id))
            of_run = sa.update(shards).where(shards.c.run_id == run_id)
            connection.execute(of_run.values(profile=None))

    def _delete_rows(self, rows: sa.Table, key: Sequence[str], run_id: int) -> None:
        parts = [rows.c[name] for name in key]
        mine = rows.c.run_id == run_id
        last = sa.select(*parts).where(mine).order_by(*parts).offset(BATCH - 1).limit(1)
        edge: sa.Row[Any] | None
        while True:
            with self.engine.begin() as connection:
                edge = connection.execute(last).first()
                batch = sa.delete(rows).where(mine)
                if edge is not None:
                    values = [
                        sa.bindparam(None, value, part.type)
                        for part, value in zip(parts, edge, strict=True)
                    ]
                    batch = batch.where(sa.tuple_(*parts) <= sa.tuple_(*values))
                connection.execute(batch)
            if edge is None:
                return
