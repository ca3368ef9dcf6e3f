"""A partition at one moment, as chunks. The generic snapshot streams it row by row."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.times import BEGINNING, END, instants, out_of_range
from nightshift.adapters.errors import ConfigurationError, ValueUnreadable
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import (
    ALL_KEYS,
    PARTITION_TIME,
    Key,
    KeyRange,
    KeySet,
    SourceColumn,
    decode_key,
    encode_key,
)
from nightshift.adapters.source.statements import Statements

Values = tuple[Any, ...]


class Snapshot(ABC):
    """A partition at one moment: what `count` counts is what `chunks` reads."""

    @abstractmethod
    def count(self, keys: KeyRange = ALL_KEYS) -> int:
        """Rows in the range of keys."""

    @abstractmethod
    def bounds(self, parts: int) -> list[Key]:
        """Upper keys that split the rows into `parts` equal ranges: at most `parts` - 1."""

    @abstractmethod
    def snapshot_id(self) -> str:
        """With which other connections can join this snapshot while it is open.

        Raises ConfigurationError if the database cannot share snapshots.
        """

    @abstractmethod
    def with_signature(self, signature: Signature) -> "Snapshot":
        """The same rows at the same moment, read with another signature's inputs."""

    @abstractmethod
    def chunks(self, keys: KeyRange | KeySet, rows: int) -> Generator[pa.Table, None, None]:
        """The rows with these keys, in key order, as Arrow columns of the declared types.

        Every chunk has `rows` rows, only the last may be shorter. Raises ValueUnreadable.
        """


class StreamedSnapshot(Snapshot):
    """A snapshot read row by row through SQLAlchemy, on a connection in its transaction."""

    def __init__(
        self, statements: Statements, connection: sa.Connection, signature: Signature
    ) -> None:
        self._statements, self._connection, self._signature = statements, connection, signature
        self._relation, self._spec = statements.relation, statements.spec

    def count(self, keys: KeyRange = ALL_KEYS) -> int:
        with self._reading():
            return int(self._connection.execute(self._statements.count(keys)).scalar_one())

    def with_signature(self, signature: Signature) -> Snapshot:
        return type(self)(self._statements, self._connection, signature)

    def snapshot_id(self) -> str:
        raise cannot_share(self._connection.dialect)

    def bounds(self, parts: int) -> list[Key]:
        size = -(-self.count() // parts)
        last: Key | None = None
        found: list[Key] = []
        while size and len(found) < parts - 1:
            statement = self._statements.keys(KeyRange(after=last))
            with self._reading():
                row = self._connection.execute(statement.offset(size - 1).limit(1)).first()
            if row is None:
                break
            last = decode_key(encode_key(tuple(row)), self._relation.key_columns)
            found.append(last)
        return found

    def chunks(self, keys: KeyRange | KeySet, rows: int) -> Generator[pa.Table, None, None]:
        statement = self._statements.rows(self._signature, keys)
        streamed = {"stream_results": True}
        with (
            self._reading(),
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
                    yield self._finish(pa.Table.from_arrays(arrays, schema=pa.schema(fields)))
            except ValueError as error:  # SQLite stores any text as a date; SQLAlchemy parses it
                names = ", ".join(field.name for field in fields)
                problem = f"holds {error}"
                raise ValueUnreadable(str(self._spec), names, "(?)", problem) from error

    # --- for the backends -----------------------------------------------------------------------

    def _reading(self) -> AbstractContextManager[None]:
        return translate_errors(self._connection.engine, f"to read {self._spec}")

    def _column(self, name: str) -> SourceColumn:
        """The source's column behind a column of a chunk."""
        is_time = name == PARTITION_TIME and self._spec.time_column is not None
        return self._relation.columns[str(self._spec.time_column) if is_time else name]

    def _arrow(self, name: str) -> pa.DataType:
        """The Arrow type of a column of a chunk."""
        wanted = {column.name: column.arrow_type for column in self._signature.inputs}
        return self._column(name).chunk_type(wanted.get(name))

    def _finish(self, chunk: pa.Table) -> pa.Table:
        """Check a chunk's times and turn `partition_time` into instants. Raises ValueUnreadable."""
        for name, column in zip(chunk.column_names, chunk.columns, strict=True):
            if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
                problem = "is infinite or outside the years 1 to 9999"
                self._refuse_any(chunk, name, out_of_range(column), problem)
        if self._spec.time_column is None:
            return chunk
        index = chunk.schema.get_field_index(PARTITION_TIME)
        time = instants(chunk.column(index), self._spec.timezone)
        beyond = pc.or_(pc.less(time, BEGINNING), pc.greater_equal(time, END))
        self._refuse_any(chunk, PARTITION_TIME, beyond, "is too far away to be in a partition")
        return chunk.set_column(index, PARTITION_TIME, time)

    # --- inside ---------------------------------------------------------------------------------

    def _refuse_any(self, chunk: pa.Table, name: str, bad: pa.ChunkedArray, problem: str) -> None:
        """Raise ValueUnreadable for the first row where `bad` is true."""
        row = pc.index(bad, True).as_py()
        if row >= 0:
            texts = (chunk.column(part).slice(row, 1).cast(pa.string()) for part in self._spec.key)
            key = ", ".join(str(text[0]) for text in texts)
            raise ValueUnreadable(str(self._spec), self._column(name).name, f"({key})", problem)

    def _array(self, field: pa.Field, values: Values, columns: Sequence[Values]) -> pa.Array:
        """One column of a chunk. A database without strict types may have anything in it."""
        try:
            return _strict_array(values, field.type)
        except (TypeError, ValueError, OverflowError):
            spec = self._spec
            for row, value in enumerate(values):
                try:
                    _strict_array((value,), field.type)
                except (TypeError, ValueError, OverflowError) as error:
                    key = ", ".join(str(part[row]) for part in columns[: len(spec.key)])
                    problem = f"holds {value!r}, which is not a valid {field.type}"
                    raise ValueUnreadable(str(spec), field.name, f"({key})", problem) from error
            raise


def cannot_share(dialect: sa.Dialect) -> ConfigurationError:
    """The error for shards where connections cannot share a snapshot."""
    problem = f"{capabilities(dialect).title} cannot share one snapshot between connections"
    return ConfigurationError("the job", "shards", problem, "Score its tables in one shard.")


def rechunk(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows` rows, the last one shorter."""
    waiting: list[pa.Table] = []
    count = 0
    for batch in batches:
        waiting.append(pa.Table.from_batches([batch]))
        count += batch.num_rows
        while count >= rows:
            table = pa.concat_tables(waiting)
            yield table.slice(0, rows).combine_chunks()
            waiting, count = [table.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def _strict_array(values: Values, kind: pa.DataType) -> pa.Array:
    """Arrow alone would truncate a float among integers."""
    if pa.types.is_integer(kind) and float in set(map(type, values)):
        raise TypeError("a fraction among whole numbers")
    return pa.array(values, kind)
