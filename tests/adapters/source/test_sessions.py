"""A reader's session, whatever the server, the role or a pooler makes of it."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from backends import Backend, request_of, sign
from nightshift.adapters.backends.registry import predictions_class, source_class
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import RowsHidden, StatementFailed
from nightshift.adapters.source.columns import ALL_KEYS
from waiting import eventually

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
SETTINGS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")


def reader_of(fast: Backend, *grants: str) -> Backend:
    """The same database, for a role that has these privileges alone; dropped with its database."""
    name = f"reader_{id(fast)}"
    fast.execute(f"CREATE ROLE {name} LOGIN", *(grant.format(name) for grant in grants))
    engine = open_engine(fast.engine.url.set(username=name))
    return Backend("fast", engine, source_class(engine), predictions_class(engine))


def forget(reader: Backend, fast: Backend) -> None:
    reader.engine.dispose()
    name = reader.engine.url.username
    fast.execute(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def count(backend: Backend, **spec: str) -> int:
    with backend.source(**spec).snapshot(sign(), None, None) as snapshot:
        rows = sum(chunk.num_rows for chunk in snapshot.chunks(ALL_KEYS, 100))
        assert rows == snapshot.count()
        return rows


def test_rows_that_a_policy_hides_are_not_left_out(fast: Backend) -> None:
    fast.numbers("t", 10)
    fast.execute(
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON t FOR SELECT USING (id < 3)",
        "CREATE VIEW all_of_it AS SELECT * FROM t",
        "CREATE VIEW as_reader WITH (security_invoker) AS SELECT * FROM t",
    )
    reader = reader_of(fast, "GRANT SELECT ON t, all_of_it, as_reader TO {}")
    try:
        for spec in (
            {"table": "t"},
            {"query": "SELECT * FROM t"},
            {"query": "SELECT * FROM as_reader"},
        ):
            refused = (
                rf"'t' would hide rows from the role '{reader.engine.url.username}'.*BYPASSRLS"
            )
            with pytest.raises(RowsHidden, match=refused):
                reader.source(**spec).check(sign())  # which doctor asks
            with pytest.raises(RowsHidden, match=refused):
                count(reader, **spec)
        assert count(reader, query="SELECT * FROM all_of_it") == 10  # it has its owner's rights
        assert count(fast, table="t") == 10
        fast.execute(f"ALTER ROLE {reader.engine.url.username} BYPASSRLS")
        assert count(reader, table="t") == 10
    finally:
        forget(reader, fast)


def test_limits_of_the_reading_role_do_not_end_a_run(fast: Backend) -> None:
    fast.numbers("t", 10)
    reader = reader_of(fast, "GRANT SELECT ON t TO {}")
    role = reader.engine.url.username
    try:
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            fast.execute(f"ALTER ROLE {role} SET {limit} = '40ms'")
        fast.execute(f"ALTER ROLE {role} SET transaction_timeout = '80ms'")
        slowly = "SELECT id, x FROM t, LATERAL (SELECT pg_sleep(0.02 + 0 * id)) AS wait"
        assert count(reader, query=slowly) == 10
        texts = "SELECT id, x, 'a' AS kind FROM t, LATERAL (SELECT pg_sleep(0.02 + 0 * id)) AS w"
        source = reader.source(query=texts)  # through the other driver
        with source.snapshot(sign({"kind": "string"}), None, None) as snapshot:
            assert sum(chunk.num_rows for chunk in snapshot.chunks(ALL_KEYS, 3)) == 10
    finally:
        forget(reader, fast)


def test_a_reader_never_begins_read_write(fast: Backend) -> None:
    fast.numbers("t", 10)
    source = fast.source(table="t")
    for _ in range(2):  # the second time, on a connection of the pool
        assert count(fast, table="t") == 10
        with source.engine.connect() as connection:
            assert connection.scalar(sa.text("SHOW transaction_read_only")) == "on"
    fast.execute("INSERT INTO t VALUES (11, 1)")
    name = fast.engine.url.database
    fast.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    fast.engine.dispose()
    with fast.engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        assert connection.scalar(sa.text("SHOW transaction_read_only")) == "on"


def test_privileges_on_columns_alone(fast: Backend) -> None:
    fast.execute("CREATE TABLE t (id bigint PRIMARY KEY, x float8, secret text, at timestamptz)")
    fast.execute("INSERT INTO t VALUES (1, 2, 'no', now())")
    reader = reader_of(fast, "GRANT SELECT (id, x, at) ON t TO {}")
    try:
        reader.source(table="t").check(sign())
        assert count(reader, table="t") == 1
        refused = r"may not read the column 'secret'; GRANT SELECT \(secret\)"
        with pytest.raises(StatementFailed, match=refused):
            reader.source(table="t").check(sign({"secret": "string"}))
    finally:
        forget(reader, fast)


def test_a_database_without_an_encoding(database: sa.URL, postgres: sa.URL) -> None:
    """SQL_ASCII: what is UTF-8 is read, and the server refuses the rest."""
    name = f"{database.database}_ascii"
    server = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        made = f"CREATE DATABASE {name} ENCODING sql_ascii LOCALE 'C' TEMPLATE template0"
        connection.exec_driver_sql(made)
    engine = open_engine(postgres.set(database=name))
    ascii_ = Backend("fast", engine, source_class(engine), predictions_class(engine))
    try:
        ascii_.execute(
            "CREATE TABLE t (id int PRIMARY KEY, x text)", "INSERT INTO t VALUES (1, 'ä')"
        )
        source, texts = ascii_.source(table="t"), sign({"x": "string"})
        assert ascii_.read(source, texts)[0].to_pylist() == [{"id": 1, "x": "ä"}]
        ascii_.execute("INSERT INTO t VALUES (2, E'\\xe4')")
        with pytest.raises(StatementFailed, match="invalid byte sequence"):
            ascii_.read(source, texts)
    finally:
        engine.dispose()
        with server.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        server.dispose()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def pooled(fast: Backend, mode: str) -> Iterator[Backend]:
    """The same database behind PgBouncer, which refuses to be run by root."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    url = fast.engine.url
    host = Path(str(url.query["host"]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.TemporaryDirectory(prefix="nightshift-pgbouncer-")  # pytest's is root's
    Path(folder.name).chmod(0o755)
    settings = Path(folder.name) / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={host} user={url.username}\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
        f"listen_port={port}\nunix_socket_dir=\nauth_type=any\npool_mode={mode}\n"
    )
    owner = next(host.glob(".s.PGSQL.*")).stat().st_uid
    pooler = subprocess.Popen([PGBOUNCER, settings], user=owner, stderr=subprocess.DEVNULL)
    place = url.set(host="127.0.0.1", port=port, query={})
    engine = open_engine(place)
    try:
        eventually(lambda: answers(port), 20)
        yield Backend("fast", engine, source_class(engine), predictions_class(engine))
    finally:
        engine.dispose()
        pooler.terminate()
        pooler.wait(20)
        folder.cleanup()


def test_a_pooler_that_pools_transactions(fast: Backend) -> None:
    fast.numbers("t", 500)
    with pooled(fast, "transaction") as backend:
        for kind in ("float64", "string"):
            source = backend.source(query="SELECT id, x, 'a' AS kind FROM t")
            inputs = sign({"x" if kind == "float64" else "kind": kind})
            with source.snapshot(inputs, None, None) as snapshot:
                assert snapshot.count() == 500
                assert sum(chunk.num_rows for chunk in snapshot.chunks(ALL_KEYS, 100)) == 500
        predictions = backend.predictions(backend.source(table="t"))
        predictions.create()
        backend.score(predictions, request_of(), rows=20)  # the same statements many times
        assert len(backend.view()) == 500
        with backend.engine.connect() as connection:
            other = connection.execution_options(isolation_level="AUTOCOMMIT")
            left = [other.exec_driver_sql(f"SHOW {name}").scalar() for name in SETTINGS]
        assert left == ["0", "0", "0"]  # to other clients of the pool


def test_a_pooler_that_pools_statements_is_refused(fast: Backend) -> None:
    fast.numbers("t", 5)
    with (
        pooled(fast, "statement") as backend,
        pytest.raises(StatementFailed, match="let it pool transactions or sessions"),
    ):
        backend.source(table="t").check(sign())
