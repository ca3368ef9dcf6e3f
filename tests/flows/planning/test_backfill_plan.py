"""The plan of a backfill: for every partition, whether and why. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.ledger.backfills import Failure, PartitionStatus, PublishedRange, Step
from nightshift.flows.planning.backfill_plan import Reprocess, plan_steps
from nightshift.flows.planning.partitions import Partition, parse_partition

DAY = timedelta(days=1)
FIRST = datetime(2024, 3, 1, tzinfo=UTC)
LATER = FIRST + 100 * DAY
MODEL = ("doubler", 2)


def day(number: int) -> Partition:
    return parse_partition(f"{FIRST + number * DAY:%Y-%m-%d}", "day", ZoneInfo("UTC"))


def piece(
    start: float,
    end: float,
    run_id: int = 1,
    model: tuple[str, int] = MODEL,
    started: datetime = LATER,
    published: datetime = LATER,
) -> PublishedRange:
    """Published from one day to another, counted from the first."""
    return PublishedRange(
        FIRST + start * DAY, FIRST + end * DAY, run_id, *model, started, published
    )


def end_of(partition: Partition) -> datetime:
    return partition.end or FIRST


def decide(
    facts: PartitionStatus,
    reprocess: Reprocess = "missing",
    partitions: Sequence[Partition] = (day(0),),
    now: datetime = LATER,
) -> list[Step]:
    return plan_steps(partitions, facts, reprocess, MODEL, end_of, now)


def decision(facts: PartitionStatus, reprocess: Reprocess = "missing") -> tuple[str, str]:
    (step,) = decide(facts, reprocess)
    return step.state, step.reason


def failed(reason: str, at: datetime = LATER) -> dict[str, Failure]:
    return {"2024-03-01": Failure(reason, at)}


NOTHING = PartitionStatus()
WHOLE = PartitionStatus((piece(0, 1, run_id=7),))
HALF = PartitionStatus((piece(0, 0.5),))
GAP = PartitionStatus((piece(0, 0.3), piece(0.6, 1)))
STALE = PartitionStatus((piece(0, 0.5, model=("doubler", 1)), piece(0.5, 1)))
EARLY = PartitionStatus((piece(0, 1, run_id=9, started=FIRST + 0.5 * DAY),))
FAILED = PartitionStatus((), failed("the model is away"))
FAILED_THEN_DONE = PartitionStatus((piece(0, 1, published=LATER + DAY),), failed("once"))
DONE_THEN_FAILED = PartitionStatus((piece(0, 1, published=LATER - DAY),), failed("again"))


@pytest.mark.parametrize(
    ("facts", "reprocess", "state", "reason"),
    [
        (NOTHING, "missing", "waiting", "not published yet"),
        (WHOLE, "missing", "skipped", "published by run 7 with doubler@2"),
        (HALF, "missing", "waiting", "published in part only"),
        (GAP, "missing", "waiting", "published in part only"),
        (EARLY, "missing", "waiting", "run 9 scored it before it was complete"),
        (STALE, "missing", "skipped", "published by run 1 with doubler@1, run 1 with doubler@2"),
        (FAILED, "missing", "waiting", "not published yet"),
        (NOTHING, "failed", "skipped", "not published yet"),
        (WHOLE, "failed", "skipped", "published by run 7 with doubler@2"),
        (FAILED, "failed", "waiting", "it failed: the model is away"),
        (DONE_THEN_FAILED, "failed", "waiting", "it failed: again"),
        (
            FAILED_THEN_DONE,
            "failed",
            "skipped",
            "published by run 1 with doubler@2 since it failed",
        ),
        (NOTHING, "stale_model", "skipped", "not published yet"),
        (WHOLE, "stale_model", "skipped", "published by run 7 with doubler@2"),
        (
            STALE,
            "stale_model",
            "waiting",
            "published by run 1 with doubler@1, run 1 with doubler@2",
        ),
        (NOTHING, "all", "waiting", "not published yet"),
        (WHOLE, "all", "waiting", "again, though published by run 7 with doubler@2"),
    ],
)
def test_each_decision_and_its_reason(
    facts: PartitionStatus, reprocess: Reprocess, state: str, reason: str
) -> None:
    assert decision(facts, reprocess) == (state, reason)


@pytest.mark.parametrize("reprocess", ["missing", "failed", "stale_model", "all"])
def test_what_is_not_complete_yet_is_left_alone(reprocess: Reprocess) -> None:
    steps = decide(FAILED, reprocess, [day(0), day(1)], now=FIRST + DAY)
    assert steps[0].reason != steps[1].reason
    assert (steps[1].state, steps[1].reason) == (
        "skipped",
        "it is not due before 2024-03-03 00:00 UTC",
    )


def test_the_whole_table_is_missing_until_no_instant_is() -> None:
    whole = Partition("all", None, None)
    for pieces, state in [
        ((piece(0, 1),), "waiting"),
        ((PublishedRange(BEGINNING, END, 1, *MODEL, LATER, LATER),), "skipped"),
    ]:
        (step,) = decide(PartitionStatus(pieces), partitions=[whole])
        assert step.state == state


def test_steps_are_in_the_order_given() -> None:
    steps = decide(NOTHING, partitions=[day(2), day(0), day(1)])
    assert [step.position for step in steps] == [0, 1, 2]
    assert [step.partition for step in steps] == ["2024-03-03", "2024-03-01", "2024-03-02"]
    assert (steps[0].start, steps[0].end) == (day(2).start, day(2).end)


@given(st.lists(st.integers(0, 48), unique=True, max_size=10), st.data())
def test_missing_is_what_the_published_pieces_do_not_cover(
    cuts: list[int], data: st.DataObject
) -> None:
    """Against a count of the hours of two days, each of which is covered or is not."""
    edges = [0, *sorted(cuts), 48]
    kept = [span for span in pairwise(edges) if span[0] < span[1] and data.draw(st.booleans())]
    covered = {hour for start, end in kept for hour in range(start, end)}
    facts = PartitionStatus(tuple(piece(start / 24, end / 24) for start, end in kept))
    steps = decide(facts, partitions=[day(0), day(1)])
    for number, step in enumerate(steps):
        hours = set(range(24 * number, 24 * number + 24))
        assert (step.state == "skipped") == (hours <= covered)
        assert (step.reason == "not published yet") == (not hours & covered)
