"""Engines, and foreign errors translated where they are met."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from adbc_driver_manager import Error as AdbcError

from nightshift.adapters.database import watchdog
from nightshift.adapters.database.capabilities import CAPABILITIES, MYSQL
from nightshift.adapters.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    NightshiftError,
    StatementFailed,
)

# SQLSTATE classes and codes (PostgreSQL manual, appendix A) after which the same statement may
# succeed: connection lost, server stopping or starting, too many connections, serialization
# failure, deadlock, lock timeout, a session or transaction that stood still for too long.
_TRANSIENT_STATES = (
    "08", "57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03", "25P03", "25P04", "57P05",
)  # fmt: skip
# MariaDB's and MySQL's numbers for the same (their SQLSTATE is HY000 for most): too many
# connections, lock wait timeout, deadlock, cannot connect, gone away, connection lost, killed or
# aborted, server shutting down, network read or write error, too many connections of this user.
_TRANSIENT_NUMBERS = frozenset(
    {1040, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1927, 2002, 2003, 2006, 2013, 2055, 4031}
)
# The server answers these while connecting, where drivers give no SQLSTATE.
_REFUSALS = (
    "authentication failed", "does not exist", "pg_hba.conf", "not permitted", "no password",
    "certificate", "CERTIFICATE_VERIFY_FAILED", "does not support SSL",
)  # fmt: skip
_AWAY = (
    "connect", "server closed", "terminating", "timeout", "timed out", "locked", "SSL", "resolve",
    "Could not set lock", "Conflict on", "write-write conflict",
)  # fmt: skip
# As drivers and Arrow name them; a failure of another kind is an answer.
_FAILURES = {"OperationalError", "InterfaceError", "InternalError", "OSError"}

# Each partition scored holds a connection and needs others to write: a pool with an end would,
# with enough of them side by side, wait for itself.
_UNBOUNDED = -1

_FOREIGN = (
    sa.exc.StatementError,
    sa.exc.PendingRollbackError,  # the connection was lost, and is asked again
    psycopg.Error,
    AdbcError,
    OverflowError,
)
_DRIVER_MODULES = ("sqlite3", "pymysql", "duckdb", "_duckdb")


# MariaDB's and MySQL's settings of a connection: TIMESTAMPs come as UTC; tables have transactions;
# what does not fit is refused, not cut; a lock on a table is waited for as long as one on a row
# (not for a day); while a slow model holds up the reader, the server keeps on waiting (not for a
# minute); and, which only MariaDB knows, a process that stands still amid writing loses its
# transaction.
_MYSQL_SESSION = """SET SESSION time_zone = '+00:00', default_storage_engine = InnoDB,
    lock_wait_timeout = 60, net_write_timeout = 86400,
    sql_mode = CONCAT_WS(',', NULLIF(@@sql_mode, ''), 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION')
    /*M! , idle_write_transaction_timeout = 60 */"""

# PostgreSQL's settings of a session, where neither the server nor the role has any: a lock that
# somebody keeps is not waited for without end; and a process that stands still amid a transaction
# loses it, since whoever takes its run over would wait for that process.
POSTGRES_SESSION = """
    SELECT set_config(name, '60s', false)
    FROM (VALUES ('lock_timeout'), ('idle_in_transaction_session_timeout')) AS setting (name)
    WHERE current_setting(name) = '0'"""
# And of its connection, so that one that leads nowhere any more is noticed: seconds, milliseconds.
_POSTGRES_NETWORK = {
    "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 120_000,
}  # fmt: skip

# The same for PyMySQL.
_MYSQL_NETWORK = {
    "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 120_000,
}  # fmt: skip

_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    **{name: f"{name}+pymysql" for name in MYSQL},
}


def open_engine(url: str | sa.URL, connect_timeout: int = 10) -> sa.Engine:
    """An engine for one database. Nothing connects before the first use; dispose of it after.

    `connect_timeout` is in seconds and bounds each attempt to reach a server. Raises
    ConfigurationError if the database's driver is not installed.
    """
    parsed = sa.make_url(url)
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    backend = parsed.get_backend_name()
    if backend == "duckdb" and (parsed.database or ":memory:").startswith(":memory:"):
        problem = "DuckDB needs a file, since what is in memory ends with a run"
        remedy = "Write it as duckdb:///folder/file.duckdb."
        raise ConfigurationError("nightshift.yaml", "database.url", problem, remedy)
    options: dict[str, Any] = {"max_overflow": _UNBOUNDED}
    if backend not in {"sqlite", "duckdb"}:
        options["pool_pre_ping"] = True
    if backend == "postgresql" or backend in MYSQL:
        options["connect_args"] = {"connect_timeout": connect_timeout}
        # A server's default may be stricter; but after waiting for a lock, the ledger must see
        # what its last holder committed.
        options["isolation_level"] = "READ COMMITTED"
    if backend == "postgresql":
        network = {k: v for k, v in _POSTGRES_NETWORK.items() if k not in parsed.query}
        options["connect_args"].update(network)
    if parsed.drivername.endswith("+pymysql"):
        options["connect_args"]["local_infile"] = True  # and see _configure_mysql
        if "read_timeout" not in parsed.query:  # or it waits for a greeting for ever
            options["connect_args"]["read_timeout"] = connect_timeout
    try:
        engine = sa.create_engine(parsed, **options)
    except ModuleNotFoundError as error:
        raise _driver_missing(parsed, str(error.name)) from error
    if backend == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    if backend == "duckdb":
        sa.event.listen(engine, "begin", _begin_duckdb)
    if backend in MYSQL:
        sa.event.listen(engine, "connect", _configure_mysql)
        if "read_timeout" not in parsed.query:
            sa.event.listen(engine, "connect", _let_it_think)
    if backend == "postgresql":
        sa.event.listen(engine, "connect", _configure_postgres)
    if backend == "postgresql" or backend in MYSQL:
        sa.event.listen(  # before the first question on it
            engine, "connect", lambda made, _: watchdog.track_connection(made, engine), insert=True
        )
    return engine


def _driver_missing(url: sa.URL, module: str) -> ConfigurationError:
    known = CAPABILITIES.get(url.get_backend_name())
    package, extra = (known and known.driver) or (module, "")
    what = f"'nightshift-batch[{extra}]'" if extra else package
    problem = f"{url.drivername} needs the package {package}, which is not installed"
    return ConfigurationError(
        "nightshift.yaml", "database.url", problem, f"Install it with: pip install {what}"
    )


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGINs would come too late
    connection.execute("PRAGMA busy_timeout = 30000")  # milliseconds
    connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer side by side


def _begin_sqlite(connection: sa.Connection) -> None:
    reading = _only_reads(connection)
    connection.exec_driver_sql(f"PRAGMA query_only = {int(reading)}")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _begin_duckdb(connection: sa.Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    driver.begin(_only_reads(connection))


def _only_reads(connection: sa.Connection) -> bool:
    return bool(connection.get_execution_options().get("nightshift_read_only", False))


def _configure_mysql(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_MYSQL_SESSION)
    # To any statement a server may answer by asking for a file of ours. It gets one only while the
    # fast lane sends rows (mysql.py).
    connection._local_infile = False  # noqa: SLF001
    if connection._sock.family != socket.AF_UNIX:  # noqa: SLF001
        for name, value in _MYSQL_NETWORK.items():
            if hasattr(socket, name):  # not every system has them
                option = getattr(socket, name)
                connection._sock.setsockopt(socket.IPPROTO_TCP, option, value)  # noqa: SLF001


def _let_it_think(connection: Any, _record: object) -> None:
    """A statement may take long; only the greeting may not."""
    connection._read_timeout = None  # noqa: SLF001


def _configure_postgres(connection: Any, _record: object) -> None:
    connection.execute(POSTGRES_SESSION)
    connection.commit()


def reader(engine: sa.Engine) -> sa.Engine:
    """The same engine, only to read: it needs no turn where one at a time may write."""
    return engine.execution_options(nightshift_read_only=True, postgresql_readonly=True)


def open_reader(engine: sa.Engine) -> sa.Connection:
    return reader(engine).connect()


def name_of(engine: sa.Engine) -> str:
    """The database as a person knows it, without its password."""
    return engine.url.render_as_string(hide_password=True)


@contextmanager
def translated(engine: sa.Engine, doing: str) -> Iterator[None]:
    """Turn errors of SQLAlchemy, DBAPI drivers (SQLite's overflows, too) and ADBC into ours.

    `doing` completes "The database refused ...". Raises DatabaseUnavailable for what may pass,
    StatementFailed for the rest; errors of our own pass unchanged.
    """
    try:
        yield
    except Exception as error:
        if not _is_foreign(error):
            raise
        raise foreign(engine, doing, error) from error


def _is_foreign(error: Exception) -> bool:
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, _FOREIGN) or package in _DRIVER_MODULES


def foreign(engine: sa.Engine, doing: str, error: BaseException) -> NightshiftError:
    """The error of ours that an error of a database or its driver amounts to."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(error, sa.exc.PendingRollbackError) or is_transient(cause, text):
        return DatabaseUnavailable(name_of(engine), text)
    return StatementFailed(doing, text)


def is_transient(cause: BaseException, text: str) -> bool:
    """Whether the same statement may succeed later. `text` is the cause's message."""
    number = next(iter(cause.args), None)
    refused = any(refusal in text for refusal in _REFUSALS)
    if type(cause).__module__.startswith("pymysql") and isinstance(number, int):
        passing = number in _TRANSIENT_NUMBERS or number == 0  # of a connection closed before
        return passing and not refused
    state = getattr(cause, "sqlstate", None)
    if state:
        return str(state).startswith(_TRANSIENT_STATES)
    if refused:
        return False
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    return bool(kinds & _FAILURES) and any(word in text for word in _AWAY)
