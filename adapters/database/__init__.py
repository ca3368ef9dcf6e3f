"""One connection, whatever the database.

engine connects, error_translation translates, capabilities answers what a database can do (with one
class per database in dialects/), types and times are what columns hold, watchdog notices a server
that has stopped, ticking repeats a call in the background.
"""

import sqlalchemy as sa

sa.dialects.registry.register(
    "duckdb", "nightshift.adapters.backends.duckdb_dialect", "DuckDBDialect"
)
