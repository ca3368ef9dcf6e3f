"""How far a column has moved from a reference: the population stability index, and a picture.

PSI is the sum over bins of (q - p) ln(q / p), where p and q are the reference's and the column's
shares: the symmetrized Kullback-Leibler divergence. By custom (Siddiqi, Credit Risk Scorecards),
below 0.1 means no notable change and above 0.25 a large one. It is an effect size: it does not
grow with the rows. From few rows it is noise, of about (bins - 1) (1/n + 1/m), so
there is a minimum.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightshift.adapters.profiles.column_profile import MOST_CATEGORIES, ColumnProfile

MINIMUM_ROWS = 500
"""Values that both sides need before their distributions are compared; a job may set another."""
RANGE_ROWS = 100
"""Values of a reference that show its range, its categories and its share of missing ones."""

_NUMBER_SHARE = 0.1  # of the reference in a bin of numbers: tenths, as is the custom
_CATEGORY_SHARE = 0.01  # and in one of categories, the commonest of which have their own,
_CATEGORY_ROWS = 20  # if so many rows are to be expected in it: fewer come and go by chance
_SURE_SHARE = 2 / MOST_CATEGORIES  # what common a category is never left out of the counts
_LEAST = 1e-4  # a share of 0 would be infinitely far from any other

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Two distributions over the same bars, each with shares that add up to 1 (or 0: no values)."""

    labels: tuple[str, ...]
    """Of categories; empty for numbers and times."""
    edges: tuple[float, ...]
    """Of numbers, one more than bars; empty for categories."""
    reference: tuple[float, ...]
    column: tuple[float, ...]


def psi(
    reference: ColumnProfile, column: ColumnProfile, minimum_rows: int = MINIMUM_ROWS
) -> float | None:
    """The population stability index of the values, without missing ones; 0 means no drift.

    None if either has fewer values than the minimum, or they cannot be compared.
    """
    if min(reference.valid, column.valid) < minimum_rows or reference.kind != column.kind:
        return None
    if reference.kind == "category":
        before, now = _category_shares(reference, column)
    elif len(reference.sketch.buckets) and len(column.sketch.buckets):
        before, now = _number_shares(reference, column)
    else:
        return None
    p, q = np.maximum(before, _LEAST), np.maximum(now, _LEAST)
    return float(((q - p) * np.log(q / p)).sum())


def shares(column: ColumnProfile) -> dict[str, float]:
    """The share of each value by its text: of the categories that were counted one by one, or of
    each bucket of numbers, by its lowest in 12 digits: what rounding has moved is one value.
    """
    if column.kind == "category":
        total = max(sum(column.counts.values()) + column.other, 1)
        return {name: count / total for name, count in column.counts.items()}
    lows, _ = column.sketch.edges()
    total = max(column.sketch.total, 1)
    found: dict[str, int] = {}
    for low, count in zip(lows.tolist(), column.sketch.counts.tolist(), strict=True):
        name = f"{low:.12g}"
        found[name] = found.get(name, 0) + count
    return {name: count / total for name, count in found.items()}


def commonest(
    column: ColumnProfile, reference: ColumnProfile | None = None
) -> tuple[str, float, float] | None:
    """The most frequent value, as text, its share, and its share in the reference (or 0).

    Of numbers with more than 512 different values it is a bucket of neighbouring ones. None if
    there are no values.
    """
    found = shares(column)
    if not found:
        return None
    name = max(found, key=lambda name: found[name])
    if reference is None or reference.kind != column.kind:
        return name, found[name], 0.0
    if column.kind == "category" or (column.sketch.exact and reference.sketch.exact):
        return name, found[name], shares(reference).get(name, 0.0)
    shift = max(column.sketch.shift, reference.sketch.shift)
    bucket = column.sketch.buckets[column.sketch.counts.argmax()] >> (shift - column.sketch.shift)
    before = reference.sketch.coarsened(shift)
    same = int(before.counts[before.buckets == bucket].sum())
    return name, found[name], same / max(before.total, 1)


def classes(column: ColumnProfile, most: int = 20) -> dict[str, float] | None:
    """The share of each value, by its text; None if there are more than `most`, or other than
    categories and whole numbers.
    """
    if column.kind == "number":
        lows, _ = column.sketch.edges()
        if not column.sketch.exact or len(lows) > most or (lows != np.floor(lows)).any():
            return None
    elif column.kind != "category" or column.other:
        return None
    found = shares(column)
    return found if 0 < len(found) <= most else None


