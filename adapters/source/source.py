"""A job's source in its database: describes it, checks it, and opens consistent snapshots of it.

This is the generic source, for any SQLAlchemy dialect; the backends override what their database
does better or differently. Types come from the database's schema, never from a chunk's values.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import read_only
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.errors import (
    ConfigurationError,
    KeyNotUnique,
    RowWithoutTime,
    TableNotFound,
)
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import (
    Key,
    KeyRange,
    SourceColumn,
    decode_key,
    reflect_column,
)
from nightshift.adapters.source.relation import Relation, SourceSpec
from nightshift.adapters.source.snapshot import Snapshot, StreamedSnapshot, cannot_share
from nightshift.adapters.source.statements import Statements
from nightshift.adapters.source.user_query import bound_query

# Where a query cannot be read, and constraints cannot be added to a table.
_KEEP_ROWS = (
    "Make a table with the key as its PRIMARY KEY, fill it by INSERT INTO ... SELECT, and name it "
    "in source.table."
)


class Source:
    """One job's source, in one database."""

    statements_class: ClassVar[type[Statements]] = Statements
    snapshot_class: ClassVar[type[StreamedSnapshot]] = StreamedSnapshot

    def __init__(self, engine: sa.Engine, spec: SourceSpec) -> None:
        self.engine = read_only(engine)
        self.spec = spec
        self._relation: Relation | None = None

    # --- what it is -----------------------------------------------------------------------------

    @property
    def relation(self) -> Relation:
        """The source with its columns; asks the database once. Raises TableNotFound,
        StatementFailed.
        """
        if self._relation is None:
            with translate_errors(self.engine, f"to describe {self.spec}"):
                if self.spec.table is not None:
                    self._require_table(self.spec.table)
                columns = {column.name: column for column in self._describe()}
            self._relation = Relation(self.spec, columns, self.engine.dialect)
        return self._relation

    @property
    def columns(self) -> dict[str, SourceColumn]:
        return self.relation.columns

    @property
    def key_columns(self) -> list[SourceColumn]:
        return self.relation.key_columns

    @property
    def kept_columns(self) -> list[str]:
        return self.spec.kept_columns

    def decode_key(self, text: str) -> Key:
        """The ledger's JSON text -> the key's values in the columns' own types."""
        return decode_key(text, self.key_columns)

    def decode_range(self, after: str | None, through: str | None) -> KeyRange:
        """The range between two of the ledger's keys. None is unbounded."""
        bounds = (None if text is None else self.decode_key(text) for text in (after, through))
        return KeyRange(*bounds)

    def check(self, signature: Signature) -> None:
        """Raise what prevents this source from being scored, before a row is read."""
        if self.spec.shards > 1 and not capabilities(self.engine.dialect).shared_snapshot:
            raise cannot_share(self.engine.dialect)
        self.relation.check_key()
        self._check_key_is_declared_unique()
        self.relation.check_inputs(signature)

    def types(self, names: Sequence[str]) -> dict[str, str]:
        """How the database declares these columns; part of a run's fingerprint."""
        return self.relation.declared_types(names)

    # --- reading it -----------------------------------------------------------------------------

    def statements(self, start: datetime | None, end: datetime | None) -> Statements:
        """The SELECTs over the rows with start <= time < end. None is unbounded."""
        return self.statements_class(self.relation, start, end)

    @contextmanager
    def snapshot(
        self,
        signature: Signature,
        start: datetime | None,
        end: datetime | None,
        snapshot_id: str | None = None,
    ) -> Iterator[Snapshot]:
        """The rows with start <= time < end, at one moment. None is unbounded.

        `snapshot_id` is of another snapshot, to be joined while its connection holds it.

        Each chunk has the key columns, the model's inputs and, where the job has a time column,
        `partition_time`: the row's time as an instant. Raises KeyNotUnique and RowWithoutTime
        where the schema does not already rule them out, and ValueUnreadable from the chunks.
        """
        with ExitStack() as opened:
            with self.reading():
                connection = self.engine.connect()
                opened.callback(_release, connection)
                statements = self.statements(start, end)
                if snapshot_id is None:
                    self._begin_snapshot(connection, statements)
                    self._check_rows(connection, statements)
                else:
                    self._join_snapshot(connection, statements, snapshot_id)
                snapshot = self.snapshot_class(statements, connection, signature)
            yield snapshot

    def reading(self) -> AbstractContextManager[None]:
        """Translates errors of the database while this source is read."""
        return translate_errors(self.engine, f"to read {self.spec}")

    # --- what a backend may override -------------------------------------------------------------

    def _describe(self) -> list[SourceColumn]:
        if self.spec.table is None:
            problem = f"{self.engine.dialect.name} does not describe the columns of a query"
            raise ConfigurationError("the job", "source.query", problem, _KEEP_ROWS)
        inspector = sa.inspect(self.engine)
        found = inspector.get_columns(self.spec.table, schema=self.spec.schema)
        return [reflect_column(column) for column in found]

    def _begin_snapshot(self, connection: sa.Connection, statements: Statements) -> None:
        """Make all reads of this connection see one moment, where the database can.

        Where a change of a table's definition is not part of the moment, as in servers, the tables
        are locked against it before that moment, so that what is read is what was there.
        """
        driver: Any = connection.connection.dbapi_connection
        with suppress(NotImplementedError):  # a dialect that knows no levels
            if "REPEATABLE READ" in connection.dialect.get_isolation_level_values(driver):
                connection.execution_options(isolation_level="REPEATABLE READ")
        connection.begin()

    def _join_snapshot(
        self, connection: sa.Connection, statements: Statements, snapshot_id: str
    ) -> None:
        """Make this connection read another's snapshot."""
        raise cannot_share(self.engine.dialect)

    def _declared_unique(self, table: str) -> tuple[list[str], list[list[str]]]:
        """The primary key's columns, and those of every other unique constraint or index."""
        inspector, schema = sa.inspect(self.engine), self.spec.schema
        unique = [c["column_names"] for c in inspector.get_unique_constraints(table, schema)]
        for index in inspector.get_indexes(table, schema):
            partial = any(name.endswith("_where") for name in index.get("dialect_options", {}))
            if index["unique"] and not partial:  # an expression's name is None
                unique.append([name or "" for name in index["column_names"]])
        return inspector.get_pk_constraint(table, schema)["constrained_columns"], unique

    def _check_rows(self, connection: sa.Connection, statements: Statements) -> None:
        """What the schema leaves open: NULL times anywhere, NULL or duplicate keys in the range."""
        untimed = statements.rows_without_time()
        if untimed is not None and connection.execute(untimed).first() is not None:
            raise RowWithoutTime(str(self.spec), str(self.spec.time_column))
        invalid = statements.invalid_keys()
        row = None if invalid is None else connection.execute(invalid).first()
        if row is not None:
            values = ", ".join(repr(value) for value in row)
            problem = f"({values}) is NULL" if None in row else f"({values}) appears twice"
            remedy = "Make each key appear once and without NULL, or name other key columns."
            raise KeyNotUnique(str(self.spec), self.spec.key, problem, remedy)

    # --- inside ---------------------------------------------------------------------------------

    def _from_clause(self) -> sa.FromClause:
        """What stands after FROM, before the columns are known."""
        if self.spec.query is None:
            return sa.table(self.spec.table or "", schema=self.spec.schema)
        query = bound_query(self.spec.query, None, None, self.engine.dialect)
        return query.columns().subquery("source")

    def _describes_queries(self) -> bool:
        return type(self)._describe is not Source._describe  # noqa: SLF001

    def _require_table(self, table: str) -> None:
        inspector = sa.inspect(self.engine)
        schema = self.spec.schema
        if not inspector.has_table(table, schema=schema):
            raise TableNotFound(table, tuple(users_tables(inspector, schema)))

    def _check_key_is_declared_unique(self) -> None:
        """A table's key must be declared unique; a query's is checked in each snapshot."""
        if self.spec.table is None:
            return
        with translate_errors(self.engine, f"to describe {self.spec}"):
            primary, unique = self._declared_unique(self.spec.table)
        key = set(self.spec.key)
        if any(columns and set(columns) <= key for columns in [primary, *unique]):
            nullable = [c.name for c in self.key_columns if c.nullable and c.name not in primary]
            if not nullable:
                return  # SQLite has NULLs even in primary keys: `_check_rows` looks for them
            problem = f"{', '.join(nullable)} may be NULL"
            remedy = "Declare it NOT NULL, or use `query:` in place of `table:`."
            if not self._describes_queries():
                remedy = f"Declare it NOT NULL, which may take a new table. {_KEEP_ROWS}"
            raise KeyNotUnique(str(self.spec), self.spec.key, problem, remedy)
        problem = "no primary key, unique constraint or unique index covers it"
        if primary:
            problem += f" (the primary key is {', '.join(primary)})"
        remedy = "Name such columns as source.key, or add a unique index, or use `query:`."
        if not self._describes_queries():
            remedy = f"Name such columns as source.key. Or: {_KEEP_ROWS}"
        raise KeyNotUnique(str(self.spec), self.spec.key, problem, remedy)


def users_tables(inspector: sa.Inspector, schema: str | None) -> list[str]:
    """The names of tables and views, sorted, without Nightshift's own."""
    tables, views = inspector.get_table_names(schema=schema), inspector.get_view_names(schema)
    ours = {view for view in views if f"{view}_runs" in tables}
    ours |= {f"{view}_runs" for view in ours}
    known = sorted({*tables, *views} - ours)
    return [name for name in known if not name.startswith("nightshift_")]


def _release(connection: sa.Connection) -> None:
    """End the reader's transaction. If the connection is lost, so is the transaction."""
    try:
        connection.close()
    except sa.exc.DBAPIError:
        connection.invalidate()
        connection.close()
