"""Runs that somebody cancels in Prefect: they stop within a chunk, whoever started them.

What Prefect has started in a process of its own is ended by a signal. What was started otherwise,
by `nightshift run` say, has to ask.
"""

import threading
from contextvars import copy_context
from types import TracebackType
from typing import Self

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run

from nightshift.flows.orchestrator.states import Skipped

CANCELLED = "Cancelled"

_CALLED_OFF = {StateType.CANCELLING, StateType.CANCELLED}


class Cancelled(Skipped):
    """Somebody has cancelled this flow run."""

    name = CANCELLED


class Watch:
    """Asks every two seconds, in its context, whether somebody has cancelled this flow run."""

    INTERVAL = 2.0
    LAST = 1.0
    """Seconds to wait for the last question, which a server that is away may not answer."""

    def __init__(self) -> None:
        self._called_off, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._ask,), name="calling-off", daemon=True
        )

    def __enter__(self) -> Self:
        if flow_run.id is not None:
            self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(self.LAST)

    @property
    def called_off(self) -> bool:
        return self._called_off.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled if so. Costs nothing."""
        if self.called_off:
            raise Cancelled("cancelled in Prefect; run again, it goes on where it stopped")

    def _ask(self) -> None:
        while not self._over.wait(self.INTERVAL):
            try:
                with get_client(sync_client=True) as client:
                    state = client.read_flow_run(flow_run.id).state
            except Exception:  # noqa: S112 - of whatever kind: it is asked again
                continue
            if state is not None and state.type in _CALLED_OFF:
                self._called_off.set()
                return
