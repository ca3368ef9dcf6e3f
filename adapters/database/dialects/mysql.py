"""MariaDB and MySQL."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from nightshift.adapters.database.dialects.base import AnyType, Capabilities, Session
from nightshift.adapters.database.urls import require_known, require_once
from nightshift.adapters.errors import DatabaseUnavailable

MYSQL = ("mysql", "mariadb")
"""SQLAlchemy's names for the two servers that one backend serves."""

# Settings of a session: TIMESTAMPs come as UTC; tables have transactions; what does not fit is
# refused, not cut; waiting for a table's lock ends after a minute (not a day); while a slow model
# holds up the reader, the server waits for a day (not a minute), and no statement is ended for its
# length; and, on MariaDB only, a process that stands still after a write loses its transaction.
_SETTINGS = """SET SESSION time_zone = '+00:00', default_storage_engine = InnoDB,
    lock_wait_timeout = 60, net_write_timeout = 86400, wait_timeout = 86400,
    /*M! max_statement_time = 0, idle_transaction_timeout = 0, */
    /*M! idle_readonly_transaction_timeout = 0, */
    sql_mode = CONCAT_WS(',', NULLIF(@@sql_mode, ''), 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION')
    /*M! , idle_write_transaction_timeout = 60 */"""

# So that a connection that leads nowhere is noticed: seconds, and milliseconds.
_NETWORK = {
    "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 120_000,
}  # fmt: skip

# What PyMySQL and SQLAlchemy read of a URL.
_PARAMETERS = {
    "user", "host", "port", "db", "database", "unix_socket", "bind_address", "charset",
    "collation", "sql_mode", "init_command", "read_default_file", "read_default_group",
    "connect_timeout", "read_timeout", "write_timeout", "client_flag", "compress", "program_name",
    "server_public_key", "ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_cipher",
    "ssl_check_hostname", "ssl_verify_cert", "ssl_verify_identity", "ssl_disabled",
}  # fmt: skip

# What is granted to this user directly, everywhere or in one database.
_GRANTED = """
    SELECT privilege_type FROM information_schema.user_privileges WHERE grantee = :grantee
    UNION SELECT privilege_type FROM information_schema.schema_privileges
    WHERE grantee = :grantee AND :place LIKE table_schema"""
_NEEDED = (
    "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "INDEX", "REFERENCES", "CREATE VIEW",
    "SHOW VIEW",
)  # fmt: skip


