"""What a run read and predicted, in numbers: counted while it streams, bounded, mergeable.

    profile = Profile()
    for inputs, outputs in chunks:
        profile = profile.merged(Profile.of(inputs, outputs, reference))
    text = profile.to_json()                     # about 3 kB for each column, whatever the rows
    psi(reference.inputs["distance"], profile.inputs["distance"])      # adapters/profiles/drift.py

Counts of rows, NULLs, NaNs, infinities, values outside the reference's range and unseen categories
are exact over all rows, and so are the lowest and highest number. The distribution of a number is
kept in at most 512 buckets (sketch.py), from all values of a chunk with fewer than
8,192 of them, or of whole numbers that lie close together, or of an output named as `exact`; from
4,096 to 8,191 of a larger one, picked at random, but the same at every try. Of a text column the
200 commonest values are counted one by one, the others together. So a profile's JSON has at most
25 kB per number and 130 kB per text column, and usually 3.

Parts merge to the profile of the whole, in any order, but for what a large chunk's sample left out
and for the rarest texts where there are more than 200.
"""

import functools
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightshift.adapters.models.column import Column
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.profiles.sketch import Sketch

Kind = Literal["number", "category", "time", "unknown"]
"""`time` is counted as a number, in seconds since 1970; `unknown` has rows and NULLs alone."""

MOST_CATEGORIES = 200
_LONGEST_CATEGORY = 100  # characters; what is longer is cut
_SAMPLE = 4096
_WIDEST_COUNTED = 65_536  # whole numbers within such a span are counted without sorting
_TOP_LEVEL = {"format", "rows", "inputs", "outputs"}

_KINDS: dict[str, Kind] = {
    "bool": "category", "string": "category", "category": "category",
    "date": "time", "timestamp": "time", "timestamptz": "time",
}  # fmt: skip


@dataclass(frozen=True)
class ColumnProfile:
    """One column's counts. Of an array column, a row counts if any of its numbers does."""

    kind: Kind = "unknown"
    rows: int = 0
    nulls: int = 0
    nans: int = 0
    infinities: int = 0
    outside: int = 0
    """Rows below the reference's lowest number, or above its highest."""
    far_outside: int = 0
    """Rows that are outside by more than the reference's whole range is wide."""
    unseen: int = 0
    """Rows with a category that the reference does not have, where it has all of its own."""
    low: float | None = None
    high: float | None = None
    sketch: Sketch = field(default_factory=Sketch)
    """Numbers and times, without NaN and infinities; of array columns all their numbers."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Rows by category, the commonest ones."""
    other: int = 0
    """Rows of all other categories."""

    @property
    def valid(self) -> int:
        """Rows with a value that is neither NULL nor NaN nor infinite."""
        return self.rows - self.nulls - self.nans - self.infinities

    @property
    def missing(self) -> int:
        """Rows that are NULL, NaN or infinite."""
        return self.nulls + self.nans + self.infinities

    def merged(self, other: "ColumnProfile") -> "ColumnProfile":
        """Both together. Raises ValueError for a number and a text."""
        kinds = {self.kind, other.kind} - {"unknown"}
        if len(kinds) > 1:
            raise ValueError(f"a {self.kind} and a {other.kind} are not of one column")
        counts, left = dict(self.counts), self.other + other.other
        for name, count in other.counts.items():
            counts[name] = counts.get(name, 0) + count
        kept = _commonest(counts)
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return ColumnProfile(
            kinds.pop() if kinds else "unknown",
            self.rows + other.rows,
            self.nulls + other.nulls,
            self.nans + other.nans,
            self.infinities + other.infinities,
            self.outside + other.outside,
            self.far_outside + other.far_outside,
            self.unseen + other.unseen,
            min(lows, default=None),
            max(highs, default=None),
            self.sketch.merged(other.sketch),
            kept,
            left + sum(counts.values()) - sum(kept.values()),
        )


