"""The signature: names and types of a model's inputs and outputs, taken from sample data.

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

A value outside a category's categories becomes missing, as the libraries themselves do it.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from nightshift.adapters.errors import InvalidPredictions, SignatureMismatch, SignatureUndefined
from nightshift.adapters.models.arrays import unmasked

Features = pd.DataFrame | npt.NDArray[Any]
Predictions = npt.NDArray[Any]

ColumnType = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float32", "float64", "string", "category", "date", "timestamp", "timestamptz", "decimal",
    "float32[]", "float64[]",
]  # fmt: skip

_ARROW: dict[str, pa.DataType] = {
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

_UNFIT = (pa.ArrowException, OverflowError, UnicodeEncodeError)  # what pa.array and cast raise

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")

_SAMPLE_REMEDY = "Convert the column in the sample (and in training) and register again."
_NULL_REMEDY = (
    "Register the model with a sample that has missing values there, if it can handle them, "
    "or fill them in a source query."
)


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
        return _ARROW[self.type]

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


class Signature(BaseModel):
    """The columns that a model reads and the ones that it writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[Column, ...] = Field(min_length=1)
    outputs: tuple[Column, ...] = Field(min_length=1)

    @classmethod
    def from_sample(
        cls,
        features: pd.DataFrame,
        predictions: Predictions,
        output_names: Sequence[str] | None = None,
    ) -> Self:
        """Take the signature from (m, n) inputs and the (m,) or (m, k) predictions for them.

        A column is nullable if the sample has missing values in it, so give the whole training
        frame where you can. Raises SignatureUndefined if a name or type cannot be told.
        """
        if features.empty:
            raise SignatureUndefined("the sample", "it has no rows", "Give at least one row.")
        names = [str(name) for name in features.columns]
        for name in names:
            if names.count(name) > 1 or not name:
                problem = "its name is empty or not unique"
                raise SignatureUndefined(repr(name), problem, "Give each column its own name.")
        inputs = tuple(_input(name, features.iloc[:, i]) for i, name in enumerate(names))
        return cls(inputs=inputs, outputs=_outputs(predictions, output_names))

    @property
    def input_names(self) -> list[str]:
        return [column.name for column in self.inputs]

    @property
    def output_names(self) -> list[str]:
        return [column.name for column in self.outputs]

    def features(self, table: pa.Table) -> pd.DataFrame:
        """Arrow columns, m rows -> (m, n) DataFrame in the signature's order and dtypes.

        Extra columns are ignored. Raises SignatureMismatch, naming the column, if one is missing,
        cannot be cast without loss, or has a NULL where the sample had none.
        """
        arrays = [self._values(table, column) for column in self.inputs]
        dtypes = {column.dtype for column in self.inputs}
        if dtypes in ({"float64"}, {"float32"}):  # one block, column by column, no second copy
            block = np.empty((len(arrays), table.num_rows), dtype=dtypes.pop())
            for row, values in zip(block, arrays, strict=True):
                row[:] = values.to_numpy(zero_copy_only=False)
            return pd.DataFrame(block.T, columns=self.input_names, copy=False)
        series = {
            column.name: _series(column, values)
            for column, values in zip(self.inputs, arrays, strict=True)
        }
        return pd.DataFrame(series, columns=self.input_names, copy=False)

    def table(self, features: pd.DataFrame) -> pa.Table:
        """(m, n) DataFrame -> Arrow columns of the signature's types: `features` the other way."""
        arrays = []
        for column in self.inputs:
            if column.name not in features:
                raise _missing(column, [str(name) for name in features.columns])
            values: Any = features[column.name]
            if column.type == "category":
                values = values.astype(object)
            elif column.type == "decimal":
                values = values.map(lambda value: None if pd.isna(value) else str(value))
            try:
                array = pa.array(values, from_pandas=True)
                if not column.carries(array.type):
                    raise pa.ArrowTypeError(f"values of type {array.type}")
                arrays.append(_cast(array, column.arrow_type))
            except _UNFIT as error:
                found = f"{features[column.name].dtype} ({error})"
                raise SignatureMismatch(
                    column.name, column.type, found, "Correct the value."
                ) from error
        return pa.table(arrays, names=self.input_names)

    def row(self, values: Mapping[str, object]) -> pa.Table:
        """One row's inputs by name, as JSON gives them -> Arrow columns of one row.

        Dates and times are ISO 8601 texts, "NaN" and "-Infinity" may be floats as in a reject's
        row, None is a missing value, other names are ignored; else a value is of the input's type,
        as in a table. Raises SignatureMismatch, naming the column.
        """
        arrays = []
        for column in self.inputs:
            if column.name not in values:
                raise _missing(column, list(values))
            value = values[column.name]
            try:
                text = str(value) if column.type == "decimal" and value is not None else value
                array = pa.array([text])
                if not (column.carries(array.type) or column.spells(text)):
                    raise pa.ArrowTypeError(f"a value of type {array.type}")
                arrays.append(_cast(array, column.arrow_type))
            except _UNFIT as error:
                remedy = "Correct the value."
                raise SignatureMismatch(column.name, column.type, repr(value), remedy) from error
        return pa.table(arrays, names=self.input_names)

    def predictions(self, values: object, rows: int) -> pa.Table:
        """What `predict_batch` returned for `rows` rows -> Arrow columns named as the outputs.

        Raises InvalidPredictions for a wrong number of rows or columns, another type than at
        register, or a missing value (None, NaN) where the sample's predictions had none. For zero
        rows anything empty will do: not every library remembers the width of nothing.
        """
        try:
            array = unmasked(values)
        except ValueError as error:  # rows of several lengths
            raise InvalidPredictions(f"{rows} predictions", str(error)) from error
        if rows == 0 and array.size == 0:
            empty = [pa.array([], output.arrow_type) for output in self.outputs]
            return pa.table(empty, names=self.output_names)
        if self.outputs[0].length is not None:
            return pa.table([_list(self.outputs[0], array, rows)], names=self.output_names)
        width = len(self.outputs)
        expected = f"{rows} predictions" + (f" of {width} columns" if width > 1 else "")
        shape = array.shape
        if array.ndim == 1:
            array = array[:, np.newaxis]
        if array.ndim != 2 or array.shape != (rows, width):
            raise InvalidPredictions(expected, f"an array of shape {shape}")
        columns = []
        for index, output in enumerate(self.outputs):
            try:
                column = pa.array(array[:, index], from_pandas=False)
                if not output.predicts(column.type):
                    raise pa.ArrowTypeError(f"they are {column.type}")
                column = _cast(column, output.arrow_type)
            except _UNFIT as error:
                found = f"{array.dtype} values in {output.name!r} ({error})"
                raise InvalidPredictions(f"{output.type} predictions", found) from error
            if not output.nullable:
                absent = pc.is_null(column, nan_is_null=True)
                if pc.any(absent).as_py():
                    row = pc.index(absent, True).as_py()
                    found = f"none in {output.name!r} at row {row}"
                    raise InvalidPredictions("a prediction for every row", found)
            columns.append(column)
        return pa.table(columns, names=self.output_names)

    def _values(self, table: pa.Table, column: Column) -> pa.Array:
        if table.schema.get_field_index(column.name) < 0:  # unlike column_names, at no cost
            raise _missing(column, table.column_names)
        chunks = table.column(column.name)
        values = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()  # a copy
        if not column.carries(values.type):
            remedy = "Cast the column in a source query, or train on what the table holds."
            raise SignatureMismatch(column.name, column.type, str(values.type), remedy)
        try:
            values = _cast(values, column.arrow_type)
        except pa.ArrowInvalid as error:
            remedy = "Correct the value, or cast the column in a source query."
            raise SignatureMismatch(column.name, column.type, str(error), remedy) from error
        except pa.ArrowNotImplementedError as error:
            remedy = "Cast the column in a source query, or train on what the table holds."
            found = str(values.type)
            raise SignatureMismatch(column.name, column.type, found, remedy) from error
        if values.null_count and not column.nullable:
            found = f"NULL in {values.null_count} of {len(values)} rows"
            raise SignatureMismatch(column.name, f"{column.type} not null", found, _NULL_REMEDY)
        return values


