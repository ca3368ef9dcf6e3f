"""A source's columns: how the database declares them, how Arrow carries them, keys as text."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

Key = tuple[Any, ...]
"""The values of a row's key columns."""

PARTITION_TIME = "partition_time"
"""The column of a chunk, and of the predictions, with the row's time as an instant."""
RESERVED = ("run_id", PARTITION_TIME, "model_version", "scored_at")
"""Names of Nightshift's own columns of the predictions; no key or output may have them."""


@dataclass(frozen=True)
class KeyRange:
    """Rows whose key is greater than `after` and at most `through`. None is unbounded."""

    after: Key | None = None
    through: Key | None = None


@dataclass(frozen=True)
class KeySet:
    """Rows with one of these keys."""

    keys: tuple[Key, ...]


ALL_KEYS = KeyRange()


@dataclass(frozen=True)
class SourceColumn:
    """A column as the database declares it, and as Arrow carries it."""

    name: str
    arrow: pa.DataType
    sql: "sa.types.TypeEngine[Any]"
    display: str
    as_text: bool = False
    """The database is asked to send it as text (UUIDs, enums, JSON)."""
    nullable: bool = True
    tinyint_as_bool: bool = False
    """It is MariaDB's TINYINT(1): a boolean, unless the model wants a number."""

    @property
    def is_uuid(self) -> bool:
        return isinstance(self.sql, sa.Uuid)

    @property
    def can_be_key(self) -> bool:
        """Whether order and equality of its values are the same here and in the database."""
        if pa.types.is_floating(self.arrow) or pa.types.is_nested(self.arrow):
            return False
        return self.is_uuid or not (self.as_text or pa.types.is_binary(self.arrow))

    def chunk_type(self, wanted: pa.DataType | None) -> pa.DataType:
        """The Arrow type of this column in a chunk, for a model's input of the type `wanted`.

        Exact decimals travel as text: Arrow has one scale per column, a database need not.
        """
        if self.tinyint_as_bool and wanted != pa.bool_():
            return pa.int8()
        if not pa.types.is_decimal(self.arrow):
            return self.arrow
        rounded = wanted is not None and pa.types.is_floating(wanted)
        return pa.float64() if rounded else pa.string()


def decimal_type(precision: int | None, scale: int | None) -> pa.DataType:
    """The Arrow type of a NUMERIC; without a precision, values of any scale may come."""
    if precision is None:
        return pa.decimal128(38, 10)
    scale = scale or 0
    # PostgreSQL also has negative scales (hundreds) and scales above the precision.
    precision, scale = max(precision, scale, precision - scale), max(scale, 0)
    if precision <= 38:
        return pa.decimal128(precision, scale)
    return pa.decimal256(min(precision, 76), min(scale, 76))


# The Python type of a SQLAlchemy type -> Arrow's.
_ARROW_OF_PYTHON: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
    list: pa.list_(pa.null()),
    date: pa.date32(),
    datetime: pa.timestamp("us"),
}


def reflect_column(column: Any) -> SourceColumn:
    """A column as SQLAlchemy's inspector describes it."""
    kind = column["type"]
    try:
        arrow = _ARROW_OF_PYTHON.get(kind.python_type)
    except NotImplementedError:
        arrow = None
    if isinstance(kind, sa.Numeric) and arrow is None:
        arrow = decimal_type(kind.precision, kind.scale)
    elif isinstance(kind, sa.DateTime) and kind.timezone:
        arrow = pa.timestamp("us", "UTC")
    elif isinstance(kind, sa.Uuid):
        kind = sa.Uuid(as_uuid=False)
    enumerated = isinstance(kind, sa.Enum)  # it sorts by the order of its declaration
    if arrow == pa.int64():
        kind = sa.BigInteger()  # an INTEGER here may be wider than one in the target
    elif arrow is not None and not pa.types.is_nested(arrow):
        kind = kind.as_generic()  # the target may be another database
    return SourceColumn(
        name=column["name"],
        arrow=pa.string() if arrow is None else arrow,
        sql=kind,
        display=str(column["type"]),
        as_text=arrow is None or enumerated,
        nullable=column["nullable"],
    )


def encode_key(key: Key) -> str:
    """A key as JSON text for the ledger."""
    return json.dumps([v if isinstance(v, bool | int | str) else str(v) for v in key])


def decode_key(text: str, columns: Sequence[SourceColumn]) -> Key:
    """The ledger's JSON text -> the key's values in the columns' own types."""
    values = json.loads(text)
    return tuple(_parsed(column, value) for column, value in zip(columns, values, strict=True))


def parse_key(texts: Sequence[str], columns: Sequence[SourceColumn]) -> Key:
    """What a person types, one text for each key column -> the key. Raises ValueError."""
    found = []
    for column, text in zip(columns, texts, strict=True):
        try:
            found.append(_parsed(column, int(text) if pa.types.is_integer(column.arrow) else text))
        except (ValueError, ArithmeticError) as error:
            problem = f"{text!r} is not a valid value for {column.name!r} ({column.display})"
            raise ValueError(problem) from error
    return tuple(found)


def _parsed(column: SourceColumn, value: Any) -> Any:
    if column.is_uuid:
        return str(uuid.UUID(value))
    if pa.types.is_decimal(column.arrow):
        return Decimal(value)
    if pa.types.is_timestamp(column.arrow):
        return datetime.fromisoformat(value)
    if pa.types.is_date(column.arrow):
        return date.fromisoformat(value)
    return value
