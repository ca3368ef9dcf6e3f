"""A call repeated on a thread of its own: heartbeats, progress, watchdogs."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Self


class Ticker:
    """Calls `tick` every `interval` seconds, from entering its context to leaving it.

    The first call comes `first` seconds after the start, by default after one interval; with 0,
    there is one even if it is stopped at once. With `at_end`, a ticker that has called calls once
    more when it is stopped. Calls run in the context variables of the thread that made it, so that
    Prefect's loggers and artifacts belong to its run. An exception from `tick` ends the thread:
    catch what may pass. Leaving waits for a call that is in progress, at most `patience` seconds,
    by default without limit.
    """

    def __init__(
        self,
        tick: Callable[[], object],
        interval: float,
        name: str,
        first: float | None = None,
        patience: float | None = None,
        at_end: bool = False,
    ) -> None:
        self._tick, self._interval, self._patience = tick, interval, patience
        self._first = interval if first is None else first
        self._at_end = at_end
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name=name, daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it; a second call, or one before the start, does nothing."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(self._patience)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        if self._first > 0 and self._stopped.wait(self._first):
            return
        self._tick()
        while not self._stopped.wait(self._interval):
            self._tick()
        if self._at_end:
            self._tick()
