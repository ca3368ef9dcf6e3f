"""How a flow run ends: with a state whose message says the reason first."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.states import Cancelled, Failed

from nightshift.adapters.errors import AlreadyPublished, NightshiftError, Quarantined

P = ParamSpec("P")
R = TypeVar("R")

SKIPPED, BUSY = "Skipped", "Busy"
QUARANTINED = "Quarantined"
"""Of the type FAILED, but an alert of its own."""


class Skipped(Exception):
    """A run that shall not do anything, with the reason."""

    name = SKIPPED


class _OneLine(logging.Filter):
    """Where a flow runs in a process of its own, Prefect logs why with two tracebacks.

    The line that says in which state the run has finished gives the reason; a failed step has
    logged where it failed.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, CancelledRun | NightshiftError)


_ONE_LINE = _OneLine()


def told(flow: Callable[P, R]) -> Callable[P, R]:
    """Have the flow's errors become its state's message, without Prefect's words before them."""
    for name in ("prefect.engine", "prefect.flow_runs"):
        logging.getLogger(name).addFilter(_ONE_LINE)  # the same one twice is no matter

    @wraps(flow)
    def ending(*args: P.args, **kwargs: P.kwargs) -> R:
        state: State[Any]
        try:
            return flow(*args, **kwargs)
        except Skipped as reason:
            state = Cancelled(name=reason.name, message=str(reason))
        except AlreadyPublished as reason:
            state = Cancelled(name=SKIPPED, message=str(reason))
        except Quarantined as error:
            state = Failed(name=QUARANTINED, message=str(error), data=error)
        except NightshiftError as error:
            state = Failed(message=str(error), data=error)
        return cast(R, state)  # Prefect takes it for the run's state, and raises from it

    return ending
