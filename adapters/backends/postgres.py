"""PostgreSQL: binary COPY out, and in.

Rows come as one `COPY (query) TO STDOUT (FORMAT binary)`, a stream, so memory does not grow with
the table. Integers, floats, booleans and times go straight from the socket (postgres_stream.py)
into NumPy (postgres_copy.py), at a fifth of the CPU of ADBC (https://arrow.apache.org/adbc). ADBC
reads what has other columns, since its C++ does not hold Python's lock while a text model's
encoders need it, and what is encrypted. The connection that reads joins the snapshot that the
SQLAlchemy connection exports, so both see the same moment.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import adbc_driver_postgresql.dbapi
import psycopg
import psycopg.conninfo
import psycopg.sql
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import sqlalchemy as sa

from nightshift.adapters.backends.postgres_copy import FIXED, CopyMalformed, Decoder, encoded
from nightshift.adapters.backends.postgres_locks import (
    SOON,
    find_replaced,
    joining_snapshot,
    lock_soon,
    plan,
)
from nightshift.adapters.backends.postgres_stream import can_stream, copied_out
from nightshift.adapters.database import watchdog
from nightshift.adapters.database.dialects.postgres import transaction_settings
from nightshift.adapters.database.error_translation import translate
from nightshift.adapters.errors import SourceReplaced, StatementFailed
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import KeyRange, KeySet, SourceColumn, decimal_type
from nightshift.adapters.source.locking import begin_locked
from nightshift.adapters.source.snapshot import StreamedSnapshot, rechunk
from nightshift.adapters.source.source import Source
from nightshift.adapters.source.statements import Statements
from nightshift.adapters.target.predictions import PredictionTable

# Type OIDs (pg_type.dat) -> Arrow type, SQLAlchemy type. Most others come as text.
_TYPES: dict[int, tuple[pa.DataType, "sa.types.TypeEngine[Any]"]] = {
    16: (pa.bool_(), sa.Boolean()),
    20: (pa.int64(), sa.BigInteger()),
    21: (pa.int16(), sa.SmallInteger()),
    23: (pa.int32(), sa.Integer()),
    25: (pa.string(), sa.Text()),
    700: (pa.float32(), sa.REAL()),
    701: (pa.float64(), sa.Double()),
    1043: (pa.string(), sa.Text()),
    1082: (pa.date32(), sa.Date()),
    1114: (pa.timestamp("us"), sa.DateTime()),
    1184: (pa.timestamp("us", "UTC"), sa.DateTime(timezone=True)),
}
# The same types as binary COPY sends and takes them, where postgres_copy.py knows them.
_WIRE_TYPES = {oid: arrow for oid, (arrow, _) in _TYPES.items() if arrow in FIXED}
_NUMERIC, _CHARACTER, _UUID, _BYTES = 1700, 1042, 2950, 17
# pg_type.typcategory of arrays, composites, ranges and pseudo-types.
_NESTED = "ACRP"

_NAMES = """
    SELECT oid, format_type(oid, NULL), typcategory FROM pg_type WHERE oid = ANY(:oids)"""

_GRANTED = """
    SELECT attname, has_column_privilege(attrelid, attnum, 'SELECT') FROM pg_attribute
    WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum"""

# NOT NULL, where PostgreSQL sees to it: not in a foreign table, and not before it is validated.
_REQUIRED = """
    SELECT attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND attnotnull AND relkind <> 'f'
      AND NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = attrelid AND attnum = ANY(conkey)
          AND contype = 'n' AND NOT convalidated)"""

# With old-style inheritance (not partitioning), no index covers a table and its children.
_UNIQUE = """
    SELECT i.indisprimary, array_agg(a.attname::text)
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])
    WHERE c.oid = CAST(:table AS regclass)
      AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND 0 <> ALL(i.indkey)
      AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid AND c.relkind = 'r')
    GROUP BY i.indexrelid, i.indisprimary"""


class CopiedSnapshot(StreamedSnapshot):
    """A snapshot whose chunks come as one binary COPY."""

    def snapshot_id(self) -> str:
        with self._reading():
            exported = self._connection.execute(sa.text("SELECT pg_export_snapshot()"))
            return str(exported.scalar_one())

    def chunks(self, keys: KeyRange | KeySet, rows: int) -> Generator[pa.Table, None, None]:
        statement = self._statements.rows(self._signature, keys)
        fields = [(column.name, self._arrow(column.name)) for column in statement.selected_columns]
        with self._reading():
            joining = [
                "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
                f"SET TRANSACTION SNAPSHOT '{self.snapshot_id()}'",
                *transaction_settings(self._connection, reading=True).split("; "),
                SOON,
            ]
            place = _conninfo(self._connection)
            # Always closed: a COPY in progress cannot be rolled back.
            with closing(psycopg.connect(place, autocommit=True)) as connection:
                watchdog.track_connection(connection, self._connection.engine)
                with joining_snapshot(str(self._spec)):
                    connection.execute("; ".join(joining))
                sent = self._wire_types(connection, statement)
                if sent is None or not can_stream(connection):
                    connection.close()
                    found = self._through_adbc(place, joining, statement, rows)
                else:
                    found = self._streamed(connection, statement, sent, rows)
                with closing(found):
                    for chunk in found:
                        columns = [_cast(chunk.column(name), kind) for name, kind in fields]
                        named = pa.table(columns, names=[name for name, _ in fields])
                        yield self._finish(named)
            driver: Any = self._connection.connection.driver_connection
            self._check_replaced(driver)

    def _wire_types(
        self, connection: "psycopg.Connection[Any]", statement: "sa.Select[Any]"
    ) -> dict[str, pa.DataType] | None:
        """The columns' types as the server sends them, which the transaction now keeps from
        changing; None if the decoder does not know one.
        """
        described: Any = connection.execute(_with_literals(self._connection, statement.limit(0)))
        columns = described.description
        if any(column.type_code not in _WIRE_TYPES for column in columns):
            return None
        return {column.name: _WIRE_TYPES[column.type_code] for column in columns}

    def _streamed(
        self,
        connection: "psycopg.Connection[Any]",
        statement: "sa.Select[Any]",
        sent: dict[str, pa.DataType],
        rows: int,
    ) -> Generator[pa.Table, None, None]:
        decoder = Decoder(list(sent.items()), rows)
        copy = f"COPY ({_with_literals(self._connection, statement)}) TO STDOUT (FORMAT binary)"
        try:
            with closing(copied_out(connection, copy)) as blocks:
                for block in blocks:
                    yield from decoder.add(block)
                yield from decoder.rest()
            self._check_replaced(connection)
        except CopyMalformed as error:  # not seen yet: the types are the server's own
            raise StatementFailed(f"to read {self._spec}", str(error)) from error

    def _through_adbc(
        self, place: str, joining: Sequence[str], statement: "sa.Select[Any]", rows: int
    ) -> Generator[pa.Table, None, None]:
        with (
            adbc_driver_postgresql.dbapi.connect(place) as connection,
            connection.cursor() as cursor,
        ):
            begin, *others = joining
            for command in (begin.replace("BEGIN", "SET"), *others):  # the driver has started one
                cursor.execute(command)
            cursor.execute(_with_literals(self._connection, statement))
            with cursor.fetch_record_batch() as reader:
                yield from rechunk(self._batches(reader), rows)
            self._check_replaced(connection)

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except (OSError, pa.ArrowException) as error:  # Arrow's form of the driver's errors
            raise translate(self._connection.engine, f"to read {self._spec}", error) from error

    def _check_replaced(self, connection: Any) -> None:
        found = find_replaced(connection)
        if found:
            raise SourceReplaced(str(self._spec), found)


class PostgresSource(Source):
    snapshot_class = CopiedSnapshot
    _withheld: frozenset[str] | set[str] = frozenset()
    """Columns of the table that the role may not read."""

    def _describe(self) -> list[SourceColumn]:
        spec, required = self.spec, set[str]()
        columns: list[sa.ColumnElement[Any]] = [sa.literal_column("*")]
        with self.engine.connect() as connection:
            if spec.table is not None:
                place = {"table": _identifier(spec.schema, spec.table).as_string()}
                required = set(connection.scalars(sa.text(_REQUIRED), place))
                granted = connection.execute(sa.text(_GRANTED), place).all()
                self._withheld = {name for name, may_read in granted if not may_read}
                # With no privilege at all, the server says so.
                columns = [sa.column(name) for name, may_read in granted if may_read] or columns
            statement = sa.select(*columns).select_from(self._from_clause()).limit(0)
            described: Any = connection.execute(statement).cursor.description
            others = [column.type_code for column in described if column.type_code not in _TYPES]
            rows = connection.execute(sa.text(_NAMES), {"oids": others}) if others else ()
            names = {oid: (name, category) for oid, name, category in rows}
        return [
            _column(column, column.name not in required, *names.get(column.type_code, ("", "")))
            for column in described
        ]

    def _declared_unique(self, table: str) -> tuple[list[str], list[list[str]]]:
        place = {"table": _identifier(self.spec.schema, table).as_string()}
        with self.engine.connect() as connection:
            found = connection.execute(sa.text(_UNIQUE), place).all()
        primary: list[str] = next((columns for is_primary, columns in found if is_primary), [])
        return primary, [columns for _, columns in found]

    def check(self, signature: Signature) -> None:
        needed = [*self.spec.key, self.spec.time_column, *signature.input_names]
        for name in needed:
            if self.columns and name in self._withheld:
                problem = f"the role {self.engine.url.username!r} may not read the column {name!r}"
                remedy = f"GRANT SELECT ({name}) ON {self.spec.table} TO it"
                raise StatementFailed(f"to read {self.spec}", f"{problem}; {remedy}")
        super().check(signature)
        with self.reading(), self.engine.connect() as connection:
            plan(connection, self.statements(None, None))  # raises what row-level security hides

    def _begin_snapshot(self, connection: sa.Connection, statements: Statements) -> None:
        connection.execution_options(isolation_level="REPEATABLE READ")

        def begin_and_lock() -> None:
            connection.begin()
            lock_soon(connection, statements)

        begin_locked(connection, lambda other: plan(other, statements), begin_and_lock)

    def _join_snapshot(
        self, connection: sa.Connection, statements: Statements, snapshot_id: str
    ) -> None:
        connection.execution_options(isolation_level="REPEATABLE READ")
        connection.begin()
        with joining_snapshot(str(self.spec)):
            connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{snapshot_id}'")
        lock_soon(connection, statements)


class PostgresPredictionTable(PredictionTable):
    def _insert(self, connection: sa.Connection, rows: pa.Table) -> None:
        """COPY in: binary if all columns have fixed width and no NULL, else CSV."""
        driver: Any = connection.connection.driver_connection
        columns = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, rows.column_names))
        place = _identifier(self.rows.schema, self.rows.name)
        with driver.cursor() as cursor:
            empty = psycopg.sql.SQL("SELECT {} FROM {} LIMIT 0").format(columns, place)
            described = cursor.execute(empty, prepare=False).description
            types = [_WIRE_TYPES.get(column.type_code) for column in described]
            data, form = _binary(rows, types), "binary"
            if data is None:
                data, form = _csv(rows), "csv, ENCODING 'UTF8'"
            command = psycopg.sql.SQL(f"COPY {{}} ({{}}) FROM STDIN (FORMAT {form})")
            with cursor.copy(command.format(place, columns)) as copy:
                copy.write(data)
            if cursor.rowcount != rows.num_rows:  # not seen yet, but the ledger depends on it
                problem = f"{cursor.rowcount:,} of {rows.num_rows:,} rows arrived"
                raise StatementFailed(f"to write to {self.rows.name!r}", problem)


def _binary(rows: pa.Table, types: Sequence[pa.DataType | None]) -> memoryview | None:
    """The rows as a binary COPY into columns of these types; None if it cannot hold them."""
    if None in types:
        return None
    try:
        columns = [_cast(c, kind) for c, kind in zip(rows.columns, types, strict=True)]
    except pa.ArrowException:  # the server's own message is better
        return None
    data = encoded(pa.table(columns, names=rows.column_names))
    return None if data is None else data.data


def _csv(rows: pa.Table) -> memoryview:
    """Arrow writes floats as PostgreSQL reads them, to the last bit."""
    buffer = pa.BufferOutputStream()
    plain = pa.table([_plain(column) for column in rows.columns], names=rows.column_names)
    pyarrow.csv.write_csv(plain, buffer, pyarrow.csv.WriteOptions(include_header=False))
    return memoryview(buffer.getvalue())


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


def _identifier(schema: str | None, table: str) -> psycopg.sql.Identifier:
    return psycopg.sql.Identifier(*filter(None, (schema, table)))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """An array column as PostgreSQL's text for arrays; any other unchanged."""
    if not pa.types.is_list(column.type):
        return column
    numbers = pc.binary_join(column.cast(pa.list_(pa.string())), ",")
    return pc.binary_join_element_wise("{", numbers, "}", "")


