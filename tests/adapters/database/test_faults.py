"""Whatever breaks: an error that tells whether to try again, and the same rows after that."""

import pickle
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from backends import Backend, request_of, sign
from nightshift.adapters.backends.registry import predictions_class, source_class
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    KeyNotUnique,
    NightshiftError,
    StatementFailed,
)
from nightshift.adapters.history.run_history import History
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.runs import Run
from nightshift.adapters.source.columns import ALL_KEYS
from nightshift.adapters.target.predictions import PredictionTable
from wire import Wire

ROWS = 10


def backend_at(url: sa.URL | str, connect_timeout: int = 10) -> Backend:
    engine = open_engine(url, connect_timeout)
    return Backend("fast", engine, source_class(engine), predictions_class(engine))


def persist(predictions: PredictionTable, owner: str, attempts: int = 3) -> Run:
    """Score and publish the whole table as the flow does: again after what may pass."""
    backend = backend_of(predictions)

    def again(step: Callable[[], Any]) -> Any:
        for attempt in range(attempts):
            try:
                return step()
            except DatabaseUnavailable:
                if attempt == attempts - 1:
                    raise
        return None

    run: Run = again(
        lambda: backend.score(predictions, request_of(), publish=False, rows=4, owner=owner)
    )
    again(lambda: predictions.ledger.publish(run))
    return run


def backend_of(predictions: PredictionTable) -> Backend:
    return Backend("any", predictions.engine, type(predictions.source), type(predictions))


def check_all(backend: Backend) -> None:
    """Readers see each row once, and the ledger counts what is there."""
    assert backend.view() == {id_: id_ / 2 for id_ in range(ROWS)}
    progress = "SELECT rows_written, chunks_written, state FROM nightshift_shards"
    assert backend.rows(f"{progress} JOIN nightshift_runs USING (run_id)") == [
        (ROWS, 3, "published")
    ]
    assert backend.rows(
        f"SELECT count(*), sum({backend.quote('rows')}) FROM nightshift_chunks"
    ) == [(3, ROWS)]
    assert backend.rows("SELECT count(*) FROM scores_runs") == [(ROWS,)]


def clear(backend: Backend) -> None:
    names = ("published", "publication_changes", "rejects", "chunks", "shards", "runs", "jobs")
    tables = (f"nightshift_{name}" for name in names)
    backend.execute(*(f"DELETE FROM {name}" for name in (*tables, "scores_runs")))


# --- the wire is cut ----------------------------------------------------------------------------


@pytest.fixture
def wire(database: sa.URL) -> Iterator[Wire]:
    """A wire to the server, in a folder with a path short enough for a socket."""
    server = Path(str(database.query["host"])) / ".s.PGSQL.5432"
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        wire = Wire(Path(folder), server)
        yield wire
        wire.stop()


