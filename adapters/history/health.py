"""Is a database fit for Nightshift? Questions for an operator; nothing here writes."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import sqlalchemy as sa

from nightshift.adapters.database.capabilities import MYSQL, capabilities
from nightshift.adapters.database.engine import open_reader, translated
from nightshift.adapters.ledger.ledger import Ledger, is_dead
from nightshift.adapters.ledger.runs import CHAMPION, RunState

# What is granted to this user by itself, everywhere or in one database. Information schema of
# MariaDB and MySQL; a grantee is written there as in GRANT.
_MYSQL_GRANTED = """
    SELECT privilege_type FROM information_schema.user_privileges WHERE grantee = :grantee
    UNION SELECT privilege_type FROM information_schema.schema_privileges
    WHERE grantee = :grantee AND :place LIKE table_schema"""
_MYSQL_WRITES = (
    "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "INDEX", "REFERENCES", "CREATE VIEW",
    "SHOW VIEW",
)  # fmt: skip


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
            superuser, encrypted = False, None
            if engine.dialect.name in MYSQL:
                superuser = "SUPER" in _granted_by_mysql(connection)
                if "unix_socket" not in engine.url.query:
                    status = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
                    encrypted = bool(connection.exec_driver_sql(status).one()[1])
            return Contact(product, engine.url.username, took * 1000, skew, superuser, encrypted)
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


def find_write_problems(ledger: Ledger) -> list[str]:
    """What keeps this role from keeping predictions there: sentences, each with what mends it.

    Asks PostgreSQL, MariaDB, MySQL, and the folders of SQLite and DuckDB; of others nothing is
    known before a run.
    """
    engine = ledger.engine
    if engine.dialect.name in {"sqlite", "duckdb"}:
        return _unwritable_file(engine.url.database)
    if engine.dialect.name in MYSQL:
        return _unwritable_mysql(ledger)
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


def _unwritable_mysql(ledger: Ledger) -> list[str]:
    with (
        translated(ledger.engine, "to tell privileges"),
        open_reader(ledger.engine) as connection,
    ):
        if connection.exec_driver_sql("SELECT current_role()").scalar() not in {None, "NONE"}:
            return []  # what comes with a role is not listed
        place = (
            ledger.tables.runs.schema or connection.exec_driver_sql("SELECT database()").scalar()
        )
        granted = _granted_by_mysql(connection, place)
        missing = ", ".join(one for one in _MYSQL_WRITES if one not in granted)
        if not missing:
            return []
        user = _mysql_grantee(connection)
        name = ledger.engine.dialect.identifier_preparer.quote_identifier(place or "...")
        return [
            f"the user {user} lacks privileges in the database {place!r}; "
            f"GRANT {missing} ON {name}.* TO {user}"
        ]


def _granted_by_mysql(connection: sa.Connection, place: str | None = None) -> set[str]:
    asked = {"grantee": _mysql_grantee(connection), "place": place}
    return set(connection.scalars(sa.text(_MYSQL_GRANTED), asked))


def _mysql_grantee(connection: sa.Connection) -> str:
    user, _, host = str(connection.exec_driver_sql("SELECT current_user()").scalar()).rpartition(
        "@"
    )
    return f"'{user}'@'{host}'"


def find_missing_columns(ledger: Ledger) -> list[str]:
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


def find_abandoned_runs(ledger: Ledger) -> list[AbandonedRun]:
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


def _unwritable_file(name: str | None) -> list[str]:
    if not name or name == ":memory:":
        return []
    path = Path(name)
    place = path if path.exists() else path.parent
    if not place.exists():
        return [f"the folder {place} is not there; make it"]
    return [] if os.access(place, os.W_OK) else [f"{place} cannot be written to; change its mode"]
