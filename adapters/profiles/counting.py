"""Counting one chunk: Arrow columns -> column profiles."""

import functools
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightshift.adapters.profiles.column_profile import (
    MOST_CATEGORIES,
    ColumnProfile,
    Kind,
    most_common,
)
from nightshift.adapters.profiles.sketch import Sketch

_LONGEST_CATEGORY = 100  # characters; what is longer is cut
_SAMPLE = 4096
_WIDEST_COUNTED = 65_536  # whole numbers within such a span are counted without sorting
_EMPTY = ColumnProfile()


def count_columns(
    table: pa.Table, known: Mapping[str, ColumnProfile], exact: Collection[str] = ()
) -> dict[str, ColumnProfile]:
    return {
        name: _column(table.column(name), known.get(name), name in exact)
        for name in table.column_names
    }


def _column(values: pa.ChunkedArray, known: ColumnProfile | None, exact: bool) -> ColumnProfile:
    """One column of a chunk."""
    array = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    found = known or _EMPTY
    kind = _kind_of(array.type) if found.kind == "unknown" else found.kind
    blank = ColumnProfile(kind, len(array), array.null_count)
    if array.null_count == len(array):
        return blank
    try:
        match kind:
            case "number" | "time":
                return _count_numbers(blank, array.drop_null(), found, exact)
            case "category":
                return _count_categories(blank, array, found)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # a text that is not a number after all
        return replace(blank, kind="unknown")
    return blank


def _kind_of(found: pa.DataType) -> Kind:
    """For a column that no reference knows."""
    types = pa.types
    while types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found):
        found = found.value_type
    if types.is_floating(found) or types.is_integer(found) or types.is_decimal(found):
        return "number"
    if types.is_boolean(found) or types.is_string(found) or types.is_large_string(found):
        return "category"
    return "time" if types.is_date(found) or types.is_timestamp(found) else "unknown"


def _count_numbers(
    blank: ColumnProfile, array: pa.Array, known: ColumnProfile, exact: bool
) -> ColumnProfile:
    """Numbers or times without NULL, or lists of them."""
    lists = pa.types.is_nested(array.type)
    numbers = _numbers(pc.list_flatten(array) if lists else array)

    def rows(marked: npt.NDArray[np.bool_]) -> int:
        if lists:
            return len(np.unique(pc.list_parent_indices(array).to_numpy()[marked]))
        return int(np.count_nonzero(marked))

    if not len(numbers):
        return blank
    low, high, finite = numbers.min(), numbers.max(), numbers
    if not (np.isfinite(low) and np.isfinite(high)):  # both are NaN if one number is
        nans, infinities = rows(np.isnan(numbers)), rows(np.isinf(numbers))
        blank = replace(blank, nans=nans, infinities=infinities)
        finite = numbers[np.isfinite(numbers)]
        if not len(finite):
            return blank
        low, high = finite.min(), finite.max()
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    if known.low is not None and known.high is not None and (low < known.low or high > known.high):
        margin = (known.high - known.low) or abs(known.low)
        outside = (numbers < known.low) | (numbers > known.high)
        far = (numbers < known.low - margin) | (numbers > known.high + margin)
        blank = replace(blank, outside=rows(outside), far_outside=rows(far))
    sketch = _sketch(finite, low, high, exact)
    return replace(blank, low=float(low), high=float(high), sketch=sketch)


def _numbers(array: pa.Array) -> npt.NDArray[Any]:
    found = array.type
    if pa.types.is_date(found):
        array = array.cast(pa.timestamp("s"))
    if pa.types.is_date(found) or pa.types.is_timestamp(found):
        unit = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[array.type.unit]
        return np.asarray(array.cast(pa.int64()).to_numpy(zero_copy_only=False) / unit)
    if not (pa.types.is_integer(found) or pa.types.is_floating(found)):
        array = array.cast(pa.float64())
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _sketch(numbers: npt.NDArray[Any], low: Any, high: Any, exact: bool) -> Sketch:
    if numbers.dtype.kind in "iu" and int(high) - int(low) < _WIDEST_COUNTED:
        signed = numbers.dtype.kind == "i"  # and the difference may need more bits than they have
        steps = np.bincount((numbers.astype(np.int64) - int(low)) if signed else numbers - low)
        present = np.flatnonzero(steps)
        return Sketch.of_counts(present.astype(np.float64) + float(low), steps[present])
    weight = 1 if exact else max(1, len(numbers) // _SAMPLE)
    return Sketch.of(numbers if weight == 1 else numbers[_picks(len(numbers), weight)], weight)


@functools.lru_cache(maxsize=16)
def _picks(length: int, weight: int) -> npt.NDArray[np.int64]:
    """One position out of every `weight`, at random: at regular steps, rows that follow a rhythm
    would be met at the same beat. The same ones at every call.
    """
    count = length // weight
    chosen = np.random.default_rng(length).integers(0, weight, count)
    return np.arange(count, dtype=np.int64) * weight + chosen


def _count_categories(blank: ColumnProfile, array: pa.Array, known: ColumnProfile) -> ColumnProfile:
    tallies = pc.value_counts(array.drop_null())
    names = tallies.field("values").cast(pa.string())
    rows = np.asarray(tallies.field("counts").to_numpy())
    if pc.max(pc.binary_length(names)).as_py() > _LONGEST_CATEGORY:
        names = pc.utf8_slice_codeunits(names, 0, _LONGEST_CATEGORY)
    unseen = 0
    if known.counts and not known.other:
        seen = pc.is_in(names, value_set=pa.array(list(known.counts), pa.string()))
        unseen = int(rows[~seen.to_numpy(zero_copy_only=False)].sum())
    total = int(rows.sum())
    if len(rows) > 2 * MOST_CATEGORIES:  # leave aside what cannot be among the commonest
        floor = np.partition(rows, -MOST_CATEGORIES)[-MOST_CATEGORIES]
        names, rows = names.filter(pa.array(rows >= floor)), rows[rows >= floor]
    counts: dict[str, int] = {}
    for name, count in zip(names.to_pylist(), rows.tolist(), strict=True):
        counts[name] = counts.get(name, 0) + count
    kept = most_common(counts)
    return replace(blank, unseen=unseen, counts=kept, other=total - sum(kept.values()))
