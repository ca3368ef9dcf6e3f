"""Errors of SQLAlchemy and the drivers, translated into ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pyarrow as pa
import sqlalchemy as sa
from adbc_driver_manager import Error as AdbcError

from nightshift.adapters.database.engine import database_name
from nightshift.adapters.errors import (
    DatabaseUnavailable,
    NightshiftError,
    RowsHidden,
    StatementFailed,
)

# SQLSTATE classes and codes (PostgreSQL manual, appendix A) after which the same statement may
# succeed: connection lost, server stopping or starting, too many connections, serialization
# failure or a standby's conflict with recovery, deadlock, lock timeout, a session or transaction
# that was idle for too long.
_TRANSIENT_STATES = (
    "08", "57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03", "25P03", "25P04", "57P05",
)  # fmt: skip
# MariaDB's and MySQL's numbers for the same (their SQLSTATE is HY000 for most): too many
# connections, lock wait timeout, deadlock, cannot connect, gone away, connection lost, killed or
# aborted, server shutting down, network read or write error, too many connections of this user, a
# table that changed after the snapshot.
_TRANSIENT_NUMBERS = frozenset(
    {1040, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1412, 1927}
    | {2002, 2003, 2006, 2013, 2055, 4031}
)
_READ_ONLY = frozenset({"25006", 1290, 1792, 1836})
"""A server that only reads, as it does while another takes over: transient, unless the transaction
is one of ours that must not write."""
_NOT_A_FAILOVER = ("--secure-file-priv", "--skip-grant-tables")  # also 1290
_HIDDEN = ("42501", "check_enable_rls")
"""SQLSTATE of a missing privilege, and the server's function that raises it for hidden rows."""
# The server answers these while connecting, where drivers give no SQLSTATE.
_REFUSALS = (
    "authentication failed", "does not exist", "pg_hba.conf", "not permitted", "no password",
    "certificate", "CERTIFICATE_VERIFY_FAILED", "does not support SSL",
)  # fmt: skip
_AWAY = (
    "connect", "server closed", "terminating", "timeout", "timed out", "locked", "SSL", "resolve",
    "Could not set lock", "Conflict on", "write-write conflict",
)  # fmt: skip
# Exception names of drivers and Arrow; any other is the database's answer.
_FAILURES = {"OperationalError", "InterfaceError", "InternalError", "OSError"}

_FOREIGN = (
    sa.exc.SQLAlchemyError,
    psycopg.Error,
    AdbcError,
    pa.ArrowException,
    OverflowError,
    UnicodeError,  # a text in another encoding than the server said
)
_DRIVER_MODULES = ("sqlite3", "pymysql", "duckdb", "_duckdb")


@contextmanager
def translate_errors(engine: sa.Engine, doing: str) -> Iterator[None]:
    """Translate errors of SQLAlchemy, DBAPI drivers (with SQLite's overflows) and ADBC.

    `doing` completes "The database refused ...". Raises DatabaseUnavailable for what may pass,
    StatementFailed for the rest; Nightshift's own errors pass unchanged.
    """
    try:
        yield
    except Exception as error:
        if not _is_foreign(error):
            raise
        raise translate(engine, doing, error) from error


def _is_foreign(error: Exception) -> bool:
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, sa.exc.NoSuchTableError):  # an answer, which its callers expect
        return False
    return isinstance(error, _FOREIGN) or package in _DRIVER_MODULES


def translate(engine: sa.Engine, doing: str, error: BaseException) -> NightshiftError:
    """Nightshift's error for an error of a database or its driver."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    diagnosis = getattr(cause, "diag", None)
    if (getattr(cause, "sqlstate", None), getattr(diagnosis, "source_function", "")) == _HIDDEN:
        table = re.search(r'"(.*)"', text)
        return RowsHidden(table[1] if table else text, engine.url.username or "of the connection")
    if isinstance(cause, pa.ArrowException) and "offset overflow" in text:
        text = "one column of a chunk has more than 2 GiB of text; lower chunk_rows in the job file"
    if "statement pooling mode" in text:  # PgBouncer's, with a code of a lost connection
        text = "it is behind a pooler that pools statements; let it pool transactions or sessions"
        return StatementFailed(doing, text)
    codes = {getattr(cause, "sqlstate", None), next(iter(cause.args), None)}
    if codes & _READ_ONLY and not any(option in text for option in _NOT_A_FAILOVER):
        transient = not engine.get_execution_options().get("nightshift_read_only")
    else:
        transient = _is_transient(cause, text)
    if transient or isinstance(error, sa.exc.PendingRollbackError):
        return DatabaseUnavailable(database_name(engine), text)
    return StatementFailed(doing, text)


def _is_transient(cause: BaseException, text: str) -> bool:
    """Whether the same statement may succeed later. `text` is the cause's message."""
    number = next(iter(cause.args), None)
    refused = any(refusal in text for refusal in _REFUSALS)
    if type(cause).__module__.startswith("pymysql") and isinstance(number, int):
        transient = number in _TRANSIENT_NUMBERS or number == 0  # of a connection closed before
        return transient and not refused
    state = getattr(cause, "sqlstate", None)
    if state:
        return str(state).startswith(_TRANSIENT_STATES)
    if refused:
        return False
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    return bool(kinds & _FAILURES) and any(word in text for word in _AWAY)
