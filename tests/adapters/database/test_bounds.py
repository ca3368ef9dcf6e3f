"""Nothing is waited for without end: locks, processes that stand still, clocks that were set."""

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from backends import Backend, request_of, sign
from nightshift.adapters.database import watchdog
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.errors import DatabaseUnavailable, OwnershipLost, PartitionBusy
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.source.columns import ALL_KEYS
from waiting import eventually

psutil = pytest.importorskip("psutil")

BOUNDS = "SELECT setting FROM pg_settings WHERE name IN ('lock_timeout', '{}') ORDER BY name"
IDLE = "idle_in_transaction_session_timeout"
A_MINUTE = [("60000",), ("60000",)]


def test_a_session_waits_no_longer_than_a_minute(fast: Backend) -> None:
    assert fast.rows(BOUNDS.format(IDLE)) == A_MINUTE
    with fast.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        connection.invalidate()
    assert fast.rows(BOUNDS.format(IDLE)) == A_MINUTE


def test_what_the_operator_has_set_stays(fast: Backend) -> None:
    for setting, value in (("lock_timeout", "7s"), (IDLE, "9s")):
        fast.execute(f"ALTER DATABASE {fast.engine.url.database} SET {setting} = '{value}'")
    fast.engine.dispose()
    assert fast.rows(BOUNDS.format(IDLE)) == [("9000",), ("7000",)]
    url = fast.engine.url.update_query_dict({"keepalives_idle": "77"})
    engine = open_engine(url)
    with engine.connect() as connection:
        parameters = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
    engine.dispose()
    assert parameters["keepalives_idle"] == "77"
    assert parameters["keepalives_count"] == "3"
    assert parameters["tcp_user_timeout"] == "120000"


def test_a_transaction_that_stands_still_is_ended(fast: Backend) -> None:
    """Taking over a run waits for its chunk's transaction: so it must not last for ever."""
    fast.ledger().create()
    fast.execute(f"ALTER DATABASE {fast.engine.url.database} SET {IDLE} = '50ms'")
    fast.engine.dispose()
    ledger = fast.ledger(lease=0)
    run = ledger.begin(request_of(), "elsewhere:1:a")

    def taken_over() -> bool:
        try:
            ledger.begin(request_of(), "elsewhere:1:b")
        except PartitionBusy:
            return False
        return True

    def stand_still() -> None:
        with translate_errors(fast.engine, "to write"), fast.engine.begin() as connection:
            ledger.record_chunk(connection, run, 0, ("[0]", "[0]"), 1)
            end = time.monotonic() + 30
            while not taken_over():
                assert time.monotonic() < end
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(DatabaseUnavailable, match="idle-in-transaction timeout"):
        stand_still()
    assert fast.rows("SELECT count(*) FROM nightshift_chunks") == [(0,)]


@contextmanager
def watched(engine: sa.Engine) -> Iterator[None]:
    """From when the watch has its connection on."""
    connected = threading.Event()
    sa.event.listen(engine, "checkout", lambda *_: connected.set())
    with watchdog.watch(engine):
        assert connected.wait(60)
        yield


@contextmanager
def stopped(backend: Backend) -> Iterator[None]:
    """All of the server's processes stand still."""
    if backend.is_mysql:
        folder = Path(str(backend.engine.url.query["unix_socket"])).parent
        server = psutil.Process(int((folder / "pid").read_text()))
    else:
        ((pid,),) = backend.rows("SELECT pg_backend_pid()")
        server = psutil.Process(psutil.Process(pid).ppid())
    family = [server, *server.children()]
    for process in family:
        process.suspend()
    eventually(lambda: {process.status() for process in family} == {psutil.STATUS_STOPPED})
    try:
        yield
    finally:
        for process in family:
            process.resume()


@pytest.mark.heavy
@pytest.mark.parametrize("backend", ["fast", "maria"], indirect=True)
def test_a_server_that_stands_still_is_given_up(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine still acknowledges what is sent, so that the network tells nothing."""
    monkeypatch.setattr(watchdog, "PATIENCE", 1.0)
    backend.ledger().create()
    engine = open_engine(backend.engine.url, connect_timeout=1)
    ledger = Ledger(engine, lease=0.2)
    run = ledger.begin(request_of(), "elsewhere:1:a")
    with (
        engine.connect() as connection,
        watched(engine),
        stopped(backend),
        pytest.raises(DatabaseUnavailable),
        translate_errors(engine, "to answer"),
    ):
        connection.exec_driver_sql("SELECT 1")
    assert ledger.begin(request_of(), "elsewhere:1:a").run_id == run.run_id
    engine.dispose()


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["double precision", "text"])
def test_a_source_that_stands_still_between_rows_is_given_up(
    fast: Backend, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever driver waits for it."""
    monkeypatch.setattr(watchdog, "PATIENCE", 1.0)
    fast.execute(
        f"CREATE TABLE t (id bigint PRIMARY KEY, x {kind})",
        f"INSERT INTO t SELECT i, i::{kind} FROM generate_series(1, 2000000) AS i",
    )
    source = fast.source(table="t")
    inputs = sign({"x": "string" if kind == "text" else "float64"})
    with (
        source.snapshot(inputs, None, None) as snapshot,
        closing(snapshot.chunks(ALL_KEYS, 999)) as rows,
    ):
        next(rows)
        with watched(fast.engine), stopped(fast), pytest.raises(DatabaseUnavailable):
            deque(rows, maxlen=0)


def test_a_server_without_a_place_for_another_is_not_silent(
    fast: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is connected already goes on."""
    monkeypatch.setattr(watchdog, "PATIENCE", 0.1)
    fast.execute("CREATE ROLE crowded LOGIN CONNECTION LIMIT 1")
    engine = open_engine(fast.engine.url.set(username="crowded"))
    refused: list[object] = []
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        sa.event.listen(engine, "handle_error", refused.append)
        with watchdog.watch(engine):
            eventually(lambda: len(refused) > 3)
        connection.exec_driver_sql("SELECT 1")
    engine.dispose()
    fast.execute("DROP ROLE crowded")


def test_a_server_that_does_not_greet() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        url = f"mariadb://someone@127.0.0.1:{silent.getsockname()[1]}/db"
        engine = open_engine(url, connect_timeout=1)
        with pytest.raises(DatabaseUnavailable), translate_errors(engine, "to greet"):
            engine.connect()


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_run_of_another_time_is_taken_over(backend: Backend, hours: int) -> None:
    """The database's clock was set while no process was running: forward, or back."""
    ledger = backend.ledger()
    ledger.create()
    first = ledger.begin(request_of(), "elsewhere:1:a")
    tables = ledger.tables
    with backend.engine.begin() as connection:
        now = ledger.now(connection)
        then = now + timedelta(hours=hours)
        connection.execute(tables.runs.update().values(heartbeat_at=then))
        connection.execute(tables.shards.update().values(written_at=then))
    assert ledger.begin(request_of(), "elsewhere:1:b").run_id == first.run_id


def test_a_run_that_the_database_has_lost(backend: Backend) -> None:
    """In a crash without its last commits, or by a server that took over from another."""
    ledger = backend.ledger()
    ledger.create()
    run = ledger.begin(request_of(), "elsewhere:1:a")
    backend.execute("DELETE FROM nightshift_shards", "DELETE FROM nightshift_runs")
    for step in (ledger.score, ledger.publish, ledger.fail):
        with pytest.raises(OwnershipLost):
            step(run, "lost") if step == ledger.fail else step(run)  # type: ignore[operator]
    assert ledger.begin(request_of(), "elsewhere:1:a").chunks == 0
