"""Who is alive: an owner renews its heartbeat; one that stops loses what it owns."""

import os
import socket
import uuid
from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.ledger.schema import LedgerTables

NO_OWNER = ""
"""The owner of what anyone may take at once."""


def new_owner() -> str:
    """A token for one worker: host:pid:random. The same one may begin a run again."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4()}"


def silence(now: datetime, *signs: datetime | None) -> float:
    """Seconds between now and the last sign of life: a heartbeat, or a chunk's commit.

    A sign from the future, left before the clock was set back, is as far from now as one from the
    past.
    """
    return abs((now - max(sign for sign in signs if sign is not None)).total_seconds())


def is_alive(owner: str, silent: float, lease: float) -> bool:
    """Whether the owner still holds its lease, `silent` seconds after its last sign of life."""
    return silent < lease and not is_dead(owner)


def is_dead(owner: str) -> bool:
    """Whether the owner has given up, or was a process of this machine that no longer exists."""
    if owner == NO_OWNER:
        return True
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def last_written(tables: LedgerTables) -> "sa.ScalarSelect[datetime]":
    """When a chunk of a run was committed last; for a SELECT from the runs."""
    runs, shards = tables.runs, tables.shards
    newest = sa.func.max(shards.c.written_at, type_=shards.c.written_at.type)
    return sa.select(newest).where(shards.c.run_id == runs.c.run_id).scalar_subquery()


def is_committing(connection: sa.Connection, tables: LedgerTables, run_id: int) -> bool:
    """Whether a chunk of the run is being committed: its shard's row is locked for as long."""
    shards = tables.shards
    of_run = sa.select(shards.c.shard).where(shards.c.run_id == run_id)
    free = connection.execute(of_run.with_for_update(skip_locked=True)).all()
    return len(free) < len(connection.execute(of_run).all())