def _missing(column: Column, known: Sequence[str]) -> SignatureMismatch:
    found = f"no such column, only {', '.join(known)}"
    return SignatureMismatch(column.name, column.type, found, "Add the column.")


def _is_number(found: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    )


def _cast(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Cast without loss; narrowing float64 to float32 is what a float32 model asks for."""
    if values.type == wanted:
        return values
    return values.cast(wanted, safe=not pa.types.is_floating(wanted))


# --- from a sample to columns -------------------------------------------------------------------


def _input(name: str, values: "pd.Series[Any]") -> Column:
    """Tell one input column's type from its sample values."""
    dtype = values.dtype
    nullable = bool(values.isna().any())
    if isinstance(dtype, pd.CategoricalDtype):
        categories = tuple(
            value.item() if isinstance(value, np.generic) else value for value in dtype.categories
        )
        kinds = {type(value) for value in categories}
        if kinds not in ({str}, {int}):
            problem = "its categories are neither all strings nor all integers"
            raise SignatureUndefined(repr(name), problem, _SAMPLE_REMEDY)
        return Column(
            name=name, type="category", dtype="category", nullable=nullable,
            categories=categories, ordered=bool(dtype.ordered),
        )  # fmt: skip
    missing: Literal["nan", "none"] = "nan"
    if isinstance(dtype, pd.DatetimeTZDtype):
        kind = "timestamptz"
    elif dtype.kind == "M":
        kind = "timestamp"
    elif dtype.kind in "biuf":
        kind = "bool" if dtype.kind == "b" else str(dtype).lower()
    elif isinstance(dtype, pd.StringDtype):
        kind = "string"
    else:
        kind = {
            "string": "string", "date": "date", "decimal": "decimal",
        }.get(pd.api.types.infer_dtype(values, skipna=True), "")  # fmt: skip
        absent = values[values.isna()]
        if len(absent) and absent.iloc[0] is None:
            missing = "none"
    if kind not in _ARROW:
        problem = f"its type cannot be told from values of dtype {dtype}"
        if nullable and values.isna().all():
            problem = "all its values are missing"
        raise SignatureUndefined(repr(name), problem, _SAMPLE_REMEDY)
    return Column.model_validate(
        {"name": name, "type": kind, "dtype": str(dtype), "nullable": nullable, "missing": missing}
    )


def _outputs(predictions: Predictions, names: Sequence[str] | None) -> tuple[Column, ...]:
    """Tell the output columns from (m,) or (m, k) predictions."""
    array = unmasked(predictions)
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2 or array.shape[1] == 0:
        problem = f"predictions of shape {np.shape(predictions)} are not (m,) or (m, k)"
        raise SignatureUndefined("outputs", problem, "Return one row of predictions per input row.")
    width = array.shape[1]
    if names is not None and len(names) == 1 and names[0].endswith("[]"):
        kind = f"{array.dtype}[]"
        if kind not in _ARROW:
            problem = f"an array column of {array.dtype}"
            raise SignatureUndefined(repr(names[0]), problem, "Return float32 or float64.")
        nullable = bool(np.isnan(array).any())
        name = names[0].removesuffix("[]")
        column = {"name": name, "type": kind, "dtype": kind, "nullable": nullable, "length": width}
        return (Column.model_validate(column),)
    if names is None:
        names = ["prediction"] if width == 1 else [f"prediction_{i}" for i in range(width)]
    if len(names) != width or len(set(names)) != width:
        problem = f"{width} columns of predictions, but the names {list(names)}"
        raise SignatureUndefined("outputs", problem, "Give each output its own name.")
    columns = []
    for index, name in enumerate(names):
        try:
            values = pa.array(array[:, index], from_pandas=True)
        except _UNFIT as error:
            problem = f"predictions of dtype {array.dtype} ({error})"
            remedy = "Return numbers, booleans or strings."
            raise SignatureUndefined(repr(name), problem, remedy) from error
        kind = str(values.type)
        kind = {"double": "float64", "float": "float32", "halffloat": "float32"}.get(kind, kind)
        kind = "string" if pa.types.is_large_string(values.type) else kind
        if kind not in _ARROW:
            problem = f"predictions of type {values.type}"
            raise SignatureUndefined(repr(name), problem, "Return numbers, booleans or strings.")
        column = {"name": name, "type": kind, "dtype": kind, "nullable": values.null_count > 0}
        columns.append(Column.model_validate(column))
    return tuple(columns)


def _list(output: Column, array: npt.NDArray[Any], rows: int) -> pa.Array:
    """(m, k) predictions -> m lists of k numbers. Raises InvalidPredictions."""
    width = output.length or 0
    expected = f"{rows} predictions of {width} numbers ({output.type})"
    if array.shape != (rows, width) or array.dtype.kind not in "fiu":
        raise InvalidPredictions(expected, f"an array of shape {array.shape}, {array.dtype}")
    absent = np.isnan(array).any(axis=1)
    if absent.any() and not output.nullable:
        found = f"NaN in {output.name!r} at row {int(absent.argmax())}"
        raise InvalidPredictions("a prediction for every row", found)
    number = output.arrow_type.value_type
    ends = pa.array(np.arange(rows + 1) * width, pa.int32())
    numbers = pa.array(array.ravel().astype(number.to_pandas_dtype()), number)
    return pa.ListArray.from_arrays(ends, numbers)


# --- from Arrow to what the model gets ----------------------------------------------------------


def _series(column: Column, values: pa.Array) -> "pd.Series[Any]":
    match column.type:
        case "category":
            dtype = pd.CategoricalDtype(list(column.categories or ()), ordered=column.ordered)
            known = pa.array(column.categories, column.arrow_type)
            codes = pc.fill_null(pc.index_in(values, known), -1).to_numpy(zero_copy_only=False)
            return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype))
        case "decimal":
            decimals = [_decimal(column, text) for text in values.to_pylist()]
            return pd.Series(decimals, dtype=object)
        case "date":
            return pd.Series(values.to_pylist(), dtype=object)
        case "string" if column.dtype == "object":
            strings = values.to_numpy(zero_copy_only=False)  # None where NULL
            if values.null_count and column.missing == "nan":
                strings = np.where(values.is_null().to_numpy(zero_copy_only=False), np.nan, strings)
            return pd.Series(strings, dtype=object)
        case "timestamptz":
            zone = getattr(pd.api.types.pandas_dtype(column.dtype), "tz", "UTC")
            return pd.Series(values.to_pandas().dt.tz_convert(zone).astype(column.dtype))
        case "string" | "timestamp":
            return pd.Series(values.to_pandas().astype(column.dtype))
    if column.dtype == column.type:  # a NumPy type; in a float a NULL has become NaN
        return pd.Series(values.to_numpy(zero_copy_only=False))
    return pd.Series(
        values.to_pandas(types_mapper=lambda _: pd.api.types.pandas_dtype(column.dtype))
    )


def _decimal(column: Column, text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation as error:
        remedy = "Correct the value."
        raise SignatureMismatch(column.name, column.type, repr(text), remedy) from error
