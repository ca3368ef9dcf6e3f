"""How a flow run ends: with a state whose message says the reason first."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed

from adapters.errors import AlreadyPublished, NightshiftError

P = ParamSpec("P")
R = TypeVar("R")

SKIPPED, BUSY = "Skipped", "Busy"


class Unwanted(Exception):
    """A run that shall not do anything, with the reason."""

    name = SKIPPED


class Held(Unwanted):
    """A run that shall not do anything now, because another one has its partition."""

    name = BUSY


def told(flow: Callable[P, R]) -> Callable[P, R]:
    """Have the flow's errors become its state's message, without Prefect's words before them."""

    @wraps(flow)
    def ending(*args: P.args, **kwargs: P.kwargs) -> R:
        state: State[Any]
        try:
            return flow(*args, **kwargs)
        except Unwanted as reason:
            state = Cancelled(name=reason.name, message=str(reason))
        except AlreadyPublished as reason:
            state = Cancelled(name=SKIPPED, message=str(reason))
        except NightshiftError as error:
            state = Failed(message=str(error), data=error)
        return cast(R, state)  # Prefect takes it for the run's state, and raises from it

    return ending
