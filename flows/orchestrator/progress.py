"""How far a run is, as a Prefect artifact."""

import time
from collections.abc import Callable
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from nightshift.adapters.database.ticking import Ticker

Listener = Callable[[int, int], None]
"""Called with (rows done, rows in all) after each committed chunk."""


class Progress:
    """A Prefect artifact, updated every two seconds until it is closed.

    A thread of its own updates it: a Prefect server that is slow or away must not hold up the run.
    """

    INTERVAL = 2.0
    PATIENCE = 5.0
    """Seconds that the end of a run waits for the last update."""

    def __init__(
        self, title: str, done: int, total: int, listener: Listener | None, at_once: bool = True
    ) -> None:
        """Without `at_once`, no artifact is made for runs shorter than one interval."""
        self.title, self.done, self.total = title, done, total
        self._listener = listener
        self._done_before, self._started = done, time.monotonic()
        self._artifact: UUID | None = None
        self._notify()
        first = 0 if at_once else self.INTERVAL
        self._ticker = Ticker(
            self._show, self.INTERVAL, "progress", first, self.PATIENCE, at_end=True
        )
        self._ticker.start()

    def advance(self, rows: int) -> None:
        self.done += rows
        self._notify()

    def close(self) -> None:
        self._ticker.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def _percent(self) -> float:
        return 100.0 * self.done / self.total if self.total else 100.0

    def _notify(self) -> None:
        if self._listener is not None:
            self._listener(self.done, self.total)

    def _show(self) -> None:
        rate = (self.done - self._done_before) / max(self.seconds, 1e-9)
        text = f"{self.title}: {self.done:,} of {self.total:,} rows, {rate:,.0f} rows/s"
        if rate > 0 and self.done < self.total:
            text += f", {(self.total - self.done) / rate:,.0f} s left"
        try:
            if self._artifact is None:
                created = create_progress_artifact(self._percent, description=text)
                self._artifact = UUID(str(created))
            else:
                update_progress_artifact(self._artifact, self._percent, description=text)
        except Exception as error:  # only the picture suffers
            get_run_logger().warning("The progress could not be shown: %s", error)
