"""The signature: names and types of a model's inputs and outputs, and the way from table to model.

column.py has the types; sampling.py reads them from a sample.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from nightshift.adapters.errors import InvalidPredictions, SignatureMismatch, SignatureUndefined
from nightshift.adapters.models.arrays import PredictionArray, unmasked
from nightshift.adapters.models.column import UNFIT, Column
from nightshift.adapters.models.sampling import input_column, output_columns

_NULL_REMEDY = (
    "Register the model with a sample that has missing values there, if it can handle them, "
    "or fill them in a source query."
)


class Signature(BaseModel):
    """The columns that a model reads and the ones that it writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[Column, ...] = Field(min_length=1)
    outputs: tuple[Column, ...] = Field(min_length=1)

    @classmethod
    def from_sample(
        cls,
        features: pd.DataFrame,
        predictions: PredictionArray,
        output_names: Sequence[str] | None = None,
    ) -> Self:
        """Take the signature from (m, n) inputs and the (m,) or (m, k) predictions for them.

        A column is nullable if the sample has missing values in it, so give the whole training
        frame where you can. Raises SignatureUndefined if a name or type cannot be found.
        """
        if features.empty:
            raise SignatureUndefined("the sample", "it has no rows", "Give at least one row.")
        names = [str(name) for name in features.columns]
        for name in names:
            if names.count(name) > 1 or not name:
                problem = "its name is empty or not unique"
                raise SignatureUndefined(repr(name), problem, "Give each column its own name.")
        inputs = tuple(input_column(name, features.iloc[:, i]) for i, name in enumerate(names))
        return cls(inputs=inputs, outputs=output_columns(predictions, output_names))

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
            except UNFIT as error:
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
            except UNFIT as error:
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
            except UNFIT as error:
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


def _cast(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Cast without loss; narrowing float64 to float32 is what a float32 model asks for."""
    if values.type == wanted:
        return values
    return values.cast(wanted, safe=not pa.types.is_floating(wanted))


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
            return pd.Series(_categorical(column, values))
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


def _categorical(column: Column, values: pa.Array) -> pd.Categorical:
    """The sample's categories keep their codes; a value outside them is appended, so that the
    library itself says what it means.
    """
    known = pa.array(column.categories, column.arrow_type)
    codes = pc.index_in(values, known)
    if codes.null_count > values.null_count:
        unseen = pc.unique(values.filter(pc.is_null(codes))).drop_null()
        known = pa.concat_arrays([known, unseen.take(pc.sort_indices(unseen))])
        codes = pc.index_in(values, known)
    codes = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
    dtype = pd.CategoricalDtype(known.to_pylist(), ordered=column.ordered)
    return pd.Categorical.from_codes(codes, dtype=dtype)


def _decimal(column: Column, text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation as error:
        remedy = "Correct the value."
        raise SignatureMismatch(column.name, column.type, repr(text), remedy) from error
