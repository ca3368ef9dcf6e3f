"""How many threads BLAS gets, next to those of the pipeline."""

from time import perf_counter
from types import TracebackType
from typing import Self

from threadpoolctl import threadpool_limits

_TRIAL = 4
"""Chunks after which it is known what a run waits for."""
_MOST = 0.7
"""The share of the time that predicting takes when nothing else is waited for."""


class AdaptiveBlasThreads:
    """Keeps BLAS to one thread, unless predicting turns out to be what the run waits for.

    A cheap model's matrix product is over in less time than it takes to share it out. BLAS's other
    threads then wait for the next one with their cores held, which reading, writing and the
    database need: of the CPU that scoring 2,000,000 rows took, a third. OpenMP, which trees are
    predicted with, is left alone: its threads go to sleep.
    """

    def __init__(self) -> None:
        self._chunks, self._busy = 0, 0.0

    def __enter__(self) -> Self:
        self._limits = threadpool_limits(1, user_api="blas")
        self._began = perf_counter()
        return self

    def predicted(self, seconds: float) -> None:
        """Take note of a chunk, and how long it took to predict it."""
        self._chunks, self._busy = self._chunks + 1, self._busy + seconds
        if self._chunks == _TRIAL and self._busy > _MOST * (perf_counter() - self._began):
            self._limits.restore_original_limits()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._limits.restore_original_limits()
