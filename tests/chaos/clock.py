"""A clock that jumps, in this process alone."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, tzinfo
from unittest import mock

_EVERY = 0.05
"""Seconds, by the clock that cannot jump, from one jump to the next."""


@contextmanager
def jumping(seconds: float) -> Iterator[None]:
    """The time of day is right, so many seconds ahead, right, and so many behind, in turn.

    What asks `time` and the modules of ours that ask `datetime` get that time; a monotonic clock
    goes on as it should.
    """
    right = time.time

    def shift() -> float:
        return (0.0, seconds, 0.0, -seconds)[int(time.monotonic() / _EVERY) % 4]

    def shifted() -> float:
        return right() + shift()

    class Any(type(datetime)):  # type: ignore[misc]
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, datetime)

    class Jumping(datetime, metaclass=Any):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=shift())

    ours = [
        module
        for name, module in sys.modules.items()
        if name.startswith(("adapters", "flows")) and getattr(module, "datetime", None) is datetime
    ]
    with ExitStack() as patched:
        patched.enter_context(mock.patch("time.time", shifted))
        for module in ours:
            patched.enter_context(mock.patch.object(module, "datetime", Jumping))
        yield
