"""What a database can do, as far as Nightshift's guarantees depend on it."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import sqlalchemy as sa

AnyType = sa.types.TypeEngine[Any]


@dataclass(frozen=True)
class Session:
    """Who is connected, and how."""

    user: str | None
    superuser: bool
    """Whether no privilege can be refused to this user."""
    encrypted: bool | None
    """None for a local socket or file, and where there is no way to know."""


class Capabilities:
    """A database of which nothing is known but that it speaks SQL: it can be read.

    Where a database lacks something, the comment says how the guarantee is kept all the same.
    docs/databases.md shows this table to users.
    """

    target: ClassVar[bool] = False
    """It can hold predictions: tests show that readers never see half of a publication."""
    is_server: ClassVar[bool] = True
    """It is reached over a connection that can be lost; if not, it is a file of this process."""
    row_values: ClassVar[bool] = False
    """Composite keys can be compared as one value, (a, b) > (1, 2)."""
    shared_snapshot: ClassVar[bool] = False
    """Other connections can join a connection's snapshot. Without it, shards are refused."""
    transactional_ddl: ClassVar[bool] = False
    """Tables are created wholly or not at all. Without it, the next process adds what a killed one
    left out."""
    writers: ClassVar[Literal["many", "one", "one process"]] = "many"
    """Who can write at once. "one": others wait for it to commit. "one process": other processes
    cannot even open the database."""
    not_finite: ClassVar[Literal["kept", "nan is null", "refused"]] = "kept"
    """What becomes of NaN and infinity among predictions. "refused" is decided before a write."""
    boolean_is_integer: ClassVar[bool] = False
    """A BOOLEAN column is described as an integer."""
    longest_name: ClassVar[int | None] = None
    """Of tables and columns; None for SQLAlchemy's number."""
    name_unit: ClassVar[Literal["bytes", "characters"]] = "bytes"
    drivername: str | None = None
    """SQLAlchemy's dialect+driver for a URL that names no driver."""
    package: ClassVar[tuple[str, str] | None] = None
    """The driver's Python package and the extra that installs it, if it is optional."""
    verified_tls: ClassVar[str] = "sslmode=verify-full"
    """The URL parameter that encrypts the connection and checks the server's certificate."""
    comment_or_text: ClassVar[str] = r"""
          (?P<comment> --[^\n]* | /\*.*?\*/ )
        | (?P<text> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
                  | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )"""
    """A verbose regular expression: the parts of a query in which punctuation is not syntax."""

    def __init__(self, title: str) -> None:
        self.title = title
        """The database's name, for messages."""

    # --- connecting -----------------------------------------------------------------------------

    def check_url(self, url: sa.URL) -> None:
        """Raise ConfigurationError for a database that cannot keep anything."""

    def check_parts(self, url: sa.URL) -> None:
        """Raise ConfigurationError for a part of the URL that the driver would drop, or that
        replaces another.

        Here the driver decides.
        """

    def engine_options(self, url: sa.URL, connect_timeout: int) -> dict[str, Any]:
        """Keyword arguments of `create_engine`; `connect_timeout` in seconds."""
        return {"pool_pre_ping": True}

    def source_options(self, url: sa.URL) -> dict[str, Any]:
        """More of them, for a database that is only read."""
        return {}

    def configure(self, engine: sa.Engine) -> None:
        """Add the listeners that set up each connection and transaction."""

    # --- SQL ------------------------------------------------------------------------------------

    def clock(self) -> "sa.ColumnElement[Any]":
        """The database's current time, not the transaction's. UTC where it has no zone."""
        return sa.func.current_timestamp()

    def instant(self) -> AnyType:
        """A point in time, to the microsecond."""
        return sa.DateTime(timezone=True)

    zoned_instants: ClassVar[bool] = False
    """Whether the driver takes instants with their zone; if not, as UTC without one."""

    def name(self, length: int, dialect: sa.Dialect) -> AnyType:
        """A string that equals only itself, character by character."""
        return sa.String(length)

    def long_text(self, dialect: sa.Dialect) -> AnyType:
        """A string of any length."""
        return sa.Text()

    def estimate_rows(self, connection: sa.Connection, counting: "sa.Select[Any]") -> int:
        """About how many rows `counting`, a SELECT count(*), would count. Here it counts."""
        return int(connection.execute(counting).scalar_one())

    def exclusive(
        self,
        connection: sa.Connection,
        name: str,
        patience: int,
    ) -> AbstractContextManager[None]:
        """Let one connection at a time into the block that `name` names, until it has committed.

        Waits `patience` seconds where the database can, else raises DatabaseUnavailable. Here
        nothing is locked.
        """
        return _unlocked()

    # --- privileges -----------------------------------------------------------------------------

    def session(self, connection: sa.Connection) -> Session:
        """Who is connected, and how."""
        return Session(connection.engine.url.username, superuser=False, encrypted=None)

    def missing_privileges(
        self,
        engine: sa.Engine,
        schema: str | None,
        tables: Sequence[str],
    ) -> list[str]:
        """What keeps this user from writing to these tables: sentences, each with its remedy.

        An empty list also where there is no way to know.
        """
        return []


@contextmanager
def _unlocked() -> Iterator[None]:
    yield
