"""Failed flow runs that left no run in the ledger, as Prefect knows them."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort

_PAGE = 200  # the most that Prefect's API gives at once


@dataclass(frozen=True)
class Attempt:
    """A flow run of `score` that failed or crashed."""

    flow_run_id: str
    name: str
    job: str
    started_at: datetime | None
    state: str
    reason: str


def failed_attempts(job: str | None, limit: int, runs: AbstractSet[str]) -> list[Attempt]:
    """The newest failed flow runs, at most `limit`; `runs` are in the ledger and left out."""
    failed = [StateType.FAILED, StateType.CRASHED]
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=["score"])),
            flow_run_filter=filters.FlowRunFilter(
                state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=failed))
            ),
            sort=FlowRunSort.START_TIME_DESC,
            limit=_PAGE,
        )
    attempts = [
        Attempt(
            str(run.id),
            run.name,
            str(run.parameters.get("job", "")),
            run.start_time.astimezone(UTC) if run.start_time else None,
            (run.state.name if run.state else None) or "",
            (run.state.message if run.state else None) or "",
        )
        for run in found
    ]
    wanted = [one for one in attempts if job in (None, one.job) and one.flow_run_id not in runs]
    return wanted[:limit]
