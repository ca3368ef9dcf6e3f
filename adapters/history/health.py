"""Is a database ready for Nightshift? Read-only checks for an operator."""

from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter

import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.ledger.leases import is_alive, last_written, silence
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.runs import CHAMPION, RunState


@dataclass(frozen=True)
class Contact:
    """What answered."""

    product: str
    """`PostgreSQL 18.4`"""
    user: str | None
    milliseconds: float
    """For one small question, on an open connection."""
    clock_skew: float
    """Seconds by which its clock is ahead of this machine's."""
    superuser: bool
    """Whether no privilege can be refused to this role."""
    encrypted: bool | None
    """None where there is no network in between, or no way to tell."""


@dataclass(frozen=True)
class AbandonedRun:
    """An unfinished run whose owner has a stale heartbeat, or is dead."""

    run_id: int
    job: str
    partition: str
    owner: str
    silent: float
    """Seconds since its last sign of life."""


def contact(engine: sa.Engine) -> Contact:
    """Ask the database who it is. Raises DatabaseUnavailable, StatementFailed."""
    with translate_errors(engine, "to answer"), open_reader(engine) as connection:
        Ledger(engine).now(connection)  # the first question takes longer
        started = perf_counter()
        connection.execute(sa.select(sa.literal(1))).scalar_one()
        took = perf_counter() - started
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
    """Columns that someone has dropped from the ledger: `table.column`; none without a ledger."""
    if not ledger.exists():
        return []
    missing = []
    with translate_errors(ledger.engine, "to describe the ledger"):
        inspector = sa.inspect(ledger.engine)
        for table in ledger.tables.ledger:
            columns = inspector.get_columns(table.name, table.schema)
            found = {column["name"] for column in columns}
            missing += [str(column) for column in table.c if column.name not in found]
    return missing


def find_abandoned_runs(ledger: Ledger) -> list[AbandonedRun]:
    """Runs, also scored ones, whose owner is not alive; the longest silent first.

    A challenger's run ends once it is scored.
    """
    if not ledger.exists():
        return []
    runs = ledger.tables.runs
    names = (runs.c.run_id, runs.c.job, runs.c.partition, runs.c.owner)
    unfinished = (runs.c.state == RunState.RUNNING) | (
        (runs.c.state == RunState.SCORED) & (runs.c.role == CHAMPION)
    )
    statement = sa.select(*names, runs.c.heartbeat_at, last_written(ledger.tables))
    with (
        translate_errors(ledger.engine, "to look for abandoned runs"),
        open_reader(ledger.engine) as connection,
    ):
        now = ledger.now(connection)
        found = [
            AbandonedRun(run_id, job, partition, owner, silence(now, *signs))
            for run_id, job, partition, owner, *signs in connection.execute(
                statement.where(unfinished)
            )
        ]
    abandoned = [run for run in found if not is_alive(run.owner, run.silent, ledger.lease)]
    return sorted(abandoned, key=lambda run: -run.silent)
