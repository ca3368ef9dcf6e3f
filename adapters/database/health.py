"""Is a database fit for Nightshift? Questions for an operator; nothing here writes."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import sqlalchemy as sa

from adapters.database.capabilities import capabilities
from adapters.database.engine import open_reader, translated
from adapters.database.ledger import Ledger, is_dead
from adapters.database.run import CHAMPION, RUNNING, SCORED


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
class Abandoned:
    """A run that says it is running, and whose owner gives no sign of life."""

    run_id: int
    job: str
    partition: str
    owner: str
    silent: float
    """Seconds since its last sign."""


def contact(engine: sa.Engine) -> Contact:
    """Ask the database who it is. Raises DatabaseUnavailable, StatementFailed."""
    with translated(engine, "to answer"), open_reader(engine) as connection:
        Ledger(engine).now(connection)  # the first question takes longer
        begun = perf_counter()
        connection.execute(sa.select(sa.literal(1))).scalar_one()
        took = perf_counter() - begun
        before = datetime.now(UTC)
        now = Ledger(engine).now(connection)
        after = datetime.now(UTC)
        version = ".".join(str(part) for part in engine.dialect.server_version_info or ())
        if engine.dialect.name != "postgresql":
            product = f"{capabilities(engine.dialect).title} {version}".strip()
            skew = (now - before).total_seconds()
            return Contact(product, engine.url.username, took * 1000, skew, False, None)
        user, superuser, encrypted = connection.execute(
            sa.text(
                "SELECT current_user, rolsuper,"
                " (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())"
                " FROM pg_roles WHERE rolname = current_user"
            )
        ).one()
        local = connection.execute(sa.text("SELECT inet_server_addr() IS NULL")).scalar_one()
        middle = before + (after - before) / 2
        return Contact(
            f"PostgreSQL {version}",
            user,
            took * 1000,
            (now - middle).total_seconds(),
            superuser,
            None if local else encrypted,
        )


def unwritable(ledger: Ledger) -> list[str]:
    """What keeps this role from keeping predictions there: sentences, each with what mends it.

    Asks PostgreSQL and the folders of SQLite and DuckDB; of others nothing is known before a run.
    """
    engine = ledger.engine
    if engine.dialect.name in {"sqlite", "duckdb"}:
        return _unwritable_file(engine.url.database)
    if engine.dialect.name != "postgresql":
        return []
    with translated(engine, "to tell privileges"), open_reader(engine) as connection:
        schema = ledger.tables.runs.schema
        if schema is None:
            schema = connection.scalar(sa.text("SELECT current_schema()"))
            if schema is None:
                return ["no schema is there to write to; set database.schema"]
        name = engine.dialect.identifier_preparer.quote(schema)
        user, usage, create = connection.execute(
            sa.text(
                "SELECT current_user, has_schema_privilege(oid, 'USAGE'),"
                " has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = :schema"
            ),
            {"schema": schema},
        ).one_or_none() or (None, None, None)
        if user is None:
            return [f"there is no schema {schema!r}; CREATE SCHEMA {name} AUTHORIZATION the role"]
        role = engine.dialect.identifier_preparer.quote(user)
        if not (usage and create):
            return [
                f"the role {user!r} may not create tables in the schema {schema!r}; "
                f"GRANT USAGE, CREATE ON SCHEMA {name} TO {role}"
            ]
        refused = connection.scalars(
            sa.text(
                "SELECT relname FROM pg_class WHERE relnamespace = CAST(:schema AS regnamespace)"
                " AND relname = ANY(:tables)"
                " AND NOT has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE')"
                " ORDER BY relname"
            ),
            {
                "schema": name,
                "tables": [table.name for table in ledger.tables.metadata.tables.values()],
            },
        ).all()
        if refused:
            return [
                f"{', '.join(refused)} belong to somebody else; ALTER TABLE ... OWNER TO {role}"
            ]
        return []


def ledger_gaps(ledger: Ledger) -> list[str]:
    """Tables and columns that this version works with and the ledger lacks: `table.column`.

    A ledger that was not made yet has none: the first run makes it.
    """
    if not ledger.exists():
        return []
    gaps = []
    with translated(ledger.engine, "to describe the ledger"):
        inspector = sa.inspect(ledger.engine)
        schema = ledger.tables.runs.schema
        there = set(inspector.get_table_names(schema=schema))
        for table in ledger.tables.metadata.sorted_tables:
            if table.name not in there:
                continue  # a newer one: the next run makes it
            found = {column["name"] for column in inspector.get_columns(table.name, schema)}
            gaps += [f"{column}" for column in table.c if column.name not in found]
    return gaps


def abandoned(ledger: Ledger) -> list[Abandoned]:
    """Runs, also scored ones, whose owner is dead, or silent for longer than the lease; the longest
    silent first. A challenger's run ends once it is scored.
    """
    if not ledger.exists():
        return []
    runs, shards = ledger.tables.runs, ledger.tables.shards
    with (
        translated(ledger.engine, "to look for abandoned runs"),
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
            .where((runs.c.state == RUNNING) | (runs.c.state == SCORED) & (runs.c.role == CHAMPION))
            .group_by(
                runs.c.run_id, runs.c.job, runs.c.partition, runs.c.owner, runs.c.heartbeat_at
            )
        ).all()
    found = []
    for run_id, job, partition, owner, beat, written in running:
        silent = (now - max(beat, written or beat)).total_seconds()
        if silent > ledger.lease or is_dead(owner):
            found.append(Abandoned(run_id, job, partition, owner, silent))
    return sorted(found, key=lambda run: -run.silent)


def _unwritable_file(name: str | None) -> list[str]:
    if not name or name == ":memory:":
        return []
    path = Path(name)
    place = path if path.exists() else path.parent
    if not place.exists():
        return [f"the folder {place} is not there; make it"]
    return [] if os.access(place, os.W_OK) else [f"{place} cannot be written to; change its mode"]
