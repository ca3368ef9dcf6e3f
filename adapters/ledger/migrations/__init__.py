"""The ledger's schema in versions: it is made, brought up to date, or refused.

The one row of `nightshift_schema_version` says which version a ledger is of. Each has a file in
`versions`, written for Alembic (https://alembic.sqlalchemy.org), which is imported only where there
is something to do: a ledger that is up to date costs one SELECT.

What changes in schema.py or backfills.py needs a new file there, and its number in HEAD; the tests
compare what they make with what is declared. Each must be able to run twice, by the steps of
steps.py: not every database undoes what a worker had changed that was killed amid one.
"""

from pathlib import Path

import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import database_name, open_reader, read_only
from nightshift.adapters.errors import LedgerIncompatible

HEAD = "0001"
"""The version that this Nightshift works with."""
VERSIONS = "nightshift_schema_version"
PREFIX = "nightshift_"
"""Of the names of all tables that are versioned; no target may begin so."""

_PATIENCE = 60  # seconds to wait for another worker that makes or migrates the ledger
_UNFINISHED = ""  # of a database whose schema changes are not undone if their author is killed


def bring_up_to_date(
    engine: sa.Engine, schema: str | None, place: Path | None = None, head: str = HEAD
) -> None:
    """Make the ledger's tables, or migrate them. Safe to call at once from several workers.

    Raises LedgerIncompatible for a ledger of another Nightshift that cannot be migrated. `place`
    is a folder of migrations in place of this one, and `head` their last.
    """
    if is_current(engine, schema, head):
        return
    from alembic.command import upgrade
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(place or Path(__file__).parent))
    with (
        engine.connect() as connection,
        capabilities(connection.dialect).exclusive(
            connection, f"{VERSIONS} {schema or ''}", _PATIENCE
        ),
    ):
        found = _found(connection, schema)
        if found != head:  # another worker may have been quicker
            _refuse_foreign(engine, found, head, _has(connection, schema, "nightshift_runs"))
            config.attributes.update(connection=connection, schema=schema, table=VERSIONS)
            upgrade(config, "head")
            connection.commit()


def is_current(engine: sa.Engine, schema: str | None, head: str = HEAD) -> bool:
    """Whether there is nothing to do. Raises LedgerIncompatible, as `bring_up_to_date` does."""
    found = _version(engine, schema)
    if found != head:
        with open_reader(engine) as connection:
            has_runs = _has(connection, schema, "nightshift_runs")
        if found is None and has_runs:  # perhaps since a moment ago: versions are made before runs
            found = _version(engine, schema)
        _refuse_foreign(engine, found, head, has_runs)
    return found == head


def is_there(engine: sa.Engine, schema: str | None) -> bool:
    """Whether there is a ledger to be read. Raises LedgerIncompatible for another version's."""
    if is_current(engine, schema, HEAD):
        return True
    found = _version(engine, schema)
    if found:
        problem = f"it is of version {found}, and this Nightshift works with {HEAD}"
        raise LedgerIncompatible(database_name(engine), problem, "The next run migrates it.")
    return False


def version(engine: sa.Engine, schema: str | None) -> str | None:
    """Of the ledger; None if there is none, or none that has versions."""
    return _version(engine, schema) or None


def _version(engine: sa.Engine, schema: str | None) -> str | None:
    try:
        with open_reader(engine) as connection:
            return _read(connection, schema)
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise
        if not sa.inspect(read_only(engine)).has_table(VERSIONS, schema=schema):
            return None
    with open_reader(engine) as connection:  # it may have been made at this moment
        return _read(connection, schema)


def _read(connection: sa.Connection, schema: str | None) -> str:
    table = sa.table(VERSIONS, sa.column("version_num", sa.String), schema=schema)
    return connection.scalar(sa.select(table.c.version_num)) or _UNFINISHED


def _found(connection: sa.Connection, schema: str | None) -> str | None:
    return _read(connection, schema) if _has(connection, schema, VERSIONS) else None


def _has(connection: sa.Connection, schema: str | None, table: str) -> bool:
    return sa.inspect(connection).has_table(table, schema=schema)


def _refuse_foreign(engine: sa.Engine, found: str | None, head: str, has_runs: bool) -> None:
    if found is None and has_runs:
        raise LedgerIncompatible(
            database_name(engine),
            "it was made by Nightshift as it was before its first release",
            "Drop its tables (nightshift_..., and each target's view and _runs), or name another "
            "database.schema for new ones.",
        )
    if found and not (found.isdigit() and int(found) <= int(head)):
        problem = f"it is of version {found}, newer than {head}, which this Nightshift works with"
        remedy = "Upgrade Nightshift here as elsewhere: pip install --upgrade nightshift."
        raise LedgerIncompatible(database_name(engine), problem, remedy)
