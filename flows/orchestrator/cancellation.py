"""Flow runs that are cancelled in Prefect stop within a chunk, however they were started.

Prefect ends a process that it has started by a signal. A run that was started in another way, by
`nightshift run` say, has to ask.
"""

import threading
from typing import Self

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run

from nightshift.adapters.database.ticking import Ticker
from nightshift.flows.orchestrator.states import Skipped

CANCELLED = "Cancelled"

_CANCELLED_TYPES = {StateType.CANCELLING, StateType.CANCELLED}


class Cancelled(Skipped):
    """This flow run was cancelled in Prefect."""

    name = CANCELLED


class CancellationWatch:
    """Asks every two seconds, in its context, whether this flow run was cancelled in Prefect."""

    INTERVAL = 2.0
    PATIENCE = 1.0
    """Seconds to wait for the last answer, which may not come while the server is away."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._ticker = Ticker(
            self._ask, self.INTERVAL, "cancellation-watch", patience=self.PATIENCE
        )

    def __enter__(self) -> Self:
        if flow_run.id is not None:
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ticker.stop()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def raise_if_cancelled(self) -> None:
        """Raises Cancelled if so; asks no server."""
        if self.cancelled:
            raise Cancelled("cancelled in Prefect; run it again to resume where it stopped")

    def _ask(self) -> None:
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(flow_run.id).state
        except Exception:
            return
        if state is not None and state.type in _CANCELLED_TYPES:
            self._cancelled.set()
            self._ticker.stop()
