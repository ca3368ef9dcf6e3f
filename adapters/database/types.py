"""Column types of Nightshift's tables, which mean the same in every database.

Names and keys are compared by their exact characters, texts have any length, instants are exact to
the microsecond. MariaDB and MySQL need this spelled out: their TEXT ends at 64 kB and cannot be a
key, their DATETIME counts seconds, and their default collations treat 'a', 'A' and 'a ' as equal.
"""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.dialects.base import AnyType
from nightshift.adapters.database.dialects.mysql import MYSQL
from nightshift.adapters.database.engine import read_only


class Instant(sa.types.TypeDecorator[datetime]):
    """A point in time: timestamptz where there is one, else UTC without a zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> AnyType:
        return dialect.type_descriptor(capabilities(dialect).instant())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if capabilities(dialect).zoned_instants else value.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Name(sa.types.TypeDecorator[str]):
    """A text of up to `length` characters that equals only itself, trailing spaces included."""

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int = 255) -> None:
        super().__init__(length)

    def load_dialect_impl(self, dialect: sa.Dialect) -> AnyType:
        length = self.impl_instance.length  # type: ignore[attr-defined]
        return dialect.type_descriptor(capabilities(dialect).name(length, dialect))


class LongText(sa.types.TypeDecorator[str]):
    """A text of any length."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> AnyType:
        return dialect.type_descriptor(capabilities(dialect).long_text(dialect))


def clock(dialect: sa.Dialect) -> "sa.ColumnElement[datetime]":
    """The database's current time as an Instant, so that workers' clocks need not agree."""
    return sa.type_coerce(capabilities(dialect).clock(), Instant())


WHOLE_64 = (
    sa.Numeric(20, 0)
    .with_variant(mysql.BIGINT(unsigned=True), *MYSQL)
    .with_variant(sa.BigInteger(), "sqlite")  # where a decimal would be rounded
    .with_variant(sa.Numeric(20, 0), "duckdb")
)
"""Whole numbers from 0 to 2**64 - 1."""


def double(arrow: pa.DataType) -> AnyType:
    """A float as wide as Arrow's. In databases that are not listed, REAL is as wide as DOUBLE."""
    if pa.types.is_float32(arrow):
        return sa.Double().with_variant(sa.REAL(), "postgresql", "duckdb")
    return sa.Double()


def numbers(arrow: pa.DataType) -> AnyType:
    """A list of floats: an array where the database has them, else JSON."""
    arrays: sa.ARRAY[float] = sa.ARRAY(
        sa.REAL() if pa.types.is_float32(arrow.value_type) else sa.Double()
    )
    return sa.JSON().with_variant(arrays, "postgresql", "duckdb")


def reflect_table(engine: sa.Engine, name: str, schema: str | None) -> sa.Table:
    """A table as the database describes it. Raises NoSuchTableError."""
    metadata = sa.MetaData()
    sa.event.listen(metadata, "column_reflect", _keep_floats)
    return sa.Table(name, metadata, schema=schema, autoload_with=read_only(engine))


def _keep_floats(_inspector: object, _table: object, column: Any) -> None:
    """SQLAlchemy would read MariaDB's DOUBLE as a rounded decimal."""
    if isinstance(column["type"], sa.Float):
        column["type"] = column["type"].as_generic()
        column["type"].asdecimal = False
