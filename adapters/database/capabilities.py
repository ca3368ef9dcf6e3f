"""Which database can do what: the registry that the rest of Nightshift asks.

A dialect that is not in the table, a warehouse's for example, can be read, and holds no
predictions.
"""

import sqlalchemy as sa

from nightshift.adapters.database.dialects.base import Capabilities
from nightshift.adapters.database.dialects.files import DuckDB, SQLite
from nightshift.adapters.database.dialects.mysql import MYSQL, MySQL
from nightshift.adapters.database.dialects.postgres import PostgreSQL

CAPABILITIES: dict[str, Capabilities] = {
    "postgresql": PostgreSQL("PostgreSQL"),
    "sqlite": SQLite("SQLite"),
    "duckdb": DuckDB("DuckDB"),
    **{name: MySQL(name) for name in MYSQL},
}


def capabilities(dialect: sa.Dialect) -> Capabilities:
    """What the database of this dialect can do."""
    return capabilities_of(dialect.name)


def with_driver(url: sa.URL) -> sa.URL:
    """The URL with the driver that Nightshift uses, unless it names another."""
    chosen = capabilities_of(url.get_backend_name()).drivername
    return url if "+" in url.drivername or chosen is None else url.set(drivername=chosen)


def capabilities_of(name: str) -> Capabilities:
    """The same for a URL's `get_backend_name()`. libpq's name for PostgreSQL is accepted."""
    name = {"postgres": "postgresql"}.get(name, name)
    return CAPABILITIES.get(name) or Capabilities(name)
