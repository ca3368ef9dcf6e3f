"""Backfills in the ledger: what a plan is made from, the plan itself, and how far it has come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.database.types import Instant, LongText, Name
from nightshift.adapters.ledger.ledger import Ledger, is_dead
from nightshift.adapters.ledger.runs import CHAMPION, RunState

_OLD = timedelta(days=1)

WAITING, RUNNING, DONE = "waiting", "running", "published"
SKIPPED, FAILED = "skipped", "failed"


@dataclass(frozen=True)
class PublishedRange:
    """A range of the source's time that readers see from one run."""

    start: datetime
    end: datetime
    run_id: int
    model_name: str
    model_version: int
    started_at: datetime
    published_at: datetime


@dataclass(frozen=True)
class Failure:
    """The last attempt at a partition did not get it published."""

    reason: str
    at: datetime


@dataclass(frozen=True)
class PartitionStatus:
    """What the ledger knows about a range of a job's partitions."""

    ranges: tuple[PublishedRange, ...] = ()
    """In order, none overlapping another."""
    failures: Mapping[str, Failure] | None = None
    """By the partition's label."""
    at: datetime | None = None
    """When that was so, by the database's clock; None if there is no ledger yet."""


@dataclass
class Step:
    """One partition of a plan, and what became of it."""

    position: int
    partition: str
    start: datetime | None
    end: datetime | None
    state: str
    """`waiting` is to be run, `skipped` is not; then `running`, `published`, `failed`."""
    reason: str
    """Why it is to be run, or is not; then why it failed."""
    rows: int | None = None
    """An estimate until it is published."""
    seconds: float | None = None


@dataclass(frozen=True)
class Backfill:
    """A durable plan that this process carries out."""

    backfill_id: int
    owner: str
    model_name: str
    model_version: int
    planned_at: datetime
    steps: Sequence[Step]
    resumed: bool


