"""Backfills: what a plan is made from, the plan itself, and its progress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.ledger import leases
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.runs import CHAMPION, RunState

_OLD = 86_400  # seconds


class StepState(StrEnum):
    """What becomes of a partition in a backfill."""

    WAITING = "waiting"
    RUNNING = "running"
    PUBLISHED = "published"
    SKIPPED = "skipped"
    FAILED = "failed"


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
    """Why the last attempt at a partition did not get it published."""

    reason: str
    at: datetime


@dataclass(frozen=True)
class PartitionStatus:
    """What is published, and what has failed, in a range of a job's partitions."""

    ranges: tuple[PublishedRange, ...] = ()
    """In order; they do not overlap."""
    failures: Mapping[str, Failure] | None = None
    """By the partition's label."""
    at: datetime | None = None
    """The time of this status, by the database's clock; None if there is no ledger yet."""


@dataclass
class Step:
    """One partition of a plan, and its outcome."""

    position: int
    partition: str
    start: datetime | None
    end: datetime | None
    state: StepState
    reason: str
    """Why it runs, or is skipped; then why it failed."""
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
    """The plans in one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.engine = ledger, ledger.engine
        self.backfills, self.steps = ledger.tables.backfills, ledger.tables.backfill_partitions

    # --- what a plan is made from ---------------------------------------------------------------

    def read_status(
        self, job: str, start: datetime | None, end: datetime | None
    ) -> PartitionStatus:
        """What is published and what has failed between the two instants; None is unbounded."""
        start, end = start or BEGINNING, end or END
        runs, published = self.ledger.tables.runs, self.ledger.tables.published
        ranges = (
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
            self.ledger.lock(
                connection, job
            )  # a run is published before `at`, and seen, or after it
            at = self.ledger.now(connection)
            seen = tuple(PublishedRange(**row) for row in connection.execute(ranges).mappings())
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
        """Steps that failed, perhaps before there was a run, and were not run again since."""
        steps, backfills = self.steps, self.backfills
        tried = (
            sa.select(sa.func.max(steps.c.backfill_id).label("newest"), steps.c.partition)
            .join(backfills, backfills.c.backfill_id == steps.c.backfill_id)
            .where(
                backfills.c.job == job, steps.c.state.in_([StepState.PUBLISHED, StepState.FAILED])
            )
            .where(steps.c.partition_start >= start, steps.c.partition_end <= end)
            .group_by(steps.c.partition)
            .subquery()
        )
        same = (steps.c.backfill_id == tried.c.newest) & (steps.c.partition == tried.c.partition)
        found = sa.select(steps.c.partition, steps.c.reason, steps.c.changed_at.label("at"))
        return found.join(tried, same).where(steps.c.state == StepState.FAILED)

    # --- a plan's life --------------------------------------------------------------------------

    def unfinished(self, job: str, parameters: str, model: tuple[str, int]) -> Backfill | None:
        """The newest plan with these parameters, if it has not ended and its owner is not alive.

        None for a plan of another model version, or one that was left more than a day ago: what it
        was made from may have changed.
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
            silent = leases.silence(self.ledger.now(connection), found["heartbeat_at"])
            alive = leases.is_alive(found["owner"], silent, self.ledger.lease)
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
        """Own the unfinished plan; None if another worker was faster."""
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
            step.state = StepState.WAITING if step.state == StepState.RUNNING else step.state
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
        """Store a plan, made from the status at `planned_at`, that this owner carries out."""
        with translate_errors(self.engine, "to store a plan"), self.engine.begin() as connection:
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

    def record_step(self, backfill: Backfill, step: Step) -> None:
        """Record what became of a step, if the plan is still this owner's."""
        steps, backfills = self.steps, self.backfills
        owned = sa.exists().where(
            backfills.c.backfill_id == backfill.backfill_id, backfills.c.owner == backfill.owner
        )
        with translate_errors(self.engine, "to record a step"), self.engine.begin() as connection:
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
        """Renew the plan's heartbeat, or say that it has ended."""
        with translate_errors(self.engine, "a heartbeat"), self.engine.begin() as connection:
            now = self.ledger.now(connection)
            changed = {"heartbeat_at": now, **({"ended_at": now} if ended else {})}
            connection.execute(self._update_owned(backfill).values(**changed))

    def leave(self, backfill: Backfill) -> None:
        """Give up a plan that has not ended: anyone may take it over at once."""
        with (
            translate_errors(self.engine, "to leave a backfill"),
            self.engine.begin() as connection,
        ):
            connection.execute(self._update_owned(backfill).values(owner=leases.NO_OWNER))

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
        StepState(line["state"]),
        line["reason"],
        line["rows"],
        line["seconds"],
    )
