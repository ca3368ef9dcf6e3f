"""The ledger: which run wrote which rows, who owns it, where it resumes, what readers see.

It lives in the target database, so that a chunk's rows and its ledger entry are one transaction.
"""

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from adapters.database.engine import translated
from adapters.database.intervals import Interval, carve
from adapters.database.schema import Instant, LedgerTables
from adapters.database.times import BEGINNING, END
from adapters.errors import (
    AlreadyPublished,
    DatabaseError,
    OwnershipLost,
    PartitionBusy,
    TargetMismatch,
    TransientError,
)

RUNNING, SCORED, PUBLISHED = "running", "scored", "published"
SUPERSEDED, FAILED = "superseded", "failed"

_CREATING = 10  # attempts; each one that fails leaves less to create


@dataclass(frozen=True)
class RunRequest:
    """What is to be scored, with what."""

    job: str
    target: str
    partition: str
    start: datetime | None
    end: datetime | None
    model_name: str
    model_version: int
    model_digest: str
    fingerprint: str
    """Digest of all that decides a run's rows; only a run with the same one is resumed."""
    flow_run_id: str | None = None
    unless_published_since: datetime | None = None
    """Do not begin if the same model version was published for the partition after that."""


@dataclass(frozen=True)
class Run:
    """A run that this process owns, and how far it has come."""

    run_id: int
    owner: str
    state: str
    chunks: int
    rows: int
    last_key: str | None
    """The last committed key as the ledger's JSON, or None."""

    @property
    def resumed(self) -> bool:
        return self.chunks > 0


@dataclass(frozen=True)
class RunRecord:
    """One line of a job's history."""

    run_id: int
    job: str
    partition: str
    model_name: str
    model_version: int
    state: str
    rows: int
    started_at: datetime
    scored_at: datetime | None
    published_at: datetime | None
    flow_run_id: str | None
    error: str | None


