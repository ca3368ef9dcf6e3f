"""Calls with a time limit: in one thread, in the caller's context, left alone when they hang."""

import subprocess
import sys
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from nightshift.flows.scoring.prediction.timeouts import CallTimedOut, TimedCalls
from watched import Hanging

PATIENCE = 10.0  # seconds; only a test that fails waits for it


def test_without_a_limit_the_caller_itself_calls() -> None:
    assert TimedCalls(None)(threading.current_thread) is threading.current_thread()


def test_with_a_limit_one_thread_makes_all_calls() -> None:
    seen: ContextVar[int] = ContextVar("seen")
    calls = TimedCalls(PATIENCE)
    threads = set()
    for number in range(3):
        seen.set(number)
        assert calls(seen.get) == number
        threads.add(calls(threading.current_thread))
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert thread.daemon
    calls.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert calls(lambda: 7) == 7  # started again
    calls.close()
    calls.close()


@pytest.mark.parametrize("error", [ValueError, TimeoutError, StopIteration, KeyboardInterrupt])
def test_what_the_call_raises_is_raised(error: type[BaseException]) -> None:
    def fail() -> Any:
        raise error("it")

    calls = TimedCalls(PATIENCE)
    with pytest.raises(error, match="it"):
        calls(fail)
    assert calls(lambda: 1) == 1
    calls.close()


def test_a_call_that_hangs_is_left_alone_and_the_next_has_another_thread(
    hanging: Hanging,
) -> None:
    calls = TimedCalls(60)
    first = calls(threading.current_thread)
    with pytest.raises(CallTimedOut, match="no answer within 60 s"):
        calls(hanging.here)
    assert first.is_alive()
    assert calls(threading.current_thread) is not first
    calls.close()
    hanging.end()
    assert not first.is_alive()


def test_it_need_not_be_closed() -> None:
    calls = TimedCalls(PATIENCE)
    thread = calls(threading.current_thread)
    del calls
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_process_ends_although_a_call_hangs() -> None:
    code = """
import threading
from nightshift.flows.scoring.prediction.timeouts import TimedCalls, CallTimedOut
try:
    TimedCalls(0.01)(threading.Event().wait)
except CallTimedOut as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("no answer within 0.01 s\n", "")
