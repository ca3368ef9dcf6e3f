"""Reading source tables and keeping predictions: the ledger, the rows, the view readers use."""

import sqlalchemy as sa

sa.dialects.registry.register("duckdb", "adapters.database.duckdb_dialect", "DuckDBDialect")
