"""What each database can do, as far as Nightshift's promise depends on it: data, not if-chains.

Where one lacks something, the comment says how the promise is kept all the same. A dialect that is
not in the table, a warehouse's say, is given the least that SQL promises: it can be read, and no
predictions are kept there. docs/databases.md shows this to people.
"""

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

MYSQL = ("mysql", "mariadb")
"""SQLAlchemy's names for two servers that one lane serves."""


@dataclass(frozen=True)
class Capabilities:
    """What a database can do."""

    title: str
    """Its name, as people know it."""
    is_server: bool = True
    """It is reached over a connection that can be lost; if not, it is a file in this process."""
    target: bool = False
    """Predictions can be kept there: it was tested that readers never see half of anything."""
    row_values: bool = False
    """Keys of several columns can be compared as one, (a, b) > (1, 2)."""
    snapshot: bool = False
    """One connection can see one moment for as long as it likes. Without it, a partition is read by
    a single statement, and a count that differs from it stops the run."""
    shared_snapshot: bool = False
    """Other connections can join that moment. Without it, a run is not read in several shards."""
    transactional_ddl: bool = False
    """Tables are made wholly or not at all. Without it, what a killed process left out is added by
    the next one."""
    writers: Literal["many", "one", "one process"] = "many"
    """Who can write at once. With one, others wait for it to commit; with one process, others
    cannot even open the database meanwhile."""
    read_only: bool = False
    """A source is read in a transaction in which the database refuses to write."""
    query_types: bool = False
    """The columns of a source query, as against a table, can be described."""
    not_finite: Literal["kept", "nan is null", "refused"] = "kept"
    """What becomes of NaN and infinity among predictions. SQLite turns NaN into NULL; MariaDB holds
    neither, so they are refused before anything is written."""
    longest_name: int | None = None
    """Of tables and columns; None leaves it to SQLAlchemy."""
    name_unit: Literal["bytes", "characters"] = "bytes"
    driver: tuple[str, str] | None = None
    """The Python package that talks to it and Nightshift's extra that installs it, if not always
    there."""


_MARIADB = Capabilities(
    "MariaDB or MySQL",
    target=True,
    row_values=True,
    snapshot=True,
    read_only=True,
    query_types=True,
    not_finite="refused",
    longest_name=64,
    name_unit="characters",
    driver=("pymysql", "mysql"),
)

CAPABILITIES: dict[str, Capabilities] = {
    "postgresql": Capabilities(
        "PostgreSQL",
        target=True,
        row_values=True,
        snapshot=True,
        shared_snapshot=True,
        transactional_ddl=True,
        read_only=True,
        query_types=True,
        longest_name=63,
    ),
    "sqlite": Capabilities(
        "SQLite",
        is_server=False,
        target=True,
        row_values=True,
        snapshot=True,
        transactional_ddl=True,
        writers="one",
        read_only=True,
        not_finite="nan is null",
    ),
    "duckdb": Capabilities(
        "DuckDB",
        is_server=False,
        target=True,
        row_values=True,
        snapshot=True,
        transactional_ddl=True,
        writers="one process",
        read_only=True,
        query_types=True,
        driver=("duckdb", "duckdb"),
    ),
    **dict.fromkeys(MYSQL, _MARIADB),
}


def capabilities(dialect: sa.Dialect) -> Capabilities:
    """What the database behind this dialect can do."""
    return CAPABILITIES.get(dialect.name) or Capabilities(dialect.name)
