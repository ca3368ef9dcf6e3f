"""What the runs of one job with one model version work with, made once for all of a backfill's."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from adapters.database.predictions import Predictions
from adapters.manifest import Manifest
from flows.desk import Desk
from flows.served import Served


@dataclass(frozen=True)
class Prepared:
    """What the runs of one job with one model version work with."""

    desk: Desk
    predictions: Predictions
    served: Served
    challenger: Served | None = None
    unless_done_since: datetime | None = None
    """For a backfill: leave alone what somebody else has done after it was planned."""
    unless_moved: bool = False
    """And what readers have seen anything new of since."""
    alone: bool = True
    """Whether it is for one run; a backfill has a picture of all its partitions instead."""

    @property
    def manifest(self) -> Manifest:
        return self.served.manifest


_shared: ContextVar[Prepared | None] = ContextVar("shared", default=None)


def shared() -> Prepared | None:
    """What runs in this context work with: prepared by a backfill, or by the run itself."""
    return _shared.get()


def at_work() -> Prepared:
    """The same, for a step of a run. It is no parameter of the steps, since those go along to the
    processes that score shards, and engines cannot.
    """
    common = _shared.get()
    if common is None:
        raise LookupError("nothing is prepared in this context")
    return common


@contextmanager
def sharing(common: Prepared) -> Iterator[None]:
    """Have the runs and steps in this context work with it."""
    token = _shared.set(common)
    try:
        yield
    finally:
        _shared.reset(token)
