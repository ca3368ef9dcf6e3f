"""A partition at one moment, as chunks; the generic lane streams it row by row."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from adapters.database.columns import Key
from adapters.database.schema import PARTITION_TIME
from adapters.errors import ValueUnreadable
from adapters.signature import Signature

if TYPE_CHECKING:
    from adapters.database.source import Source

Values = tuple[Any, ...]


class Snapshot(ABC):
    """A partition at one moment: what `count` counts is what `chunks` reads."""

    @abstractmethod
    def count(self, after: Key | None) -> int:
        """Rows whose key comes after `after`, or all of them."""

    @abstractmethod
    def chunks(self, after: Key | None, rows: int) -> Generator[pa.Table, None, None]:
        """Those rows in key order, `rows` at a time, as Arrow columns of the declared types."""


class StreamedSnapshot(Snapshot):
    """A snapshot read row by row through SQLAlchemy."""

    def __init__(
        self,
        source: "Source",
        connection: sa.Connection,
        signature: Signature,
        start: datetime | None,
        end: datetime | None,
    ) -> None:
        self._source, self._connection = source, connection
        self._signature, self._start, self._end = signature, start, end

    def count(self, after: Key | None) -> int:
        statement = self._source.counting(self._start, self._end, after)
        with self._source.reading():
            return int(self._connection.execute(statement).scalar_one())

    def chunks(self, after: Key | None, rows: int) -> Generator[pa.Table, None, None]:
        source = self._source
        statement = source.statement(self._signature, self._start, self._end, after)
        streamed = {"stream_results": True}
        with (
            source.reading(),
            self._connection.execute(statement, execution_options=streamed) as result,
        ):
            fields = [pa.field(name, self._arrow(name)) for name in list(result.keys())]
            try:
                for partition in result.partitions(rows):
                    columns = list(zip(*partition, strict=True))
                    arrays = [
                        self._array(field, values, columns)
                        for field, values in zip(fields, columns, strict=True)
                    ]
                    yield source.finished(pa.Table.from_arrays(arrays, schema=pa.schema(fields)))
            except ValueError as error:  # SQLite keeps any text as a date, and SQLAlchemy reads it
                names = ", ".join(field.name for field in fields)
                raise ValueUnreadable(str(source.spec), names, "(?)", f"holds {error}") from error

    def _array(self, field: pa.Field, values: Values, columns: Sequence[Values]) -> pa.Array:
        """One column of a chunk. A database without strict types may have anything in it."""
        try:
            return _strict(values, field.type)
        except (TypeError, ValueError, OverflowError):
            spec = self._source.spec
            for row, value in enumerate(values):
                try:
                    _strict((value,), field.type)
                except (TypeError, ValueError, OverflowError) as error:
                    key = ", ".join(str(part[row]) for part in columns[: len(spec.key)])
                    problem = f"holds {value!r}, which is no {field.type}"
                    raise ValueUnreadable(str(spec), field.name, f"({key})", problem) from error
            raise

    def _arrow(self, name: str) -> pa.DataType:
        """The Arrow type of a column of the statement."""
        wanted = {column.name: column.arrow_type for column in self._signature.inputs}
        of_time = name == PARTITION_TIME and self._source.spec.time_column is not None
        column = self._source.columns[str(self._source.spec.time_column) if of_time else name]
        return column.carried(wanted.get(name))


def _strict(values: Values, kind: pa.DataType) -> pa.Array:
    """Arrow would cut the fraction off a float among integers."""
    if pa.types.is_integer(kind) and float in set(map(type, values)):
        raise TypeError("a fraction among whole numbers")
    return pa.array(values, kind)
