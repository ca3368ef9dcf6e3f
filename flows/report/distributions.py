"""One column in several samples, over the same bars: what a histogram shows. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.drift import classes, histogram

NOW, LAST, TRAINING = "this run", "last published", "training sample"

_MOST_CLASSES = 12
_OTHER = "other"


@dataclass(frozen=True)
class Distributions:
    """Shares of the rows by bar, which add up to 1 for each sample that has values."""

    labels: tuple[str, ...]
    """Of categories; empty for numbers and times."""
    edges: tuple[float, ...]
    """Of numbers, or times in seconds since 1970, one more than bars; empty for categories."""
    is_time: bool
    shares: Mapping[str, tuple[float, ...]]
    """By sample, those without values left out."""


def compare_distributions(
    now: ColumnProfile,
    last: ColumnProfile | None,
    training: ColumnProfile | None,
    bars: int = 30,
) -> Distributions | None:
    """Bars that suit this run and the training sample, or without one, the last run.

    None if there is nothing to show.
    """
    samples = {NOW: now, LAST: last, TRAINING: training}
    there = {
        name: column
        for name, column in samples.items()
        if column is not None and column.valid and column.kind == now.kind
    }
    by_class = _split_by_class(there)
    if by_class is not None:
        return by_class
    found = histogram(there.get(TRAINING) or there.get(LAST), there.get(NOW, now), bars)
    if found is None:
        return None
    if found.labels:
        return _split_by_label(there, found.labels)
    shares = {name: _count_numbers(column, found.edges) for name, column in there.items()}
    return Distributions((), found.edges, now.kind == "time", shares)


def _split_by_class(there: Mapping[str, ColumnProfile]) -> Distributions | None:
    """A bar for each of a few whole numbers, such as the classes of a classifier."""
    if any(column.kind != "number" for column in there.values()):
        return None
    shares = [classes(column, _MOST_CLASSES) for column in there.values()]
    found = [of_one for of_one in shares if of_one is not None]
    labels = sorted({label for of_one in found for label in of_one}, key=float)
    if len(found) < len(there) or not 0 < len(labels) <= _MOST_CLASSES:
        return None
    sides = (tuple(of_one.get(label, 0.0) for label in labels) for of_one in found)
    return Distributions(tuple(labels), (), False, dict(zip(there, sides, strict=True)))


def _split_by_label(there: Mapping[str, ColumnProfile], labels: tuple[str, ...]) -> Distributions:
    """Bars of categories; the last one has all that have no bar of their own."""
    named = labels[:-1] if labels[-1] == _OTHER else labels
    shares = {}
    for name, column in there.items():
        total = sum(column.counts.values()) + column.other
        heights = [column.counts.get(label, 0) for label in named]
        shares[name] = tuple(height / total for height in (*heights, total - sum(heights)))
    if not any(heights[-1] for heights in shares.values()):
        return Distributions(named, (), False, {name: h[:-1] for name, h in shares.items()})
    return Distributions((*named, _OTHER), (), False, shares)


def _count_numbers(column: ColumnProfile, edges: Sequence[float]) -> tuple[float, ...]:
    """Values beyond the edges are in the first and last bar."""
    outer = np.concatenate([[-np.inf], np.array(edges[1:-1]), [np.inf]])
    counts = column.sketch.histogram(outer)
    return tuple((counts / max(counts.sum(), 1)).tolist())
