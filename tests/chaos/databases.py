"""A PostgreSQL that goes away, fills up, gives up, or makes us wait."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from tests.chaos.scoring_process import PUBLISHED, ScoringProcess
from tests.chaos.trial import Fault, Trial
from tests.chaos.world import World, eventually

PATIENT = {"NIGHTSHIFT_RETRIES": "8"}
"""Tries that last for longer than a server takes to start."""


def restarted(mode: str) -> "Fault":
    """The server is restarted while a run is under way; the same run goes on after that."""

    def strike(trial: Trial) -> None:
        turn = trial.chance.choice(trial.world.under_way)
        process, struck = trial.stage.struck(turn, lambda _: None, **PATIENT)
        trial.strikes(process, struck)
        trial.world.postgres.restart(mode)
        trial.stage.engine.dispose()
        trial.rides_out(process, time.monotonic())

    return Fault(f"PostgreSQL restarted: {mode}", strike, 10)


def commits_lost(trial: Trial) -> None:
    """The server crashes and has lost its last commits, as one that took over from another may.

    The run finds out that its chunks do not follow on what is there, or goes on from there.
    """
    trial.stage.set("synchronous_commit", "off")
    trial.stage.forgets = True
    turn = trial.chance.choice(trial.world.under_way)
    process, struck = trial.stage.struck(turn, lambda _: None, **PATIENT)
    trial.strikes(process, struck)
    there = entered(trial)
    trial.world.postgres.restart("immediate")
    trial.stage.engine.dispose()
    since = time.monotonic()
    trial.missed |= entered(trial) >= there
    trial.gives_up(process, since, "OwnershipLost", PUBLISHED)
    trial.stage.reset("synchronous_commit")
    trial.resumes(since)


def entered(trial: Trial) -> int:
    """Runs and chunks in the ledger."""
    tables = ("nightshift_runs", "nightshift_chunks")
    return sum(trial.stage.sql(f"SELECT count(*) FROM {table}")[0][0] for table in tables)


def cut(trial: Trial) -> None:
    """One connection is cut at a message: before it arrives, or after it is carried out."""
    when = trial.chance.choice(["before", "after"])
    process, struck = trial.stage.struck(trial.chance.choice(trial.world.under_way), lambda _: when)
    trial.strikes(process, struck)
    trial.rides_out(process, time.monotonic())


def hung_up(trial: Trial) -> None:
    """All connections are cut at once, and none is to be had for half a second."""
    stage = trial.stage
    wire = stage.wire()
    turn, over = trial.chance.choice(trial.world.under_way), threading.Event()

    def away(number: int, _: bytes) -> str | None:
        return "before" if number >= turn and not over.is_set() else None

    wire.cut = away
    process = stage.start(**{**stage.wired(wire), **PATIENT})
    eventually(lambda: wire.cuts or process.over, "a cut")
    trial.missed = not wire.cuts
    wire.hang_up()
    time.sleep(0.5)
    over.set()
    trial.rides_out(process, time.monotonic())


def on_insert(trial: Trial, action: str, times: int | None = None) -> None:
    """Have the database do something as a certain row is written; `times` times, or always."""
    row = trial.chance.randrange(1, 600)
    limit = "" if times is None else f"IF nextval('chaos_times') > {times} THEN RETURN new; END IF;"
    trial.stage.sql("CREATE SEQUENCE chaos_times")
    trial.stage.sql(
        "CREATE FUNCTION chaos() RETURNS trigger LANGUAGE plpgsql AS $$"
        f" BEGIN {limit} {action}; RETURN new; END $$"
    )
    trial.stage.sql(
        "CREATE TRIGGER chaos BEFORE INSERT ON order_scores_runs FOR EACH ROW"
        f" WHEN (new.id = {row}) EXECUTE FUNCTION chaos()"
    )


def no_more(trial: Trial) -> None:
    trial.stage.sql("DROP TRIGGER chaos ON order_scores_runs")
    trial.stage.sql("DROP FUNCTION chaos()")
    trial.stage.sql("DROP SEQUENCE chaos_times")


def statement_timeout(trial: Trial) -> None:
    """The role's limit is shorter than a statement takes: a run's transactions lift it."""
    on_insert(trial, "PERFORM pg_sleep(2)")
    trial.stage.set("statement_timeout", "1s")
    trial.rides_out(trial.stage.start(), time.monotonic())
    trial.stage.reset("statement_timeout")
    no_more(trial)


def serialization_failure(trial: Trial) -> None:
    """The server asks to try the transaction again, once or twice."""
    raised = "RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'"
    on_insert(trial, raised, times=trial.chance.choice([1, 2]))
    outcome = trial.rides_out(trial.stage.start(), time.monotonic())
    assert outcome.attempts, "nothing happened"
    no_more(trial)


def deadlock(trial: Trial) -> None:
    """A chunk's transaction and another client's wait for each other; ours is the victim."""
    stage = trial.stage
    locked, other_done = threading.Event(), threading.Event()

    def hold() -> None:
        with stage.engine.begin() as other:
            other.exec_driver_sql("SET LOCAL deadlock_timeout = '30s'")
            other.exec_driver_sql("LOCK TABLE order_scores_runs IN EXCLUSIVE MODE")
            locked.set()
            waiting = "SELECT 1 FROM pg_locks WHERE relation = 'order_scores_runs'::regclass"
            waiting += " AND NOT granted"
            eventually(lambda: stage.sql(waiting) or process.over, "a chunk that waits")
            other.exec_driver_sql("UPDATE nightshift_shards SET rows_rejected = rows_rejected")
        other_done.set()

    process = stage.start(NIGHTSHIFT_DATABASE__LEASE="60")
    keeper = threading.Thread(target=hold)
    keeper.start()
    try:
        locked.wait(30)
        outcome = trial.rides_out(process, time.monotonic())
        assert outcome.attempts, "another was the victim"
    finally:
        keeper.join(60)
    assert other_done.is_set()


def long_lock(trial: Trial) -> None:
    """Another client keeps a lock that a chunk, or the run, needs: the run gives up in time."""
    stage, table = trial.stage, trial.chance.choice(("order_scores_runs", "nightshift_jobs"))
    stage.set("lock_timeout", "300ms")  # a minute, if the server does not say
    stage.engine.dispose()
    with held(stage.engine, f"LOCK TABLE {table} IN EXCLUSIVE MODE"):
        process = stage.start(NIGHTSHIFT_RETRIES="2")
        outcome = trial.gives_up(process, time.monotonic(), "DatabaseUnavailable")
    assert "lock timeout" in outcome.text, outcome
    trial.resumes()


@contextmanager
def held(engine: sa.Engine, statement: str) -> Iterator[None]:
    """Another client's transaction, which stays open."""
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
        yield


