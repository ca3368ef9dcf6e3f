"""Creating the ledger's tables: in one go, in one version, and never changed afterwards.

The one row of `nightshift_schema_version` says which version a ledger is of. It is inserted last:
a ledger without it is unfinished, and the next worker completes it. There are no migrations, since
no release has another version; a ledger of another version is refused.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import database_name, open_reader, read_only
from nightshift.adapters.errors import LedgerIncompatible
from nightshift.adapters.ledger.schema import LedgerTables

VERSION = 1
"""Of the tables in schema.py. Raise it with each change of them, once there is a release."""

_ATTEMPTS = 10  # each one that fails leaves less to create
_START_OVER = (
    "Drop its tables (nightshift_..., and each target's view and _runs), or set another "
    "database.schema."
)
_PATIENCE = 60  # seconds to wait for another worker that creates the ledger


def create(engine: sa.Engine, tables: LedgerTables) -> None:
    """Create the tables that are missing: the ledger's, and those of the targets added to it.

    Safe to call from several workers at the same time, and after one that was killed halfway.
    Raises LedgerIncompatible.
    """
    ledger = tables.ledger
    targets = [table for table in tables.metadata.sorted_tables if table not in ledger]
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            there = exists(engine, tables)
            tables.metadata.create_all(engine, targets)  # first: the database may refuse a target
            _add_indexes(engine, targets)
            if not there:
                _create_ledger(engine, tables)
            break
        except sa.exc.DBAPIError as error:  # another worker has just created the same
            if attempt == _ATTEMPTS or error.connection_invalidated:
                raise


def exists(engine: sa.Engine, tables: LedgerTables) -> bool:
    """Whether there is a complete ledger; one SELECT if so. Raises LedgerIncompatible."""
    found = _read_version(engine, tables)
    if found == VERSION:
        return True
    if found is None and _has(engine, tables.runs):
        found = _read_version(engine, tables)  # another worker may have just created it
        if found is None and not _has(engine, tables.schema_version):
            problem = "its tables have no version"
            raise LedgerIncompatible(database_name(engine), problem, _START_OVER)
    if found not in {None, VERSION}:
        newer = found is not None and found > VERSION
        problem = f"it is of version {found}, and this Nightshift works with {VERSION}"
        upgrade = "Upgrade Nightshift: pip install --upgrade nightshift-batch."
        raise LedgerIncompatible(database_name(engine), problem, upgrade if newer else _START_OVER)
    return found == VERSION


def _create_ledger(engine: sa.Engine, tables: LedgerTables) -> None:
    version = tables.schema_version
    name = f"{version.name} {version.schema or ''}"
    alone = capabilities(engine.dialect).exclusive
    with engine.connect() as connection, alone(connection, name, _PATIENCE):
        version.create(connection, checkfirst=True)
        if connection.scalar(sa.select(version.c.version)) is not None:
            return  # another worker was faster
        tables.metadata.create_all(connection, tables.ledger)
        _add_indexes(connection, tables.ledger)
        connection.execute(sa.insert(version).values(version=VERSION))
        connection.commit()


def _add_indexes(bind: sa.Engine | sa.Connection, tables: Iterable[sa.Table]) -> None:
    """Add indexes that are missing because a worker was killed after creating a table."""
    if capabilities(bind.dialect).transactional_ddl:
        return
    inspector = sa.inspect(bind)
    for table in tables:
        found = inspector.get_indexes(table.name, schema=table.schema)
        there = [index["column_names"] for index in found]
        for index in table.indexes:
            if [column.name for column in index.columns] not in there:
                index.create(bind)


def _read_version(engine: sa.Engine, tables: LedgerTables) -> int | None:
    """None if there is no ledger, or an unfinished one."""
    statement = sa.select(tables.schema_version.c.version)
    try:
        with open_reader(engine) as connection:
            return connection.scalar(statement)
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise
        if not _has(engine, tables.schema_version):
            return None
    with open_reader(engine) as connection:  # it has just been created
        return connection.scalar(statement)


def _has(engine: sa.Engine, table: sa.Table) -> bool:
    return sa.inspect(read_only(engine)).has_table(table.name, schema=table.schema)
