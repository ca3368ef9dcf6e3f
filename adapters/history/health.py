"""Is a database fit for Nightshift? Questions for an operator; nothing here writes."""

from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter

import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.ledger.ledger import Ledger, is_dead
from nightshift.adapters.ledger.runs import CHAMPION, RunState


@dataclass(frozen=True)
class Contact:
    """What answered."""

    product: str
    """`PostgreSQL 18.4`"""
    user: str | None
    milliseconds: float
    """For one small question, on an open connection."""
    skew: float
    """Seconds by which its clock is ahead of this machine's."""
    superuser: bool
    """Whether no privilege can be refused to this role."""
    encrypted: bool | None
    """None where there is no network in between, or no way to tell."""


@dataclass(frozen=True)
class AbandonedRun:
    """A run that says it is running, and whose owner gives no sign of life."""

    run_id: int
    job: str
    partition: str
    owner: str
    silent: float
    """Seconds since its last sign."""


def contact(engine: sa.Engine) -> Contact:
    """Ask the database who it is. Raises DatabaseUnavailable, StatementFailed."""
    with translate_errors(engine, "to answer"), open_reader(engine) as connection:
        Ledger(engine).now(connection)  # the first question takes longer
        begun = perf_counter()
        connection.execute(sa.select(sa.literal(1))).scalar_one()
        took = perf_counter() - begun
        before = datetime.now(UTC)
        now = Ledger(engine).now(connection)
        after = datetime.now(UTC)
        version = ".".join(str(part) for part in engine.dialect.server_version_info or ())
        here = capabilities(engine.dialect)
        session = here.session(connection)
    return Contact(
        f"{here.title} {version}".strip(),
        session.user,
        took * 1000,
        (now - (before + (after - before) / 2)).total_seconds(),
        session.superuser,
        session.encrypted,
    )


def find_write_problems(ledger: Ledger) -> list[str]:
    """What keeps this user from storing predictions: sentences, each with its remedy.

    Asks PostgreSQL, MariaDB, MySQL, and the folders of SQLite and DuckDB; for others it is known
    only once a run has tried.
    """
    engine, tables = ledger.engine, ledger.tables
    names = [table.name for table in tables.metadata.tables.values()]
    with translate_errors(engine, "to list privileges"):
        return capabilities(engine.dialect).missing_privileges(engine, tables.runs.schema, names)


def find_missing_columns(ledger: Ledger) -> list[str]:
    """Tables and columns that this version works with and the ledger lacks: `table.column`.

    A ledger that was not made yet has none: the first run makes it.
    """
    if not ledger.exists():
        return []
    gaps = []
    with translate_errors(ledger.engine, "to describe the ledger"):
        inspector = sa.inspect(ledger.engine)
        schema = ledger.tables.runs.schema
        there = set(inspector.get_table_names(schema=schema))
        for table in ledger.tables.metadata.sorted_tables:
            if table.name not in there:
                continue  # a newer one: the next run makes it
            found = {column["name"] for column in inspector.get_columns(table.name, schema)}
            gaps += [f"{column}" for column in table.c if column.name not in found]
    return gaps


def find_abandoned_runs(ledger: Ledger) -> list[AbandonedRun]:
    """Runs, also scored ones, whose owner is dead, or silent for longer than the lease; the longest
    silent first. A challenger's run ends once it is scored.
    """
    if not ledger.exists():
        return []
    runs, shards = ledger.tables.runs, ledger.tables.shards
    with (
        translate_errors(ledger.engine, "to look for abandoned runs"),
        open_reader(ledger.engine) as open_,
    ):
        now = ledger.now(open_)
        running = open_.execute(
            sa.select(
                runs.c.run_id,
                runs.c.job,
                runs.c.partition,
                runs.c.owner,
                runs.c.heartbeat_at,
                sa.func.max(shards.c.written_at, type_=runs.c.heartbeat_at.type).label("written"),
            )
            .outerjoin(shards, shards.c.run_id == runs.c.run_id)
            .where(
                (runs.c.state == RunState.RUNNING)
                | (runs.c.state == RunState.SCORED) & (runs.c.role == CHAMPION)
            )
            .group_by(
                runs.c.run_id, runs.c.job, runs.c.partition, runs.c.owner, runs.c.heartbeat_at
            )
        ).all()
    found = []
    for run_id, job, partition, owner, beat, written in running:
        silent = (now - max(beat, written or beat)).total_seconds()
        if silent > ledger.lease or is_dead(owner):
            found.append(AbandonedRun(run_id, job, partition, owner, silent))
    return sorted(found, key=lambda run: -run.silent)
