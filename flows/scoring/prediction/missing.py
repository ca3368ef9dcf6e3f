"""Where a row lacks an input that the model needs, or a prediction that its signature promises.

All of it looks at whole columns at once; nothing here calls a model.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from nightshift.adapters.errors import InvalidPredictions
from nightshift.adapters.models.arrays import unmasked
from nightshift.adapters.models.column import Column
from nightshift.adapters.models.signature import Signature

Gaps = dict[int, tuple[str, str]]
"""By the row's position, in order: the kind of what is missing (NULL, NaN, inf), and a text."""


def positions_left(rows: int, gaps: Gaps) -> npt.NDArray[np.int64]:
    """The positions of the rows that have no gap, in order."""
    whole = np.ones(rows, dtype=bool)
    whole[list(gaps)] = False
    return np.flatnonzero(whole)


def missing_inputs(signature: Signature, table: pa.Table) -> Gaps:
    """The rows with NULL in an input that the model's sample had in every row."""
    found: dict[int, list[str]] = {}
    for column in signature.inputs:
        if not column.nullable:
            absent = table.column(column.name).is_null().to_numpy()
            for row in np.flatnonzero(absent).tolist():
                found.setdefault(row, []).append(repr(column.name))
    problem = "where the sample that the model was registered with had none"
    return {row: ("NULL", f"NULL in {', '.join(found[row])}, {problem}") for row in sorted(found)}


def checked_predictions(signature: Signature, values: object, rows: int) -> tuple[pa.Table, Gaps]:
    """What `predict_batch` returned for `rows` rows -> the predictions there are, as Arrow
    columns, and the rows that have none though the signature says they do: NULL, NaN or infinite.

    Raises InvalidPredictions for what no row is to blame for: a wrong number of rows or columns,
    or another type than at registration.
    """
    gaps: Gaps = {}
    try:
        predicted = signature.predictions(values, rows)
    except InvalidPredictions:
        array = _shaped(signature, values, rows)
        gaps = {} if array is None else _absent(signature, array)
        if array is None or not gaps:
            raise
        left = positions_left(rows, gaps)
        predicted = signature.predictions(array[left], len(left))
    infinite = _infinite(signature, predicted)
    if infinite:
        there = positions_left(rows, gaps)
        finite = positions_left(len(there), infinite)
        gaps |= {int(there[row]): gap for row, gap in infinite.items()}
        predicted = predicted.take(finite)
    return predicted, dict(sorted(gaps.items()))


def _shaped(signature: Signature, values: object, rows: int) -> npt.NDArray[np.generic] | None:
    """The values as (rows, columns of the signature), if that is their shape."""
    try:
        array = unmasked(values)
    except ValueError:  # rows of several lengths
        return None
    if array.ndim == 1:
        array = array[:, np.newaxis]
    width = signature.outputs[0].length or len(signature.outputs)
    return array if array.shape == (rows, width) else None


def _absent(signature: Signature, array: npt.NDArray[np.generic]) -> Gaps:
    gaps: Gaps = {}
    for index, output in enumerate(signature.outputs):
        if not output.nullable:
            values = array if output.length is not None else array[:, [index]]
            absent = np.asarray(pd.isna(values))
            if values.dtype.kind == "f":
                absent |= np.isinf(values)
            for row in np.flatnonzero(absent.any(axis=1)).tolist():
                gaps.setdefault(row, _gap(values[row][absent[row]][0], output))
    return gaps


def _infinite(signature: Signature, predicted: pa.Table) -> Gaps:
    gaps: Gaps = {}
    for output, finite in _finite(signature, predicted):
        if not finite.all():
            for row in np.flatnonzero(~finite).tolist():
                gaps.setdefault(row, _gap(np.inf, output))
    return gaps


def _finite(
    signature: Signature, predicted: pa.Table
) -> Iterator[tuple[Column, npt.NDArray[np.bool_]]]:
    """Of each output of floats that must be there: which rows have finite ones."""
    for output in signature.outputs:
        values = predicted.column(output.name)
        if output.nullable or predicted.num_rows == 0:
            continue
        if output.length is not None:
            numbers = values.combine_chunks().flatten().to_numpy()
            yield output, np.isfinite(numbers.reshape(-1, output.length)).all(axis=1)
        elif pa.types.is_floating(values.type):
            yield output, np.isfinite(values.to_numpy())


def _gap(value: object, output: Column) -> tuple[str, str]:
    kind = "NULL"
    if isinstance(value, float | np.floating):
        kind = "inf" if np.isinf(value) else "NaN"
    return (
        kind,
        f"{kind} predicted as {output.name!r}, where no prediction was missing at registration",
    )
