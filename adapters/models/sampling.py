"""From a sample to a signature: which columns are inputs, and the types of inputs and outputs."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from nightshift.adapters.errors import SignatureUndefined
from nightshift.adapters.models.arrays import PredictionArray, unmasked
from nightshift.adapters.models.column import ARROW_TYPES, UNFIT, Column

_SAMPLE_REMEDY = "Convert the column in the sample (and in training) and register again."


def select_inputs(
    sample: pd.DataFrame, names: Sequence[str] | None, target: str | None = None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The model's inputs among the sample's columns, and the names of the columns left out.

    `names` are those that the model was fitted on, and decide the order; None takes every column
    but the `target`, the column of labels. Raises SignatureUndefined, naming the columns, if the
    sample lacks one of them or the target, or if the target is one of them.
    """
    columns = [str(column) for column in sample.columns]
    has = f"the sample has {', '.join(columns)}"
    if target is not None and target not in columns:
        raise SignatureUndefined(repr(target), f"there is no such column; {has}", "Correct target.")
    if names is None:
        names = list(dict.fromkeys(name for name in columns if name != target))
    if target in names:
        problem = "it is the target, and the model was fitted on it as an input"
        raise SignatureUndefined(repr(target), problem, "Fit the model without it.")
    positions: dict[str, list[int]] = {}
    for position, column in enumerate(columns):
        positions.setdefault(column, []).append(position)
    for column in columns:  # LightGBM keeps an underscore for each space in a name
        positions.setdefault(re.sub(r"\s", "_", column), positions[column])
    missing = [name for name in names if name not in positions]
    if missing:
        problem = f"it lacks {', '.join(missing)}; the model reads {', '.join(names)}; {has}"
        raise SignatureUndefined("the sample", problem, "Give the columns of the training.")
    chosen = [position for name in names for position in positions[name]]
    left_out = sorted(set(range(len(columns))) - set(chosen))
    return sample.iloc[:, chosen], tuple(columns[position] for position in left_out)


def input_column(name: str, values: "pd.Series[Any]") -> Column:
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
    if kind not in ARROW_TYPES:
        problem = f"its type cannot be read from values of dtype {dtype}"
        if nullable and values.isna().all():
            problem = "all its values are missing"
        raise SignatureUndefined(repr(name), problem, _SAMPLE_REMEDY)
    return Column.model_validate(
        {"name": name, "type": kind, "dtype": str(dtype), "nullable": nullable, "missing": missing}
    )


def output_columns(predictions: PredictionArray, names: Sequence[str] | None) -> tuple[Column, ...]:
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
        if kind not in ARROW_TYPES:
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
        except UNFIT as error:
            problem = f"predictions of dtype {array.dtype} ({error})"
            remedy = "Return numbers, booleans or strings."
            raise SignatureUndefined(repr(name), problem, remedy) from error
        kind = str(values.type)
        kind = {"double": "float64", "float": "float32", "halffloat": "float32"}.get(kind, kind)
        kind = "string" if pa.types.is_large_string(values.type) else kind
        if kind not in ARROW_TYPES:
            problem = f"predictions of type {values.type}"
            raise SignatureUndefined(repr(name), problem, "Return numbers, booleans or strings.")
        column = {"name": name, "type": kind, "dtype": kind, "nullable": values.null_count > 0}
        columns.append(Column.model_validate(column))
    return tuple(columns)
