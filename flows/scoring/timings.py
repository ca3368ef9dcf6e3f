"""How long each stage of a shard took, counted while it streams: two readings of the clock each.

    stages = StageTimings()
    chunks = stages.each("read", chunks)
    with stages.of("write"):
        ...
    text = stages.to_json()

Stages overlap, so together they may take longer than the run. Each is timed by one thread at a
time, so that none needs a lock.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Self, TypeVar

Item = TypeVar("Item")


class StageTimings:
    """Seconds by stage: read, predict, challenge, profile, write."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds = dict(seconds or {})

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self.add(stage, perf_counter() - started)

    def each(self, stage: str, items: Iterable[Item]) -> Generator[Item, None, None]:
        """The items, with the time that each of them took to come."""
        source = iter(items)
        while True:
            with self.of(stage):
                item = next(source, _NONE)
            if item is _NONE:
                return
            yield item  # type: ignore[misc]

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def merged(self, other: Self) -> Self:
        """Both together: of two shards, or of a resumed one before and after."""
        both = type(self)(self.seconds)
        for stage, seconds in other.seconds.items():
            both.add(stage, seconds)
        return both

    def to_json(self) -> str:
        return json.dumps({stage: round(seconds, 3) for stage, seconds in self.seconds.items()})

    @classmethod
    def from_json(cls, text: str | None) -> Self:
        """What `to_json` returned; None is an empty one. Raises ValueError for anything else."""
        data = json.loads(text) if text else {}
        if not isinstance(data, dict):
            raise ValueError(f"these are not stage timings: {text}")  # noqa: TRY004 - as for other texts
        return cls({str(stage): float(seconds) for stage, seconds in data.items()})


_NONE = object()
