"""The plan of a backfill: for each partition, whether it is to be scored, and why. Pure."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.ledger.backfills import (
    SKIPPED,
    WAITING,
    PartitionStatus,
    PublishedRange,
    Step,
)
from nightshift.flows.planning.partitions import Partition

Reprocess = Literal["missing", "failed", "stale_model", "all"]
Order = Literal["oldest_first", "newest_first"]


def plan_steps(
    cells: Iterable[Partition],
    facts: PartitionStatus,
    reprocess: Reprocess,
    model: tuple[str, int],
    due: Callable[[Partition], datetime],
    now: datetime,
) -> list[Step]:
    """One step for each partition, in the order given.

    `due` says when a partition is complete: one that is not so by `now` is left alone, and what
    was scored before it was so counts as missing. `model` is the name and version to score with.
    """
    steps = []
    for position, cell in enumerate(cells):
        if due(cell) > now:
            wanted, reason = False, f"it is not due before {due(cell):%Y-%m-%d %H:%M} UTC"
        else:
            wanted, reason = _need(cell, facts, reprocess, model, due(cell))
        state = WAITING if wanted else SKIPPED
        steps.append(Step(position, cell.label, cell.start, cell.end, state, reason))
    return steps


def _need(
    cell: Partition,
    facts: PartitionStatus,
    reprocess: Reprocess,
    model: tuple[str, int],
    due: datetime,
) -> tuple[bool, str]:
    pieces = _pieces_of(cell, facts.ranges)
    missing = _missing(cell, pieces, due)
    published = _published(pieces)
    if reprocess == "all":
        return True, missing or f"again, though {published}"
    if reprocess == "failed":
        failure = (facts.failures or {}).get(cell.label)
        if failure is None:
            return False, missing or published
        if not missing and all(piece.published_at > failure.at for piece in pieces):
            return False, f"{published} since it failed"
        return True, f"it failed: {failure.reason}"
    if reprocess == "stale_model":
        if missing:
            return False, missing
        stale = any((piece.model_name, piece.model_version) != model for piece in pieces)
        return stale, published
    return bool(missing), missing or published


def _pieces_of(cell: Partition, pieces: Iterable[PublishedRange]) -> list[PublishedRange]:
    start, end = cell.start or BEGINNING, cell.end or END
    return [piece for piece in pieces if piece.start < end and piece.end > start]


def _missing(cell: Partition, pieces: list[PublishedRange], due: datetime) -> str | None:
    """What readers lack of the partition, or None."""
    if not pieces:
        return "not published yet"
    reached = cell.start or BEGINNING
    for piece in pieces:
        if piece.start > reached:
            break
        reached = piece.end
    if reached < (cell.end or END):
        return "published in part only"
    early = next((piece for piece in pieces if piece.started_at < due), None)
    if early is not None:
        return f"run {early.run_id} scored it before it was complete"
    return None


def _published(pieces: list[PublishedRange]) -> str:
    runs = dict.fromkeys(
        f"run {piece.run_id} with {piece.model_name}@{piece.model_version}" for piece in pieces
    )
    return f"published by {', '.join(list(runs)[:3])}"