def _column(described: Any, nullable: bool, name: str, category: str) -> SourceColumn:
    """One column of a cursor's description (psycopg.Column); `name` and `category` of its type."""
    oid, display, as_text = described.type_code, described.type_display, False
    sql: sa.types.TypeEngine[Any] = sa.Text()
    if oid in _TYPES:
        arrow, sql = _TYPES[oid]
    elif oid == _NUMERIC:
        arrow = decimal_type(described.precision, described.scale)
        sql = sa.Numeric().with_variant(sa.Text(), "sqlite")  # SQLite would store floats
    elif oid == _CHARACTER and described.display_size:
        arrow, sql = pa.string(), sa.CHAR(described.display_size)
    elif oid == _UUID:
        arrow, sql, as_text = pa.string(), sa.Uuid(as_uuid=False), True
    else:
        nested = pa.list_(pa.null()) if category in _NESTED else pa.string()
        arrow, display, as_text = pa.binary() if oid == _BYTES else nested, name, True
    return SourceColumn(described.name, arrow, sql, display, as_text, nullable)


def _conninfo(connection: sa.Connection) -> str:
    """The connection string of this very connection, to the same server."""
    driver: Any = connection.connection.driver_connection
    place = {"host": driver.info.host, "port": driver.info.port, "password": driver.info.password}
    parameters = {**driver.info.get_parameters(), **{k: v for k, v in place.items() if v}}
    return psycopg.conninfo.make_conninfo(**{**parameters, "client_encoding": "UTF8"})


def _with_literals(connection: sa.Connection, statement: "sa.Select[Any]") -> str:
    """The statement with its parameters as literals, quoted by psycopg: COPY binds none."""
    compiled = statement.compile(dialect=connection.dialect)
    values = {  # numbers in quotes, since -32768::smallint is read as -(32768::smallint)
        name: str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in compiled.params.items()
    }
    driver: Any = connection.connection.driver_connection
    return str(psycopg.ClientCursor(driver).mogrify(compiled.string, values))
