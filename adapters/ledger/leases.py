"""Who is alive: an owner renews its heartbeat; one that stops loses what it owns."""

import hashlib
import os
import socket
import uuid
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from nightshift.adapters.ledger.schema import LedgerTables

NO_OWNER = ""
"""The owner of what anyone may take at once."""


def new_owner() -> str:
    """A token for one worker: host:pid:place.random. The same one may begin a run again."""
    return f"{socket.gethostname()}:{os.getpid()}:{_place()}.{uuid.uuid4()}"


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
    """Whether the owner has given up, or was a process that, as is known here, no longer exists.

    Containers may share a host name; a PID means something only within its boot and namespace.
    """
    if owner == NO_OWNER:
        return True
    host, pid, token = owner.rsplit(":", 2)
    here = (socket.gethostname(), _place())
    if not here[1] or (host, token.partition(".")[0]) != here or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _place() -> str:
    """What tells this boot and PID namespace from others; empty where a system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:8]


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