class Ledger:
    """The runs of all jobs that write into one database.

    `lease` is in seconds: an owner that has been silent for longer is taken over.
    """

    def __init__(self, engine: sa.Engine, schema: str | None = None, lease: float = 60) -> None:
        self.engine = engine
        self.lease = lease
        self.tables = LedgerTables(schema)

    def create(self) -> None:
        """Create what is missing. Safe to call at once from several workers."""
        with translated(self.engine, "to create the ledger's tables"):
            for attempt in range(1, _CREATING + 1):
                try:
                    self.tables.metadata.create_all(self.engine)
                    break
                except sa.exc.DBAPIError as error:  # another worker was creating one at this moment
                    if attempt == _CREATING or error.connection_invalidated:
                        raise

    def exists(self) -> bool:
        with translated(self.engine, "to look for the ledger's tables"):
            runs = self.tables.runs
            return sa.inspect(self.engine).has_table(runs.name, schema=runs.schema)

    # --- a run's life ---------------------------------------------------------------------------

    def begin(self, request: RunRequest, owner: str, resume: bool = True) -> Run:
        """Own a run for the request: the partition's last, if it is to be resumed, else a new one.

        It is resumed if it is unfinished and has the request's fingerprint; an older one is not,
        since a later run has seen the source as it was later. `resume=False` begins anew, if the
        source has changed behind the last chunk. `owner` is from `new_owner`; give the same again
        to go on after a failure of one's own.
        Raises PartitionBusy while another owner is alive, AlreadyPublished if the request says
        so, TargetMismatch if the target is another job's.
        """
        runs = self.tables.runs
        with translated(self.engine, "to begin a run"), self.engine.begin() as connection:
            self._register(connection, request.job, request.target)
            self.lock(connection, request.job)
            now = self.now(connection)
            if request.unless_published_since is not None:
                self._refuse_published(connection, request, request.unless_published_since)
            mine = (runs.c.job == request.job) & (runs.c.partition == request.partition)
            last = connection.scalar(sa.select(sa.func.max(runs.c.run_id)).where(mine))
            unfinished = connection.execute(
                sa.select(runs).where(mine, runs.c.state.in_([RUNNING, SCORED, FAILED]))
            ).mappings()
            resumable = None
            for row in unfinished.all():
                if row["state"] == RUNNING and row["owner"] != owner:
                    silent = (now - row["heartbeat_at"]).total_seconds()
                    if self._is_alive(connection, row, silent):
                        raise PartitionBusy(
                            request.job, request.partition, row["run_id"], row["owner"], silent
                        )
                if row["state"] != FAILED:  # or its owner could still publish it, after this one
                    abandoned = sa.update(runs).where(runs.c.run_id == row["run_id"])
                    reason = f"abandoned by {row['owner']}"
                    connection.execute(abandoned.values(state=FAILED, error=reason))
                if row["run_id"] == last and row["fingerprint"] == request.fingerprint:
                    resumable = row
            if resume and resumable is not None:
                return self._take_over(connection, resumable, owner, now, request.flow_run_id)
            values = {
                "job": request.job,
                "partition": request.partition,
                "partition_start": request.start or BEGINNING,
                "partition_end": request.end or END,
                "model_name": request.model_name,
                "model_version": request.model_version,
                "model_digest": request.model_digest,
                "fingerprint": request.fingerprint,
                "flow_run_id": request.flow_run_id,
            }
            inserted = connection.execute(
                sa.insert(runs).values(
                    **values, state=RUNNING, owner=owner, heartbeat_at=now, started_at=now
                )
            )
            run_id = int(inserted.inserted_primary_key[0])  # type: ignore[index]
            return Run(run_id, owner, RUNNING, chunks=0, rows=0, last_key=None)

    def record_chunk(
        self, connection: sa.Connection, run: Run, chunk: int, keys: tuple[str, str], rows: int
    ) -> None:
        """Enter a chunk within the transaction that writes its rows. Raises OwnershipLost.

        Comes first in it: the run's row stays locked until the commit, so an owner that was
        replaced meanwhile either committed before the new one looked, or fails here. A chunk
        out of its turn fails too: the committed ones are always the first ones, without a gap.
        """
        now = self.now(connection)
        runs = self.tables.runs
        statement = (
            sa.update(runs)
            .where(_owned(runs, run, RUNNING), runs.c.chunks_written == chunk)
            .values(
                heartbeat_at=now,
                chunks_written=chunk + 1,
                rows_written=runs.c.rows_written + rows,
            )
        )
        if connection.execute(statement).rowcount != 1:
            raise OwnershipLost(run.run_id)
        connection.execute(
            sa.insert(self.tables.chunks).values(
                run_id=run.run_id,
                shard=0,
                chunk=chunk,
                first_key=keys[0],
                last_key=keys[1],
                rows=rows,
                committed_at=now,
            )
        )

    def score(self, run: Run) -> None:
        """All rows are written. Raises OwnershipLost."""
        with translated(self.engine, "to end a run"), self.engine.begin() as connection:
            now = self.now(connection)
            self._update_owned(connection, run, RUNNING, state=SCORED, scored_at=now, error=None)

    def fail(self, run: Run, reason: str) -> None:
        """The run stopped; what it wrote stays invisible, and the next one may resume it."""
        with translated(self.engine, "to fail a run"), self.engine.begin() as connection:
            self._update_owned(connection, run, RUNNING, state=FAILED, error=reason)

    def publish(self, run: Run) -> None:
        """Make the run's rows the ones that readers see, all at once. Raises OwnershipLost.

        One small transaction, whatever the number of rows. Published by this owner already, it
        changes nothing: a retry cannot know whether a broken connection still took the commit.
        """
        runs, published = self.tables.runs, self.tables.published
        with translated(self.engine, "to publish a run"), self.engine.begin() as connection:
            mine = sa.select(runs.c.job, runs.c.partition_start, runs.c.partition_end)
            found = connection.execute(mine.where(runs.c.run_id == run.run_id))
            job, start, end = found.one()
            self.lock(connection, job)
            done = sa.select(runs.c.run_id).where(_owned(runs, run, PUBLISHED))
            if connection.scalar(done) is not None:
                return
            now = self.now(connection)
            self._update_owned(connection, run, SCORED, state=PUBLISHED, published_at=now)
            of_job = published.c.job == job
            before = [
                Interval(line["range_start"], line["range_end"], line["run_id"])
                for line in connection.execute(sa.select(published).where(of_job)).mappings()
            ]
            after = carve(before, Interval(start, end, run.run_id))
            for gone in set(before) - set(after):
                connection.execute(
                    sa.delete(published).where(of_job, published.c.range_start == gone.start)
                )
            for added in set(after) - set(before):
                connection.execute(
                    sa.insert(published).values(
                        job=job,
                        range_start=added.start,
                        range_end=added.end,
                        run_id=added.run_id,
                    )
                )
            hidden = {line.run_id for line in before} - {line.run_id for line in after}
            if hidden:
                connection.execute(
                    sa.update(runs).where(runs.c.run_id.in_(hidden)).values(state=SUPERSEDED)
                )

    @contextmanager
    def kept_alive(self, run: Run) -> Iterator[None]:
        """Renew the run's heartbeat in the background, however long a chunk takes."""
        stopped = threading.Event()

        def renew() -> None:
            while not stopped.wait(self.lease / 4):
                try:
                    with translated(self.engine, "a heartbeat"), self.engine.begin() as connection:
                        # The clock is read when the row is free: a chunk's commit may hold it.
                        self._update_owned(connection, run, RUNNING, heartbeat_at=self._clock)
                except (DatabaseError, TransientError):
                    continue  # the next chunk's commit finds out, and says so

        thread = threading.Thread(target=renew, name=f"heartbeat-{run.run_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    # --- history --------------------------------------------------------------------------------

    def history(self, job: str | None = None, limit: int = 20) -> list[RunRecord]:
        """The newest runs, newest first."""
        runs = self.tables.runs
        names = [name for name in RunRecord.__dataclass_fields__ if name != "rows"]
        statement = sa.select(*(runs.c[name] for name in names), runs.c.rows_written.label("rows"))
        if job is not None:
            statement = statement.where(runs.c.job == job)
        with translated(self.engine, "to list runs"), self.engine.connect() as connection:
            found = connection.execute(statement.order_by(runs.c.run_id.desc()).limit(limit))
            return [RunRecord(**row) for row in found.mappings()]

    # --- inside ---------------------------------------------------------------------------------

    def _register(self, connection: sa.Connection, job: str, target: str) -> None:
        """Bind the job to its target, for good: two jobs in one view would double rows."""
        jobs = self.tables.jobs
        found = connection.execute(
            sa.select(jobs).where(sa.or_(jobs.c.job == job, jobs.c.target == target))
        ).mappings()
        for row in found:
            if row["target"] != target:
                problem = f"job {job!r} has written to {row['target']!r} so far"
                raise TargetMismatch(
                    target, problem, "Keep its target, or give the job a new name."
                )
            if row["job"] != job:
                problem = f"it belongs to job {row['job']!r}"
                raise TargetMismatch(target, problem, "Give each job a target of its own.")
            return
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(jobs).values(job=job, target=target))
        except sa.exc.IntegrityError:  # another worker did it at this moment
            self._register(connection, job, target)

    def lock(self, connection: sa.Connection, job: str) -> None:
        """Let one worker at a time decide about this job; held until the commit."""
        jobs = self.tables.jobs
        connection.execute(sa.select(jobs.c.job).where(jobs.c.job == job).with_for_update())

    def _refuse_published(
        self, connection: sa.Connection, request: RunRequest, since: datetime
    ) -> None:
        runs = self.tables.runs
        found = connection.scalar(
            sa.select(runs.c.run_id)
            .where(runs.c.job == request.job, runs.c.partition == request.partition)
            .where(runs.c.model_name == request.model_name)
            .where(runs.c.model_version == request.model_version)
            .where(runs.c.state == PUBLISHED, runs.c.published_at > since)
            .limit(1)
        )
        if found is not None:
            model = f"{request.model_name}@{request.model_version}"
            raise AlreadyPublished(request.job, request.partition, found, model)

    def _take_over(
        self,
        connection: sa.Connection,
        row: sa.RowMapping,
        owner: str,
        now: datetime,
        flow_run_id: str | None,
    ) -> Run:
        runs, chunks = self.tables.runs, self.tables.chunks
        run_id, state = row["run_id"], SCORED if row["scored_at"] else RUNNING
        connection.execute(
            sa.update(runs)
            .where(runs.c.run_id == run_id)
            .values(owner=owner, state=state, heartbeat_at=now, flow_run_id=flow_run_id, error=None)
        )
        # Only now: the update has waited for a chunk that the former owner was still committing.
        done = connection.execute(
            sa.select(runs.c.chunks_written, runs.c.rows_written).where(runs.c.run_id == run_id)
        ).one()
        last_key = connection.scalar(
            sa.select(chunks.c.last_key).where(
                chunks.c.run_id == run_id, chunks.c.chunk == done.chunks_written - 1
            )
        )
        return Run(run_id, owner, state, done.chunks_written, done.rows_written, last_key)

    def _update_owned(
        self, connection: sa.Connection, run: Run, expected: str, **values: Any
    ) -> None:
        runs = self.tables.runs
        statement = sa.update(runs).where(_owned(runs, run, expected)).values(**values)
        if connection.execute(statement).rowcount != 1:
            raise OwnershipLost(run.run_id)

    def _is_alive(self, connection: sa.Connection, row: sa.RowMapping, silent: float) -> bool:
        """Whether the owner of a running run is still at work, `silent` seconds after a sign."""
        if is_dead(row["owner"]):
            return False
        if silent < self.lease:
            return True
        # A chunk that takes longer than the lease to commit keeps its run's row locked meanwhile.
        runs = self.tables.runs
        free = sa.select(runs.c.run_id).where(runs.c.run_id == row["run_id"])
        return connection.scalar(free.with_for_update(skip_locked=True)) is None

    @property
    def _clock(self) -> "sa.ColumnElement[Any]":
        """The database's clock, so that workers' clocks need not agree."""
        if self.engine.dialect.name == "postgresql":
            return sa.func.clock_timestamp(type_=Instant())
        if self.engine.dialect.name == "sqlite":  # which is in this process; its own counts seconds
            return sa.literal(datetime.now(UTC), Instant())
        return sa.func.current_timestamp(type_=Instant())

    def now(self, connection: sa.Connection) -> datetime:
        now: datetime = connection.execute(sa.select(self._clock)).scalar_one()
        return now


def new_owner() -> str:
    """A token for one worker: host:pid:random. The same one may begin a run again."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4()}"


def _owned(runs: sa.Table, run: Run, state: str) -> sa.ColumnElement[bool]:
    return (runs.c.run_id == run.run_id) & (runs.c.owner == run.owner) & (runs.c.state == state)


def is_dead(owner: str) -> bool:
    """Whether the owner was a process of this machine that no longer exists."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
