"""About how many rows a range of a source has."""

from datetime import datetime

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.source.source import Source


def estimate_rows(source: Source, start: datetime | None, end: datetime | None) -> int:
    """About how many rows the source has between the two instants: the planner's estimate on
    PostgreSQL, a count elsewhere. Raises DatabaseUnavailable, StatementFailed.
    """
    counting = source.statements(start, end).count()
    with source.reading(), open_reader(source.engine) as connection:
        return capabilities(connection.dialect).estimate_rows(connection, counting)