def backend_killed(trial: Trial) -> None:
    """kill -9 of one of the server's own processes: it restarts itself, all sessions are lost."""
    turn = trial.chance.choice(trial.world.under_way)

    def kill(_: ScoringProcess) -> None:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        query += " AND pid <> pg_backend_pid() AND application_name <> 'reader' ORDER BY pid"
        pids = [row[0] for row in trial.stage.sql(query)]
        os.kill(trial.chance.choice(pids), 9)

    process, struck = trial.stage.struck(turn, kill, **PATIENT)
    trial.strikes(process, struck)
    trial.stage.engine.dispose()
    trial.rides_out(process, time.monotonic())


# --- a full disk --------------------------------------------------------------------------------

SIZE = 16 * 1024**2


def disk_full(trial: Trial) -> None:
    """The disk of the predictions is full, or nearly so; then room is made."""
    place = small_disk(trial)
    try:
        trial.stage.sql("ALTER TABLE order_scores_runs SET TABLESPACE small")
        trial.stage.sql("ALTER INDEX order_scores_runs_pkey SET TABLESPACE small")
        trial.stage.sql("CHECKPOINT")
        ballast = place / "ballast"
        left = 8192 * trial.chance.randrange(4)
        with ballast.open("wb") as file:
            usage = os.statvfs(place)
            file.write(b"\0" * (usage.f_bavail * usage.f_frsize - left))
        process = trial.stage.start()
        outcome = trial.gives_up(process, time.monotonic(), "StatementFailed")
        assert "No space left on device" in outcome.text, outcome
        ballast.unlink()
        trial.resumes()
        for what in ("TABLE order_scores_runs", "INDEX order_scores_runs_pkey"):
            trial.stage.sql(f"ALTER {what} SET TABLESPACE pg_default")
    finally:
        unmount(trial, place)


def small_disk(trial: Trial) -> Path:
    """A file system of 16 MB, with a tablespace of the server's on it."""
    place = trial.world.postgres.folder.parent / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], check=True)
    data = place / "data"
    data.mkdir()
    owner = trial.world.postgres.folder.stat()
    os.chown(data, owner.st_uid, owner.st_gid)
    place.chmod(0o755)
    with trial.world.postgres.administrator() as server:
        server.exec_driver_sql(f"CREATE TABLESPACE small LOCATION '{data}'")
    return place


def unmount(trial: Trial, place: Path) -> None:
    (place / "ballast").unlink(missing_ok=True)
    for what in ("TABLE order_scores_runs", "INDEX order_scores_runs_pkey"):
        trial.stage.sql(f"ALTER {what} SET TABLESPACE pg_default")
    with trial.world.postgres.administrator() as server:
        server.exec_driver_sql("CHECKPOINT")  # files that were dropped go only then
        server.exec_driver_sql("DROP TABLESPACE small")
    subprocess.run(["umount", "-l", place], check=True)
    place.rmdir()


def may_mount(_: World) -> str | None:
    try:
        done = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    except FileNotFoundError:
        return "it needs the right to mount a file system"
    return None if done.returncode == 0 else "it needs the right to mount a file system"


FAULTS = (
    restarted("fast"),
    restarted("immediate"),
    Fault("PostgreSQL crashed, last commits lost", commits_lost, 10),
    Fault("a backend of PostgreSQL killed", backend_killed, 5),
    Fault("a connection cut", cut, 30, 3),
    Fault("all connections cut for a while", hung_up, 10),
    Fault("statement timeout", statement_timeout, 5),
    Fault("serialization failure", serialization_failure, 10),
    Fault("deadlock", deadlock, 5),
    Fault("a lock that is kept", long_lock, 10),
    Fault("disk full", disk_full, 5, needs=may_mount),
)
