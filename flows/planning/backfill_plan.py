"""The plan of a backfill: for each partition, whether to score it, and why. Pure."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.ledger.backfills import PartitionStatus, PublishedRange, Step, StepState
from nightshift.adapters.models.reference import ModelRef
from nightshift.flows.planning.partitions import Partition

Reprocess = Literal["missing", "failed", "stale_model", "all"]
Order = Literal["oldest_first", "newest_first"]


def plan_steps(
    partitions: Iterable[Partition],
    facts: PartitionStatus,
    reprocess: Reprocess,
    model: tuple[str, int],
    due: Callable[[Partition], datetime],
    now: datetime,
) -> list[Step]:
    """One step for each partition, in the order given.

    `due` gives the time at which a partition is complete: one that is not complete by `now` is
    skipped, and one that was scored before it was complete counts as missing. `model` is the name
    and version to score with.
    """
    steps = []
    for position, partition in enumerate(partitions):
        if due(partition) > now:
            needed, reason = False, f"it is not due before {due(partition):%Y-%m-%d %H:%M} UTC"
        else:
            needed, reason = _decide(partition, facts, reprocess, model, due(partition))
        state = StepState.WAITING if needed else StepState.SKIPPED
        steps.append(Step(position, partition.label, partition.start, partition.end, state, reason))
    return steps


def _decide(
    partition: Partition,
    facts: PartitionStatus,
    reprocess: Reprocess,
    model: tuple[str, int],
    due: datetime,
) -> tuple[bool, str]:
    ranges = _select_ranges(partition, facts.ranges)
    missing = _find_gap(partition, ranges, due)
    published = _describe_published(ranges)
    if reprocess == "all":
        return True, missing or f"again, though {published}"
    if reprocess == "failed":
        failure = (facts.failures or {}).get(partition.label)
        if failure is None:
            return False, missing or published
        if not missing and all(each.published_at > failure.at for each in ranges):
            return False, f"{published} since it failed"
        return True, f"it failed: {failure.reason}"
    if reprocess == "stale_model":
        if missing:
            return False, missing
        stale = any((each.model_name, each.model_version) != model for each in ranges)
        return stale, published
    return bool(missing), missing or published


def _select_ranges(partition: Partition, ranges: Iterable[PublishedRange]) -> list[PublishedRange]:
    start, end = partition.start or BEGINNING, partition.end or END
    return [each for each in ranges if each.start < end and each.end > start]


def _find_gap(partition: Partition, ranges: list[PublishedRange], due: datetime) -> str | None:
    """What readers do not have of the partition, or None."""
    if not ranges:
        return "not published yet"
    reached = partition.start or BEGINNING
    for each in ranges:
        if each.start > reached:
            break
        reached = each.end
    if reached < (partition.end or END):
        return "published in part only"
    early = next((each for each in ranges if each.started_at < due), None)
    if early is not None:
        return f"run {early.run_id} scored it before it was complete"
    return None


def _describe_published(ranges: list[PublishedRange]) -> str:
    runs = dict.fromkeys(
        f"run {each.run_id} with {ModelRef(each.model_name, each.model_version)}" for each in ranges
    )
    return f"published by {', '.join(list(runs)[:3])}"
