"""Calls with a time limit."""

import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import Context, copy_context
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

Result = TypeVar("Result")

_Task = tuple["Future[Any]", Context, Callable[[], Any]]

_GLANCE = 1.0
"""Seconds between two looks at the clock: how long an interrupt of this thread may have to wait,
since Python delivers what another thread sends only between two of its steps."""


class CallTimedOut(Exception):
    """The call timed out; its thread keeps running."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"no answer within {self.seconds:g} s"


class TimedCalls:
    """Makes calls one after the other; each has `seconds`, or no limit if that is None.

    With a limit, calls run in a thread of their own, in the caller's context (which is how
    Prefect's loggers and runs are found), the same thread for all: libraries keep thread pools
    and buffers by thread. A call that takes too long is left alone with that thread, which is a
    daemon, so that the process can end; the next call gets a new one. `leaving` is called.
    """

    def __init__(self, seconds: float | None, leaving: Callable[[], object] = lambda: None) -> None:
        self.seconds = seconds
        self._leaving = leaving
        self._inbox: SimpleQueue[_Task | None] | None = None

    def __call__(self, call: Callable[[], Result]) -> Result:
        """Raises what the call raises, or CallTimedOut."""
        if self.seconds is None:
            return call()
        future: Future[Result] = Future()
        try:
            self._start().put((future, copy_context(), call))
            ends = monotonic() + self.seconds
            while not future.done():
                left = ends - monotonic()
                if left <= 0:
                    raise CallTimedOut(self.seconds)
                wait([future], min(left, _GLANCE))
            return future.result()
        finally:
            if not future.done():  # it hangs, or this thread was interrupted
                self._leaving()
                self.close()
            del future, call  # an error's traceback has this frame: let it hold no features

    def close(self) -> None:
        """Let the thread end, once the call under way has."""
        if self._inbox is not None:
            self._end()
            self._inbox = None

    def _start(self) -> "SimpleQueue[_Task | None]":
        if self._inbox is None:
            self._inbox = SimpleQueue()
            Thread(target=_answer, args=(self._inbox,), name="predict", daemon=True).start()
            self._end = weakref.finalize(self, self._inbox.put, None)  # also if never closed
        return self._inbox


def _answer(inbox: "SimpleQueue[_Task | None]") -> None:
    while (task := inbox.get()) is not None:
        future, context, call = task
        try:
            future.set_result(context.run(call))
        except BaseException as error:  # an interrupt too is the caller's to handle
            future.set_exception(error)
        del task, future, context, call  # nothing of a chunk is kept while waiting for the next