class MySQL(Capabilities):
    """Snapshots are not shared between connections. Neither NaN nor infinity can be stored."""

    target = True
    row_values = True
    not_finite = "refused"
    boolean_is_integer = True
    longest_name = 64
    name_unit = "characters"
    package = ("pymysql", "mysql")
    verified_tls = "ssl_ca=FILE"
    # A backslash escapes in any text, backticks quote names, # begins a comment, and -- only
    # before a space: 5--3 is a sum.
    comment_or_text = r"""
          (?P<comment> (?:\#|--(?=\s|$))[^\n]* | /\*.*?\*/ )
        | (?P<text> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`]|``)*` )"""

    def __init__(self, name: str) -> None:
        super().__init__("MariaDB or MySQL")
        self.drivername = f"{name}+pymysql"

    def check_parts(self, url: sa.URL) -> None:
        """The parameters of PyMySQL and SQLAlchemy, if PyMySQL is the driver."""
        require_once(
            url,
            {"user": "username", "host": "host", "port": "port", "db": "database",
             "database": "database"},
        )  # fmt: skip
        if url.drivername.endswith("+pymysql"):
            require_known(url, _PARAMETERS, ours={"local_infile", "use_unicode", "autocommit"})

    def engine_options(self, url: sa.URL, connect_timeout: int) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if "connect_timeout" not in url.query:
            arguments["connect_timeout"] = connect_timeout
        if url.drivername.endswith("+pymysql"):
            arguments["local_infile"] = True  # and see _configure
            if "read_timeout" not in url.query:  # or it waits without limit for a greeting
                arguments["read_timeout"] = connect_timeout
        return {
            "pool_pre_ping": True,
            "isolation_level": "READ COMMITTED",  # as for PostgreSQL
            "connect_args": arguments,
        }

    def configure(self, engine: sa.Engine) -> None:
        sa.event.listen(engine, "connect", _configure)
        sa.event.listen(engine, "begin", _begin)
        if "read_timeout" not in engine.url.query:
            sa.event.listen(engine, "connect", _lift_read_timeout)

    def clock(self) -> "sa.ColumnElement[Any]":
        return sa.literal_column("SYSDATE(6)")  # NOW() is the statement's beginning

    def instant(self) -> AnyType:
        return mysql.DATETIME(fsp=6)

    def name(self, length: int, dialect: sa.Dialect) -> AnyType:
        return mysql.VARCHAR(length, collation=_exact_collation(dialect))

    def long_text(self, dialect: sa.Dialect) -> AnyType:
        return mysql.LONGTEXT(collation=_exact_collation(dialect))

    @contextmanager
    def exclusive(self, connection: sa.Connection, name: str, patience: int) -> Iterator[None]:
        name = f"{connection.engine.url.database} {name}"[-64:]
        if connection.scalar(sa.select(sa.func.get_lock(name, patience))) != 1:
            place = connection.engine.url.render_as_string(hide_password=True)
            problem = f"another process has held the lock {name!r} for {patience} s"
            raise DatabaseUnavailable(place, problem)
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.release_lock(name)))

    def session(self, connection: sa.Connection) -> Session:
        url, encrypted = connection.engine.url, None
        if "unix_socket" not in url.query:
            cipher = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            encrypted = bool(cipher.one()[1])
        return Session(url.username, "SUPER" in _granted(connection, None), encrypted)

    def missing_privileges(
        self, engine: sa.Engine, schema: str | None, _tables: Sequence[str]
    ) -> list[str]:
        with engine.connect() as connection:
            if connection.exec_driver_sql("SELECT current_role()").scalar() not in {None, "NONE"}:
                return []  # privileges of a role are not listed
            place = schema or connection.exec_driver_sql("SELECT database()").scalar()
            granted = _granted(connection, place)
            missing = ", ".join(one for one in _NEEDED if one not in granted)
            if not missing:
                return []
            user = _grantee(connection)
        name = engine.dialect.identifier_preparer.quote_identifier(place or "...")
        return [
            f"the user {user} lacks privileges in the database {place!r}; "
            f"GRANT {missing} ON {name}.* TO {user}"
        ]


def _configure(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_SETTINGS)
    # A server may answer any statement by asking for a file of this machine. It gets one only
    # while backends/mysql.py sends rows.
    connection._local_infile = False  # noqa: SLF001
    if connection._sock.family != socket.AF_UNIX:  # noqa: SLF001
        for name, value in _NETWORK.items():
            if hasattr(socket, name):  # not every system has them
                option = getattr(socket, name)
                connection._sock.setsockopt(socket.IPPROTO_TCP, option, value)  # noqa: SLF001


def _begin(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("nightshift_read_only", False):
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _lift_read_timeout(connection: Any, _record: object) -> None:
    """A statement may take long; only the greeting may not."""
    connection._read_timeout = None  # noqa: SLF001


def _exact_collation(dialect: sa.Dialect) -> str:
    """The collation in which a text equals only itself."""
    return "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"


def _granted(connection: sa.Connection, place: str | None) -> set[str]:
    asked = {"grantee": _grantee(connection), "place": place}
    return set(connection.scalars(sa.text(_GRANTED), asked))


def _grantee(connection: sa.Connection) -> str:
    """The current user as GRANT writes it."""
    name = str(connection.exec_driver_sql("SELECT current_user()").scalar())
    user, _, host = name.rpartition("@")
    return f"'{user}'@'{host}'"