@pytest.fixture
def wired(wire: Wire, database: sa.URL) -> Iterator[Backend]:
    """PostgreSQL's backend, over the wire."""
    backend = backend_at(database.update_query_dict({"host": str(wire.folder)}))
    yield backend
    backend.engine.dispose()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_of_unknown_outcome(wired: Backend, wire: Wire, fast: Backend, when: str) -> None:
    """The wire is cut at each commit in turn; "after", the server has carried it out."""
    fast.numbers("t", ROWS)
    predictions = wired.predictions(wired.source(table="t"))
    predictions.create()
    commits = 0

    def cut(number: int, data: bytes) -> str | None:
        nonlocal commits
        commits += b"COMMIT" in data
        return when if b"COMMIT" in data and commits == turn else None

    turn = 0
    while turn == 0 or wire.cuts:
        turn += 1
        clear(fast)
        commits, wire.cuts, wire.cut = 0, 0, cut
        persist(predictions, new_owner())
        check_all(fast)
    assert turn > 6  # to begin, three chunks, to end and to publish, and those of readers


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_wire_cut_anywhere(wired: Backend, wire: Wire, fast: Backend, when: str) -> None:
    fast.numbers("t", ROWS)
    predictions = wired.predictions(wired.source(table="t"))
    predictions.create()
    first = next(wire.messages)
    persist(predictions, new_owner())
    messages = next(wire.messages) - first
    assert messages > 50
    for turn in range(3, messages, messages // 7):
        clear(fast)
        started = next(wire.messages)
        wire.cuts = 0
        wire.cut = lambda number, _, at=started + turn: when if number == at else None  # type: ignore[misc]
        persist(predictions, new_owner())
        check_all(fast)
        assert wire.cuts == 1


def test_a_server_that_is_gone(wired: Backend, wire: Wire, fast: Backend) -> None:
    fast.numbers("t", ROWS)
    predictions = wired.predictions(wired.source(table="t"))
    predictions.create()
    ledger, source = predictions.ledger, predictions.source
    run = ledger.begin(request_of(), new_owner())
    chunk = pa.table({"id": [0], "prediction": [0.0]})
    with source.snapshot(sign(), None, None) as snapshot:
        started = snapshot.chunks(ALL_KEYS, 1)
        next(started)
        wire.stop()
        steps: list[Callable[[], object]] = [
            lambda: list(started),
            lambda: snapshot.count(),
            lambda: list(snapshot.chunks(ALL_KEYS, 4)),
            lambda: predictions.write(run, 0, chunk),
            lambda: ledger.begin(request_of(), new_owner()),
            lambda: ledger.score(run),
            lambda: ledger.fail(run, "it is gone"),
            lambda: ledger.publish(run),
            lambda: ledger.create(),
            lambda: ledger.exists(),
            lambda: History(ledger).runs(),
            lambda: predictions.check(),
            lambda: predictions.create(),
            lambda: wired.source(table="t").check(sign()),
            lambda: wired.read(wired.source(table="t")),
        ]
        for step in steps[:1]:
            # What the driver had received already may still come.
            with closing(started), pytest.raises((DatabaseUnavailable, AssertionError)):
                assert len(step()) == ROWS  # type: ignore[arg-type]
        for step in steps[1:]:
            with pytest.raises(DatabaseUnavailable) as caught:
                step()
            assert "Check database.url" in str(caught.value)
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_heartbeat_outlives_an_absence(wired: Backend, wire: Wire, fast: Backend) -> None:
    fast.numbers("t", ROWS)
    wired.predictions(wired.source(table="t")).create()
    ledger = wired.ledger(lease=0.2)
    run = ledger.begin(request_of(), new_owner())

    def seen() -> Any:
        return fast.rows("SELECT heartbeat_at FROM nightshift_runs")

    def renewed() -> None:
        before, end = seen(), time.monotonic() + 10
        while seen() == before:
            assert time.monotonic() < end
            time.sleep(0.02)

    with ledger.keep_alive(run):
        renewed()
        wire.cut = lambda number, data: "before"
        wire.hang_up()
        time.sleep(0.2)
        wire.cut = lambda number, data: None
        renewed()


# --- a backend is ended -------------------------------------------------------------------------

OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%%{}%%'"
)


@pytest.mark.parametrize("what", ["COPY", "pg_export_snapshot"])
def test_a_backend_ended_while_reading(fast: Backend, what: str) -> None:
    fast.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x text)",
        "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 100000) g",
    )
    read = 0

    def score() -> None:
        nonlocal read
        with (
            fast.source(table="t").snapshot(sign({"x": "string"}), None, None) as snapshot,
            closing(snapshot.chunks(ALL_KEYS, 10_000)) as chunks,
        ):
            read += next(chunks).num_rows
            assert fast.rows(OTHERS.format(what)) == [(True,)]
            for chunk in chunks:
                read += chunk.num_rows
            snapshot.count()

    with pytest.raises(DatabaseUnavailable):
        score()
    # The one that streams may not end early without an error. If it is the other that ended,
    # the rows are right, and whole.
    assert read < 100_000 if what == "COPY" else read == 100_000


