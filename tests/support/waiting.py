"""For what comes in its own time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(found: Callable[[], T], seconds: float = 120) -> T:
    """The first thing found that is true."""
    deadline = time.monotonic() + seconds
    while not (thing := found()):
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.1)
    return thing
