"""A snapshot that is younger than the locks on what it reads."""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader

_PATIENCE = 60.0  # seconds to begin again in
_LOCK_TIMEOUTS = ("55P03", 1205)
"""PostgreSQL's SQLSTATE, and MariaDB's and MySQL's number."""


def begin_locked(
    connection: sa.Connection,
    lock: Callable[[sa.Connection], None],
    begin_and_lock: Callable[[], None],
) -> None:
    """Begin the connection's transaction with a snapshot that is younger than its locks.

    Another connection takes the locks with `lock`, since those of a transaction are younger than
    its snapshot, and gives them back when this one has them too. A change of a table that has
    started to wait in between lets neither pass: then both begin again, after it. `begin_and_lock`
    must not wait for more than seconds.
    """
    deadline = monotonic() + _PATIENCE
    while True:
        with open_reader(connection.engine) as other:
            lock(other)
            try:
                begin_and_lock()
            except sa.exc.OperationalError as error:
                if not _was_lock_timeout(error) or monotonic() > deadline:
                    raise
            else:
                return
        with suppress(sa.exc.InvalidRequestError):  # no transaction
            connection.rollback()
        sleep(0.1)


def _was_lock_timeout(error: sa.exc.DBAPIError) -> bool:
    cause = error.orig
    number = next(iter(cause.args), None) if cause is not None else None
    return getattr(cause, "sqlstate", None) in _LOCK_TIMEOUTS or number in _LOCK_TIMEOUTS
