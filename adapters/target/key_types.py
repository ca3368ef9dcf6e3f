"""The types in which a row's key is stored with its predictions."""

from collections.abc import Sequence

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from nightshift.adapters.database.dialects.base import AnyType
from nightshift.adapters.database.dialects.mysql import MYSQL
from nightshift.adapters.database.types import WHOLE_64, Instant, Name
from nightshift.adapters.source.columns import SourceColumn

# InnoDB's limits, with its default row format: bytes of one key, of which a character of utf8mb4
# may take four, and the run's id comes before the row's key.
_LONGEST_KEY, _PER_CHARACTER, _NUMBER = 3072, 4, 8
_LENGTH = 255  # characters of a text without a length


def key_types(key: Sequence[SourceColumn]) -> list[AnyType]:
    """The types of the key columns in the table of predictions."""
    texts = sum(_is_text(column) for column in key)
    others = _NUMBER * (1 + 2 * (len(key) - texts))  # a decimal or a time may take 16 bytes
    room = (_LONGEST_KEY - others) // _PER_CHARACTER // max(texts, 1)
    return [_key_type(column, room) for column in key]


def _is_text(column: SourceColumn) -> bool:
    return isinstance(column.sql, sa.String | sa.Uuid | sa.Numeric | Name)


def _key_type(column: SourceColumn, room: int) -> AnyType:
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
            .with_variant(Name(min(_LENGTH, room)), *MYSQL)
        )
    if isinstance(kind, sa.String):
        return kind.with_variant(Name(min(kind.length or _LENGTH, room)), *MYSQL)
    return kind