@dataclass(frozen=True)
class Profile:
    """A run's inputs and outputs by column, or those of the sample that a model came with."""

    rows: int = 0
    """Rows with predictions."""
    inputs: Mapping[str, ColumnProfile] = field(default_factory=dict)
    outputs: Mapping[str, ColumnProfile] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        inputs: pa.Table,
        outputs: pa.Table,
        reference: "Profile | None" = None,
        exact: Collection[str] = (),
    ) -> Self:
        """One chunk: (m, n) inputs as the database gave them, and the predictions for them.

        The reference says which columns are numbers and what range and categories they had. Of
        the outputs in `exact` every value counts, which takes some 5 ms for 100,000 floats.
        """
        known = reference or Profile()
        return cls(
            outputs.num_rows,
            _columns(inputs, known.inputs),
            _columns(outputs, known.outputs, exact),
        )

    @classmethod
    def blank(cls, signature: Signature) -> Self:
        """No rows: a reference that knows the columns' kinds, and nothing of their values."""
        inputs = {column.name: ColumnProfile(_kind(column)) for column in signature.inputs}
        outputs = {column.name: ColumnProfile(_kind(column)) for column in signature.outputs}
        return cls(0, inputs, outputs)

    def merged(self, other: "Profile") -> "Profile":
        """Both together; merging an empty `Profile()` changes nothing.

        Raises ValueError if they are not of the same columns.
        """
        try:
            inputs = _merged(self.inputs, other.inputs)
            outputs = _merged(self.outputs, other.outputs)
        except ValueError as error:
            raise ValueError(f"two profiles cannot be merged: {error}") from error
        return Profile(self.rows + other.rows, inputs, outputs)

    def to_json(self) -> str:
        """One line, the same for equal profiles."""
        columns = {
            part: {name: _to_data(column) for name, column in sorted(columns.items())}
            for part, columns in (("inputs", self.inputs), ("outputs", self.outputs))
        }
        data = {"format": 1, "rows": self.rows, **columns}
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """What `to_json` returned. Raises ValueError for anything else."""
        try:
            data = _checked(json.loads(text))
            inputs, outputs = (
                {name: _from_data(column) for name, column in data[part].items()}
                for part in ("inputs", "outputs")
            )
            return cls(int(data["rows"]), inputs, outputs)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"this is no profile: {error}") from error


def _merged(
    one: Mapping[str, ColumnProfile], other: Mapping[str, ColumnProfile]
) -> dict[str, ColumnProfile]:
    both = dict(one)
    for name, column in other.items():
        both[name] = both[name].merged(column) if name in both else column
    return both


# --- as JSON ------------------------------------------------------------------------------------

_NAMES = tuple(ColumnProfile.__dataclass_fields__)
_EMPTY = ColumnProfile()
_COUNTERS = ("rows", "nulls", "nans", "infinities", "outside", "far_outside", "unseen", "other")


def _checked(data: dict[str, Any]) -> dict[str, Any]:
    if set(data) != _TOP_LEVEL or data["format"] != 1:
        raise ValueError(f"it has format {data.get('format')!r} and the keys {sorted(data)}")
    return data


def _to_data(column: ColumnProfile) -> dict[str, Any]:
    """Without what is empty, or 0."""
    data = {name: getattr(column, name) for name in _NAMES if name != "sketch"}
    data = {name: value for name, value in data.items() if value or name in ("low", "high")}
    data["counts"] = dict(sorted(column.counts.items(), key=_rank))
    data["sketch"] = column.sketch.to_data()
    return {name: value for name, value in data.items() if value not in (None, [], {})}


def _from_data(data: dict[str, Any]) -> ColumnProfile:
    unknown = set(data) - set(_NAMES)
    if unknown or data.get("kind", "unknown") not in get_args(Kind):
        raise ValueError(f"a column has {unknown or data['kind']}")
    fields = dict(data, sketch=Sketch.from_data(data.get("sketch", [])))
    counters = [data.get(name, 0) for name in _COUNTERS]
    counts = data.get("counts", {})
    if not all(type(count) is int and count >= 0 for count in [*counters, *counts.values()]):
        raise ValueError("a count is no whole number")
    for name in {"low", "high"} & set(data):
        fields[name] = float(data[name])
    if len(counts) > MOST_CATEGORIES:
        raise ValueError(f"{len(counts)} categories in a column")
    return ColumnProfile(**fields)


# --- counting one chunk -------------------------------------------------------------------------


def _kind(column: Column) -> Kind:
    return _KINDS.get(column.type, "number")


def _columns(
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
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # a text that is no number after all
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
    kept = _commonest(counts)
    return replace(blank, unseen=unseen, counts=kept, other=total - sum(kept.values()))


def _commonest(counts: Mapping[str, int]) -> dict[str, int]:
    """At most so many, by count; the same ones whatever the order."""
    if len(counts) > MOST_CATEGORIES:
        return dict(sorted(counts.items(), key=_rank)[:MOST_CATEGORIES])
    return dict(counts)


def _rank(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
