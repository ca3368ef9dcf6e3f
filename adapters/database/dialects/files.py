"""SQLite and DuckDB: databases in a file, which this process reads and writes itself."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nightshift.adapters.database.dialects.base import AnyType, Capabilities
from nightshift.adapters.errors import ConfigurationError


class _File(Capabilities):
    target = True
    is_server = False
    row_values = True
    transactional_ddl = True

    def engine_options(self, _url: sa.URL, _connect_timeout: int) -> dict[str, Any]:
        return {}

    def clock(self) -> "sa.ColumnElement[Any]":
        return sa.literal(datetime.now(UTC))

    def missing_privileges(
        self, engine: sa.Engine, _schema: str | None, _tables: Sequence[str]
    ) -> list[str]:
        name = engine.url.database
        if not name or name == ":memory:":
            return []
        path = Path(name)
        place = path if path.exists() else path.parent
        if not place.exists():
            return [f"the folder {place} does not exist; create it"]
        return [] if os.access(place, os.W_OK) else [f"{place} is not writable; change its mode"]


class SQLite(_File):
    writers = "one"
    not_finite = "nan is null"

    def configure(self, engine: sa.Engine) -> None:
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)


class DuckDB(_File):
    writers = "one process"
    package = ("duckdb", "duckdb")

    def check_url(self, url: sa.URL) -> None:
        if (url.database or ":memory:").startswith(":memory:"):
            problem = "DuckDB needs a file: what is in memory ends with the run"
            remedy = "Write it as duckdb:///folder/file.duckdb."
            raise ConfigurationError("nightshift.yaml", "database.url", problem, remedy)

    def configure(self, engine: sa.Engine) -> None:
        sa.event.listen(engine, "begin", _begin_duckdb)

    def instant(self) -> AnyType:
        return sa.DateTime()  # its zoned type is read in the session's zone


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would come too late
    connection.execute("PRAGMA busy_timeout = 30000")  # milliseconds
    connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer


def _begin_sqlite(connection: sa.Connection) -> None:
    reading = _only_reads(connection)
    connection.exec_driver_sql(f"PRAGMA query_only = {int(reading)}")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _begin_duckdb(connection: sa.Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    driver.begin(_only_reads(connection))


def _only_reads(connection: sa.Connection) -> bool:
    return bool(connection.get_execution_options().get("nightshift_read_only", False))
