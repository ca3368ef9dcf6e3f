"""How the predictions of two models for the same rows compare: bounded, mergeable, kept as JSON.

A challenger's are compared with the champion's, output by output for those that both have; a
difference is challenger minus champion. Merging is in the order of the rows, and exact: it
gives what comparing all rows at once gives, sums of floats up to rounding.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from nightshift.adapters.models.column import Column
from nightshift.adapters.models.signature import Signature
from nightshift.flows.config.quantities import Tolerance
from nightshift.flows.scoring.prediction.rejects import jsonable

_MOST_ROWS = 20
_MOST_CHANGES = 100
_SMALLEST = 1e-12  # below it, a difference is counted as the smallest there is
_PER_DECADE = 16  # so a quantile is within 8% of the true one
_BUCKETS = 24 * _PER_DECADE  # up to 1e12, on each side of 0

Label = str | bool | None
Paired = tuple[pa.Array, pa.Array]


class _Record(BaseModel):
    # sums of finite numbers may be infinite
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Differences(_Record):
    """The differences of one output of numbers, over the rows where both have a finite one."""

    rows: int = 0
    total: float = 0.0
    absolute: float = 0.0
    """The sum of the absolute differences."""
    low: float | None = None
    high: float | None = None
    counts: dict[int, int] = {}
    """Rows by size: 0 where equal; n for differences around 1e-12 x 10^(n/16), -n below 0."""

    @property
    def mean(self) -> float | None:
        return self.total / self.rows if self.rows else None

    @property
    def mean_absolute(self) -> float | None:
        return self.absolute / self.rows if self.rows else None

    @property
    def largest(self) -> float | None:
        """The largest absolute difference."""
        if self.low is None or self.high is None:
            return None
        return max(abs(self.low), abs(self.high))

    def quantile(self, share: float) -> float | None:
        """The difference that a share, in [0, 1], of the rows has at most, within 8%."""
        if self.low is None or self.high is None:
            return None
        buckets = sorted(self.counts)
        reached = np.cumsum([self.counts[bucket] for bucket in buckets])
        bucket = buckets[int(np.searchsorted(reached, share * self.rows))]
        size = _SMALLEST * 10 ** ((abs(bucket) - 0.5) / _PER_DECADE) if bucket else 0.0
        return min(max(math.copysign(size, bucket), self.low), self.high)

    def histogram(self) -> list[tuple[float, float, int]]:
        """Where there are any: from, to, and how many rows; `from` and `to` are 0 where equal."""
        bars = []
        for bucket, count in sorted(self.counts.items()):
            edges = [_SMALLEST * 10 ** ((abs(bucket) - i) / _PER_DECADE) for i in (1, 0)]
            low, high = edges if bucket > 0 else [-edge for edge in reversed(edges)]
            bars.append((low, high, count) if bucket else (0.0, 0.0, count))
        return bars

    def merged(self, other: Self) -> Self:
        if not self.rows or not other.rows:
            return self if self.rows else other
        counts = Counter(self.counts) + Counter(other.counts)
        return type(self)(
            rows=self.rows + other.rows,
            total=self.total + other.total,
            absolute=self.absolute + other.absolute,
            low=min(x for x in (self.low, other.low) if x is not None),
            high=max(x for x in (self.high, other.high) if x is not None),
            counts=dict(sorted(counts.items())),
        )


class Change(_Record):
    """Rows that the champion gives one label and the challenger another."""

    champion: Label
    challenger: Label
    rows: int


class Output(_Record):
    """One output of both models."""

    agreed: int = 0
    differences: Differences | None = None
    """Of numbers; of an array of them, its element that differs most."""
    changes: tuple[Change, ...] = ()
    """Of labels: the most frequent ones first."""
    other_changes: int = 0
    """Rows with changes beyond the 100 most frequent."""

    def merged(self, other: Self) -> Self:
        counts: Counter[tuple[Label, Label]] = Counter()
        for change in (*self.changes, *other.changes):
            counts[change.champion, change.challenger] += change.rows
        changes, left_out = _most_frequent(counts)
        mine, others = self.differences, other.differences
        return type(self)(
            agreed=self.agreed + other.agreed,
            differences=mine.merged(others) if mine and others else mine or others,
            changes=changes,
            other_changes=self.other_changes + other.other_changes + left_out,
        )


class Differing(_Record):
    """A row that the two predict differently."""

    key: tuple[Any, ...]
    difference: float | None
    """The largest among its outputs, 1 for another label; None where one of the two has none."""
    champion: dict[str, Any]
    challenger: dict[str, Any]


class Comparison(_Record):
    """Champion and challenger over the rows of a chunk, a shard or a run."""

    rows: int = 0
    """Rows that the champion predicted and the challenger was asked about."""
    agreed: int = 0
    """Rows in which all outputs are equal labels, or numbers within the tolerance."""
    missing: int = 0
    """Rows that the challenger predicted nothing for (NULL, NaN, inf) though it should have."""
    skipped: int = 0
    """Rows that the challenger was not asked about, after its failure."""
    champion_seconds: float = 0.0
    challenger_seconds: float = 0.0
    outputs: dict[str, Output] = {}
    most: tuple[Differing, ...] = ()
    """The rows that differ most, first of all those where one of the two predicts nothing."""
    failure: str | None = None
    """Why the challenger was switched off."""

    @property
    def agreement(self) -> float | None:
        """The share of rows that agree, in [0, 1]; None if there are no rows."""
        return self.agreed / self.rows if self.rows else None

    def merged(self, other: Self) -> Self:
        """This and what comes after it. `Comparison()` changes nothing."""
        names = [*self.outputs, *(name for name in other.outputs if name not in self.outputs)]
        none = Output()
        return type(self)(
            rows=self.rows + other.rows,
            agreed=self.agreed + other.agreed,
            missing=self.missing + other.missing,
            skipped=self.skipped + other.skipped,
            champion_seconds=self.champion_seconds + other.champion_seconds,
            challenger_seconds=self.challenger_seconds + other.challenger_seconds,
            outputs={
                name: self.outputs.get(name, none).merged(other.outputs.get(name, none))
                for name in names
            },
            most=tuple(sorted([*self.most, *other.most], key=_rank)[:_MOST_ROWS]),
            failure=self.failure or other.failure,
        )

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.model_validate_json(text)


def common_outputs(champion: Signature, challenger: Signature) -> list[str]:
    """The outputs that both have, by name, and that can be compared."""
    others = {column.name: _kind(column) for column in challenger.outputs}
    return [c.name for c in champion.outputs if others.get(c.name) == _kind(c)]


def compared(
    keys: pa.Table, champion: pa.Table, challenger: pa.Table, tolerance: Tolerance
) -> Comparison:
    """The keys of m rows, and the predictions of both for them: columns of the same names.

    Where the challenger has NULL, or NaN, it predicted nothing.
    """
    rows = champion.num_rows
    agreed, largest = np.ones(rows, dtype=bool), np.zeros(rows)
    outputs = {}
    for name in champion.column_names:
        pair = champion.column(name).combine_chunks(), challenger.column(name).combine_chunks()
        outputs[name], same, moved = (
            _labels(pair) if _is_label(pair[0].type) else _numbers(pair, tolerance)
        )
        agreed &= same
        largest = np.maximum(largest, moved)
    differing = np.flatnonzero(largest > 0)
    if len(differing) > _MOST_ROWS:
        least = np.partition(largest[differing], -_MOST_ROWS)[-_MOST_ROWS]
        differing = differing[largest[differing] >= least]
        ranked = np.argsort(-largest[differing], kind="stable")  # of equals the first, as merged
        differing = differing[ranked[:_MOST_ROWS]]
    most = sorted(_differing(keys, champion, challenger, largest, differing), key=_rank)
    return Comparison(rows=rows, agreed=int(agreed.sum()), outputs=outputs, most=tuple(most))


# --- inside -------------------------------------------------------------------------------------

_Found = tuple[Output, npt.NDArray[np.bool_], npt.NDArray[np.float64]]
"""Of one output: what is kept, whether rows agree, and how far apart they are: inf if one of the
two has no prediction."""


def _numbers(pair: Paired, tolerance: Tolerance) -> _Found:
    whole = pa.types.is_integer(pair[0].type)
    one, other = (_floats(values) for values in pair)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf
        moved = other - one
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        same |= tolerance.near(one, moved, whole)
    if one.ndim == 2:  # arrays of numbers: an array is as far away as its farthest element
        farthest = np.nan_to_num(np.abs(moved), nan=np.inf).argmax(axis=1)
        moved, same = moved[np.arange(len(moved)), farthest], same.all(axis=1)
    finite = np.isfinite(moved)
    distance = np.where(finite, np.abs(moved), np.where(same, 0.0, np.inf))
    output = Output(agreed=int(same.sum()), differences=_differences(moved[finite]))
    return output, same, distance


def _labels(pair: Paired) -> _Found:
    one, other = pair
    same = pc.equal(one, other).fill_null(False).to_numpy(zero_copy_only=False)
    nothing = (
        one.is_null().to_numpy(zero_copy_only=False),
        other.is_null().to_numpy(zero_copy_only=False),
    )
    same = same | (nothing[0] & nothing[1])
    changed = pa.table({"one": one, "other": other}).take(pa.array(np.flatnonzero(~same)))
    grouped = changed.group_by(["one", "other"]).aggregate([([], "count_all")]).to_pydict()
    counts: Counter[tuple[Label, Label]] = Counter()
    for label, its, count in zip(*(grouped[n] for n in ("one", "other", "count_all")), strict=True):
        counts[jsonable(label), jsonable(its)] += count
    changes, left_out = _most_frequent(counts)
    distance = np.where(same, 0.0, np.where(nothing[0] | nothing[1], np.inf, 1.0))
    return Output(agreed=int(same.sum()), changes=changes, other_changes=left_out), same, distance


def _floats(values: pa.Array) -> npt.NDArray[np.float64]:
    """(m,), or (m, k) of arrays of k numbers; NULL as NaN."""
    if pa.types.is_list(values.type):
        there = values.is_valid().to_numpy(zero_copy_only=False)
        known = values.flatten().to_numpy()
        rows = np.full((len(values), max(len(known) // max(there.sum(), 1), 1)), np.nan)
        if len(known):
            rows[there] = known.reshape(there.sum(), -1)
        return rows
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _differences(moved: npt.NDArray[np.float64]) -> Differences:
    if not len(moved):
        return Differences()
    size = np.clip(np.abs(moved), _SMALLEST, None)
    buckets = np.ceil(np.log10(size / _SMALLEST) * _PER_DECADE).clip(1, _BUCKETS)
    counted = np.bincount((buckets * np.sign(moved)).astype(np.int64) + _BUCKETS)
    there = np.flatnonzero(counted)
    with np.errstate(over="ignore"):
        total, absolute = moved.sum(), np.abs(moved).sum()
    return Differences(
        rows=len(moved),
        total=float(total),
        absolute=float(absolute),
        low=float(moved.min()),
        high=float(moved.max()),
        counts=dict(zip((there - _BUCKETS).tolist(), counted[there].tolist(), strict=True)),
    )


def _differing(
    keys: pa.Table,
    champion: pa.Table,
    challenger: pa.Table,
    largest: npt.NDArray[np.float64],
    positions: npt.NDArray[np.int64],
) -> Iterator[Differing]:
    chosen = (table.take(pa.array(positions)).to_pylist() for table in (keys, champion, challenger))
    for key, one, other, distance in zip(*chosen, largest[positions], strict=True):
        yield Differing(
            key=tuple(jsonable(part) for part in key.values()),
            difference=float(distance) if math.isfinite(distance) else None,
            champion={name: jsonable(value) for name, value in one.items()},
            challenger={name: jsonable(value) for name, value in other.items()},
        )


def _rank(row: Differing) -> float:
    return -math.inf if row.difference is None else -row.difference


def _most_frequent(counts: "Counter[tuple[Label, Label]]") -> tuple[tuple[Change, ...], int]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], repr(item[0])))
    kept, left_out = ranked[:_MOST_CHANGES], ranked[_MOST_CHANGES:]
    changes = tuple(Change(champion=a, challenger=b, rows=count) for (a, b), count in kept)
    return changes, sum(count for _, count in left_out)


def _kind(column: Column) -> tuple[str, int | None]:
    """What two outputs must have in common to be compared."""
    if column.length is not None:
        return "array", column.length
    return (column.type if _is_label(column.arrow_type) else "number"), None


def _is_label(found: pa.DataType) -> bool:
    return not (
        pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_list(found)
    )
