"""Least privilege: one role reads the sources, another owns the predictions."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import NightshiftError, StatementFailed
from nightshift.flows.score import score
from project import Project
from roles import plain, shipped_roles

# SQLSTATEs; the last one is for who has no schema to create in.
INSUFFICIENT_PRIVILEGE, READ_ONLY_TRANSACTION, NO_SCHEMA = "42501", "25006", "3F000"


@pytest.fixture
def roles(project: Project, database: sa.URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The project in a database with the shipped roles; its source table is the administrator's."""
    project.fill()
    with shipped_roles(project, database):
        project.sql("CREATE TABLE salaries (id bigint PRIMARY KEY, amount numeric)")
        for name, value in {
            "URL": plain(database.set(username="nightshift_writer")),
            "SOURCE_URL": plain(database.set(username="nightshift_reader")),
            "SCHEMA": "predictions",
        }.items():
            monkeypatch.setenv(f"NIGHTSHIFT_DATABASE__{name}", value)
        yield project


def refusal(database: sa.URL, role: str, *statements: str) -> str | None:
    """The SQLSTATE with which the last statement is refused to the role; None if it is not."""
    engine = open_engine(database.set(username=role))
    try:
        with engine.connect() as connection:
            for statement in statements[:-1]:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(statements[-1])
    except sa.exc.DBAPIError as error:
        return getattr(error.orig, "sqlstate", None) or "none"
    finally:
        engine.dispose()
    return None


def test_a_run_works_with_two_roles_and_nothing_more(
    roles: Project, database: sa.URL, prefect: str
) -> None:
    roles.register()
    result = score("orders", "2024-03-01")
    assert result.rows == 500
    roles.sql("CREATE ROLE analyst IN ROLE prediction_readers")
    try:
        seen = "SELECT * FROM predictions.order_scores"
        assert refusal(database, "postgres", "SET ROLE analyst", seen) is None
        denied = "DELETE FROM predictions.order_scores_runs"
        assert refusal(database, "postgres", "SET ROLE analyst", denied) == INSUFFICIENT_PRIVILEGE
        source = "SELECT * FROM public.orders"
        assert refusal(database, "postgres", "SET ROLE analyst", source) == INSUFFICIENT_PRIVILEGE
    finally:
        roles.sql("DROP ROLE analyst")


def test_the_reading_role_can_only_select(roles: Project, database: sa.URL) -> None:
    """Whatever a query says: it begins read-only, and has no privilege if it gets out of that."""
    reader = "nightshift_reader"
    assert refusal(database, reader, "SELECT * FROM orders", "SELECT * FROM salaries") is None
    for statement in (
        "INSERT INTO orders VALUES (-1, now(), 1, '')",
        "UPDATE orders SET x = 0",
        "DELETE FROM orders",
        "TRUNCATE orders",
        "DROP TABLE orders",
        "CREATE TABLE mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "CREATE TEMP TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "SELECT * FROM predictions.anything",
        "COPY orders TO PROGRAM 'cat'",
        "SELECT pg_read_file('postgresql.conf')",
    ):
        refused = refusal(database, reader, statement)
        assert refused in {INSUFFICIENT_PRIVILEGE, READ_ONLY_TRANSACTION}, statement
        escaped = "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"
        refused = refusal(database, reader, escaped, "COMMIT", statement)
        assert refused in {INSUFFICIENT_PRIVILEGE, NO_SCHEMA}, statement


def test_the_writing_role_reads_and_writes_nothing_else(roles: Project, database: sa.URL) -> None:
    for statement in (
        "SELECT * FROM public.orders",
        "SELECT * FROM public.salaries",
        "DELETE FROM public.orders",
        "CREATE TABLE public.mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SELECT * FROM pg_authid",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
    ):
        refused = refusal(database, "nightshift_writer", statement)
        assert refused == INSUFFICIENT_PRIVILEGE, statement


def test_neither_role_can_open_prefects_database(roles: Project, database: sa.URL) -> None:
    for role in ("nightshift_writer", "nightshift_reader"):
        engine = open_engine(database.set(username=role, database="prefect"))
        with pytest.raises(sa.exc.OperationalError, match="permission denied for database"):
            engine.connect()
        engine.dispose()


# --- SQL sources are read only, for whatever role ------------------------------------------------


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT o.* FROM orders o, LATERAL (SELECT sneak(o.id)) AS s", "read-only transaction"),
        ("SELECT o.*, nextval('counter') AS n FROM orders o", "read-only transaction"),
        ("WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone", "top level"),
        ("SELECT * FROM orders; DELETE FROM orders", "syntax error"),
        ("SELECT * FROM orders) AS s; DELETE FROM orders; --", "syntax error"),
        (
            "SELECT o.*, set_config('transaction_read_only', 'off', true) FROM orders o",
            "read-write",
        ),
    ],
)
def test_a_source_query_cannot_write(project: Project, prefect: str, query: str, says: str) -> None:
    """Even with the role that owns the tables."""
    project.fill(rows=20)
    project.sql("CREATE SEQUENCE counter")
    project.sql(
        "CREATE FUNCTION sneak(bigint) RETURNS int LANGUAGE sql AS"
        " 'DELETE FROM orders WHERE id = $1 RETURNING 1'"
    )
    project.write_job(source={"query": query, "key": "id"}, partition_by=None)
    project.register()
    with pytest.raises(NightshiftError, match=says) as raised:
        score("orders", "all")
    assert isinstance(raised.value, StatementFailed)
    assert _rows(project) == 20


def _rows(project: Project) -> Any:
    return project.sql("SELECT count(*) FROM orders")[0][0]
