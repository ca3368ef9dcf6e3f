"""The types of what Nightshift keeps, as each database spells them.

What a type must keep is the same everywhere: names and keys by their exact characters, texts of any
length, instants to the microsecond. MariaDB and MySQL need most of this to be said: their TEXT ends
at 64 kB and cannot be a key, their DATETIME counts seconds, and their usual collations call 'a',
'A' and 'a ' one value.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from nightshift.adapters.database.capabilities import MYSQL
from nightshift.adapters.database.engine import reader
from nightshift.adapters.source.columns import SourceColumn

AnyType = sa.types.TypeEngine[Any]

# InnoDB, with rows in the format that is the default since MySQL 5.7: bytes of one key, of which a
# character of utf8mb4 may take four; and the run's id, which comes before the row's key.
_LONGEST_KEY, _PER_CHARACTER, _NUMBER = 3072, 4, 8
_USUAL = 255


class Instant(sa.types.TypeDecorator[datetime]):
    """A point in time: timestamptz where there is one, else UTC without a zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> AnyType:
        kind: AnyType = sa.DateTime(timezone=True)
        if dialect.name in MYSQL:
            kind = mysql.DATETIME(fsp=6)
        elif dialect.name == "duckdb":  # its zoned type is read in the session's zone
            kind = sa.DateTime()
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Name(sa.types.TypeDecorator[str]):
    """A text of up to `length` characters that is equal to itself only, trailing spaces and all."""

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int = _USUAL) -> None:
        super().__init__(length)

    def load_dialect_impl(self, dialect: sa.Dialect) -> AnyType:
        length = self.impl_instance.length  # type: ignore[attr-defined]
        if dialect.name in MYSQL:
            kind = mysql.VARCHAR(length, collation=exact_collation(dialect))
            return dialect.type_descriptor(kind)
        return dialect.type_descriptor(sa.String(length))


class LongText(sa.types.TypeDecorator[str]):
    """A text of any length."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> AnyType:
        if dialect.name in MYSQL:
            return dialect.type_descriptor(mysql.LONGTEXT(collation=exact_collation(dialect)))
        return dialect.type_descriptor(sa.Text())


def exact_collation(dialect: sa.Dialect) -> str:
    """The collation of MariaDB's or MySQL's in which a text is equal to itself only."""
    return "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"


WHOLE_64 = (
    sa.Numeric(20, 0)
    .with_variant(mysql.BIGINT(unsigned=True), *MYSQL)
    .with_variant(sa.BigInteger(), "sqlite")  # which would round a decimal
    .with_variant(sa.Numeric(20, 0), "duckdb")
)
"""Whole numbers from 0 to 2**64 - 1."""


def double(arrow: pa.DataType) -> AnyType:
    """A float as wide as Arrow's; elsewhere than named, REAL is as wide as DOUBLE."""
    if pa.types.is_float32(arrow):
        return sa.Double().with_variant(sa.REAL(), "postgresql", "duckdb")
    return sa.Double()


def numbers(arrow: pa.DataType) -> AnyType:
    """A list of floats: an array where there are arrays, else JSON."""
    arrays: sa.ARRAY[float] = sa.ARRAY(
        sa.REAL() if pa.types.is_float32(arrow.value_type) else sa.Double()
    )
    return sa.JSON().with_variant(arrays, "postgresql", "duckdb")


def table_there(engine: sa.Engine, name: str, schema: str | None) -> sa.Table:
    """A table as the database describes it, its floats as floats. Raises NoSuchTableError."""
    metadata = sa.MetaData()
    sa.event.listen(metadata, "column_reflect", _read_floats)
    return sa.Table(name, metadata, schema=schema, autoload_with=reader(engine))


def _read_floats(_inspector: object, _table: object, column: Any) -> None:
    """SQLAlchemy would make rounded decimals of what MariaDB calls a DOUBLE."""
    if isinstance(column["type"], sa.Float):
        column["type"] = column["type"].as_generic()
        column["type"].asdecimal = False


def kept(key: Sequence[SourceColumn]) -> list[AnyType]:
    """The types in which the parts of a row's key are kept with its prediction."""
    texts = sum(_is_text(column) for column in key)
    others = _NUMBER * (1 + 2 * (len(key) - texts))  # a decimal or a time may take 16 bytes
    room = (_LONGEST_KEY - others) // _PER_CHARACTER // max(texts, 1)
    return [_kept(column, room) for column in key]


def _is_text(column: SourceColumn) -> bool:
    return isinstance(column.sql, sa.String | sa.Uuid | sa.Numeric | Name)


def _kept(column: SourceColumn, room: int) -> AnyType:
    kind = column.sql
    if column.arrow == pa.uint64():
        return WHOLE_64
    if isinstance(kind, sa.DateTime):
        naive = kind.with_variant(mysql.DATETIME(fsp=6), *MYSQL)
        return Instant() if kind.timezone else naive
    if isinstance(kind, sa.Uuid):
        return kind.with_variant(sa.String(36), "sqlite").with_variant(Name(36), *MYSQL)
    if isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float):
        # Exact, as text: SQLite keeps floats, and elsewhere a NUMERIC has a scale of its own.
        return (
            sa.Numeric()
            .with_variant(sa.Text(), "sqlite", "duckdb")
            .with_variant(Name(min(_USUAL, room)), *MYSQL)
        )
    if isinstance(kind, sa.String):
        return kind.with_variant(Name(min(kind.length or _USUAL, room)), *MYSQL)
    return kind
