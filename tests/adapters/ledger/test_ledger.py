"""A run has one owner, resumes where it stopped, and its rows and its ledger agree."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from backends import ALL_BACKENDS, Backend, request_of
from nightshift.adapters.errors import (
    KeyNotUnique,
    OwnershipLost,
    PartitionBusy,
    StatementFailed,
    TargetMismatch,
)
from nightshift.adapters.history.run_history import History
from nightshift.adapters.ledger import leases
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.runs import Run, RunState
from nightshift.adapters.target.predictions import PredictionTable

# The ledger is one and the same in both backends of PostgreSQL.
BACKENDS = ("fast", "lite")

HOST = socket.gethostname()


def process_here(pid: int) -> str:
    """A worker of this boot and namespace, of whom the system tells whether it is alive."""
    place = new_owner().rsplit(":", 1)[1].partition(".")[0]
    return f"{HOST}:{pid}:{place}.x"


def someone(name: str) -> str:
    """A worker on another machine, of whom only the ledger tells whether it is alive."""
    return f"elsewhere:1:{name}"


def chunk_of(*ids: int, values: list[float | None] | None = None) -> pa.Table:
    given = [id_ / 2 for id_ in ids] if values is None else values
    return pa.table({"id": pa.array(ids, pa.int64()), "prediction": pa.array(given, pa.float64())})


@pytest.fixture
def predictions(backend: Backend) -> PredictionTable:
    backend.numbers("t", 10)
    made = backend.predictions(backend.source(table="t"))
    made.create()
    return made


def everything(backend: Backend) -> dict[str, list[tuple[Any, ...]]]:
    """All that Nightshift keeps, to see that nothing has changed."""
    tables = ("jobs", "runs", "chunks", "published")
    found = {
        name: backend.rows(f"SELECT * FROM nightshift_{name} ORDER BY 1, 2") for name in tables
    }
    return {**found, "rows": backend.rows("SELECT * FROM scores_runs ORDER BY 1, 2")}


def state_of(backend: Backend, run: Run) -> str:
    ((state,),) = backend.rows(f"SELECT state FROM nightshift_runs WHERE run_id = {run.run_id}")
    return str(state)


def silence(backend: Backend, ledger: Ledger, run: Run, seconds: float) -> None:
    """Let the run's last sign of life be that long ago."""
    runs, shards = ledger.tables.runs, ledger.tables.shards
    with backend.engine.begin() as connection:
        past = datetime.now(UTC) - timedelta(seconds=seconds)
        for table, sign in ((runs, "heartbeat_at"), (shards, "written_at")):
            signs = sa.update(table).where(table.c.run_id == run.run_id)
            connection.execute(signs.values({sign: past}))


# --- beginning, resuming, taking over -----------------------------------------------------------


