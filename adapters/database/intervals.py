"""Which run readers see for each range of a source's time. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, order=True)
class Interval:
    """The range [start, end) of a source's time that readers see from one run."""

    start: datetime
    end: datetime
    run_id: int


def carve(published: Sequence[Interval], new: Interval) -> list[Interval]:
    """The published intervals after `new` has taken its range from those that overlap it."""
    kept = [new]
    for old in published:
        if old.end <= new.start or new.end <= old.start:
            kept.append(old)
            continue
        if old.start < new.start:
            kept.append(Interval(old.start, new.start, old.run_id))
        if new.end < old.end:
            kept.append(Interval(new.end, old.end, old.run_id))
    return sorted(kept)
