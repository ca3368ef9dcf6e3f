"""A column of a model's signature: its name and type, and which values fit it.

One table says what each type is on its way from the database to the model:

| type          | in Arrow              | what the model gets (`dtype`)           | NULL becomes   |
|---------------|-----------------------|-----------------------------------------|----------------|
| bool          | bool                  | bool, or boolean where nullable         | pd.NA          |
| int8..uint64  | the same              | the NumPy type, or Int8..UInt64 nullable| pd.NA          |
| float32/64    | the same              | float32, float64                        | NaN            |
| string        | string                | str, or object if the sample was object | as the sample  |
| category      | string or int64       | category, with the sample's categories  | NaN (code -1)  |
| date          | date32                | object of datetime.date                 | None           |
| timestamp     | timestamp[us]         | datetime64, in the sample's unit        | NaT            |
| timestamptz   | timestamp[us, UTC]    | datetime64, in the sample's time zone   | NaT            |
| decimal       | string                | object of decimal.Decimal               | None           |
| float32[]/64[]| list of float32/64    | outputs only: k columns kept as one     |                |

A value outside a category's categories is appended to them: what it means is up to the library.
"""

from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

ColumnType = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float32", "float64", "string", "category", "date", "timestamp", "timestamptz", "decimal",
    "float32[]", "float64[]",
]  # fmt: skip

ARROW_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    **{name: getattr(pa, name)() for name in ("int8", "int16", "int32", "int64")},
    **{name: getattr(pa, name)() for name in ("uint8", "uint16", "uint32", "uint64")},
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "decimal": pa.string(),  # Arrow's decimals have one scale per column, PostgreSQL's need not
    "float32[]": pa.list_(pa.float32()),
    "float64[]": pa.list_(pa.float64()),
}

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")

UNFIT = (pa.ArrowException, OverflowError, UnicodeEncodeError)  # what pa.array and cast raise


class Column(BaseModel):
    """One input or output: its type, and the pandas dtype in which the model meets it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: ColumnType
    dtype: str
    nullable: bool
    categories: tuple[str | int, ...] | None = None
    ordered: bool = False
    missing: Literal["nan", "none"] = "nan"
    """How an object column of strings spells a missing value: NaN and None are two to sklearn."""
    length: int | None = None
    """How many numbers each value of an array column holds."""

    @property
    def arrow_type(self) -> pa.DataType:
        if self.type == "category":
            numbers = all(isinstance(category, int) for category in self.categories or ("",))
            return pa.int64() if numbers else pa.string()
        return ARROW_TYPES[self.type]

    def accepts(self, found: pa.DataType) -> bool:
        """Whether a database column of this Arrow type can be read as this input.

        Widening is welcome; what could lose a fraction, a sign or a time zone is not.
        """
        wanted = self.arrow_type
        if self.type == "decimal":
            return bool(pa.types.is_decimal(found) or pa.types.is_integer(found))
        if pa.types.is_floating(wanted):
            return _is_number(found) or pa.types.is_boolean(found)
        if pa.types.is_integer(wanted):
            whole = pa.types.is_decimal(found) and found.scale == 0
            return bool(pa.types.is_integer(found) or pa.types.is_boolean(found) or whole)
        if pa.types.is_timestamp(wanted):
            if pa.types.is_date(found):
                return wanted.tz is None
            return pa.types.is_timestamp(found) and (found.tz is None) == (wanted.tz is None)
        return bool(wanted == found)

    def carries(self, found: pa.DataType) -> bool:
        """Whether values of this Arrow type, as a chunk has them, may be cast to the input's.

        Exact decimals travel as text, so whole numbers may be in one; no other text is a number,
        and no number is a text.
        """
        if pa.types.is_string(found) or pa.types.is_large_string(found):
            return self.type == "decimal" or self.arrow_type == pa.string() or self._whole
        return bool(found == self.arrow_type or pa.types.is_null(found) or self.accepts(found))

    def spells(self, value: object) -> bool:
        """Whether JSON, which lacks such values, may have this text for one."""
        number = pa.types.is_floating(self.arrow_type) and value in _NOT_FINITE
        return number or (isinstance(value, str) and bool(pa.types.is_temporal(self.arrow_type)))

    def predicts(self, found: pa.DataType) -> bool:
        """Whether predictions of this Arrow type may be cast to the output's: labels stay labels,
        numbers numbers, and a float may stand for a whole number if it is one.
        """
        if pa.types.is_string(found):
            return bool(self.arrow_type == found)
        return self.carries(found) or (self._whole and pa.types.is_floating(found))

    @property
    def _whole(self) -> bool:
        return bool(pa.types.is_integer(self.arrow_type)) and self.type != "category"


def _is_number(found: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    )
