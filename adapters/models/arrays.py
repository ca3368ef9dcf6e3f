"""From a table of features to the arrays that networks eat, and from what they return to arrays."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

Features = pd.DataFrame | npt.NDArray[Any]
"""(m, n) inputs: a DataFrame with the signature's columns in its order, or an array."""

PredictionArray = npt.NDArray[Any]
"""(m,) or (m, k) predictions."""

Form = Literal["frame", "array", "column"]
"""What an estimator takes: a DataFrame, an array, (m, n), or the one column, (m,)."""

Number = Literal["float32", "float64", "int32", "int64"]


def matrix(features: Features, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """(m, n) features -> (m, n) array of one type, NULL as NaN. Raises ValueError for text."""
    if isinstance(features, pd.DataFrame):
        if np.dtype(dtype).kind == "f":
            features = features.to_numpy(dtype, na_value=np.nan)
        else:
            features = features.to_numpy(dtype)
    return np.ascontiguousarray(features, dtype)


def column(features: Features, name: str, position: int) -> Features:
    """One column, (m, 1): by its name in a DataFrame, by its position in an array.

    Raises KeyError if the DataFrame has no column of that name.
    """
    return features[[name]] if isinstance(features, pd.DataFrame) else features[:, [position]]


def slices(rows: int, most: int) -> Iterator[slice]:
    """Cut `rows` rows into slices of at most `most`."""
    return (slice(start, start + most) for start in range(0, rows, most))


def unmasked(values: object) -> npt.NDArray[Any]:
    """What a model returned, as an array: what NumPy's mask hides is missing, whatever is beneath.

    NaN among floats, None among others. A sparse matrix becomes a dense one.
    Raises ValueError for rows of several lengths.
    """
    if hasattr(values, "toarray"):  # SciPy's
        values = values.toarray()
    hidden = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    array = np.asarray(values)
    if hidden is None or not hidden.any():
        return array
    array = array.copy() if array.dtype.kind == "f" else array.astype(object)
    array[hidden] = np.nan if array.dtype.kind == "f" else None
    return array


def flat(predictions: PredictionArray) -> PredictionArray:
    """(m, 1) -> (m,): one value per row; everything else stays."""
    if predictions.ndim == 2 and predictions.shape[1] == 1:
        return predictions[:, 0]
    return predictions
