"""The ledger: which run owns, wrote and published which rows, and where it resumes.

It lives in the target database, so that a chunk's rows and its ledger entry are one transaction.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.ticking import Ticker
from nightshift.adapters.database.types import clock
from nightshift.adapters.errors import (
    AlreadyPublished,
    DatabaseError,
    OwnershipLost,
    RunIncomplete,
    TransientError,
)
from nightshift.adapters.ledger import admission, creation, shards
from nightshift.adapters.ledger.intervals import Interval, subtract_ranges
from nightshift.adapters.ledger.publications import (
    PUBLISH,
    newer_ranges,
    publish_range,
    refuse_published,
)
from nightshift.adapters.ledger.runs import CHAMPION, RejectedRow, Run, RunRequest, RunState
from nightshift.adapters.ledger.schema import LedgerTables
from nightshift.adapters.ledger.shards import Shard


class Ledger:
    """The runs of all jobs that write into one database.

    `lease` is in seconds: a run whose owner has been silent for longer can be taken over.
    """

    def __init__(self, engine: sa.Engine, schema: str | None = None, lease: float = 60) -> None:
        self.engine = engine
        self.lease = lease
        self.tables = LedgerTables(schema)
        self._last_started: dict[tuple[str, str, str, str], int] = {}

    def create(self) -> None:
        """Create what is missing. Several workers may do so at the same time.

        Raises LedgerIncompatible.
        """
        with translate_errors(self.engine, "to create the ledger's tables"):
            creation.create(self.engine, self.tables)

    def exists(self) -> bool:
        """Raises LedgerIncompatible."""
        with translate_errors(self.engine, "to look for the ledger's tables"):
            return creation.exists(self.engine, self.tables)

    # --- a run's life ---------------------------------------------------------------------------

    def begin(self, request: RunRequest, owner: str, resume: bool = True) -> Run:
        """Own a run for the request: the partition's last one, if it can be resumed, or a new one.

        A run is resumed if it is unfinished and has the request's fingerprint. A run older than
        the partition's last, or than what readers see of its range, is not: it would read older
        source rows. `resume=False` starts a new run, if the source has changed behind the last
        chunk. `owner` is from `new_owner`; pass the same one again after a failure of your own.

        Raises PartitionBusy while another owner is alive, AlreadyPublished and Quarantined if the
        request says so, TargetMismatch if the target is another job's, and OwnershipLost if this
        owner has started it before and was replaced: what it has read since, its model for example,
        may be out of date.
        """
        attempt = (request.job, request.partition, request.role, owner)
        before = self._last_started.get(attempt)
        with translate_errors(self.engine, "to begin a run"), self.engine.begin() as connection:
            at = (connection, self.tables)
            admission.bind_target(*at, request.job, request.target)
            self.lock(connection, request.job)
            now = self.now(connection)
            if request.unless_published_since is not None:
                refuse_published(*at, request, request.unless_published_since)
            found = admission.find_resumable(*at, request, owner, before, self.lease, now)
            if resume and found is not None:
                run = admission.resume(*at, found, owner, request.flow_run_id, now)
            else:
                run = admission.start(*at, request, owner, now)
        self._last_started[attempt] = run.run_id
        return run

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
        """Record a chunk, in the transaction that writes its rows. Raises OwnershipLost.

        Comes first in it: the shard's row stays locked until the commit, so an owner that was
        replaced has either committed before the new one looked, or fails here. A chunk out of
        turn fails too: the committed chunks are always the first ones, without a gap.
        `profile` is that of all the shard's rows so far, `checksum` of the chunk as it was read.
        """
        now, entry = self.now(connection), (chunk, keys, rows, rejects, profile, checksum)
        shards.record_chunk(connection, self.tables, run, *entry, now)

    def score(self, run: Run, timings: str | None = None) -> None:
        """All rows are written. Raises OwnershipLost, RunIncomplete while a shard is not done.

        `timings` is a JSON document that is stored with the shard, if there is only one.
        """
        rows = self.tables.shards
        of_run = rows.c.run_id == run.run_id
        with translate_errors(self.engine, "to end a run"), self.engine.begin() as connection:
            now = self.now(connection)
            if len(shards.read_shards(connection, self.tables, run.run_id, RunState.RUNNING)) == 1:
                own = of_run & (rows.c.owner == run.owner)
                connection.execute(sa.update(rows).where(own).values(done=True, timings=timings))
            scored = {"state": RunState.SCORED, "scored_at": now, "error": None}
            self._update_owned(connection, run, RunState.RUNNING, **scored)
            left = sa.select(sa.func.count()).where(of_run, sa.not_(rows.c.done))
            if missing := connection.scalar(left):
                raise RunIncomplete(run.run_id, missing)

    def fail(self, run: Run, reason: str, resumable: bool = True) -> None:
        """End the run before it is published: what it wrote stays invisible.

        The next run of the partition resumes it if it is `resumable`. Workers that score its
        shards are refused. Raises OwnershipLost.
        """
        failed = {"state": RunState.FAILED, "error": reason}
        if not resumable:
            failed["fingerprint"] = ""
        with translate_errors(self.engine, "to fail a run"), self.engine.begin() as connection:
            shards.fence(connection, self.tables, run.run_id)
            self._update_owned(connection, run, RunState.RUNNING, RunState.SCORED, **failed)

    def note(self, run: Run, **documents: str) -> None:
        """Store JSON documents with the run: its `audit`, a challenger's `comparison`.

        Raises OwnershipLost.
        """
        with (
            translate_errors(self.engine, "to store a document"),
            self.engine.begin() as connection,
        ):
            self._update_owned(connection, run, *RunState, **documents)

    def quarantine(self, run: Run, reason: str) -> None:
        """Its audit failed: readers go on seeing what they saw. Raises OwnershipLost."""
        ended = {"state": RunState.QUARANTINED, "error": reason}
        with (
            translate_errors(self.engine, "to quarantine a run"),
            self.engine.begin() as connection,
        ):
            if not self._owns(connection, run, RunState.QUARANTINED):
                self._update_owned(connection, run, RunState.SCORED, **ended)

    def publish(self, run: Run, by: str | None = None) -> None:
        """Make the run's rows the ones that readers see, all at once.

        Where readers see a run that began later, they go on seeing it: what it read is newer.
        Raises OwnershipLost, AlreadyPublished if that is so everywhere.

        One small transaction, whatever the number of rows. If this owner has published the run
        already, nothing changes: a retry cannot know whether a broken connection took the commit.
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
            if self._owns(connection, run, RunState.PUBLISHED):
                return
            now = self.now(connection)
            whole = Interval(row["partition_start"], row["partition_end"], run.run_id)
            newer = newer_ranges(connection, self.tables, job, whole)
            visible = subtract_ranges(whole, newer)
            ended: dict[str, Any] = {"state": RunState.SUPERSEDED}
            if visible:
                ended = {"state": RunState.PUBLISHED, "published_at": now}
            self._update_owned(connection, run, RunState.SCORED, **ended)
            change = (PUBLISH, now, by or run.owner, None)
            for range_ in visible:
                publish_range(connection, self.tables, job, range_, *change)
        if not visible:
            raise AlreadyPublished(job, row["partition"], max(seen.run_id for seen in newer))

    @contextmanager
    def keep_alive(self, run: Run) -> Iterator[None]:
        """Renew the run's heartbeat in the background, however long a chunk or the audit takes."""

        def renew() -> None:
            try:
                with (
                    translate_errors(self.engine, "a heartbeat"),
                    self.engine.begin() as connection,
                ):
                    # The clock is read when the row is free: a chunk's commit may lock it.
                    beat = {"heartbeat_at": clock(self.engine.dialect)}
                    self._update_owned(connection, run, RunState.RUNNING, RunState.SCORED, **beat)
            except (DatabaseError, TransientError):
                return  # the next chunk's commit finds out, and says so

        with Ticker(renew, self.lease / 4, f"heartbeat-{run.run_id}"):
            yield

    # --- shards ---------------------------------------------------------------------------------

    def split(self, run: Run, bounds: Sequence[str]) -> list[Shard]:
        """Divide a run into shards at these keys, if nothing of it is written yet; its shards.

        `bounds` are the last keys of all shards but the last. Raises OwnershipLost.
        """
        with translate_errors(self.engine, "to divide a run"), self.engine.begin() as connection:
            self._update_owned(connection, run, RunState.RUNNING, heartbeat_at=self.now(connection))
            shards.split(connection, self.tables, run, bounds)
            return shards.read_shards(connection, self.tables, run.run_id, RunState.RUNNING)

    def shards(self, run_id: int) -> list[Shard]:
        """How far each shard has come."""
        with translate_errors(self.engine, "to read a run"), open_reader(self.engine) as connection:
            return shards.read_shards(connection, self.tables, run_id, RunState.RUNNING)

    def checksums(self, run_id: int) -> dict[int, list[str | None]]:
        """For each shard, the checksums of its chunks as they were read, in order."""
        chunks = self.tables.chunks
        statement = sa.select(chunks.c.shard, chunks.c.checksum).where(chunks.c.run_id == run_id)
        found: dict[int, list[str | None]] = {}
        with translate_errors(self.engine, "to read a run"), open_reader(self.engine) as connection:
            for shard, checksum in connection.execute(statement.order_by(*chunks.primary_key)):
                found.setdefault(shard, []).append(checksum)
        return found

    def take(self, run: Run, shard: int, owner: str) -> Shard:
        """Own one shard of a run, in place of its former worker. `run` is its coordinator's.

        Raises OwnershipLost if the run is no longer that coordinator's, or the shards were
        withdrawn.
        """
        with translate_errors(self.engine, "to take a shard"), self.engine.begin() as connection:
            shards.take(connection, self.tables, run, shard, owner)
            self._update_owned(connection, run, RunState.RUNNING, heartbeat_at=self.now(connection))
            return shards.read_shards(connection, self.tables, run.run_id, RunState.RUNNING)[shard]

    def withdraw(self, run: Run) -> None:
        """Take a run's shards from their workers, whose next chunk is refused.

        No process can take a shard until the run is started again. Raises OwnershipLost.
        """
        with translate_errors(self.engine, "to withdraw shards"), self.engine.begin() as connection:
            self._update_owned(connection, run, RunState.RUNNING, heartbeat_at=self.now(connection))
            shards.fence(connection, self.tables, run.run_id)

    def finish(self, run: Run, timings: str | None = None) -> None:
        """All rows of the shard that this worker owns are written. Raises OwnershipLost.

        `timings` is a JSON document that is stored with the shard.
        """
        with translate_errors(self.engine, "to end a shard"), self.engine.begin() as connection:
            shards.finish(connection, self.tables, run, timings)

    # --- inside a transaction -------------------------------------------------------------------

    def lock(self, connection: sa.Connection, job: str) -> None:
        """Let one worker at a time decide about this job; held until the commit."""
        jobs = self.tables.jobs
        connection.execute(sa.select(jobs.c.job).where(jobs.c.job == job).with_for_update())

    def now(self, connection: sa.Connection) -> datetime:
        """The time by the database's clock, so that workers' clocks need not agree."""
        now: datetime = connection.execute(sa.select(clock(self.engine.dialect))).scalar_one()
        return now

    def _owns(self, connection: sa.Connection, run: Run, *states: RunState) -> bool:
        owned = sa.select(self.tables.runs.c.run_id).where(self._owned(run, *states))
        return connection.scalar(owned) is not None

    def _update_owned(
        self, connection: sa.Connection, run: Run, *states: RunState, **values: Any
    ) -> None:
        """Change the run, if it is this owner's and in one of these states."""
        statement = sa.update(self.tables.runs).where(self._owned(run, *states)).values(**values)
        if connection.execute(statement).rowcount != 1:
            raise OwnershipLost(run.run_id)

    def _owned(self, run: Run, *states: RunState) -> sa.ColumnElement[bool]:
        runs = self.tables.runs
        own = (runs.c.run_id == run.run_id) & (runs.c.owner == run.owner)
        return own & runs.c.state.in_(states)
