"""One connection, whatever the database: engines, types, errors, capabilities."""

import sqlalchemy as sa

sa.dialects.registry.register(
    "duckdb", "nightshift.adapters.backends.duckdb_dialect", "DuckDBDialect"
)