class Backfills:
    """The plans of one ledger. Its tables are created with the ledger's."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.engine = ledger, ledger.engine
        metadata, key = ledger.tables.metadata, ledger.tables.runs.c.run_id.type
        name, text = Name(), LongText()
        self.backfills = sa.Table(
            "nightshift_backfills",
            metadata,
            sa.Column("backfill_id", key, primary_key=True, autoincrement=True),
            sa.Column("job", name, nullable=False, index=True),
            sa.Column("parameters", text, nullable=False),
            sa.Column("model_name", name, nullable=False),
            sa.Column("model_version", sa.Integer, nullable=False),
            sa.Column("owner", name, nullable=False),
            sa.Column("heartbeat_at", Instant, nullable=False),
            sa.Column("planned_at", Instant, nullable=False),
            sa.Column("ended_at", Instant),
            sa.Column("flow_run_id", name),
            extend_existing=True,
        )
        self.steps = sa.Table(
            "nightshift_backfill_partitions",
            metadata,
            sa.Column("backfill_id", key, sa.ForeignKey(self.backfills.c.backfill_id)),
            sa.Column("position", sa.Integer),
            sa.Column("partition", name, nullable=False),
            sa.Column("partition_start", Instant, nullable=False),
            sa.Column("partition_end", Instant, nullable=False),
            sa.Column("state", name, nullable=False),
            sa.Column("reason", text, nullable=False),
            sa.Column("rows", sa.BigInteger),
            sa.Column("seconds", sa.Double),
            sa.Column("changed_at", Instant, nullable=False),
            sa.PrimaryKeyConstraint("backfill_id", "position"),
            extend_existing=True,
        )

    # --- what a plan is made from ---------------------------------------------------------------

    def read_status(
        self, job: str, start: datetime | None, end: datetime | None
    ) -> PartitionStatus:
        """What is published and what has failed between the two instants. None is no bound."""
        start, end = start or BEGINNING, end or END
        runs, published = self.ledger.tables.runs, self.ledger.tables.published
        pieces = (
            sa.select(
                published.c.range_start.label("start"),
                published.c.range_end.label("end"),
                *(runs.c[name] for name in list(PublishedRange.__dataclass_fields__)[2:]),
            )
            .join(runs, runs.c.run_id == published.c.run_id)
            .where(published.c.job == job)
            .where(published.c.range_start < end, published.c.range_end > start)
            .order_by(published.c.range_start)
        )
        within = (runs.c.partition_start >= start, runs.c.partition_end <= end)
        champion = (runs.c.job == job) & (runs.c.role == CHAMPION)
        newest_runs = sa.select(sa.func.max(runs.c.run_id)).where(champion, *within)
        unfinished = sa.select(
            runs.c.partition, runs.c.state, runs.c.error, runs.c.heartbeat_at.label("at")
        ).where(
            runs.c.run_id.in_(newest_runs.group_by(runs.c.partition)),
            runs.c.state.not_in([RunState.PUBLISHED, RunState.SUPERSEDED]),
        )
        with translate_errors(self.engine, "to read the ledger"), self.engine.begin() as connection:
            self.ledger.lock(connection, job)  # a run is published before `at` and seen, or after
            at = self.ledger.now(connection)
            seen = tuple(PublishedRange(**row) for row in connection.execute(pieces).mappings())
            failures = {
                row.partition: Failure(row.error or f"its run is {row.state}", row.at)
                for row in connection.execute(unfinished)
            }
            for row in connection.execute(self._failed_steps(job, start, end)):
                known = failures.get(row.partition)
                if known is None or known.at <= row.at:
                    failures[row.partition] = Failure(row.reason, row.at)
        return PartitionStatus(seen, failures, at)

    def _failed_steps(self, job: str, start: datetime, end: datetime) -> "sa.Select[Any]":
        """Steps that failed, perhaps before there was a run, and were not tried again since."""
        steps, backfills = self.steps, self.backfills
        tried = (
            sa.select(sa.func.max(steps.c.backfill_id).label("newest"), steps.c.partition)
            .join(backfills, backfills.c.backfill_id == steps.c.backfill_id)
            .where(backfills.c.job == job, steps.c.state.in_([DONE, FAILED]))
            .where(steps.c.partition_start >= start, steps.c.partition_end <= end)
            .group_by(steps.c.partition)
            .subquery()
        )
        same = (steps.c.backfill_id == tried.c.newest) & (steps.c.partition == tried.c.partition)
        found = sa.select(steps.c.partition, steps.c.reason, steps.c.changed_at.label("at"))
        return found.join(tried, same).where(steps.c.state == FAILED)

    # --- a plan's life --------------------------------------------------------------------------

    def unfinished(self, job: str, parameters: str, model: tuple[str, int]) -> Backfill | None:
        """The newest plan with these parameters, if it has not ended and nobody carries it out.

        Not one of another model version, or that was left a day ago: what it was made from may no
        longer be so.
        """
        backfills, steps = self.backfills, self.steps
        with (
            translate_errors(self.engine, "to read backfills"),
            open_reader(self.engine) as connection,
        ):
            row = connection.execute(
                sa.select(backfills)
                .where(backfills.c.job == job, backfills.c.parameters == parameters)
                .order_by(backfills.c.backfill_id.desc())
                .limit(1)
            ).mappings()
            found = row.first()
            if found is None or found["ended_at"] is not None:
                return None
            silent = self.ledger.now(connection) - found["heartbeat_at"]
            alive = silent.total_seconds() < self.ledger.lease and not is_dead(found["owner"])
            of_model = (found["model_name"], found["model_version"])
            if alive or silent > _OLD or of_model != model:
                return None
            lines = connection.execute(
                sa.select(steps)
                .where(steps.c.backfill_id == found["backfill_id"])
                .order_by(steps.c.position)
            ).mappings()
            return Backfill(
                found["backfill_id"],
                found["owner"],
                found["model_name"],
                found["model_version"],
                found["planned_at"],
                [_step(line) for line in lines],
                resumed=True,
            )

    def take_over(self, backfill: Backfill, owner: str, flow_run_id: str | None) -> Backfill | None:
        """Own the unfinished plan; None if somebody else was faster."""
        backfills = self.backfills
        mine = (backfills.c.backfill_id == backfill.backfill_id, backfills.c.ended_at.is_(None))
        with (
            translate_errors(self.engine, "to resume a backfill"),
            self.engine.begin() as connection,
        ):
            now = self.ledger.now(connection)
            taken = connection.execute(
                sa.update(backfills)
                .where(*mine, backfills.c.owner == backfill.owner)
                .values(owner=owner, heartbeat_at=now, flow_run_id=flow_run_id)
            )
        if taken.rowcount != 1:
            return None
        for step in backfill.steps:
            step.state = WAITING if step.state == RUNNING else step.state
        return replace(backfill, owner=owner)

    def begin(
        self,
        job: str,
        parameters: str,
        model: tuple[str, int],
        steps: Sequence[Step],
        owner: str,
        flow_run_id: str | None,
        planned_at: datetime | None,
    ) -> Backfill:
        """Keep a plan, made of the facts of `planned_at`, to be carried out by this owner."""
        with translate_errors(self.engine, "to keep a plan"), self.engine.begin() as connection:
            now = self.ledger.now(connection)
            inserted = connection.execute(
                sa.insert(self.backfills).values(
                    job=job,
                    parameters=parameters,
                    model_name=model[0],
                    model_version=model[1],
                    owner=owner,
                    heartbeat_at=now,
                    planned_at=planned_at or now,
                    flow_run_id=flow_run_id,
                )
            )
            backfill_id = int(inserted.inserted_primary_key[0])  # type: ignore[index]
            rows = [
                {
                    "backfill_id": backfill_id,
                    "position": step.position,
                    "partition": step.partition,
                    "partition_start": step.start or BEGINNING,
                    "partition_end": step.end or END,
                    "state": step.state,
                    "reason": step.reason,
                    "rows": step.rows,
                    "changed_at": now,
                }
                for step in steps
            ]
            if rows:
                connection.execute(sa.insert(self.steps), rows)
        return Backfill(backfill_id, owner, *model, planned_at or now, steps, resumed=False)

    def keep(self, backfill: Backfill, step: Step) -> None:
        """Enter what became of a step, unless somebody else carries out the plan by now."""
        steps, backfills = self.steps, self.backfills
        owned = sa.exists().where(
            backfills.c.backfill_id == backfill.backfill_id, backfills.c.owner == backfill.owner
        )
        with translate_errors(self.engine, "to enter a step"), self.engine.begin() as connection:
            connection.execute(
                sa.update(steps)
                .where(
                    steps.c.backfill_id == backfill.backfill_id,
                    steps.c.position == step.position,
                    owned,
                )
                .values(
                    state=step.state,
                    reason=step.reason,
                    rows=step.rows,
                    seconds=step.seconds,
                    changed_at=self.ledger.now(connection),
                )
            )

    def renew(self, backfill: Backfill, ended: bool = False) -> None:
        """Say that the plan is still being carried out, or that it has ended."""
        with translate_errors(self.engine, "a heartbeat"), self.engine.begin() as connection:
            now = self.ledger.now(connection)
            changed = {"heartbeat_at": now, **({"ended_at": now} if ended else {})}
            connection.execute(self._update_owned(backfill).values(**changed))

    def leave(self, backfill: Backfill) -> None:
        """It has not ended, and this owner does no more of it: the next one need not wait."""
        with (
            translate_errors(self.engine, "to leave a backfill"),
            self.engine.begin() as connection,
        ):
            silent = self.ledger.now(connection) - timedelta(seconds=self.ledger.lease)
            connection.execute(self._update_owned(backfill).values(heartbeat_at=silent))

    def _update_owned(self, backfill: Backfill) -> sa.Update:
        backfills = self.backfills
        mine = backfills.c.backfill_id == backfill.backfill_id
        return sa.update(backfills).where(mine, backfills.c.owner == backfill.owner)


def _step(line: sa.RowMapping) -> Step:
    start, end = line["partition_start"], line["partition_end"]
    return Step(
        line["position"],
        line["partition"],
        None if start == BEGINNING else start,
        None if end == END else end,
        line["state"],
        line["reason"],
        line["rows"],
        line["seconds"],
    )
