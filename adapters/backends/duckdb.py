"""DuckDB: Arrow out and Arrow in, without a copy row by row."""

from collections.abc import Generator
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from nightshift.adapters.backends.duckdb_dialect import type_of
from nightshift.adapters.source.columns import KeyRange, KeySet, SourceColumn, decimal_type
from nightshift.adapters.source.snapshot import StreamedSnapshot, rechunk
from nightshift.adapters.source.source import Source
from nightshift.adapters.source.statements import Statements, render
from nightshift.adapters.target.predictions import PredictionTable

# DuckDB's type names -> Arrow. Nested and parametrized types are handled in `_column`.
_ARROW: dict[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "HUGEINT": pa.decimal128(38, 0),
    "UHUGEINT": pa.decimal128(38, 0),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP_S": pa.timestamp("us"),
    "TIMESTAMP_MS": pa.timestamp("us"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC"),
    "BLOB": pa.binary(),
}
_AS_TEXT = ("UUID", "JSON", "TIME", "TIME WITH TIME ZONE", "INTERVAL", "BIT")
_ROWS = "nightshift_rows"


class DuckDBSnapshot(StreamedSnapshot):
    """A snapshot whose chunks are DuckDB's own columns."""

    def chunks(self, keys: KeyRange | KeySet, rows: int) -> Generator[pa.Table, None, None]:
        statement = self._statements.rows(self._signature, keys)
        fields = [(column.name, self._arrow(column.name)) for column in statement.selected_columns]
        text, values = render(self._connection.dialect, statement)
        driver: Any = self._connection.connection.dbapi_connection
        with self._reading():
            for chunk in rechunk(driver.stream(text, values, rows), rows):
                columns = [chunk.column(name).cast(kind) for name, kind in fields]
                yield self._finish(pa.table(columns, names=[name for name, _ in fields]))


class DuckDBSource(Source):
    snapshot_class = DuckDBSnapshot

    def _describe(self) -> list[SourceColumn]:
        spec, required = self.spec, set[str]()
        statement = sa.select(sa.text("*")).select_from(self._from_clause())
        with self.engine.connect() as connection:
            connection.execution_options(nightshift_read_only=True)
            if spec.table is not None:
                inspector = sa.inspect(connection)
                columns = inspector.get_columns(spec.table, schema=spec.schema)
                required = {column["name"] for column in columns if not column["nullable"]}
            text, values = render(connection.dialect, statement)
            described = connection.exec_driver_sql(f"DESCRIBE {text}", tuple(values)).all()
        return [_column(row[0], row[1], row[0] not in required) for row in described]

    def _begin_snapshot(self, connection: sa.Connection, statements: Statements) -> None:
        connection.execution_options(nightshift_read_only=True)
        connection.begin()


class DuckDBPredictionTable(PredictionTable):
    def _insert(self, connection: sa.Connection, rows: pa.Table) -> None:
        """DuckDB reads Arrow's columns in place."""
        quote = connection.dialect.identifier_preparer
        columns = ", ".join(map(quote.quote, rows.column_names))
        driver: Any = connection.connection.dbapi_connection
        driver.duck.register(_ROWS, pa.table([_local(c) for c in rows.columns], rows.column_names))
        try:
            place = f"{quote.format_table(self.rows)} ({columns})"
            connection.exec_driver_sql(f"INSERT INTO {place} SELECT {columns} FROM {_ROWS}")  # noqa: S608 - quoted
        finally:
            driver.duck.unregister(_ROWS)


def _local(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Instants as UTC without a zone, as they are stored."""
    zoned = pa.types.is_timestamp(column.type) and column.type.tz is not None
    return column.cast(pa.timestamp("us")) if zoned else column


def _column(name: str, text: str, nullable: bool) -> SourceColumn:
    """One column of DESCRIBE."""
    sql = type_of(text)
    if text in _ARROW:
        arrow = _ARROW[text]
    elif isinstance(sql, sa.Numeric):
        arrow = decimal_type(sql.precision, sql.scale)
    else:
        plain = text in _AS_TEXT or (text.startswith("ENUM(") and not text.endswith("]"))
        arrow = pa.string() if plain else pa.list_(pa.null())
        sql = sql if isinstance(sql, sa.Uuid) else sa.Text()
        return SourceColumn(name, arrow, sql, text, as_text=True, nullable=nullable)
    if pa.types.is_decimal(arrow):
        sql = sa.Numeric(arrow.precision, arrow.scale)
    elif pa.types.is_timestamp(arrow):
        sql = sa.DateTime(timezone=arrow.tz is not None)
    return SourceColumn(name, arrow, sql, text, nullable=nullable)