def test_a_new_run(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    start = datetime(2013, 10, 1, 4, tzinfo=UTC)
    run = ledger.begin(request_of("day", start, start + timedelta(days=1)), someone("a"))
    assert run == Run(run.run_id, someone("a"), RunState.RUNNING, chunks=0, rows=0, last_key=None)
    assert not run.resumed
    (record,) = History(ledger).runs()
    assert (record.run_id, record.job, record.partition) == (run.run_id, "job", "day")
    assert (record.state, record.rows, record.error) == (RunState.RUNNING, 0, None)
    assert abs(record.started_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert History(ledger).runs("job") == [record]
    assert History(ledger).runs("another") == []
    other = ledger.begin(request_of("other day", start), someone("b"))
    assert [line.run_id for line in History(ledger).runs()] == [other.run_id, run.run_id]
    assert len(History(ledger).runs(limit=1)) == 1


def test_a_failed_run_is_resumed_where_it_stopped(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    first = ledger.begin(request_of(), someone("a"))
    predictions.write(first, 0, chunk_of(0, 1, 2))
    predictions.write(first, 1, chunk_of(3, 4))
    ledger.fail(first, "the model is ill")
    (record,) = History(ledger).runs()
    assert (record.state, record.rows, record.error) == (RunState.FAILED, 5, "the model is ill")
    with pytest.raises(OwnershipLost):
        predictions.write(first, 2, chunk_of(5))
    again = ledger.begin(request_of(), someone("b"))
    assert again == Run(
        first.run_id, someone("b"), RunState.RUNNING, chunks=2, rows=5, last_key="[4]"
    )
    assert again.resumed
    assert predictions.source.decode_key(again.last_key or "") == (4,)
    assert History(ledger).runs()[0].error is None
    predictions.write(again, 2, chunk_of(5))
    ledger.score(again)
    ledger.publish(again)
    assert backend.view() == {id_: id_ / 2 for id_ in range(6)}


def test_withdrawn_shards_have_no_owner_until_the_run_is_started_again(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    run = ledger.begin(request_of(), someone("a"))
    mine = ledger.take(run, 0, someone("worker")).progress
    predictions.write(mine, 0, chunk_of(0, 1))
    ledger.withdraw(run)
    with pytest.raises(OwnershipLost):
        predictions.write(mine, 1, chunk_of(2))
    with pytest.raises(OwnershipLost):
        ledger.take(run, 0, someone("another"))
    again = ledger.begin(request_of(), someone("a"))
    assert (again.run_id, again.rows) == (run.run_id, 2)
    predictions.write(ledger.take(again, 0, someone("another")).progress, 1, chunk_of(2))
    later = ledger.begin(request_of("other"), someone("a"))
    ledger.fail(later, "stopped")
    ledger.begin(request_of("other"), someone("b"))
    with pytest.raises(OwnershipLost):  # it is not this one's to withdraw
        ledger.withdraw(later)


def test_only_a_run_with_the_same_fingerprint_is_resumed(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    first = ledger.begin(request_of(), someone("a"))
    predictions.write(first, 0, chunk_of(0))
    ledger.fail(first, "stopped")
    second = ledger.begin(request_of(fingerprint="two"), someone("b"))
    assert second.run_id != first.run_id
    assert (second.chunks, second.rows, second.last_key) == (0, 0, None)
    ledger.fail(second, "stopped")
    again = ledger.begin(request_of(fingerprint="two"), someone("c"))
    assert again.run_id == second.run_id
    # Published, it is over: the same request starts a new run.
    ledger.score(again)
    ledger.publish(again)
    assert ledger.begin(request_of(fingerprint="two"), someone("c")).run_id != second.run_id


def test_a_run_older_than_another_is_not_resumed(
    backend: Backend, predictions: PredictionTable
) -> None:
    """Last month it failed half way; then came another model, and now the old one is back."""
    ledger = predictions.ledger
    old = ledger.begin(request_of(), someone("a"))
    predictions.write(old, 0, chunk_of(0))
    ledger.fail(old, "stopped")
    other = ledger.begin(request_of(fingerprint="two"), someone("b"))
    ledger.score(other)
    ledger.publish(other)
    new = ledger.begin(request_of(), someone("c"))
    assert new.run_id not in {old.run_id, other.run_id}
    assert not new.resumed


def test_a_new_run_is_started_when_asked(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    owner = new_owner()
    old = ledger.begin(request_of(), owner)
    predictions.write(old, 0, chunk_of(0))
    new = ledger.begin(request_of(), owner, resume=False)
    assert new.run_id != old.run_id
    assert (new.chunks, new.rows, new.last_key) == (0, 0, None)
    assert state_of(backend, old) == RunState.FAILED
    with pytest.raises(OwnershipLost):
        predictions.write(old, 1, chunk_of(1))
    predictions.write(new, 0, chunk_of(0))
    assert ledger.begin(request_of(), owner).run_id == new.run_id
    with pytest.raises(PartitionBusy):
        ledger.begin(request_of(), someone("b"), resume=False)


def test_a_living_owner_is_not_disturbed(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    run = ledger.begin(request_of(), someone("a"))
    silence(backend, ledger, run, ledger.lease - 5)
    before = everything(backend)
    for fingerprint in ("one", "two"):
        with pytest.raises(PartitionBusy) as caught:
            ledger.begin(request_of(fingerprint=fingerprint), someone("b"))
        error = caught.value
        assert (error.job, error.partition, error.run_id) == ("job", "all", run.run_id)
        assert error.owner == someone("a")
        assert abs(error.seconds - ledger.lease + 5) < 4
    assert everything(backend) == before
    assert ledger.begin(request_of("another partition"), someone("b"))
    predictions.write(run, 0, chunk_of(0))


def test_the_same_owner_goes_on(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    owner = new_owner()
    first = ledger.begin(request_of(), owner)
    predictions.write(first, 0, chunk_of(0))
    again = ledger.begin(request_of(), owner)
    assert again == Run(first.run_id, owner, RunState.RUNNING, chunks=1, rows=1, last_key="[0]")
    other = ledger.begin(request_of(fingerprint="two"), owner)
    assert other.run_id != first.run_id
    assert state_of(backend, first) == RunState.FAILED


def test_an_owner_silent_for_its_lease_is_taken_over(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    first = ledger.begin(request_of(), someone("a"))
    predictions.write(first, 0, chunk_of(0))
    silence(backend, ledger, first, ledger.lease + 1)
    second = ledger.begin(request_of(), someone("b"))
    assert second == Run(
        first.run_id, someone("b"), RunState.RUNNING, chunks=1, rows=1, last_key="[0]"
    )
    silence(backend, ledger, second, ledger.lease + 1)
    third = ledger.begin(request_of(fingerprint="two"), someone("c"))
    assert third.run_id != first.run_id
    record = History(ledger).runs()[1]
    assert (record.state, record.error) == (RunState.FAILED, f"abandoned by {someone('b')}")


def test_a_dead_process_is_taken_over_at_once(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = predictions.ledger
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    first = ledger.begin(request_of(), process_here(child.pid))
    assert ledger.begin(request_of(), new_owner()).run_id == first.run_id
    for alive in (
        process_here(1),
        process_here(os.getpid()),
        f"{HOST}:{child.pid}:x",  # another boot, or namespace
        f"elsewhere:{child.pid}:x",
    ):
        ledger.begin(request_of(alive), alive)
        with pytest.raises(PartitionBusy):
            ledger.begin(request_of(alive), new_owner())


def test_a_zombie_changes_nothing(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    zombie = ledger.begin(request_of(), someone("zombie"))
    predictions.write(zombie, 0, chunk_of(0))
    silence(backend, ledger, zombie, ledger.lease + 1)
    heir = ledger.begin(request_of(), someone("heir"))

    def rise() -> None:
        before = everything(backend)
        for attempt in (
            lambda: predictions.write(zombie, 1, chunk_of(1)),
            lambda: predictions.write(zombie, 0, chunk_of(0)),
            lambda: ledger.score(zombie),
            lambda: ledger.publish(zombie),
            lambda: ledger.fail(zombie, "I lost it"),
        ):
            with pytest.raises(OwnershipLost) as caught:
                attempt()
            assert caught.value.run_id == zombie.run_id
            assert everything(backend) == before

    rise()
    predictions.write(heir, 1, chunk_of(1))
    rise()
    ledger.score(heir)
    rise()
    ledger.publish(heir)
    rise()
    assert backend.view() == {0: 0.0, 1: 0.5}


def test_a_zombie_with_a_scored_run_publishes_no_old_model(
    backend: Backend, predictions: PredictionTable
) -> None:
    """It slept before publishing; another model has since scored the partition."""
    ledger = predictions.ledger
    zombie = ledger.begin(request_of(), someone("zombie"))
    predictions.write(zombie, 0, chunk_of(0))
    ledger.score(zombie)
    silence(backend, ledger, zombie, ledger.lease + 1)
    heir = ledger.begin(request_of(fingerprint="two", version=2), someone("heir"))
    predictions.write(heir, 0, chunk_of(0, values=[2.0]))
    ledger.score(heir)
    ledger.publish(heir)
    with pytest.raises(OwnershipLost):
        ledger.publish(zombie)
    assert backend.view() == {0: 2.0}
    with pytest.raises(OwnershipLost):  # nor by trying again: it still has the old one in its hands
        ledger.begin(request_of(), someone("zombie"))
    assert backend.ledger().begin(request_of(), someone("new")).run_id not in {
        zombie.run_id,
        heir.run_id,
    }


def test_a_scored_run_needs_only_publishing(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    first = ledger.begin(request_of(), someone("a"))
    predictions.write(first, 0, chunk_of(0))
    ledger.score(first)
    with pytest.raises(PartitionBusy):  # its audit is under way
        ledger.begin(request_of(), someone("b"))
    silence(backend, ledger, first, ledger.lease + 1)
    second = ledger.begin(request_of(), someone("b"))
    assert second == Run(
        first.run_id, someone("b"), RunState.SCORED, chunks=1, rows=1, last_key="[0]"
    )
    with pytest.raises(OwnershipLost):
        predictions.write(second, 1, chunk_of(1))
    ledger.fail(second, "the audit stopped")
    third = ledger.begin(request_of(), someone("c"))  # at once: it has said that it is not alive
    assert third == Run(
        first.run_id, someone("c"), RunState.SCORED, chunks=1, rows=1, last_key="[0]"
    )
    ledger.publish(third)
    assert History(ledger).runs()[0].scored_at is not None


# --- chunks -------------------------------------------------------------------------------------


def test_a_chunk_out_of_its_turn_is_refused(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    run = ledger.begin(request_of(), someone("a"))
    for chunk in (1, 5, -1):
        before = everything(backend)
        with pytest.raises(OwnershipLost):
            predictions.write(run, chunk, chunk_of(7))
        assert everything(backend) == before
    predictions.write(run, 0, chunk_of(0))
    before = everything(backend)
    for chunk in (0, 2):
        with pytest.raises(OwnershipLost):
            predictions.write(run, chunk, chunk_of(7))
    assert everything(backend) == before
    predictions.write(run, 1, chunk_of(1))


def test_what_a_chunk_leaves_in_the_ledger(backend: Backend, predictions: PredictionTable) -> None:
    run = predictions.ledger.begin(request_of(), someone("a"))
    predictions.write(run, 0, chunk_of(0, 1, 2))
    predictions.write(run, 1, chunk_of(5))
    found = backend.rows(
        f"SELECT run_id, shard, chunk, first_key, last_key, {backend.quote('rows')}"
        " FROM nightshift_chunks ORDER BY 3"
    )
    assert found == [(run.run_id, 0, 0, "[0]", "[2]", 3), (run.run_id, 0, 1, "[5]", "[5]", 1)]
    assert backend.rows("SELECT chunks_written, rows_written FROM nightshift_shards") == [(2, 4)]


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
def test_a_chunk_that_fails_leaves_nothing(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    run = ledger.begin(request_of(), someone("a"))
    predictions.write(run, 0, chunk_of(0, 1))
    before = everything(backend)
    with pytest.raises(KeyNotUnique, match=r"between \[2\] and \[2\] appears twice"):
        predictions.write(run, 1, chunk_of(2, 3, 2))
    assert everything(backend) == before
    with pytest.raises(KeyNotUnique):
        predictions.write(run, 1, chunk_of(2, 1))
    assert everything(backend) == before
    predictions.write(run, 1, chunk_of(2, 3))
    ledger.score(run)
    ledger.publish(run)
    assert backend.view() == {id_: id_ / 2 for id_ in range(4)}


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
def test_a_missing_value_is_no_duplicate_key(backend: Backend) -> None:
    backend.numbers("t", 1)
    predictions = backend.predictions(backend.source(table="t"))
    required = predictions.outputs[0].model_copy(update={"nullable": False})
    predictions = backend.predictions_class(
        backend.ledger(), backend.source(table="t"), "scores", [required]
    )
    predictions.create()
    run = predictions.ledger.begin(request_of(), someone("a"))
    before = everything(backend)
    with pytest.raises(StatementFailed, match=r"(?i)not.null") as caught:
        predictions.write(run, 0, chunk_of(0, values=[None]))
    assert "scores_runs" in str(caught.value)
    assert everything(backend) == before


# --- the target belongs to one job --------------------------------------------------------------


def test_a_target_is_one_job_s_for_good(backend: Backend, predictions: PredictionTable) -> None:
    ledger = predictions.ledger
    ledger.begin(request_of(), someone("a"))
    before = everything(backend)
    with pytest.raises(TargetMismatch, match="belongs to job 'job'"):
        ledger.begin(request_of(job="thief"), someone("b"))
    with pytest.raises(TargetMismatch, match="'job' writes to 'scores'"):
        ledger.begin(request_of(target="elsewhere"), someone("b"))
    ledger.begin(request_of(job="thief", target="elsewhere"), someone("b"))
    with pytest.raises(TargetMismatch):
        ledger.begin(request_of(job="thief", target="scores"), someone("b"))
    assert everything(backend)["published"] == before["published"]


# --- signs of life ------------------------------------------------------------------------------


def heartbeat(backend: Backend) -> Any:
    ((found,),) = backend.rows("SELECT heartbeat_at FROM nightshift_runs")
    return found


@contextmanager
def alive(ledger: Ledger, run: Run) -> Iterator[None]:
    """Kept alive, and without a thread left over."""
    with ledger.keep_alive(run):
        yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heartbeat")]


def until(true: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_heartbeats_are_renewed(backend: Backend, predictions: PredictionTable) -> None:
    ledger = backend.ledger(lease=0.2)
    run = ledger.begin(request_of(), someone("a"))
    before = heartbeat(backend)
    with alive(ledger, run):
        until(lambda: heartbeat(backend) != before)
        first = heartbeat(backend)
        until(lambda: heartbeat(backend) != first)
        # A reader, a chunk's commit and other statements of this worker do not stop them.
        for number in range(10):
            predictions.write(run, number, chunk_of(number))
    stopped = heartbeat(backend)
    time.sleep(0.15)
    assert heartbeat(backend) == stopped
    assert stopped > first


def test_a_heartbeat_never_brings_a_run_back(
    backend: Backend, predictions: PredictionTable
) -> None:
    ledger = backend.ledger(lease=0.1)
    zombie = ledger.begin(request_of(), someone("zombie"))
    with alive(ledger, zombie):
        patient = backend.ledger(lease=-1)
        heir = patient.begin(request_of(), someone("heir"))
        taken = heartbeat(backend)
        time.sleep(0.2)
        assert heartbeat(backend) == taken
        ledger.fail(heir, "stopped")
        time.sleep(0.1)
        assert state_of(backend, heir) == RunState.FAILED


def test_a_chunk_longer_than_the_lease_is_a_sign_of_life(fast: Backend) -> None:
    """Its transaction holds the run's row, so no heartbeat gets through until its commit."""
    fast.numbers("t", 10)
    fast.predictions(fast.source(table="t")).create()
    ledger = fast.ledger()
    run = ledger.begin(request_of(), someone("a"))
    silence(fast, ledger, run, ledger.lease + 1)
    with fast.engine.begin() as connection:
        ledger.record_chunk(connection, run, 0, ("[0]", "[0]"), 1)
        with pytest.raises(PartitionBusy):
            ledger.begin(request_of(), someone("b"))
    with pytest.raises(PartitionBusy):
        ledger.begin(request_of(), someone("b"))
    silence(fast, ledger, run, ledger.lease + 1)
    assert ledger.begin(request_of(), someone("b")).chunks == 1


def test_a_heartbeat_does_not_wait_for_a_chunk_under_way(fast: Backend) -> None:
    fast.numbers("t", 10)
    fast.predictions(fast.source(table="t")).create()
    ledger = fast.ledger(lease=0.2)
    run = ledger.begin(request_of(), someone("a"))
    with alive(ledger, run), fast.engine.begin() as connection:
        ledger.record_chunk(connection, run, 0, ("[0]", "[0]"), 1)
        before = heartbeat(fast)
        until(lambda: heartbeat(fast) > before)


def test_a_take_over_waits_for_the_chunk_under_way(postgres_backend: Backend) -> None:
    """What the former owner is still committing counts; nothing is written twice or left out."""
    backend = postgres_backend
    backend.numbers("t", 10)
    predictions = backend.predictions(backend.source(table="t"))
    predictions.create()
    ledger = predictions.ledger
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    for ending in ("commit", "rollback"):
        zombie = ledger.begin(request_of(ending), process_here(child.pid))  # and it is dead
        taken: list[Run] = []
        taker = threading.Thread(
            target=lambda where, into: into.append(ledger.begin(request_of(where), someone("b"))),
            args=(ending, taken),
        )
        with backend.engine.connect() as connection:
            ledger.record_chunk(connection, zombie, 0, ("[0]", "[0]"), 1)
            predictions._insert(connection, chunk_of(0).add_column(0, "run_id", [[zombie.run_id]]))
            taker.start()
            time.sleep(0.2)
            assert not taken
            getattr(connection, ending)()
        taker.join(10)
        assert taken[0].chunks == (1 if ending == "commit" else 0)
        assert taken[0].run_id == zombie.run_id
        predictions.write(taken[0], taken[0].chunks, chunk_of(1))
    assert backend.rows("SELECT count(*) FROM scores_runs") == [(3,)]


def test_owners_differ() -> None:
    assert new_owner() != new_owner()
    host, pid, _ = new_owner().rsplit(":", 2)
    assert (host, int(pid)) == (HOST, os.getpid())
    assert RunState.PUBLISHED != RunState.SCORED


def test_a_process_is_judged_by_its_pid_only_where_that_means_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    host, _, token = new_owner().rsplit(":", 2)
    owner = f"{host}:{gone}:{token}"
    assert leases.is_dead(owner)
    assert not leases.is_alive(owner, silent=0, lease=60)
    elsewhere = f"{host}:{gone}:{'0' * 8}.{token.partition('.')[2]}"  # another namespace, or boot
    assert not leases.is_dead(elsewhere)
    assert leases.is_alive(elsewhere, silent=0, lease=60)
    assert not leases.is_alive(elsewhere, silent=61, lease=60)
    monkeypatch.setattr(leases, "_place", lambda: "")  # a system that does not say
    assert not leases.is_dead(f"{host}:{gone}:.{token}")
