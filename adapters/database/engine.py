"""Engines, and foreign errors translated where they are met."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from adbc_driver_manager import Error as AdbcError

from adapters.errors import DatabaseUnavailable, NightshiftError, StatementFailed

# SQLSTATE classes and codes (PostgreSQL manual, appendix A) after which the same statement may
# succeed: connection lost, server stopping or starting, too many connections, serialization
# failure, deadlock, lock timeout.
_TRANSIENT_STATES = ("08", "57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03")
# The server answers these while connecting, where drivers give no SQLSTATE.
_REFUSALS = (
    "authentication failed", "does not exist", "pg_hba.conf", "not permitted", "no password",
)  # fmt: skip
_AWAY = (
    "connect", "server closed", "terminating", "timeout", "timed out", "locked", "SSL", "resolve",
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


def open_engine(url: str | sa.URL, connect_timeout: int = 10) -> sa.Engine:
    """An engine for one database. Nothing connects before the first use; dispose of it after.

    `connect_timeout` is in seconds and bounds each attempt to reach a server.
    """
    parsed = sa.make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        arguments: dict[str, Any] = {"connect_timeout": connect_timeout}
        # A server's default may be stricter; but after waiting for a lock, the ledger must see
        # what its last holder committed.
        return sa.create_engine(
            parsed,
            connect_args=arguments,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            max_overflow=_UNBOUNDED,
        )
    engine = sa.create_engine(parsed, max_overflow=_UNBOUNDED)
    sa.event.listen(engine, "connect", _configure_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGINs would come too late
    connection.execute("PRAGMA busy_timeout = 30000")  # milliseconds
    connection.execute("PRAGMA journal_mode = WAL")  # readers and the writer side by side


def _begin_sqlite(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get("nightshift_read_only", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


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
    except _FOREIGN as error:
        raise foreign(engine, doing, error) from error


def foreign(engine: sa.Engine, doing: str, error: BaseException) -> NightshiftError:
    """The error of ours that an error of a database or its driver amounts to."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(error, sa.exc.PendingRollbackError) or is_transient(cause, text):
        return DatabaseUnavailable(name_of(engine), text)
    return StatementFailed(doing, text)


def is_transient(cause: BaseException, text: str) -> bool:
    """Whether the same statement may succeed later. `text` is the cause's message."""
    state = getattr(cause, "sqlstate", None)
    if state:
        return str(state).startswith(_TRANSIENT_STATES)
    if any(refusal in text for refusal in _REFUSALS):
        return False
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    return bool(kinds & _FAILURES) and any(word in text for word in _AWAY)
