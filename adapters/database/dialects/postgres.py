"""PostgreSQL."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from nightshift.adapters.database.dialects.base import Capabilities, Session
from nightshift.adapters.database.urls import require_known, require_once

# Bounds that an operator may have set; those that are 0 get one.
_BOUNDS = ("lock_timeout", "idle_in_transaction_session_timeout")
_READ_BOUNDS = f"SELECT {', '.join(f'current_setting({name!r})' for name in _BOUNDS)}"

# So that a connection that leads nowhere is noticed: seconds, and milliseconds.
_NETWORK = {
    "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 120_000,
}  # fmt: skip

_SESSION = """
    SELECT current_user, rolsuper,
      CASE WHEN inet_server_addr() IS NOT NULL
           THEN (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) END
    FROM pg_roles WHERE rolname = current_user"""

_SCHEMA = """
    SELECT current_user, has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE')
    FROM pg_namespace WHERE nspname = :schema"""

_REFUSED = """
    SELECT relname FROM pg_class
    WHERE relnamespace = CAST(:schema AS regnamespace) AND relname = ANY(:tables)
      AND NOT has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE')
    ORDER BY relname"""


class PostgreSQL(Capabilities):
    target = True
    row_values = True
    shared_snapshot = True
    transactional_ddl = True
    longest_name = 63
    drivername = "postgresql+psycopg"
    zoned_instants = True

    def check_parts(self, url: sa.URL) -> None:
        """libpq's own list of parameters, if psycopg is the driver."""
        require_once(
            url, {"user": "username", "host": "host", "port": "port", "dbname": "database"}
        )
        if url.query and url.drivername == self.drivername:
            from psycopg import pq  # loads libpq

            known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
            require_known(url, known, repeated={"host", "port"})

    def engine_options(self, url: sa.URL, connect_timeout: int) -> dict[str, Any]:
        # A pooler gives each transaction another session, without the statements prepared before.
        # In SQL_ASCII, the driver would return bytes for texts; in UTF-8, the server checks them.
        ours = {"connect_timeout": connect_timeout, **_NETWORK, "client_encoding": "utf8"}
        arguments: dict[str, Any] = {n: value for n, value in ours.items() if n not in url.query}
        arguments["prepare_threshold"] = None
        return {
            "pool_pre_ping": True,
            # A server's default may be stricter; but after waiting for a lock, the ledger must see
            # what its last holder committed.
            "isolation_level": "READ COMMITTED",
            "connect_args": arguments,
        }

    def configure(self, engine: sa.Engine) -> None:
        sa.event.listen(engine, "connect", _read_bounds)
        sa.event.listen(engine, "begin", _begin)

    def clock(self) -> "sa.ColumnElement[Any]":
        return sa.func.clock_timestamp()

    def estimate_rows(self, connection: sa.Connection, counting: "sa.Select[Any]") -> int:
        """The planner's estimate."""
        rows = counting.with_only_columns(sa.literal(1), maintain_column_froms=True)
        plan: Any = connection.execute(Explain(rows)).scalar_one()
        return int(plan[0]["Plan"]["Plan Rows"])

    @contextmanager
    def exclusive(self, connection: sa.Connection, name: str, patience: int) -> Iterator[None]:
        """Waits for at most the session's lock_timeout."""
        key = sa.func.hashtextextended(name, 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        yield

    def session(self, connection: sa.Connection) -> Session:
        return Session(*connection.execute(sa.text(_SESSION)).one())

    def missing_privileges(
        self, engine: sa.Engine, schema: str | None, tables: Sequence[str]
    ) -> list[str]:
        quote = engine.dialect.identifier_preparer.quote
        with engine.connect() as connection:
            schema = schema or connection.scalar(sa.text("SELECT current_schema()"))
            if schema is None:
                return ["no schema of the search_path exists; set database.schema"]
            name = quote(schema)
            found = connection.execute(sa.text(_SCHEMA), {"schema": schema}).one_or_none()
            if found is None:
                return [
                    f"the schema {schema!r} does not exist; CREATE SCHEMA {name} AUTHORIZATION "
                    "the role"
                ]
            user, usage, create = found
            role = quote(user)
            if not (usage and create):
                return [
                    f"the role {user!r} may not create tables in the schema {schema!r}; "
                    f"GRANT USAGE, CREATE ON SCHEMA {name} TO {role}"
                ]
            asked = {"schema": name, "tables": list(tables)}
            refused = connection.scalars(sa.text(_REFUSED), asked).all()
        if not refused:
            return []
        return [f"{', '.join(refused)} belong to another role; ALTER TABLE ... OWNER TO {role}"]


def transaction_settings(connection: sa.Connection, *, reading: bool) -> str:
    """Statements that give the connection's transaction what Nightshift needs, and only that one:
    behind a pooler, the next transaction of this session is another client's.

    No statement is ended for its length, and no wait for a lock is endless. A process that stands
    still after a write loses its transaction, so that another can take its run over; a reader may
    wait for a slow model. A reader that may not see all rows gets an error, not the others.
    """
    lock, idle = (value if value != "0" else "60s" for value in connection.info[_BOUNDS])
    wanted = {"lock_timeout": lock, "statement_timeout": "0"}
    wanted["idle_in_transaction_session_timeout"] = "0" if reading else idle
    if (connection.dialect.server_version_info or (0,)) >= (17,):
        wanted["transaction_timeout"] = "0"
    if reading:
        wanted["row_security"] = "off"
    return "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in wanted.items())


def _read_bounds(connection: Any, record: Any) -> None:
    record.info[_BOUNDS] = connection.execute(_READ_BOUNDS).fetchone()
    connection.rollback()


def _begin(connection: sa.Connection) -> None:
    """Only READ ONLY is said: a standby refuses READ WRITE, and so may a role's default."""
    driver: Any = connection.connection.dbapi_connection
    if driver.autocommit:
        return
    reading = bool(connection.get_execution_options().get("nightshift_read_only", False))
    driver.read_only = True if reading else None
    settings = transaction_settings(connection, reading=reading)
    connection.exec_driver_sql(settings, execution_options={"no_parameters": True})


class Explain(sa.Executable, sa.ClauseElement):
    """EXPLAIN of a SELECT, as JSON. Planning locks whatever the SELECT would read."""

    inherit_cache = False

    def __init__(self, statement: "sa.Select[Any]") -> None:
        self.statement = statement


@compiles(Explain)
def _compile_explain(element: Explain, compiler: Any, **kwargs: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **kwargs)}"