def histogram(
    reference: ColumnProfile | None, column: ColumnProfile, bars: int = 30
) -> Histogram | None:
    """Both over the same bars: the commonest categories, or a range without the 0.5 % at its ends
    (what is beyond is in the first and last bar). None if there is nothing to show.
    """
    both = [side for side in (reference, column) if side is not None and side.valid]
    if not both or len({side.kind for side in both}) > 1:
        return None
    empty = ColumnProfile(column.kind)
    before, now = (empty if side is None else side for side in (reference, column))
    if both[0].kind == "category":
        return _category_bars(before, now, bars)
    sketches = [side.sketch for side in both if len(side.sketch.buckets)]
    if not sketches:
        return None
    low = min(sketch.quantile(0.005) or 0.0 for sketch in sketches)
    high = max(sketch.quantile(0.995) or 0.0 for sketch in sketches)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bars + 1)
    outer = np.concatenate([[-np.inf], edges[1:-1], [np.inf]])
    sides = []
    for side in (before, now):
        counts = side.sketch.histogram(outer)
        sides.append(tuple((counts / max(counts.sum(), 1)).tolist()))
    return Histogram((), tuple(edges.tolist()), *sides)


# --- bins ---------------------------------------------------------------------------------------


def _number_shares(reference: ColumnProfile, column: ColumnProfile) -> tuple[Shares, Shares]:
    """Bins of a tenth of the reference or more; a value as frequent as that has a bin of its own.

    The first bin reaches to the lowest numbers and the last one to the highest.
    """
    shift = max(reference.sketch.shift, column.sketch.shift)
    before, now = reference.sketch.coarsened(shift), column.sketch.coarsened(shift)
    starts: list[int] = []
    enough, filled = _NUMBER_SHARE * before.total, 0
    for bucket, count in zip(before.buckets.tolist(), before.counts.tolist(), strict=True):
        if count >= enough:
            starts += [bucket, bucket + 1]
            filled = 0
        elif (filled := filled + count) >= enough:
            starts.append(bucket + 1)
            filled = 0
    ends = np.array(sorted(set(starts)), dtype=object).astype(np.int64)
    sides = []
    for sketch in (before, now):
        bins = np.searchsorted(ends, sketch.buckets, side="right")
        counts = np.bincount(bins, weights=sketch.counts, minlength=len(ends) + 1)
        sides.append(counts / counts.sum())
    return sides[0], sides[1]


def _category_shares(reference: ColumnProfile, column: ColumnProfile) -> tuple[Shares, Shares]:
    """Bins of a hundredth of the reference or more, from the commonest category on; all that is
    rarer, or not in the reference, is the last bin.

    Where one side has counted its rare categories together, the other
    side's are not separated either: which of them made it into the counts is chance.
    """
    total, rows = (max(sum(side.counts.values()) + side.other, 1) for side in (reference, column))
    least = _SURE_SHARE * total if reference.other or column.other else 0
    enough = max(_CATEGORY_SHARE, _CATEGORY_ROWS / min(total, rows))
    before, now = [0.0], [0.0]
    for name, count in sorted(reference.counts.items(), key=lambda item: (-item[1], item[0])):
        if count < least:
            break
        before[-1] += count / total
        now[-1] += column.counts.get(name, 0) / rows
        if before[-1] >= enough:
            before.append(0.0)
            now.append(0.0)
    before[-1], now[-1] = 1 - sum(before[:-1]), 1 - sum(now[:-1])
    return np.array(before), np.array(now)


def _category_bars(reference: ColumnProfile, column: ColumnProfile, bars: int) -> Histogram:
    before, now = shares(reference), shares(column)
    ranked = sorted(
        {*before, *now}, key=lambda name: (-before.get(name, 0), -now.get(name, 0), name)
    )
    shown = ranked if len(ranked) <= bars else ranked[: bars - 1]
    rest = reference.other + column.other > 0 or len(shown) < len(ranked)
    sides = []
    for side, found in ((reference, before), (column, now)):
        heights = [found.get(name, 0.0) for name in shown]
        sides.append((*heights, *([max(0.0, bool(side.valid) - sum(heights))] if rest else [])))
    return Histogram((*shown, *(["other"] if rest else [])), (), *sides)
