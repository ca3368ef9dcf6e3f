"""SQLite, which stores times as text and decimals as floats."""

import json
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import DATETIME

from nightshift.adapters.errors import ColumnTypeUnsupported, ValueUnreadable
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import SourceColumn
from nightshift.adapters.source.source import Source
from nightshift.adapters.source.statements import Statements
from nightshift.adapters.target.predictions import PredictionTable

# The forms (GLOB patterns) whose order as text is the order in time.
_DATE, _SECOND = "????-??-??", "????-??-?? ??:??:??"


class SqliteStatements(Statements):
    def misformatted(self, column: str) -> "sa.Select[Any] | None":
        """A value of a date or time column whose order as text is not its order in time."""
        everywhere = self.relation.clause(None, None)
        kind = self.relation.columns[column].arrow
        text = sa.type_coerce(everywhere.c[column], sa.Text())
        proper: sa.ColumnElement[bool]
        if pa.types.is_date(kind):
            proper = text.op("GLOB", is_comparison=True)(_DATE)
        elif pa.types.is_timestamp(kind):
            whole = text.op("GLOB", is_comparison=True)(_SECOND)
            fraction = text.op("GLOB", is_comparison=True)(f"{_SECOND}.*")
            digits = ~text.op("GLOB", is_comparison=True)("*.*[^0-9]*")
            proper = sa.or_(whole, sa.and_(fraction, digits))
        else:
            return None
        return sa.select(text).where(~proper).limit(1)

    def _bound(self, column: SourceColumn, value: Any) -> "sa.ColumnElement[Any]":
        if pa.types.is_timestamp(column.arrow) and not value.microsecond:
            # The least of that time's forms: '...:00' sorts before '...:00.000000'.
            kind: sa.DateTime = DATETIME(truncate_microseconds=True)  # type: ignore[no-untyped-call]
            return sa.bindparam(None, value, kind)
        return super()._bound(column, value)


class SqliteSource(Source):
    statements_class = SqliteStatements

    def check(self, signature: Signature) -> None:
        for part in self.key_columns:
            if pa.types.is_decimal(part.arrow):
                found = f"{part.display}, which SQLite stores as a floating-point number,"
                raise ColumnTypeUnsupported(str(self.spec), part.name, found, "a key column")
        super().check(signature)

    def _check_rows(self, connection: sa.Connection, statements: Statements) -> None:
        super()._check_rows(connection, statements)
        for name in filter(None, dict.fromkeys([*self.spec.key, self.spec.time_column])):
            statement = SqliteStatements(self.relation, None, None).misformatted(name)
            odd = None if statement is None else connection.scalar(statement)
            if odd is not None:
                problem = (
                    f"holds {odd!r}, and SQLite compares times as texts, so all must be like "
                    "'2013-10-01' or '2013-10-01 05:00:00'"
                )
                raise ValueUnreadable(str(self.spec), name, "(?)", problem)


class SqlitePredictionTable(PredictionTable):
    def _insert(self, connection: sa.Connection, rows: pa.Table) -> None:
        """The driver's own executemany: no SQLAlchemy between Arrow's values and SQLite's."""
        quote = connection.dialect.identifier_preparer
        names = ", ".join(map(quote.quote, rows.column_names))
        marks = ", ".join("?" * rows.num_columns)
        values = zip(*(_plain(column) for column in rows.columns), strict=True)
        driver: Any = connection.connection.driver_connection
        place = f"{quote.format_table(self.rows)} ({names})"
        driver.executemany(f"INSERT INTO {place} VALUES ({marks})", values)  # noqa: S608 - quoted


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Values as SQLite stores them: dates and times as text, lists as JSON."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us")).cast(pa.string())
    elif pa.types.is_date(kind):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    if pa.types.is_list(kind):
        return [None if value is None else json.dumps(value) for value in values]
    return values
