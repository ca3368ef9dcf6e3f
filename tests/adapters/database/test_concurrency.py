"""Many at once: one gets the run, tables are made once, a job has one target."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pyarrow as pa
import pytest

from backends import Backend, request_of, sign
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import (
    AlreadyPublished,
    OwnershipLost,
    PartitionBusy,
    TargetMismatch,
)
from nightshift.adapters.history.run_history import History
from nightshift.adapters.ledger.ledger import Ledger

# The ledger is one and the same in both backends of PostgreSQL.
BACKENDS = ("fast", "lite")

WORKERS = 8


def at_once(work: Callable[[int], Any], workers: int = WORKERS) -> list[Any]:
    """What each worker returned, or the error it raised; all begin at the same moment."""
    barrier = threading.Barrier(workers)

    def begin(number: int) -> Any:
        barrier.wait(30)
        try:
            return work(number)
        except (PartitionBusy, OwnershipLost, TargetMismatch) as error:
            return error

    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(begin, range(workers)))


def test_one_of_many_gets_the_run(backend: Backend) -> None:
    backend.numbers("t", 1)
    backend.predictions(backend.source(table="t")).create()
    ledger = backend.ledger()
    for number in range(10):
        request = request_of(f"partition {number}")
        found = at_once(
            lambda worker, request=request: ledger.begin(request, f"elsewhere:1:{worker}")
        )
        got = [run for run in found if not isinstance(run, Exception)]
        assert len(got) == 1
        assert [type(lost) for lost in found if lost not in got] == [PartitionBusy] * (WORKERS - 1)
    assert len(History(ledger).runs(limit=100)) == 10


def test_one_of_many_takes_over(backend: Backend) -> None:
    backend.numbers("t", 1)
    backend.predictions(backend.source(table="t")).create()
    ledger = backend.ledger()
    for number in range(5):
        request = request_of(f"partition {number}")
        backend.ledger(lease=-1).begin(request, "elsewhere:1:dead")
        long_ago = "'2001-01-01 00:00:00.000000'"
        backend.execute(
            f"UPDATE nightshift_runs SET heartbeat_at = {long_ago} WHERE state = 'running'",
            f"UPDATE nightshift_shards SET written_at = {long_ago}",
        )
        found = at_once(
            lambda worker, request=request: ledger.begin(request, f"elsewhere:1:{worker}")
        )
        got = [run for run in found if not isinstance(run, Exception)]
        assert len(got) == 1
        ledger.fail(got[0], "stopped")
    assert len(History(ledger).runs(limit=100)) == 5


_CHILD = """
import json, sys
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.runs import RunRequest
from nightshift.adapters.errors import PartitionBusy

engine = open_engine(sys.argv[1])
ledger, won = Ledger(engine), []
ledger.exists()
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    request = RunRequest("job", "scores", str(number), None, None, "m", 1, "d", "f")
    try:
        won.append([number, ledger.begin(request, new_owner()).run_id])
    except PartitionBusy:
        pass
