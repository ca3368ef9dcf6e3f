"""A partition at one moment, as chunks; the generic lane streams it row by row."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from nightshift.adapters.errors import ValueUnreadable
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import (
    ALL_KEYS,
    PARTITION_TIME,
    Key,
    KeyRange,
    KeySet,
    SourceColumn,
)

if TYPE_CHECKING:
    from nightshift.adapters.source.source import Source

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
    def moment(self) -> str:
        """What other connections can join this snapshot by, while it is open."""

    @abstractmethod
    def of(self, signature: Signature) -> "Snapshot":
        """The same rows at the same moment, read with another signature's inputs."""

    @abstractmethod
    def chunks(self, keys: KeyRange | KeySet, rows: int) -> Generator[pa.Table, None, None]:
        """The rows with these keys, in key order, as Arrow columns of the declared types.

        Every chunk has `rows` rows, only the last may be shorter.
        """


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

    def statement(self, keys: KeyRange | KeySet) -> "sa.Select[Any]":
        """The SELECT of what `chunks` reads."""
        return self._source.statement(self._signature, self._start, self._end, keys)

    def count(self, keys: KeyRange = ALL_KEYS) -> int:
        statement = self._source.counting(self._start, self._end, keys)
        with self._source.reading():
            return int(self._connection.execute(statement).scalar_one())

    def of(self, signature: Signature) -> Snapshot:
        return type(self)(self._source, self._connection, signature, self._start, self._end)

    def moment(self) -> str:
        return self._source.moment(self._connection)

    def bounds(self, parts: int) -> list[Key]:
        size = -(-self.count() // parts)
        last: Key | None = None
        found: list[Key] = []
        while size and len(found) < parts - 1:
            statement = self._source.keys(self._start, self._end, KeyRange(after=last))
            with self._source.reading():
                row = self._connection.execute(statement.offset(size - 1).limit(1)).first()
            if row is None:
                break
            last = self._source.decode_key(self._source.encode_key(tuple(row)))
            found.append(last)
        return found

    def chunks(self, keys: KeyRange | KeySet, rows: int) -> Generator[pa.Table, None, None]:
        source = self._source
        statement = self.statement(keys)
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

    def _of(self, name: str) -> SourceColumn:
        """The source's column behind a column of the statement."""
        of_time = name == PARTITION_TIME and self._source.spec.time_column is not None
        return self._source.columns[str(self._source.spec.time_column) if of_time else name]

    def _arrow(self, name: str) -> pa.DataType:
        """The Arrow type of a column of the statement."""
        wanted = {column.name: column.arrow_type for column in self._signature.inputs}
        return self._of(name).carried(wanted.get(name))


def rendered(dialect: sa.Dialect, statement: "sa.Select[Any]") -> tuple[str, Any]:
    """A statement and its parameters as the driver takes them, for a lane that calls it itself."""
    compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    values = {}
    for parameter, name in compiled.bind_names.items():
        process = parameter.type.dialect_impl(dialect).bind_processor(dialect)
        value = compiled.params[name]
        values[name] = value if process is None else process(value)
    positions = compiled.positiontup
    return compiled.string, values if positions is None else [values[name] for name in positions]


def sized(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows` rows, the last one shorter."""
    held: list[pa.Table] = []
    count = 0
    for batch in batches:
        held.append(pa.Table.from_batches([batch]))
        count += batch.num_rows
        while count >= rows:
            table = pa.concat_tables(held)
            yield table.slice(0, rows).combine_chunks()
            held, count = [table.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held).combine_chunks()


def _strict(values: Values, kind: pa.DataType) -> pa.Array:
    """Arrow would cut the fraction off a float among integers."""
    if pa.types.is_integer(kind) and float in set(map(type, values)):
        raise TypeError("a fraction among whole numbers")
    return pa.array(values, kind)
