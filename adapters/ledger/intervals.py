"""Which run readers see for each range of a source's time. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, order=True)
class Interval:
    """The range [start, end) of a source's time that readers see from one run."""

    start: datetime
    end: datetime
    run_id: int


def replace_range(published: Sequence[Interval], new: Interval) -> list[Interval]:
    """The published intervals after `new` has taken its range from those that overlap it."""
    return sorted([new, *(piece for old in published for piece in _outside(old, new))])


def subtract_ranges(new: Interval, others: Iterable[Interval]) -> list[Interval]:
    """What is left of `new` outside the others; it may be empty."""
    left = [new]
    for other in others:
        left = [piece for one in left for piece in _outside(one, other)]
    return left


def rollback_stack(
    changes: Iterable[tuple[Interval, bool]], start: datetime, end: datetime
) -> list[int]:
    """The runs that readers of [start, end) saw, in order, without those rolled back from.

    Each of the changes, oldest first, is what was shown, and whether it was a rollback.
    """
    runs: list[int] = []
    for shown, back in changes:
        if shown.run_id not in runs:
            runs.append(shown.run_id)
        elif back and shown.start <= start and end <= shown.end:
            del runs[runs.index(shown.run_id) + 1 :]
    return runs


def _outside(old: Interval, taken: Interval) -> list[Interval]:
    """The pieces of `old` that `taken` does not cover."""
    pieces = (
        Interval(old.start, min(old.end, taken.start), old.run_id),
        Interval(max(old.start, taken.end), old.end, old.run_id),
    )
    return [piece for piece in pieces if piece.start < piece.end]
