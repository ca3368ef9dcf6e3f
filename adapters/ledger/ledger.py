"""The ledger: which run wrote which rows, who owns it, where it resumes, what readers see.

It lives in the target database, so that a chunk's rows and its ledger entry are one transaction.
"""

import os
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import open_reader, read_only
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.database.types import clock
from nightshift.adapters.errors import (
    AlreadyPublished,
    DatabaseError,
    OwnershipLost,
    PartitionBusy,
    RunIncomplete,
    TargetMismatch,
    TransientError,
)
from nightshift.adapters.ledger import migrations
from nightshift.adapters.ledger.done import refuse_done
from nightshift.adapters.ledger.intervals import Interval, subtract_ranges
from nightshift.adapters.ledger.publications import PUBLISH, newer_ranges, publish_range
from nightshift.adapters.ledger.runs import CHAMPION, RejectedRow, Run, RunRequest, RunState
from nightshift.adapters.ledger.schema import LedgerTables
from nightshift.adapters.ledger.shards import Shard, shards_of, split, together

_CREATING = 10  # attempts; each one that fails leaves less to create
_NOBODY = ""
"""The owner of shards that are nobody's to score."""


class Ledger:
    """The runs of all jobs that write into one database.

    `lease` is in seconds: an owner that has been silent for longer is taken over.
    """

    def __init__(self, engine: sa.Engine, schema: str | None = None, lease: float = 60) -> None:
        self.engine = engine
        self.lease = lease
        self.tables = LedgerTables(schema)
        self._begun: dict[tuple[str, str, str, str], int] = {}

    def create(self) -> None:
        """Create what is missing, and migrate what is older. Safe to call at once from several
        workers. Raises LedgerIncompatible.
        """
        tables = self.tables.metadata.sorted_tables
        others = [table for table in tables if not table.name.startswith(migrations.PREFIX)]
        schema = self.tables.runs.schema
        with translate_errors(self.engine, "to create the ledger's tables"):
            for attempt in range(1, _CREATING + 1):
                try:
                    current = migrations.is_current(self.engine, schema)
                    self.tables.metadata.create_all(self.engine, others)  # these may be refused
                    self._complete(others)
                    if not current:
                        migrations.bring_up_to_date(self.engine, schema)
                    break
                except sa.exc.DBAPIError as error:  # another worker was creating one at this moment
                    if attempt == _CREATING or error.connection_invalidated:
                        raise

    def _complete(self, tables: Sequence[sa.Table]) -> None:
        """Add the indexes that somebody left out who was killed between a table and its indexes."""
        if capabilities(self.engine.dialect).transactional_ddl:
            return
        inspector = sa.inspect(read_only(self.engine))
        for table in tables:
            indexes = inspector.get_indexes(table.name, schema=table.schema)
            there = [index["column_names"] for index in indexes]
            for index in table.indexes:
                if [column.name for column in index.columns] not in there:
                    index.create(self.engine)

    def exists(self) -> bool:
        """Raises LedgerIncompatible."""
        with translate_errors(self.engine, "to look for the ledger's tables"):
            return migrations.is_there(self.engine, self.tables.runs.schema)

    # --- a run's life ---------------------------------------------------------------------------

    def begin(self, request: RunRequest, owner: str, resume: bool = True) -> Run:
        """Own a run for the request: the partition's last, if it is to be resumed, else a new one.

        It is resumed if it is unfinished and has the request's fingerprint; one that is older than
        another, or than what readers see of its range, is not: a later run has seen the source as
        it was later. `resume=False` begins anew, if the source has changed behind the last chunk.
        `owner` is from `new_owner`; give the same again to go on after a failure of one's own.
        Raises PartitionBusy while another owner is alive, AlreadyPublished and Quarantined if the
        request says so, TargetMismatch if the target is another job's, OwnershipLost if this owner
        has begun before and was replaced: what it has read since then, a model say, may be out of
        date.
        """
        attempt = (request.job, request.partition, request.role, owner)
        with translate_errors(self.engine, "to begin a run"), self.engine.begin() as connection:
            run = self._begin(connection, request, owner, resume, self._begun.get(attempt))
        self._begun[attempt] = run.run_id
        return run

    def _begin(
        self,
        connection: sa.Connection,
        request: RunRequest,
        owner: str,
        resume: bool,
        before: int | None,
    ) -> Run:
        runs = self.tables.runs
        self._register(connection, request.job, request.target)
        self.lock(connection, request.job)
        now = self.now(connection)
        if request.unless_published_since is not None:
            refuse_done(connection, self.tables, request, request.unless_published_since)
        mine = (runs.c.job == request.job) & (runs.c.partition == request.partition)
        mine &= runs.c.role == request.role
        last = connection.scalar(sa.select(sa.func.max(runs.c.run_id)).where(mine))
        # Not if it is gone: a server that took over from another may have lost what came last.
        if before is not None and last is not None and last >= before:
            its_owner = connection.scalar(sa.select(runs.c.owner).where(runs.c.run_id == last))
            if its_owner != owner:
                raise OwnershipLost(before)
        open_states = [RunState.RUNNING, RunState.FAILED]
        if request.role == CHAMPION:  # a challenger's run ends once it is scored
            open_states.append(RunState.SCORED)
        unfinished = connection.execute(
            sa.select(runs).where(mine, runs.c.state.in_(open_states))
        ).mappings()
        resumable = None
        for row in unfinished.all():
            if row["state"] != RunState.FAILED and row["owner"] != owner:
                silent = self._silence(connection, row, now)
                if self._is_alive(connection, row, silent):
                    raise PartitionBusy(
                        request.job, request.partition, row["run_id"], row["owner"], silent
                    )
            if (
                row["state"] != RunState.FAILED
            ):  # or its owner could still publish it, after this one
                self._fence(connection, row["run_id"])
                abandoned = sa.update(runs).where(runs.c.run_id == row["run_id"])
                reason = f"abandoned by {row['owner']}"
                connection.execute(abandoned.values(state=RunState.FAILED, error=reason))
            if row["run_id"] == last and row["fingerprint"] == request.fingerprint:
                range_ = Interval(row["partition_start"], row["partition_end"], last)
                if not newer_ranges(connection, self.tables, request.job, range_):
                    resumable = row
        if resume and resumable is not None:
            return self._take_over(connection, resumable, owner, now, request.flow_run_id)
        values = {
            "job": request.job,
            "role": request.role,
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
                **values, state=RunState.RUNNING, owner=owner, heartbeat_at=now, started_at=now
            )
        )
        run_id = int(inserted.inserted_primary_key[0])  # type: ignore[index]
        self._add_shard(connection, run_id, 0, owner, now)
        return Run(run_id, owner, RunState.RUNNING, chunks=0, rows=0, last_key=None)

    def _add_shard(
        self, connection: sa.Connection, run_id: int, shard: int, owner: str, now: datetime
    ) -> None:
        connection.execute(
            sa.insert(self.tables.shards).values(
                run_id=run_id,
                shard=shard,
                owner=owner,
                written_at=now,
                done=False,
                chunks_written=0,
                rows_written=0,
                rows_rejected=0,
            )
        )

    def record_chunk(
        self,
        connection: sa.Connection,
        run: Run,
        chunk: int,
        keys: tuple[str, str],
        rows: int,
        rejects: Sequence[RejectedRow] = (),
        profile: str | None = None,
        checksum: str | None = None,
    ) -> None:
        """Enter a chunk within the transaction that writes its rows. Raises OwnershipLost.

        Comes first in it: the shard's row stays locked until the commit, so an owner that was
        replaced meanwhile either committed before the new one looked, or fails here. A chunk
        out of its turn fails too: the committed ones are always the first ones, without a gap.
        `profile` is that of all the shard's rows so far, `checksum` of the chunk as it was read.
        """
        now = self.now(connection)
        shards = self.tables.shards
        statement = (
            sa.update(shards)
            .where(shards.c.run_id == run.run_id, shards.c.shard == run.shard)
            .where(shards.c.owner == run.owner, sa.not_(shards.c.done))
            .where(shards.c.chunks_written == chunk)
            .values(
                chunks_written=chunk + 1,
                rows_written=shards.c.rows_written + rows,
                rows_rejected=shards.c.rows_rejected + len(rejects),
                written_at=now,
                profile=profile,
            )
        )
        if connection.execute(statement).rowcount != 1:
            raise OwnershipLost(run.run_id)
        connection.execute(
            sa.insert(self.tables.chunks).values(
                run_id=run.run_id,
                shard=run.shard,
                chunk=chunk,
                first_key=keys[0],
                last_key=keys[1],
                rows=rows,
                rejected=len(rejects),
                checksum=checksum,
                committed_at=now,
            )
        )
        lines = [
            {
                "run_id": run.run_id,
                "shard": run.shard,
                "chunk": chunk,
                "position": position,
                "row_key": row.key,
                "kind": row.kind,
                "error": row.error,
                "inputs": row.inputs,
            }
            for position, row in enumerate(rejects)
        ]
        if lines:
            connection.execute(sa.insert(self.tables.rejects), lines)

    def score(self, run: Run, timings: str | None = None) -> None:
        """All rows are written. Raises OwnershipLost, RunIncomplete while a shard is not done.

        `timings` is a JSON document that is kept with the shard, if there is but one.
        """
        shards = self.tables.shards
        mine = shards.c.run_id == run.run_id
        with translate_errors(self.engine, "to end a run"), self.engine.begin() as connection:
            now = self.now(connection)
            if len(shards_of(connection, self.tables, run.run_id, RunState.RUNNING)) == 1:
                own = mine & (shards.c.owner == run.owner)
                ended = sa.update(shards).where(own).values(done=True, timings=timings)
                connection.execute(ended)
            self._update_owned(
                connection, run, RunState.RUNNING, state=RunState.SCORED, scored_at=now, error=None
            )
            left = sa.select(sa.func.count()).where(mine, sa.not_(shards.c.done))
            if missing := connection.scalar(left):
                raise RunIncomplete(run.run_id, missing)

    def fail(self, run: Run, reason: str, resumable: bool = True) -> None:
        """The run stopped before it was published; what it wrote stays invisible, and the next one
        may resume it.

        Not `resumable`, the next one begins anew. Workers that score its shards are fenced out.
        """
        ended = {} if resumable else {"fingerprint": ""}
        with translate_errors(self.engine, "to fail a run"), self.engine.begin() as connection:
            self._fence(connection, run.run_id)
            self._update_owned(
                connection,
                run,
                RunState.RUNNING,
                RunState.SCORED,
                state=RunState.FAILED,
                error=reason,
                **ended,
            )

    # --- shards ---------------------------------------------------------------------------------

    def split(self, run: Run, bounds: Sequence[str]) -> list[Shard]:
        """Divide a run into shards at these keys, if nothing of it is written yet; its shards.

        `bounds` are the last keys of all shards but the last. Raises OwnershipLost.
        """
        with translate_errors(self.engine, "to divide a run"), self.engine.begin() as connection:
            self._update_owned(connection, run, RunState.RUNNING, heartbeat_at=self.now(connection))
            split(connection, self.tables, run, bounds)
            return shards_of(connection, self.tables, run.run_id, RunState.RUNNING)

    def shards(self, run_id: int) -> list[Shard]:
        """How far each shard has come."""
        with (
            translate_errors(self.engine, "to look at a run"),
            open_reader(self.engine) as connection,
        ):
            return shards_of(connection, self.tables, run_id, RunState.RUNNING)

    def checksums(self, run_id: int) -> dict[int, list[str | None]]:
        """What each shard's chunks were made of, in their order."""
        chunks = self.tables.chunks
        statement = sa.select(chunks.c.shard, chunks.c.checksum).where(chunks.c.run_id == run_id)
        found: dict[int, list[str | None]] = {}
        with (
            translate_errors(self.engine, "to look at a run"),
            open_reader(self.engine) as connection,
        ):
            for shard, checksum in connection.execute(statement.order_by(*chunks.primary_key)):
                found.setdefault(shard, []).append(checksum)
        return found

    def take(self, run: Run, shard: int, owner: str) -> Shard:
        """Own one shard of a run, in place of whoever had it. `run` is as its coordinator has it.

        Raises OwnershipLost if the run is no longer that coordinator's, or it was withdrawn.
        """
        shards = self.tables.shards
        with translate_errors(self.engine, "to take a shard"), self.engine.begin() as connection:
            mine = (shards.c.run_id == run.run_id) & (shards.c.shard == shard)
            handed_out = sa.update(shards).where(mine, shards.c.owner != _NOBODY)
            if connection.execute(handed_out.values(owner=owner)).rowcount != 1:
                raise OwnershipLost(run.run_id)
            self._update_owned(connection, run, RunState.RUNNING, heartbeat_at=self.now(connection))
            return shards_of(connection, self.tables, run.run_id, RunState.RUNNING)[shard]

    def withdraw(self, run: Run) -> None:
        """Take a run's shards from their workers: whoever has one is fenced out at its next chunk,
        and nobody takes one until the run is begun again. Raises OwnershipLost.
        """
        with translate_errors(self.engine, "to withdraw shards"), self.engine.begin() as connection:
            self._update_owned(connection, run, RunState.RUNNING, heartbeat_at=self.now(connection))
            self._fence(connection, run.run_id)

    def finish(self, run: Run, timings: str | None = None) -> None:
        """All rows of the shard that this worker owns are written. Raises OwnershipLost.

        `timings` is a JSON document that is kept with the shard.
        """
        shards = self.tables.shards
        mine = (shards.c.run_id == run.run_id) & (shards.c.shard == run.shard)
        own = mine & (shards.c.owner == run.owner)
        statement = sa.update(shards).where(own).values(done=True, timings=timings)
        with translate_errors(self.engine, "to end a shard"), self.engine.begin() as connection:
            if connection.execute(statement).rowcount != 1:
                raise OwnershipLost(run.run_id)

    def note(self, run: Run, **documents: str) -> None:
        """Keep a JSON document with the run: its `audit`, a challenger's `comparison`."""
        runs = self.tables.runs
        mine = sa.update(runs).where(runs.c.run_id == run.run_id, runs.c.owner == run.owner)
        with translate_errors(self.engine, "to note on a run"), self.engine.begin() as connection:
            if connection.execute(mine.values(**documents)).rowcount != 1:
                raise OwnershipLost(run.run_id)

    def quarantine(self, run: Run, reason: str) -> None:
        """The audit found it wrong: readers go on seeing what they saw. Raises OwnershipLost."""
        runs = self.tables.runs
        with (
            translate_errors(self.engine, "to quarantine a run"),
            self.engine.begin() as connection,
        ):
            done = sa.select(runs.c.run_id).where(_owned(runs, run, RunState.QUARANTINED))
            if connection.scalar(done) is None:
                self._update_owned(
                    connection, run, RunState.SCORED, state=RunState.QUARANTINED, error=reason
                )

    def publish(self, run: Run, by: str | None = None) -> None:
        """Make the run's rows the ones that readers see, all at once.

        Where readers see a run that began later, they go on seeing it: what it has read is newer.
        Raises OwnershipLost, AlreadyPublished if that is so everywhere.

        One small transaction, whatever the number of rows. Published by this owner already, it
        changes nothing: a retry cannot know whether a broken connection still took the commit.
        """
        runs = self.tables.runs
        with translate_errors(self.engine, "to publish a run"), self.engine.begin() as connection:
            found = connection.execute(sa.select(runs).where(runs.c.run_id == run.run_id))
            row = found.mappings().first()
            if row is None:  # the database has lost it
                raise OwnershipLost(run.run_id)
            if row["role"] != CHAMPION:
                raise ValueError("a challenger's run is never published")
            job = row["job"]
            self.lock(connection, job)
            done = sa.select(runs.c.run_id).where(_owned(runs, run, RunState.PUBLISHED))
            if connection.scalar(done) is not None:
                return
            now = self.now(connection)
            whole = Interval(row["partition_start"], row["partition_end"], run.run_id)
            later = newer_ranges(connection, self.tables, job, whole)
            shown = subtract_ranges(whole, later)
            ended = (
                {"state": RunState.PUBLISHED, "published_at": now}
                if shown
                else {"state": RunState.SUPERSEDED}
            )
            self._update_owned(connection, run, RunState.SCORED, **ended)
            for piece in shown:
                publish_range(
                    connection, self.tables, job, piece, PUBLISH, now, by or run.owner, None
                )
        if not shown:
            outrun = max(seen.run_id for seen in later)
            raise AlreadyPublished(job, row["partition"], outrun)

    @contextmanager
    def keep_alive(self, run: Run) -> Iterator[None]:
        """Renew the run's heartbeat in the background, however long a chunk or the audit takes."""
        stopped = threading.Event()

        def renew() -> None:
            while not stopped.wait(self.lease / 4):
                try:
                    with (
                        translate_errors(self.engine, "a heartbeat"),
                        self.engine.begin() as connection,
                    ):
                        # The clock is read when the row is free: a chunk's commit may hold it.
                        beat = {"heartbeat_at": self._clock}
                        self._update_owned(
                            connection, run, RunState.RUNNING, RunState.SCORED, **beat
                        )
                except (DatabaseError, TransientError):
                    continue  # the next chunk's commit finds out, and says so

        thread = threading.Thread(target=renew, name=f"heartbeat-{run.run_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

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

    def _take_over(
        self,
        connection: sa.Connection,
        row: sa.RowMapping,
        owner: str,
        now: datetime,
        flow_run_id: str | None,
    ) -> Run:
        runs, run_id = self.tables.runs, row["run_id"]
        state = RunState.SCORED if row["scored_at"] else RunState.RUNNING
        self._fence(connection, run_id, owner)  # waits for a chunk that is still being committed
        connection.execute(
            sa.update(runs)
            .where(runs.c.run_id == run_id)
            .values(owner=owner, state=state, heartbeat_at=now, flow_run_id=flow_run_id, error=None)
        )
        return together(shards_of(connection, self.tables, run_id, state), owner)

    def _fence(
        self, connection: sa.Connection, run_id: int, owner: str = _NOBODY, only: str | None = None
    ) -> None:
        """Hand the run's shards to another owner, so that nobody else writes into them."""
        shards = self.tables.shards
        statement = sa.update(shards).where(shards.c.run_id == run_id)
        if only is not None:
            statement = statement.where(shards.c.owner == only)
        connection.execute(statement.values(owner=owner))

    def _update_owned(
        self, connection: sa.Connection, run: Run, *expected: str, **values: Any
    ) -> None:
        runs = self.tables.runs
        statement = sa.update(runs).where(_owned(runs, run, *expected)).values(**values)
        if connection.execute(statement).rowcount != 1:
            raise OwnershipLost(run.run_id)

    def _silence(self, connection: sa.Connection, row: sa.RowMapping, now: datetime) -> float:
        """Seconds since the run's last sign of life: a heartbeat or a chunk."""
        shards = self.tables.shards
        last = sa.select(sa.func.max(shards.c.written_at)).where(shards.c.run_id == row["run_id"])
        beat: datetime = row["heartbeat_at"]
        return (now - max(connection.scalar(last) or beat, beat)).total_seconds()

    def _is_alive(self, connection: sa.Connection, row: sa.RowMapping, silent: float) -> bool:
        """Whether a run's owner is still at work, `silent` seconds after its last sign of life."""
        if is_dead(row["owner"]):
            return False
        if -self.lease < silent < self.lease:  # less, if the clock was set back
            return True
        # A chunk that takes longer than the lease to commit keeps its shard's row locked meanwhile.
        shards = self.tables.shards
        all_of_them = sa.select(shards.c.shard).where(shards.c.run_id == row["run_id"])
        free = connection.execute(all_of_them.with_for_update(skip_locked=True)).all()
        return len(free) < len(connection.execute(all_of_them).all())

    @property
    def _clock(self) -> "sa.ColumnElement[datetime]":
        return clock(self.engine.dialect)

    def now(self, connection: sa.Connection) -> datetime:
        now: datetime = connection.execute(sa.select(self._clock)).scalar_one()
        return now


def new_owner() -> str:
    """A token for one worker: host:pid:random. The same one may begin a run again."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4()}"


def _owned(runs: sa.Table, run: Run, *states: str) -> sa.ColumnElement[bool]:
    own = (runs.c.run_id == run.run_id) & (runs.c.owner == run.owner)
    return own & runs.c.state.in_(states)


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
