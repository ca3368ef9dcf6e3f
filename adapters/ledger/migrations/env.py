"""What Alembic runs: the migrations, on the connection and in the transaction that it is given."""

from alembic import context
from alembic.ddl.impl import DefaultImpl


class DuckDBImpl(DefaultImpl):
    """Alembic has none for DuckDB. Being named here, it is registered."""

    __dialect__ = "duckdb"
    transactional_ddl = True


given = context.config.attributes
context.configure(
    connection=given["connection"],
    version_table=given["table"],
    version_table_schema=given["schema"],
)
with context.begin_transaction():
    context.run_migrations()
