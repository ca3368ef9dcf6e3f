"""DuckDB for SQLAlchemy: what Nightshift needs of it, over DuckDB's own Python package.

Every identifier is quoted, so no list of reserved words can be out of date. A DuckDB file belongs
to one process; within it, transactions that write take turns (DuckDB would let them run at once and
then fail all but one that touch the same row), and those that read run alongside.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import default
from sqlalchemy.sql import compiler

AnyType = sa.types.TypeEngine[Any]

_WAIT = 30.0  # seconds to wait for another writer, as for SQLite

# A query's names are tables, never Python variables on the stack.
_SESSION = (
    "SET TimeZone = 'UTC'",
    "SET python_enable_replacements = false",
    "SET enable_progress_bar = false",
)

# DuckDB's names of types -> SQLAlchemy's.
_TYPES: dict[str, AnyType] = {
    "BOOLEAN": sa.Boolean(),
    "TINYINT": sa.SmallInteger(),
    "SMALLINT": sa.SmallInteger(),
    "INTEGER": sa.Integer(),
    "BIGINT": sa.BigInteger(),
    "UTINYINT": sa.SmallInteger(),
    "USMALLINT": sa.Integer(),
    "UINTEGER": sa.BigInteger(),
    "UBIGINT": sa.Numeric(20, 0),
    "FLOAT": sa.REAL(),
    "DOUBLE": sa.Double(),
    "VARCHAR": sa.Text(),
    "UUID": sa.Uuid(as_uuid=False),
    "DATE": sa.Date(),
    "TIMESTAMP": sa.DateTime(),
    "TIMESTAMP WITH TIME ZONE": sa.DateTime(timezone=True),
    "JSON": sa.JSON(),
}


class _Connection:
    """A DBAPI connection (PEP 249): all its cursors are in one transaction."""

    def __init__(self, database: str, config: dict[str, Any], read_only: bool = False) -> None:
        self.duck = duckdb.connect(database, read_only=read_only, config=config)
        for statement in _SESSION:
            self.duck.execute(statement)
        self._turn = _turn_of(database)
        self._writes = self._in_transaction = False
        self._open: pa.RecordBatchReader | None = None

    def begin(self, reading: bool) -> None:
        """Begin a transaction; one that writes waits for its turn."""
        if not reading:
            if not self._turn.acquire(timeout=_WAIT):
                raise duckdb.OperationalError("the database is locked by another transaction")
            self._writes = True
        self._in_transaction = True
        try:
            self.run(f"BEGIN TRANSACTION{' READ ONLY' if reading else ''}")
        except BaseException:
            self._end()
            raise

    def cursor(self) -> "_Cursor":
        return _Cursor(self)

    def stream(
        self, statement: str, parameters: Sequence[Any], rows: int
    ) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow, about `rows` at a time, as DuckDB comes to them.

        A connection has one open result: another statement ends this one, and the next batch is
        then an error.
        """
        self._drop()
        reader = self.duck.sql(statement, params=list(parameters)).to_arrow_reader(rows)
        self._open = reader
        while self._open is reader:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                self._drop()
                return
            yield batch
        raise duckdb.OperationalError("another statement ended the reading")

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._drop()
        self.duck.execute(statement, parameters or None)

    def _drop(self) -> None:
        """End the open result, if there is one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def commit(self) -> None:
        self._finish("COMMIT")

    def rollback(self) -> None:
        self._finish("ROLLBACK")

    def close(self) -> None:
        try:
            self._drop()
            self.duck.close()
        finally:
            self._end()

    def _finish(self, statement: str) -> None:
        if self._in_transaction:
            try:
                self.run(statement)
            finally:
                self._end()

    def _end(self) -> None:
        self._in_transaction = False
        if self._writes:
            self._writes = False
            self._turn.release()


_turns: dict[str, threading.Lock] = {}


def _turn_of(database: str) -> threading.Lock:
    return _turns.setdefault(str(Path(database).resolve()), threading.Lock())


class _Cursor:
    """A DBAPI cursor. Its rows are in memory, since a connection has one open result at most."""

    arraysize = 1

    def __init__(self, connection: _Connection) -> None:
        self._connection, self._duck = connection, connection.duck
        self._rows: list[tuple[Any, ...]] = []
        self.description: Sequence[Any] | None = None
        self.rowcount = -1

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._connection.run(statement, parameters)
        self.description, self.rowcount = self._duck.description, self._duck.rowcount
        self._rows = self._duck.fetchall()[::-1]

    def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        for row in parameters:
            self._connection.run(statement, row)

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        return [self._rows.pop() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows[::-1], []
        return rows

    def close(self) -> None:
        self._rows = []


class _Driver:
    """The module-level part of the DBAPI."""

    paramstyle, apilevel, threadsafety = "qmark", "2.0", 1
    Error, Warning = duckdb.Error, duckdb.Warning
    InterfaceError, DatabaseError = duckdb.Error, duckdb.DatabaseError
    DataError, OperationalError = duckdb.DataError, duckdb.OperationalError
    IntegrityError, InternalError = duckdb.IntegrityError, duckdb.InternalError
    ProgrammingError, NotSupportedError = duckdb.ProgrammingError, duckdb.NotSupportedError
    connect = _Connection


class _Preparer(compiler.IdentifierPreparer):
    def _requires_quotes(self, _value: str) -> bool:
        return True


class _Compiler(compiler.SQLCompiler):
    def for_update_clause(self, select: Any, **kw: Any) -> str:
        return ""  # there is only one writer at a time

    def limit_clause(self, select: Any, **kwargs: Any) -> str:
        text = ""
        parts = {"LIMIT": select._limit_clause, "OFFSET": select._offset_clause}  # noqa: SLF001
        for word, clause in parts.items():
            if clause is not None:
                text += f"\n {word} {self.process(clause, **kwargs)}"
        return text


class _DDLCompiler(compiler.DDLCompiler):
    """DuckDB numbers rows from a sequence, which has to be there before the table is."""

    def get_column_specification(self, column: Any, **kwargs: Any) -> Any:
        if column.table is None or column is not _counted(column.table):
            return super().get_column_specification(column, **kwargs)  # type: ignore[no-untyped-call]
        sequence = self.preparer.format_sequence(_sequence_of(column)).replace("'", "''")
        name, kind = self.preparer.format_column(column), self.type_compiler.process(column.type)
        return f"{name} {kind} DEFAULT nextval('{sequence}') NOT NULL"

    def visit_create_table(self, create: Any, **kwargs: Any) -> Any:
        text = super().visit_create_table(create, **kwargs)  # type: ignore[no-untyped-call]
        column = _counted(create.element)
        if column is None:
            return text
        name = self.preparer.format_sequence(_sequence_of(column))
        return f"CREATE SEQUENCE IF NOT EXISTS {name}; {text}"  # two statements in one are accepted


def _counted(table: Any) -> Any:
    """The column that counts up by itself, if there is one."""
    return table._autoincrement_column  # noqa: SLF001


def _sequence_of(column: Any) -> sa.Sequence:
    return sa.Sequence(f"{column.table.name}_{column.name}", schema=column.table.schema)


class _TypeCompiler(compiler.GenericTypeCompiler):
    def visit_datetime(self, type_: Any, **_: Any) -> str:
        return "TIMESTAMP WITH TIME ZONE" if type_.timezone else "TIMESTAMP"

    visit_DATETIME = visit_TIMESTAMP = visit_datetime  # noqa: N815 - SQLAlchemy's visitor names

    def visit_uuid(self, type_: Any, **kw: Any) -> str:
        return "UUID"

    def visit_ARRAY(self, type_: Any, **kwargs: Any) -> str:  # noqa: N802
        return f"{self.process(type_.item_type, **kwargs)}[]"


class DuckDBDialect(default.DefaultDialect):
    """`duckdb:///folder/file.duckdb?access_mode=read_only`: parameters are DuckDB's settings."""

    name = driver = "duckdb"
    default_paramstyle = "qmark"
    max_identifier_length = 10_000  # it has no limit
    supports_statement_cache = True
    supports_native_boolean = supports_native_uuid = supports_native_decimal = True
    supports_sane_rowcount_returning = supports_sane_multi_rowcount = False
    supports_default_values = supports_multivalues_insert = True
    insert_returning = True
    postfetch_lastrowid = False
    supports_alter = False  # no constraint can be added later
    statement_compiler = _Compiler
    ddl_compiler = _DDLCompiler
    type_compiler_cls = _TypeCompiler
    preparer = _Preparer

    @classmethod
    def import_dbapi(cls) -> Any:
        return _Driver

    @classmethod
    def get_pool_class(cls, _url: sa.URL) -> type[sa.Pool]:
        return sa.QueuePool

    def create_connect_args(self, url: sa.URL) -> Any:
        return ((url.database, dict(url.query)), {})

    def do_begin(self, _connection: Any) -> None:
        """The engine's `begin` event has done it, knowing whether the transaction only reads."""

    def do_savepoint(self, _connection: Any, _name: str) -> None:
        """DuckDB has none, and no other writer from whose changes they would protect."""

    do_release_savepoint = do_savepoint

    def _get_server_version_info(self, connection: sa.Connection) -> tuple[int, ...]:
        return tuple(int(part) for part in duckdb.__version__.split(".")[:2])

    def _get_default_schema_name(self, connection: sa.Connection) -> str:
        return "main"

    # --- reflection -----------------------------------------------------------------------------

    def has_table(
        self, connection: sa.Connection, table_name: str, schema: str | None = None, **_: Any
    ) -> bool:
        names = self._names(connection, "tables", "table", schema)
        return table_name in names or table_name in self._names(connection, "views", "view", schema)

    def get_schema_names(self, connection: sa.Connection, **_: Any) -> list[str]:
        found = connection.exec_driver_sql(
            "SELECT schema_name FROM duckdb_schemas() WHERE database_name = current_database()"
        )
        return list(found.scalars())

    def get_table_names(
        self, connection: sa.Connection, schema: str | None = None, **_: Any
    ) -> list[str]:
        return self._names(connection, "tables", "table", schema)

    def get_view_names(
        self, connection: sa.Connection, schema: str | None = None, **_: Any
    ) -> list[str]:
        return self._names(connection, "views", "view", schema)

    def get_columns(
        self, connection: sa.Connection, table_name: str, schema: str | None = None, **_: Any
    ) -> Any:
        found = connection.exec_driver_sql(
            "SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns()"
            " WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"
            " ORDER BY column_index",
            (schema or "main", table_name),
        ).all()
        if not found:
            raise sa.exc.NoSuchTableError(table_name)
        return [
            {"name": name, "type": type_of(kind), "nullable": nullable, "default": None}
            for name, kind, nullable, _default in found
        ]

    def get_pk_constraint(
        self, connection: sa.Connection, table_name: str, schema: str | None = None, **_: Any
    ) -> Any:
        found = self._constraints(connection, table_name, schema, "PRIMARY KEY")
        name, columns = found[0] if found else (None, [])
        return {"constrained_columns": columns, "name": name}

    def get_unique_constraints(
        self, connection: sa.Connection, table_name: str, schema: str | None = None, **_: Any
    ) -> Any:
        found = self._constraints(connection, table_name, schema, "UNIQUE")
        return [{"name": name, "column_names": columns} for name, columns in found]

    def get_indexes(
        self, connection: sa.Connection, table_name: str, schema: str | None = None, **_: Any
    ) -> Any:
        found = connection.exec_driver_sql(
            "SELECT index_name, is_unique, expressions FROM duckdb_indexes()"
            " WHERE database_name = current_database() AND schema_name = ? AND table_name = ?",
            (schema or "main", table_name),
        ).all()
        columns = {c["name"] for c in self.get_columns(connection, table_name, schema)}
        return [
            {"name": name, "unique": unique, "column_names": _indexed(expressions, columns)}
            for name, unique, expressions in found
        ]

    def get_foreign_keys(self, *_arguments: Any, **_: Any) -> Any:
        return []  # not used

    def _names(
        self, connection: sa.Connection, plural: str, one: str, schema: str | None
    ) -> list[str]:
        found = connection.exec_driver_sql(
            f"SELECT {one}_name FROM duckdb_{plural}()"  # noqa: S608 - two words of ours
            " WHERE database_name = current_database()"
            " AND schema_name = ? AND NOT internal ORDER BY 1",
            (schema or "main",),
        )
        return list(found.scalars())

    def _constraints(
        self, connection: sa.Connection, table: str, schema: str | None, kind: str
    ) -> list[tuple[str, list[str]]]:
        found = connection.exec_driver_sql(
            "SELECT constraint_name, constraint_column_names FROM duckdb_constraints()"
            " WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"
            " AND constraint_type = ?",
            (schema or "main", table, kind),
        )
        return [(name, list(columns)) for name, columns in found]


def _indexed(expressions: str, columns: set[str]) -> list[str | None]:
    """The columns of an index, as DuckDB lists them: '[a, \\'"two words"\\']'. None: no column."""
    texts: list[str] = (
        duckdb.execute("SELECT CAST(? AS VARCHAR[])", [expressions]).fetchall()[0][0] or []
    )
    names = [text.strip('"').replace('""', '"') for text in texts]
    return [name if name in columns else None for name in names]


def type_of(text: str) -> AnyType:
    """DuckDB's text for a type -> SQLAlchemy's type; what has none is a NullType."""
    if text.endswith("[]"):
        return sa.ARRAY(type_of(text[:-2]))
    if text.startswith("DECIMAL("):
        precision, scale = text[len("DECIMAL(") : -1].split(",")
        return sa.Numeric(int(precision), int(scale))
    return _TYPES.get(text, sa.types.NULLTYPE)
