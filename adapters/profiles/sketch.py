"""How numbers are distributed: counts in at most 512 buckets, whatever the number of values.

A bucket is a prefix of a float64's bits, taken so that prefixes sort as the numbers do: at shift 0
every number has a bucket of its own; each shift more joins two neighbours into one. A sketch takes
the smallest shift at which its values fill at most 512 buckets. So up to 512 different values are
counted exactly, and more are distinguished by their leading digits, as on a slide rule.

The smallest shift of a union is never below those of its parts, so that parts merge to the very
sketch of the whole, in any order; and two sketches, of whatever origin, have buckets in common once
the finer one is coarsened to the other's shift. (DDSketch, VLDB 2019, has such buckets at one fixed
relative accuracy; here the data choose it.)
"""

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOST_BUCKETS = 512

_MAGNITUDE = np.int64(0x7FFF_FFFF_FFFF_FFFF)  # all bits but the sign
_WORD = 64


@dataclass(frozen=True, eq=False)
class Sketch:
    """Counts of finite numbers: (b,) buckets, ascending, and (b,) counts, all above 0; b <= 512."""

    shift: int = 0
    buckets: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    counts: Integers = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, values: npt.NDArray[Any], weight: int = 1) -> Self:
        """(m,) finite numbers in any order, each of which stands for `weight` rows."""
        keys = np.sort(_keys(values))
        return cls._narrowed(0, keys, np.full(len(keys), weight, np.int64))

    @classmethod
    def of_counts(cls, values: npt.NDArray[Any], counts: Integers) -> Self:
        """(m,) finite numbers, ascending, and how often each occurs."""
        return cls._narrowed(0, _keys(values), counts)

    def merged(self, other: Self) -> Self:
        """The sketch of both's values together."""
        if not len(self.buckets) or not len(other.buckets):
            return self if len(self.buckets) else other
        shift = max(self.shift, other.shift)
        buckets = np.concatenate([s.buckets >> (shift - s.shift) for s in (self, other)])
        order = np.argsort(buckets, kind="stable")
        counts = np.concatenate([self.counts, other.counts])
        return self._narrowed(shift, buckets[order], counts[order])

    def coarsened(self, shift: int) -> Self:
        """The same values in wider buckets; `shift` is not below the sketch's own."""
        return self._joined(shift, self.buckets >> (shift - self.shift), self.counts)

    @property
    def total(self) -> int:
        """How many values were counted; where weights stand for rows, about so many."""
        return int(self.counts.sum())

    @property
    def exact(self) -> bool:
        """Whether each bucket is a single value."""
        return self.shift == 0

    def edges(self) -> tuple[Floats, Floats]:
        """(b,) lowest and (b,) highest number that each bucket could hold."""
        lowest = self.buckets << self.shift
        return _numbers(lowest), _numbers(lowest + ((1 << self.shift) - 1))

    def quantile(self, share: float) -> float | None:
        """The value below which that share of the values is, within its bucket's width.

        None if there are no values.
        """
        if not len(self.buckets):
            return None
        reached = np.cumsum(self.counts)
        bucket = int(np.searchsorted(reached, share * reached[-1]))
        low, high = (edge[min(bucket, len(edge) - 1)] for edge in self.edges())
        return float(low if low == high else low / 2 + high / 2)

    def share_within(self, low: float, high: float) -> float:
        """The share of values from `low` to `high`, both included."""
        below = self._below(np.array([low, math.nextafter(high, math.inf)]))
        return float((below[1] - below[0]) / max(self.total, 1))

    def histogram(self, edges: Floats) -> Floats:
        """(k + 1,) ascending edges, also infinite ones -> (k,) counts.

        What lies on an edge counts above it, but on the last one below. Buckets that reach across
        an edge are divided in proportion.
        """
        return np.diff(self._below(np.append(edges[:-1], math.nextafter(edges[-1], math.inf))))

    def to_data(self) -> list[Any]:
        """For JSON: shift, zero bits that all buckets end with, first bucket, steps, counts."""
        if not len(self.buckets):
            return []
        joined = int(np.bitwise_or.reduce(self.buckets))
        zeros = (joined & -joined).bit_length() - 1 if joined else 0
        short = self.buckets >> zeros
        steps = np.diff(short.view(np.uint64))  # from below 0 to far above, one may take 64 bits
        return [self.shift, zeros, int(short[0]), steps.tolist(), self.counts.tolist()]

    @classmethod
    def from_data(cls, data: list[Any]) -> Self:
        """What `to_data` returned. Raises ValueError or TypeError if it cannot be."""
        if not data:
            return cls()
        shift, zeros, first, steps, counts = data
        walk = np.array([np.int64(first).view(np.uint64), *steps], np.uint64)
        buckets = np.cumsum(walk, dtype=np.uint64).view(np.int64) << zeros
        found = cls(shift, buckets, np.array(counts, np.int64))
        ascending = (buckets[1:] > buckets[:-1]).all() and (found.counts > 0).all()
        if not (0 <= shift < _WORD and 0 <= zeros < _WORD and ascending):
            raise ValueError("the buckets of a sketch are not in order")
        if not len(buckets) == len(counts) <= MOST_BUCKETS:
            raise ValueError(f"{len(buckets)} buckets with {len(counts)} counts in a sketch")
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sketch):
            return NotImplemented
        return (
            self.shift == other.shift
            and np.array_equal(self.buckets, other.buckets)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]

    def _below(self, points: Floats) -> Floats:
        """(k,) numbers -> (k,) how many values are below each."""
        lows, highs = self.edges()
        widths = highs / 2 - lows / 2  # halved, no difference overflows
        with np.errstate(over="ignore"):  # infinitely many widths away is away, too
            inside = (points[:, np.newaxis] / 2 - lows / 2) / np.where(widths > 0, widths, 1)
        shares = np.where(widths > 0, np.clip(inside, 0, 1), points[:, np.newaxis] > lows)
        return np.asarray((shares * self.counts).sum(axis=1))

    @classmethod
    def _narrowed(cls, shift: int, buckets: Integers, counts: Integers) -> Self:
        """Sorted buckets, some of them equal -> the sketch with the smallest shift that is enough.

        Two neighbours are one bucket once the highest bit in which they differ is shifted away.
        """
        differing = buckets[1:] ^ buckets[:-1]  # below 0 where the sign differs
        if np.count_nonzero(differing) >= MOST_BUCKETS:
            low, high = 0, _WORD - 1
            while low < high:
                middle = (low + high) // 2
                if np.count_nonzero(differing >> middle) < MOST_BUCKETS:
                    high = middle
                else:
                    low = middle + 1
            shift, buckets = shift + low, buckets >> low
        return cls._joined(shift, buckets, counts)

    @classmethod
    def _joined(cls, shift: int, buckets: Integers, counts: Integers) -> Self:
        """Sorted buckets, some of them equal -> each once, with its counts added up."""
        if not len(buckets):
            return cls()
        starts = np.flatnonzero(np.concatenate([[True], buckets[1:] != buckets[:-1]]))
        return cls(shift, buckets[starts], np.add.reduceat(counts, starts))


def _keys(values: npt.NDArray[Any]) -> Integers:
    """Finite numbers -> integers that sort alike; 0 and -0 are one."""
    bits: Integers = (np.asarray(values, np.float64) + 0.0).view(np.int64)
    return bits ^ ((bits >> (_WORD - 1)) & _MAGNITUDE)


def _numbers(keys: Integers) -> Floats:
    """The other way round; beyond the largest number, that number."""
    numbers: Floats = (keys ^ ((keys >> (_WORD - 1)) & _MAGNITUDE)).view(np.float64)
    largest = np.finfo(np.float64).max
    beyond = np.where(keys < 0, -largest, largest)
    return np.asarray(np.where(np.isfinite(numbers), numbers, beyond))