print(json.dumps(won), flush=True)
sys.stdin.readline()
engine.dispose()
"""


@pytest.mark.parametrize("place", ["fast", "lite"])
def test_one_of_many_processes_gets_the_run(place: str, request: pytest.FixtureRequest) -> None:
    backend: Backend = request.getfixturevalue(place)
    backend.ledger().create()
    url = backend.engine.url.render_as_string(hide_password=False)
    count = 40
    command = [sys.executable, "-c", _CHILD, url, str(count)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        won = [pair for child in children for pair in json.loads(child.stdout.readline())]
    finally:
        for child in children:
            child.communicate("end\n")
    assert sorted(number for number, _ in won) == list(range(count))
    assert len({run_id for _, run_id in won}) == count
    assert all(child.returncode == 0 for child in children)


_LEDGER = (
    "schema_version", "backfill_partitions", "backfills", "publication_changes", "published",
    "rejects", "chunks", "shards", "runs", "jobs",
)  # fmt: skip


def test_tables_are_made_once(backend: Backend) -> None:
    """Each worker with an engine of its own, as in processes of their own; two jobs at once."""
    backend.numbers("t", 1)
    for attempt in range(3):
        targets = [f"scores_{attempt}_{job}" for job in range(2)]

        def create(number: int, targets: list[str] = targets) -> None:
            engine = open_engine(backend.engine.url)
            own = Backend(backend.name, engine, backend.source_class, backend.predictions_class)
            try:
                own.predictions(own.source(table="t"), targets[number % 2], index_key=True).create()
            finally:
                engine.dispose()

        assert at_once(create) == [None] * WORKERS
        for target in targets:
            assert backend.view(target) == {}
        cascade = "CASCADE" if backend.is_postgres else ""
        backend.execute(*(f"DROP TABLE nightshift_{name} {cascade}" for name in _LEDGER))


def test_one_job_gets_the_target(backend: Backend) -> None:
    backend.ledger().create()
    ledger = backend.ledger()
    found = at_once(lambda n: ledger.begin(request_of(job=f"job {n}"), f"elsewhere:1:{n}"))
    assert sum(not isinstance(run, Exception) for run in found) == 1
    assert {type(lost) for lost in found if isinstance(lost, Exception)} == {TargetMismatch}
    assert len(backend.rows("SELECT * FROM nightshift_jobs")) == 1


def test_many_partitions_are_published_at_once(backend: Backend) -> None:
    """Of one job; also in one another's range. Each row is then there once, from the newest run."""
    backend.numbers("t", WORKERS)
    predictions = backend.predictions(backend.source(table="t"))
    predictions.create()
    ledger = predictions.ledger
    runs = []
    for number in range(WORKERS):
        run = ledger.begin(request_of(f"again {number}"), f"elsewhere:1:{number}")
        for chunk in backend.read(predictions.source):
            backend.write(predictions, run, 0, chunk, lambda row, number=number: number)
        ledger.score(run)
        runs.append(run)

    def publish(number: int) -> None:
        with suppress(AlreadyPublished):  # by a newer one
            ledger.publish(runs[number])

    assert at_once(publish) == [None] * WORKERS
    newest = runs[-1].run_id
    assert backend.rows("SELECT run_id FROM nightshift_published") == [(newest,)]
    states = dict(backend.rows("SELECT run_id, state FROM nightshift_runs"))
    assert states.pop(newest) == "published"
    assert set(states.values()) == {"superseded"}
    assert backend.view() == dict.fromkeys(range(WORKERS), WORKERS - 1)


def test_partitions_side_by_side_do_not_wait_for_one_another(backend: Backend) -> None:
    """Each holds a connection to read, and needs one more to write and one for its heartbeat."""
    backend.numbers("t", 3)
    predictions = backend.predictions(backend.source(table="t"))
    predictions.create()
    ledger = predictions.ledger
    chunk = pa.table({"id": [0], "prediction": [0.5]})
    with ExitStack() as reading:
        for number in range(20):
            run = ledger.begin(request_of(str(number)), f"elsewhere:1:{number}")
            snapshot = predictions.source.snapshot(sign(), None, None)
            assert reading.enter_context(snapshot).count() == 3
            predictions.write(run, 0, chunk)


def test_a_server_with_stricter_transactions(fast: Backend) -> None:
    """Of a stricter default, a worker would not see what the last holder of a lock committed."""
    name = fast.engine.url.database
    fast.numbers("t", 1)
    fast.predictions(fast.source(table="t")).create()
    fast.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    fast.engine.dispose()
    ledger = Ledger(fast.engine)
    for number in range(10):
        request = request_of(f"partition {number}")
        found = at_once(
            lambda worker, request=request: ledger.begin(request, f"elsewhere:1:{worker}")
        )
        assert sum(not isinstance(run, Exception) for run in found) == 1
    assert len(History(ledger).runs(limit=100)) == 10
