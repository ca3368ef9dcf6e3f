"""The states in which a flow run ends; the message of each begins with the reason."""

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
"""Of the type FAILED, with an alert of its own."""


class Skipped(Exception):
    """The run has nothing to do, or must stop; the text says why."""

    name = SKIPPED


class _OneLine(logging.Filter):
    """Drops the two tracebacks that Prefect logs when a flow fails in a process of its own.

    The line with the run's last state has the reason; a failed step has logged where it failed.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, CancelledRun | NightshiftError)


_ONE_LINE = _OneLine()


def convert_errors(flow: Callable[P, R]) -> Callable[P, R]:
    """Have the flow end in a state whose message is its error's text, with nothing before it."""
    for name in ("prefect.engine", "prefect.flow_runs"):
        logging.getLogger(name).addFilter(_ONE_LINE)  # adding it again does nothing

    @wraps(flow)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
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
        return cast(R, state)  # Prefect makes it the run's state, and raises its error

    return run
