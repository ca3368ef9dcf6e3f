"""PostgreSQL: relations that stay as they are from before a snapshot to its end.

TRUNCATE, and every ALTER TABLE that rewrites a table, are not part of a snapshot ("Caveats" of the
manual's chapter on concurrency): a transaction whose snapshot is older than their commit, and that
reads the table only then, sees neither its old rows nor its new ones. The same goes for a table or
view that takes another's name, and for a partition that is detached. All of these need a lock that
conflicts with a reader's. So whatever a source would read is locked as a reader locks it, ACCESS
SHARE, and only then is the snapshot taken.

LOCK TABLE would need to know what is behind a query, and cannot lock a materialized view: planning
the query locks all of it, with the privileges that reading it needs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa

from nightshift.adapters.database.dialects.postgres import Explain
from nightshift.adapters.errors import SnapshotEnded
from nightshift.adapters.source.statements import Statements

SOON = "SET LOCAL lock_timeout = '5s'"
"""For locks that another connection of the run holds already: what it still waits for is a
change that waits for that connection, and goes first once the run gives up and begins again."""

# Invalid parameter (before version 17), undefined object, and one whose process has just ended.
_NO_SNAPSHOT = ("22023", "42704", "55000")

# What this transaction has locked, and its snapshot knows with another file, or not at all. SQL
# sees the catalog as the snapshot does, functions see it as it is now. Indexes are always safe.
_REPLACED = """
    SELECT coalesce(l.relation::regclass::text, l.relation::text)
    FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation
    WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'
      AND pg_get_indexdef(l.relation) IS NULL
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (c.oid IS NULL OR c.relfilenode <> 0
           AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid))"""


def plan(connection: sa.Connection, statements: Statements) -> None:
    """Lock all that the statements read until the transaction ends, without reading a row."""
    for statement in (statements.all_relations(), statements.rows_without_time()):
        if statement is not None:
            connection.execute(Explain(statement))


def lock_soon(connection: sa.Connection, statements: Statements) -> None:
    """The same, where another connection holds the locks. Raises a lock timeout after seconds."""
    connection.exec_driver_sql(SOON)
    plan(connection, statements)


@contextmanager
def joining_snapshot(source: str) -> Iterator[None]:
    """Raises SnapshotEnded if the snapshot that is to be joined is gone."""
    try:
        yield
    except (sa.exc.DBAPIError, psycopg.Error) as error:
        state = getattr(getattr(error, "orig", error), "sqlstate", None)
        if state in _NO_SNAPSHOT:
            raise SnapshotEnded(source) from error
        raise


def find_replaced(connection: Any) -> tuple[str, ...]:
    """Relations that this transaction has read, and that were emptied, rewritten or replaced after
    its snapshot: a function in a query reads what planning does not see.
    """
    with connection.cursor() as cursor:
        cursor.execute(_REPLACED)
        return tuple(name for (name,) in cursor.fetchall())