def test_a_backend_ended_after_all_is_read(postgres_backend: Backend) -> None:
    backend = postgres_backend
    backend.numbers("t", ROWS)
    with backend.source(table="t").snapshot(sign(), None, None) as snapshot:
        read = sum(chunk.num_rows for chunk in snapshot.chunks(ALL_KEYS, 4))
        assert set(backend.rows(OTHERS.format(""))) == {(True,)}  # the COPY's may still be there
    assert read == ROWS
    assert backend.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_backend_ended_while_reading_row_by_row(generic: Backend) -> None:
    generic.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x text)",
        "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 10000) g",
    )

    def score() -> None:
        with (
            generic.source(table="t").snapshot(sign({"x": "string"}), None, None) as snapshot,
            closing(snapshot.chunks(ALL_KEYS, 1000)) as chunks,
        ):
            next(chunks)
            assert generic.rows(OTHERS.format("FETCH")) == [(True,)]
            list(chunks)

    with pytest.raises(DatabaseUnavailable):
        score()


def test_a_backend_ended_while_writing(postgres_backend: Backend) -> None:
    backend = postgres_backend
    backend.numbers("t", ROWS)
    predictions = backend.predictions(backend.source(table="t"))
    predictions.create()
    backend.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN new; END'",
        "CREATE TRIGGER die BEFORE INSERT ON scores_runs FOR EACH ROW WHEN (new.id = 6)"
        " EXECUTE FUNCTION die()",
    )
    owner = new_owner()
    with pytest.raises(DatabaseUnavailable):
        persist(predictions, owner)
    assert backend.view() == {}
    assert backend.rows("SELECT chunks_written, rows_written FROM nightshift_shards") == [(1, 4)]
    assert backend.rows("SELECT count(*) FROM scores_runs") == [(4,)]
    backend.execute("DROP TRIGGER die ON scores_runs")
    persist(predictions, owner)
    check_all(backend)


# --- a server that cannot be reached, or refuses -------------------------------------------------


def refused(url: sa.URL | str, kind: type[NightshiftError], text: str, timeout: int = 10) -> None:
    backend = backend_at(url, timeout)
    try:
        for step in (
            lambda: backend.source(table="t").check(sign()),
            lambda: backend.ledger().create(),
            lambda: backend.ledger().begin(request_of(), new_owner()),
        ):
            with pytest.raises(kind, match=text) as caught:
                step()
            assert "hunter2" not in str(caught.value)
    finally:
        backend.engine.dispose()


def test_no_server_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"postgresql://someone:hunter2@127.0.0.1:{port}/db"
    refused(url, DatabaseUnavailable, f"someone:\\*\\*\\*@127.0.0.1:{port}/db cannot be reached")


def test_no_server_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        url = f"postgresql://someone:hunter2@127.0.0.1:{silent.getsockname()[1]}/db"
        backend, started = backend_at(url, 2), time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            backend.source(table="t").check(sign())
        assert time.monotonic() - started < 8
        backend.engine.dispose()


def test_no_such_host() -> None:
    refused("postgresql://someone:hunter2@nowhere.invalid/db", DatabaseUnavailable, "nowhere")


@pytest.mark.parametrize(
    ("url", "missing", "extra"),
    [("mariadb://host/db", "pymysql", "mysql"), ("duckdb:///file", "duckdb", "duckdb")],
)
def test_no_such_driver(
    monkeypatch: pytest.MonkeyPatch, url: str, missing: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "nightshift.adapters.backends.duckdb_dialect", raising=False)
    with pytest.raises(
        ConfigurationError, match=rf"package {missing}.*nightshift-batch\[{extra}\]"
    ):
        open_engine(url)


def test_no_such_database(database: sa.URL) -> None:
    refused(database.set(database="nowhere"), StatementFailed, '"nowhere" does not exist')


def test_no_such_role(database: sa.URL) -> None:
    refused(database.set(username="missing"), StatementFailed, '"missing" does not exist')


@pytest.fixture
def guarded(fast: Backend) -> Iterator[str]:
    """A role that needs its password, "p@ss w%rd/'\\:?"."""
    role = f"guarded_{fast.engine.url.database}"
    ((path,),) = fast.rows("SHOW hba_file")
    rules, file = Path(path).read_text(), Path(path)
    file.write_text(f"local all {role} scram-sha-256\n{rules}")
    fast.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD E'p@ss w%%rd/\\'\\\\:?'",
        f"GRANT ALL ON SCHEMA public TO {role}",
        "SELECT pg_reload_conf()",
    )
    time.sleep(0.1)
    yield role
    fast.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    file.write_text(rules)
    fast.execute("SELECT pg_reload_conf()")


