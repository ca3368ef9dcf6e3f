"""Reading a source: one consistent snapshot, in key order, in chunks of Arrow columns.

This is the generic lane, over any SQLAlchemy dialect; a lane of its own overrides what a database
does better (postgres.py) or otherwise (sqlite.py). Types come from the database's schema, never
from a chunk's values.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import read_only
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.times import BEGINNING, END, first_spelling, instants, unheld
from nightshift.adapters.errors import (
    ColumnNameReserved,
    ColumnNotFound,
    ColumnTypeUnsupported,
    ConfigurationError,
    KeyNotUnique,
    RowWithoutTime,
    SignatureMismatch,
    TableNotFound,
    ValueUnreadable,
)
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import (
    ALL_KEYS,
    PARTITION_TIME,
    RESERVED,
    Key,
    KeyRange,
    KeySet,
    SourceColumn,
    decode_key,
    encode_key,
    reflected,
)
from nightshift.adapters.source.snapshot import Snapshot, StreamedSnapshot
from nightshift.adapters.source.user_query import bound_query


@dataclass(frozen=True)
class SourceSpec:
    """What a job reads: a table, or a SELECT that may use :partition_start and :partition_end."""

    key: tuple[str, ...]
    table: str | None = None
    schema: str | None = None
    query: str | None = None
    time_column: str | None = None
    timezone: str = "UTC"
    """In which a time column without a zone, or a date, is to be understood."""
    shards: int = 1
    """In how many key ranges it is to be read side by side, at one moment."""

    def __str__(self) -> str:
        return f"table {self.table!r}" if self.table else "the source query"


class Source:
    """One job's source, in one database."""

    def __init__(self, engine: sa.Engine, spec: SourceSpec) -> None:
        self.engine = engine
        self.spec = spec
        self._columns: dict[str, SourceColumn] | None = None

    # --- what it is -----------------------------------------------------------------------------

    @property
    def columns(self) -> dict[str, SourceColumn]:
        """The source's columns by name. Raises TableNotFound, StatementFailed."""
        if self._columns is None:
            with translate_errors(self.engine, f"to describe {self.spec}"):
                if self.spec.table is not None:
                    self._require_table(self.spec.table)
                self._columns = {column.name: column for column in self._describe()}
        return self._columns

    @property
    def key_columns(self) -> list[SourceColumn]:
        return [self._column(name, "the key") for name in self.spec.key]

    @property
    def kept_columns(self) -> list[str]:
        """The columns of a chunk that go with its predictions into the target."""
        time = [] if self.spec.time_column is None else [PARTITION_TIME]
        return [*self.spec.key, *time]

    def check(self, signature: Signature) -> None:
        """Raise the one error that keeps this source from being scored, before a row is read."""
        if self.spec.shards > 1 and not capabilities(self.engine.dialect).shared_snapshot:
            raise self._cannot_share()
        for part in self.key_columns:
            if part.name in RESERVED:
                raise ColumnNameReserved(str(self.spec), part.name, "a key column")
            if not part.can_be_key:
                raise ColumnTypeUnsupported(str(self.spec), part.name, part.display, "a key column")
        self._check_key_is_declared_unique()
        if self.spec.time_column is not None:
            time = self._column(self.spec.time_column, "the time column")
            if not (pa.types.is_timestamp(time.arrow) or pa.types.is_date(time.arrow)):
                raise ColumnTypeUnsupported(
                    str(self.spec), time.name, time.display, "the time column"
                )
            if PARTITION_TIME in signature.input_names:
                raise ColumnNameReserved(str(self.spec), PARTITION_TIME, "an input of the model")
        for wanted in signature.inputs:
            column = self._column(wanted.name, f"an input of the model ({wanted.type})")
            if not wanted.accepts(column.arrow):
                remedy = "Cast the column in a source query, or train on what the table holds."
                raise SignatureMismatch(wanted.name, wanted.type, column.display, remedy)
            if wanted.name in self.spec.key and pa.types.is_floating(
                column.carried(wanted.arrow_type)
            ):  # as a float it would no longer name its row
                both = f"a key column and an input of the model ({wanted.type}) at once"
                raise ColumnTypeUnsupported(str(self.spec), wanted.name, column.display, both)

    def types(self, names: Sequence[str]) -> dict[str, str]:
        """How the database declares these columns; part of a run's fingerprint."""
        return {name: self._column(name, "a column").display for name in names}

    # --- reading it -----------------------------------------------------------------------------

    @contextmanager
    def snapshot(
        self,
        signature: Signature,
        start: datetime | None,
        end: datetime | None,
        moment: str | None = None,
    ) -> Iterator[Snapshot]:
        """The rows with start <= time < end, at one moment. None is no bound.

        `moment` is another snapshot's, whose connection must still hold it.

        Each chunk has the key columns, the model's inputs and, where the job has a time column,
        `partition_time`: the row's time as an instant. Raises KeyNotUnique and RowWithoutTime
        where the schema does not already rule them out, and ValueUnreadable from the chunks.
        """
        with ExitStack() as opened:
            with self.reading():
                connection = self.engine.connect()
                opened.callback(_let_go, connection)
                self._begin_snapshot(connection)
                if moment is None:
                    self._check_rows(connection, start, end)
                else:
                    self._join(connection, moment)
                snapshot = self._open(connection, signature, start, end)
            yield snapshot

    def statement(
        self,
        signature: Signature,
        start: datetime | None,
        end: datetime | None,
        keys: KeyRange | KeySet,
    ) -> "sa.Select[Any]":
        """The SELECT of the partition's rows with these keys, in key order."""
        relation = self._relation(start, end)
        names = list(dict.fromkeys([*self.spec.key, *signature.input_names]))
        wanted = {column.name: column.arrow_type for column in signature.inputs}
        selected = [self._sent(relation.c[name], wanted.get(name)) for name in names]
        if self.spec.time_column is not None:
            selected.append(relation.c[self.spec.time_column].label(PARTITION_TIME))
        order = [relation.c[name] for name in self.spec.key]
        statement = sa.select(*selected).where(*self._in_range(relation, start, end))
        return statement.where(*self._with_keys(relation, keys)).order_by(*order)

    def counting(
        self, start: datetime | None, end: datetime | None, keys: KeyRange = ALL_KEYS
    ) -> "sa.Select[Any]":
        relation = self._relation(start, end)
        statement = sa.select(sa.func.count()).select_from(relation)
        statement = statement.where(*self._in_range(relation, start, end))
        return statement.where(*self._with_keys(relation, keys))

    def keys(
        self, start: datetime | None, end: datetime | None, keys: KeyRange
    ) -> "sa.Select[Any]":
        """The SELECT of the partition's keys in a range, in order."""
        relation = self._relation(start, end)
        key = [self._sent(relation.c[name], None) for name in self.spec.key]
        statement = sa.select(*key).where(*self._in_range(relation, start, end))
        statement = statement.where(*self._with_keys(relation, keys))
        return statement.order_by(*(relation.c[name] for name in self.spec.key))

    def reading(self) -> AbstractContextManager[None]:
        """Errors of the database met while reading, turned into ours."""
        return translate_errors(self.engine, f"to read {self.spec}")

    def finished(self, chunk: pa.Table) -> pa.Table:
        """A chunk as the database sent it -> with the row's time as an instant, or refused."""
        for name, column in zip(chunk.column_names, chunk.columns, strict=True):
            if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
                self._refuse(chunk, name, unheld(column), "is infinite or not of the years 1-9999")
        if self.spec.time_column is None:
            return chunk
        index = chunk.schema.get_field_index(PARTITION_TIME)
        time = instants(chunk.column(index), self.spec.timezone)
        beyond = pc.or_(pc.less(time, BEGINNING), pc.greater_equal(time, END))
        self._refuse(chunk, PARTITION_TIME, beyond, "is too far away to be in a partition")
        return chunk.set_column(index, PARTITION_TIME, time)

    def encode_key(self, key: Key) -> str:
        """A key as JSON text for the ledger."""
        return encode_key(key)

    def decode_key(self, text: str) -> Key:
        """The ledger's JSON text -> the key's values in the columns' own types."""
        return decode_key(text, self.key_columns)

    def decode_range(self, after: str | None, through: str | None) -> KeyRange:
        """The range between two of the ledger's keys. None is no bound."""
        bounds = (None if text is None else self.decode_key(text) for text in (after, through))
        return KeyRange(*bounds)

    # --- what a lane may do better --------------------------------------------------------------

    def _describe(self) -> list[SourceColumn]:
        if self.spec.table is None:
            problem = f"{self.engine.dialect.name} does not tell the types of a query's columns"
            raise ConfigurationError("the job", "source.query", problem, "Use source.table.")
        inspector = sa.inspect(read_only(self.engine))
        found = inspector.get_columns(self.spec.table, schema=self.spec.schema)
        return [reflected(column) for column in found]

    def _begin_snapshot(self, connection: sa.Connection) -> None:
        """Make what this connection reads the state of one moment, where the database can."""
        connection.execution_options(nightshift_read_only=True, postgresql_readonly=True)
        driver: Any = connection.connection.dbapi_connection
        with suppress(NotImplementedError):  # a dialect that knows no levels
            if "REPEATABLE READ" in connection.dialect.get_isolation_level_values(driver):
                connection.execution_options(isolation_level="REPEATABLE READ")
        connection.begin()

    def moment(self, connection: sa.Connection) -> str:
        """What other connections can join this one's snapshot by. Raises ConfigurationError."""
        raise self._cannot_share()

    def _join(self, connection: sa.Connection, moment: str) -> None:
        """Have this connection see another's moment."""
        raise self._cannot_share()

    def _cannot_share(self) -> ConfigurationError:
        name = capabilities(self.engine.dialect).title
        problem = f"{name} cannot show one moment to several connections"
        return ConfigurationError("the job", "shards", problem, "Score its tables in one shard.")

    def _declared_unique(self, table: str) -> tuple[list[str], list[list[str]]]:
        """The primary key's columns, and those of every other unique constraint or index."""
        inspector, schema = sa.inspect(read_only(self.engine)), self.spec.schema
        unique = [c["column_names"] for c in inspector.get_unique_constraints(table, schema)]
        for index in inspector.get_indexes(table, schema):
            partial = any(name.endswith("_where") for name in index.get("dialect_options", {}))
            if index["unique"] and not partial:  # an expression's name is None
                unique.append([name or "" for name in index["column_names"]])
        return inspector.get_pk_constraint(table, schema)["constrained_columns"], unique

    def _edge(self, column: SourceColumn, value: Any) -> "sa.ColumnElement[Any]":
        """A bound of a partition, to be compared with the time column."""
        return sa.bindparam(None, value, column.sql)

    def _open(
        self,
        connection: sa.Connection,
        signature: Signature,
        start: datetime | None,
        end: datetime | None,
    ) -> Snapshot:
        return StreamedSnapshot(self, connection, signature, start, end)

    # --- inside ---------------------------------------------------------------------------------

    def _column(self, name: str, needed_for: str) -> SourceColumn:
        if name not in self.columns:
            raise ColumnNotFound(str(self.spec), name, needed_for, tuple(self.columns))
        return self.columns[name]

    def _require_table(self, table: str) -> None:
        inspector = sa.inspect(read_only(self.engine))
        schema = self.spec.schema
        if not inspector.has_table(table, schema=schema):
            known = inspector.get_table_names(schema=schema) + inspector.get_view_names(schema)
            raise TableNotFound(table, tuple(sorted(known)))

    def _check_key_is_declared_unique(self) -> None:
        """A table's key must be declared unique; a query's is verified with each snapshot."""
        if self.spec.table is None:
            return
        with translate_errors(self.engine, f"to describe {self.spec}"):
            primary, unique = self._declared_unique(self.spec.table)
        key = set(self.spec.key)
        if any(columns and set(columns) <= key for columns in [primary, *unique]):
            nullable = [c.name for c in self.key_columns if c.nullable and c.name not in primary]
            if not nullable:
                return  # SQLite has NULLs even in primary keys: `_check_rows` looks for them
            problem = f"{', '.join(nullable)} may be NULL"
            remedy = "Declare it NOT NULL, or use `query:` in place of `table:`."
            raise KeyNotUnique(str(self.spec), self.spec.key, problem, remedy)
        problem = "no primary key, unique constraint or unique index covers it"
        if primary:
            problem += f" (the primary key is {', '.join(primary)})"
        remedy = "Name such columns as source.key, or add a unique index, or use `query:`."
        raise KeyNotUnique(str(self.spec), self.spec.key, problem, remedy)

    def _check_rows(
        self, connection: sa.Connection, start: datetime | None, end: datetime | None
    ) -> None:
        """What the schema leaves open: NULL times anywhere, NULL or duplicate keys in the range."""
        time = self.spec.time_column
        if time is not None and self.columns[time].nullable:
            everywhere = self._relation(None, None)
            absent = sa.select(sa.literal(1)).select_from(everywhere)
            absent = absent.where(everywhere.c[time].is_(None)).limit(1)
            if connection.execute(absent).first() is not None:
                raise RowWithoutTime(str(self.spec), time)
        if not any(column.nullable for column in self.key_columns):
            return
        relation = self._relation(start, end)
        key = [relation.c[name] for name in self.spec.key]
        rows = sa.select(*key).where(*self._in_range(relation, start, end))
        nulls = sa.or_(*(column.is_(None) for column in key))
        if self.spec.table is None:
            rows = rows.group_by(*key).having(sa.or_(sa.func.count() > 1, nulls))
        else:
            rows = rows.where(nulls)
        row = connection.execute(rows.limit(1)).first()
        if row is not None:
            values = ", ".join(repr(value) for value in row)
            problem = f"({values}) is NULL" if None in row else f"({values}) is there twice"
            remedy = "Make each key appear once and without NULL, or name other key columns."
            raise KeyNotUnique(str(self.spec), self.spec.key, problem, remedy)

    def _relation(self, start: datetime | None, end: datetime | None) -> sa.FromClause:
        columns = [sa.column(c.name, c.sql) for c in self.columns.values()]
        if self.spec.table is not None:
            return sa.table(self.spec.table, *columns, schema=self.spec.schema)
        return self._query(start, end).columns(*columns).subquery("source")

    def _query(self, start: datetime | None, end: datetime | None) -> sa.TextClause:
        return bound_query(self.spec.query or "", start, end, self.engine.dialect)

    def _in_range(
        self, relation: sa.FromClause, start: datetime | None, end: datetime | None
    ) -> list[sa.ColumnElement[bool]]:
        if self.spec.time_column is None:
            return []
        time, kind = relation.c[self.spec.time_column], self.columns[self.spec.time_column]
        bounds = []
        if start is not None:
            bounds.append(time >= self._edge(kind, self._spelt(kind, start)))
        if end is not None:
            bounds.append(time < self._edge(kind, self._spelt(kind, end)))
        return bounds

    def _spelt(self, column: SourceColumn, instant: datetime) -> datetime | date:
        """An instant as the time column would spell it."""
        return first_spelling(column.arrow, instant, ZoneInfo(self.spec.timezone))

    def _with_keys(
        self, relation: sa.FromClause, keys: KeyRange | KeySet
    ) -> list[sa.ColumnElement[bool]]:
        if isinstance(keys, KeySet):
            return [sa.or_(sa.false(), *(self._is(relation, key) for key in keys.keys))]
        columns = [relation.c[name] for name in self.spec.key]
        found = []
        for key, compare in ((keys.after, operator.gt), (keys.through, operator.le)):
            if key is not None:
                found.append(self._compared(columns, self._bound(key), compare))
        return found

    def _compared(
        self,
        columns: Sequence["sa.ColumnElement[Any]"],
        values: Sequence["sa.ColumnElement[Any]"],
        compare: Callable[[Any, Any], Any],
    ) -> sa.ColumnElement[bool]:
        found: sa.ColumnElement[bool]
        if len(columns) > 1 and capabilities(self.engine.dialect).row_values:
            found = compare(sa.tuple_(*columns), sa.tuple_(*values))
            return found
        found = compare(columns[-1], values[-1])
        beyond = operator.gt if compare is operator.gt else operator.lt
        for column, value in zip(columns[-2::-1], values[-2::-1], strict=True):
            found = sa.or_(beyond(column, value), sa.and_(column == value, found))
        return found

    def _is(self, relation: sa.FromClause, key: Key) -> sa.ColumnElement[bool]:
        pairs = zip(self.spec.key, self._bound(key), strict=True)
        return sa.and_(*(relation.c[name] == value for name, value in pairs))

    def _bound(self, key: Key) -> list[sa.BindParameter[Any]]:
        return [
            sa.bindparam(None, value, column.sql)
            for column, value in zip(self.key_columns, key, strict=True)
        ]

    def _sent(
        self, column: "sa.ColumnElement[Any]", wanted: pa.DataType | None
    ) -> "sa.ColumnElement[Any]":
        """The column as the database is asked to send it: drivers differ on decimals."""
        found = self.columns[column.name]
        if pa.types.is_decimal(found.arrow) and pa.types.is_floating(found.carried(wanted)):
            return sa.cast(column, sa.Double()).label(found.name)
        if pa.types.is_decimal(found.arrow) or found.as_text:
            return sa.cast(column, sa.Text()).label(found.name)
        return column

    def _refuse(self, chunk: pa.Table, name: str, which: pa.ChunkedArray, problem: str) -> None:
        """Raise ValueUnreadable for the first row of which it is true."""
        row = pc.index(which, True).as_py()
        if row >= 0:
            texts = (chunk.column(part).slice(row, 1).cast(pa.string()) for part in self.spec.key)
            key = ", ".join(str(text[0]) for text in texts)
            column = self.spec.time_column if name == PARTITION_TIME else name
            raise ValueUnreadable(str(self.spec), str(column), f"({key})", problem)


def _let_go(connection: sa.Connection) -> None:
    """End the reader's transaction. If the connection is lost, then so is the transaction."""
    try:
        connection.close()
    except sa.exc.DBAPIError:
        connection.invalidate()
        connection.close()
