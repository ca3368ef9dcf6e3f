"""Steps that a migration may take twice.

MariaDB and MySQL keep what a worker had changed that was killed before it entered the version, so
the next one takes all steps of that version again.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op


def add_column(table: str, column: "sa.Column[Any]") -> None:
    """Unless it is there."""
    schema = op.get_context().version_table_schema
    there = sa.inspect(op.get_bind()).get_columns(table, schema)
    if column.name not in {found["name"] for found in there}:
        op.add_column(table, column, schema=schema)