def test_a_password(fast: Backend, guarded: str) -> None:
    url = fast.engine.url.set(username=guarded)
    refused(url.set(password="hunter2"), StatementFailed, "password authentication failed")
    refused(url, StatementFailed, "no password supplied")
    backend = backend_at(url.set(password="p@ss w%rd/'\\:?"))
    backend.numbers("t", ROWS)
    predictions = backend.predictions(backend.source(table="t"))
    predictions.create()
    persist(predictions, new_owner())
    check_all(backend)
    backend.engine.dispose()


def test_a_lock_that_is_kept(fast: Backend) -> None:
    fast.numbers("t", ROWS)
    predictions = fast.predictions(fast.source(table="t"))
    predictions.create()
    owner = new_owner()
    predictions.ledger.begin(request_of(), owner)
    fast.execute(f"ALTER DATABASE {fast.engine.url.database} SET lock_timeout = '50ms'")
    fast.engine.dispose()
    with fast.engine.connect() as keeper:
        keeper.exec_driver_sql("SELECT * FROM nightshift_jobs FOR UPDATE")
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            predictions.ledger.begin(request_of(), owner)
    persist(predictions, owner)
    check_all(fast)


def test_a_lock_that_is_kept_in_sqlite(lite: Backend) -> None:
    lite.numbers("t", ROWS)
    predictions = lite.predictions(lite.source(table="t"))
    predictions.create()
    url = lite.engine.url
    impatient = backend_at(url)
    sa.event.listen(
        impatient.engine, "connect", lambda driver, _: driver.execute("PRAGMA busy_timeout = 20")
    )
    other = impatient.predictions(impatient.source(table="t"))
    with lite.engine.begin():
        with pytest.raises(DatabaseUnavailable, match="locked"):
            other.ledger.begin(request_of(), new_owner())
        assert len(impatient.read(other.source)) == 1  # a reader is not disturbed
    persist(other, new_owner())
    check_all(lite)
    impatient.engine.dispose()


def test_a_reader_does_not_stop_the_writer(backend: Backend) -> None:
    """Source and target in one database: read, and written chunk by chunk, at the same time."""
    backend.numbers("t", ROWS)
    predictions = backend.predictions(backend.source(table="t"))
    predictions.create()
    run = predictions.ledger.begin(request_of(), new_owner())
    with (
        predictions.ledger.keep_alive(run),
        predictions.source.snapshot(sign(), None, None) as snapshot,
        closing(snapshot.chunks(ALL_KEYS, 4)) as chunks,
    ):
        for number, chunk in enumerate(chunks):
            backend.write(predictions, run, number, chunk)
            backend.execute(f"UPDATE t SET x = -1 WHERE id = {number + 8}")
    predictions.ledger.score(run)
    predictions.ledger.publish(run)
    check_all(backend)


def test_a_server_that_is_read_only(fast: Backend) -> None:
    fast.numbers("t", ROWS)
    predictions = fast.predictions(fast.source(table="t"))
    predictions.create()
    name = fast.engine.url.database
    fast.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    fast.engine.dispose()
    with pytest.raises(DatabaseUnavailable, match="read-only"):  # as in a failover: tried again
        predictions.ledger.begin(request_of(), new_owner())
    assert len(fast.read(predictions.source)) == 1


def test_duplicates_that_a_resumed_run_would_not_notice(fast: Backend) -> None:
    """A key that appears twice, once on each side of a chunk's edge, is found each time."""
    fast.execute("CREATE TABLE t (id int, x float8)", "INSERT INTO t VALUES (1, 1), (2, 2), (2, 3)")
    source = fast.source(query="SELECT * FROM t")
    predictions = fast.predictions(source)
    predictions.create()
    for owner in [new_owner()] * 2:
        with pytest.raises(KeyNotUnique):
            fast.score(predictions, request_of(), rows=2, owner=owner)
    assert fast.view() == {}
    assert issubclass(KeyNotUnique, DatabaseError)
