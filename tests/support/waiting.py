"""Waiting for what takes an unknown time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(found: Callable[[], T], seconds: float = 120) -> T:
    """The first true value that `found` returns. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (thing := found()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return thing
