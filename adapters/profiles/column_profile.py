"""What is counted of one column, and how two parts of it are merged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nightshift.adapters.profiles.sketch import Sketch

Kind = Literal["number", "category", "time", "unknown"]
"""`time` is counted as a number, in seconds since 1970; `unknown` has rows and NULLs alone."""

MOST_CATEGORIES = 200


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
        kept = most_common(counts)
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


def most_common(counts: Mapping[str, int]) -> dict[str, int]:
    """At most so many, by count; the same ones whatever the order."""
    if len(counts) > MOST_CATEGORIES:
        return dict(sorted(counts.items(), key=_rank)[:MOST_CATEGORIES])
    return dict(counts)


def _rank(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


# --- as JSON ------------------------------------------------------------------------------------

_NAMES = tuple(ColumnProfile.__dataclass_fields__)
_COUNTERS = ("rows", "nulls", "nans", "infinities", "outside", "far_outside", "unseen", "other")


def to_data(column: ColumnProfile) -> dict[str, Any]:
    """Without what is empty, or 0."""
    data = {name: getattr(column, name) for name in _NAMES if name != "sketch"}
    data = {name: value for name, value in data.items() if value or name in ("low", "high")}
    data["counts"] = dict(sorted(column.counts.items(), key=_rank))
    data["sketch"] = column.sketch.to_data()
    return {name: value for name, value in data.items() if value not in (None, [], {})}


def from_data(data: dict[str, Any]) -> ColumnProfile:
    unknown = set(data) - set(_NAMES)
    if unknown or data.get("kind", "unknown") not in get_args(Kind):
        raise ValueError(f"a column has {unknown or data['kind']}")
    fields = dict(data, sketch=Sketch.from_data(data.get("sketch", [])))
    counters = [data.get(name, 0) for name in _COUNTERS]
    counts = data.get("counts", {})
    if not all(type(count) is int and count >= 0 for count in [*counters, *counts.values()]):
        raise ValueError("a count is not a whole number")
    for name in {"low", "high"} & set(data):
        fields[name] = float(data[name])
    if len(counts) > MOST_CATEGORIES:
        raise ValueError(f"{len(counts)} categories in a column")
    return ColumnProfile(**fields)
