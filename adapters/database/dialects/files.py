"""SQLite and DuckDB: databases in a file, which this process reads and writes itself."""

import os
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from nightshift.adapters.database.dialects.base import AnyType, Capabilities
from nightshift.adapters.database.urls import require_known, unread

_YES = {"true", "yes", "on", "y", "t", "1"}  # as SQLAlchemy reads them
_SQLITE = {"timeout", "check_same_thread", "cached_statements", "uri"}
_SQLITE_URI = {"mode", "cache", "immutable", "nolock", "psow", "vfs"}

# What Nightshift sets in each session of DuckDB, and what would keep it from that.
_OF_THE_SESSION = {
    "TimeZone", "python_enable_replacements", "enable_progress_bar", "lock_configuration"
}  # fmt: skip


class _File(Capabilities):
    target = True
    is_server = False
    row_values = True
    transactional_ddl = True

    def check_parts(self, url: sa.URL) -> None:
        for part in ("username", "host", "port"):
            if getattr(url, part) not in {None, ""}:
                problem = (
                    f"the {part} {getattr(url, part)!r} would be ignored: {self.title} is a file"
                )
                remedy = f"Write it with three slashes: {url.get_backend_name()}:///folder/file."
                raise unread(problem, remedy)

    def engine_options(self, _url: sa.URL, _connect_timeout: int) -> dict[str, Any]:
        return {}

    def clock(self) -> "sa.ColumnElement[Any]":
        return sa.literal(datetime.now(UTC))

    def missing_privileges(
        self, engine: sa.Engine, _schema: str | None, _tables: Sequence[str]
    ) -> list[str]:
        name, query = engine.url.database, engine.url.query
        access = str(query.get("access_mode", "")).lower()
        if access == "read_only" or "immutable" in query or query.get("mode") == "ro":
            return [f"the URL of {name} opens it to read only; leave that parameter out"]
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

    def check_parts(self, url: sa.URL) -> None:
        """What SQLAlchemy and SQLite would drop: SQLite reads parameters only in a file: URI."""
        super().check_parts(url)
        name = url.database or ""
        is_uri = name.startswith("file:") and str(url.query.get("uri", "")).lower() in _YES
        require_known(url, _SQLITE | _SQLITE_URI, ours={"isolation_level", "detect_types"})
        lost = [f"the parameter {one!r}" for one in sorted(_SQLITE_URI & url.query.keys())]
        if lost and not is_uri:
            remedy = f"Write it as sqlite:///file:{name.removeprefix('file:')}?...&uri=true."
            raise unread(f"SQLite reads {lost[0]} only of a file: URI", remedy)
        if is_uri and "#" in name:
            raise unread("the fragment in it would be ignored", "In a file's name, write # as %23.")

    def source_options(self, url: sa.URL) -> dict[str, Any]:
        name = url.database or ":memory:"
        if name.startswith(("file:", ":memory:")) or url.query.keys() - {"timeout"}:
            return {}  # the URL says how it is opened
        seconds = float(str(url.query.get("timeout", 5)))
        opening = partial(_open_sqlite_source, Path(name), seconds)
        return {"creator": opening, "poolclass": sa.QueuePool}

    def configure(self, engine: sa.Engine) -> None:
        sa.event.listen(engine, "connect", _configure_sqlite)
        if "timeout" not in engine.url.query:
            sa.event.listen(engine, "connect", _wait_for_writers)
        sa.event.listen(engine, "begin", _begin_sqlite)


class DuckDB(_File):
    writers = "one process"
    package = ("duckdb", "duckdb")

    def check_url(self, url: sa.URL) -> None:
        if (url.database or ":memory:").startswith(":memory:"):
            problem = "DuckDB needs a file: what is in memory ends with the run"
            remedy = "Write it as duckdb:///folder/file.duckdb."
            raise unread(problem, remedy)

    def check_parts(self, url: sa.URL) -> None:
        """DuckDB's own list of settings, if it is installed."""
        super().check_parts(url)
        if not url.query:
            return
        try:
            import duckdb
        except ModuleNotFoundError:
            return  # opening it says so
        with duckdb.connect() as connection:
            found = connection.execute("SELECT name FROM duckdb_settings()").fetchall()
        require_known(url, {name for (name,) in found}, _OF_THE_SESSION)

    def source_options(self, _url: sa.URL) -> dict[str, Any]:
        return {"connect_args": {"read_only": True}}

    def configure(self, engine: sa.Engine) -> None:
        sa.event.listen(engine, "begin", _begin_duckdb)

    def instant(self) -> AnyType:
        return sa.DateTime()  # its zoned type is read in the session's zone


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would come too late


def _open_sqlite_source(path: Path, seconds: float) -> sqlite3.Connection:
    """A file that is not made and not changed. In WAL mode, readers make files next to it; where
    they cannot, and there is no such file of a writer, nothing changes it.
    """
    wal = path.with_name(f"{path.name}-wal")
    folder_is_fixed = not os.access(path.parent, os.W_OK)
    fixed = folder_is_fixed and not (wal.exists() and wal.stat().st_size)
    place = f"file:{quote(str(path.absolute()))}?mode=ro{'&immutable=1' if fixed else ''}"
    return sqlite3.connect(place, seconds, uri=True, check_same_thread=False)


def _wait_for_writers(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA busy_timeout = 30000")  # milliseconds


def _begin_sqlite(connection: sa.Connection) -> None:
    reading = _only_reads(connection)
    if not reading and "nightshift_wal" not in connection.info:  # readers do not wait for a writer
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.info["nightshift_wal"] = True
    connection.exec_driver_sql(f"PRAGMA query_only = {int(reading)}")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _begin_duckdb(connection: sa.Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    driver.begin(_only_reads(connection))


def _only_reads(connection: sa.Connection) -> bool:
    return bool(connection.get_execution_options().get("nightshift_read_only", False))
