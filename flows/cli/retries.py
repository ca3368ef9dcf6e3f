"""Steps that failed for a moment and are tried again: said to the person who waits for them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nightshift.flows.text import in_a_line


class _Announcer(logging.Handler):
    """Hears of retries from Prefect's log, which alone knows when the next one is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            case (_, reason, int(number), int(most), str(when)) if "Retry" in str(record.msg):
                seconds = when.removesuffix(" second(s) from now")
                told = f"in {float(seconds):.1f} s" if seconds != when else "at once"
                self._say(f"Trying again {told} ({number} of {most}): {in_a_line(str(reason))}")


@contextmanager
def announcing_retries(say: Callable[[str], None]) -> Iterator[None]:
    """While in this context, each retry of a step is said, with its reason."""
    announcer, log = _Announcer(say), logging.getLogger("prefect.task_runs")
    log.addHandler(announcer)
    try:
        yield
    finally:
        log.removeHandler(announcer)
