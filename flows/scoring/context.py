"""What the runs of one job with one model version work with, made once for all of a backfill's."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from nightshift.adapters.store.manifest import Manifest
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.flows.config.resources import JobResources
from nightshift.flows.scoring.loaded_model import LoadedModel


@dataclass(frozen=True)
class RunContext:
    """What the runs of one job with one model version work with."""

    desk: JobResources
    predictions: PredictionTable
    served: LoadedModel
    challenger: LoadedModel | None = None
    unless_published_since: datetime | None = None
    """For a backfill: leave alone what somebody else has done after it was planned."""
    unless_changed: bool = False
    """And what readers have seen anything new of since."""
    alone: bool = True
    """Whether it is for one run; a backfill has a picture of all its partitions instead."""

    @property
    def manifest(self) -> Manifest:
        return self.served.manifest


_shared: ContextVar[RunContext | None] = ContextVar("shared", default=None)


def shared() -> RunContext | None:
    """What runs in this context work with: prepared by a backfill, or by the run itself."""
    return _shared.get()


def at_work() -> RunContext:
    """The same, for a step of a run. It is no parameter of the steps, since those go along to the
    processes that score shards, and engines cannot.
    """
    common = _shared.get()
    if common is None:
        raise LookupError("nothing is prepared in this context")
    return common


@contextmanager
def sharing(common: RunContext) -> Iterator[None]:
    """Have the runs and steps in this context work with it."""
    token = _shared.set(common)
    try:
        yield
    finally:
        _shared.reset(token)
