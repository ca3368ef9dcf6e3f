"""MariaDB and MySQL: rows as CSV, out as one text per row, in through LOAD DATA.

PyMySQL makes a Python object of every value, one at a time. So the server prints each row as one
line of CSV, which Arrow parses; and LOAD DATA LOCAL sends what Arrow prints as CSV. Their texts for
numbers, dates and times are exact, to the last bit of a float.
"""

import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pymysql
import sqlalchemy as sa
from pymysql.constants import ER, FIELD_TYPE, FLAG
from pymysql.cursors import SSCursor

from nightshift.adapters.database.types import Instant
from nightshift.adapters.errors import ConfigurationError, StatementFailed, ValueUnreadable
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import KeyRange, KeySet, SourceColumn, decimal_type
from nightshift.adapters.source.locking import begin_locked
from nightshift.adapters.source.snapshot import StreamedSnapshot
from nightshift.adapters.source.source import Source
from nightshift.adapters.source.statements import Statements, render
from nightshift.adapters.target.predictions import PredictionTable

# A field's type in the server's description of a result -> Arrow type, signed and unsigned.
_WHOLE: dict[int, tuple[pa.DataType, pa.DataType]] = {
    FIELD_TYPE.TINY: (pa.int8(), pa.uint8()),
    FIELD_TYPE.SHORT: (pa.int16(), pa.uint16()),
    FIELD_TYPE.INT24: (pa.int32(), pa.uint32()),
    FIELD_TYPE.LONG: (pa.int32(), pa.uint32()),
    FIELD_TYPE.LONGLONG: (pa.int64(), pa.uint64()),
    FIELD_TYPE.YEAR: (pa.int16(), pa.int16()),
}
_OTHERS: dict[int, tuple[pa.DataType, "sa.types.TypeEngine[Any]"]] = {
    FIELD_TYPE.FLOAT: (pa.float32(), sa.REAL()),
    FIELD_TYPE.DOUBLE: (pa.float64(), sa.Double()),
    FIELD_TYPE.DATE: (pa.date32(), sa.Date()),
    FIELD_TYPE.NEWDATE: (pa.date32(), sa.Date()),
    FIELD_TYPE.DATETIME: (pa.timestamp("us"), sa.DateTime()),
    FIELD_TYPE.TIMESTAMP: (pa.timestamp("us", "UTC"), Instant()),
}
_DECIMALS = (FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL)
_CHARACTERS = (FIELD_TYPE.VAR_STRING, FIELD_TYPE.STRING, FIELD_TYPE.VARCHAR)
_TEXTS = (
    *_CHARACTERS, FIELD_TYPE.TINY_BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB,
    FIELD_TYPE.BLOB,
)  # fmt: skip
_BINARY = 63  # the character set of what is not text

_ENGINE_WITHOUT_SNAPSHOTS = """
    SELECT t.engine FROM information_schema.tables t
    JOIN information_schema.engines e ON e.engine = t.engine
    WHERE t.table_schema = coalesce(:schema, database()) AND t.table_name = :table
      AND e.transactions <> 'YES'"""

_UNIQUE = """
    SELECT index_name, coalesce(column_name, '') FROM information_schema.statistics
    WHERE table_schema = coalesce(:schema, database()) AND table_name = :table AND non_unique = 0
    ORDER BY index_name, seq_in_index"""


class PrintedSnapshot(StreamedSnapshot):
    """A snapshot whose rows come as lines of CSV."""

    def chunks(self, keys: KeyRange | KeySet, rows: int) -> Generator[pa.Table, None, None]:
        statement = self._statements.rows(self._signature, keys)
        columns = list(statement.selected_columns)
        fields = pa.schema([(column.name, self._arrow(column.name)) for column in columns])
        line = sa.cast(sa.func.concat(*self._csv_line(columns)), sa.LargeBinary)
        printed = statement.with_only_columns(line, maintain_column_froms=True)
        with self._reading(), self._open_cursor(printed) as cursor:
            while lines := [line for (line,) in cursor.fetchmany(rows)]:
                yield self._finish(self._parse(lines, fields))

    @contextmanager
    def _open_cursor(self, statement: "sa.Select[Any]") -> Iterator[Any]:
        """A cursor whose rows stay on the server until they are fetched."""
        driver: Any = self._connection.connection.driver_connection
        with driver.cursor(SSCursor) as cursor:
            try:
                cursor.execute(*render(self._connection.dialect, statement))
                yield cursor
            finally:
                result = cursor._result  # noqa: SLF001
                if result is not None and result.unbuffered_active:
                    self._interrupt(driver, cursor)
                    result.unbuffered_active = False  # or the driver would read it all the same

    def _interrupt(self, driver: Any, cursor: Any) -> None:
        """End an unfinished result: the driver by itself would read all of it."""
        if not driver.open:
            return
        try:
            with self._connection.engine.connect() as other:
                other.exec_driver_sql(f"KILL QUERY {driver.thread_id()}")
            while cursor.fetchmany(1000):  # rows that were already sent
                pass
        except pymysql.Error:
            pass  # interrupted, as intended
        except sa.exc.SQLAlchemyError:
            driver.close()  # the server is gone

    def _csv_line(
        self, columns: Sequence["sa.ColumnElement[Any]"]
    ) -> list["sa.ColumnElement[Any]"]:
        """A row as the server prints it: nothing for NULL, texts in quotes."""
        comma, quote, doubled, empty = (
            sa.literal_column(text, sa.String()) for text in ("','", "'\"'", "'\"\"'", "''")
        )
        parts: list[sa.ColumnElement[Any]] = []
        for column in columns:
            found = self._column(column.name)
            value: sa.ColumnElement[Any] = column
            if isinstance(column, sa.Label):
                value = column.element
            printed = value
            if pa.types.is_float32(found.arrow):  # it would print six digits
                printed = value + sa.literal_column("0e0")
            elif found.display.startswith("bit"):
                printed = value + sa.literal_column("0")
            elif pa.types.is_string(found.arrow):
                text = sa.func.convert(value.op("USING")(sa.literal_column("utf8mb4")))
                printed = sa.func.concat(quote, sa.func.replace(text, quote, doubled), quote)
            if found.nullable:
                printed = sa.case((value.is_(None), empty), else_=printed)
            parts += [comma, printed]
        return parts[1:]

    def _parse(self, lines: Sequence[bytes | None], fields: pa.Schema) -> pa.Table:
        if None in lines:
            problem = "a row is longer than the server's max_allowed_packet"
            raise StatementFailed(f"to read {self._spec}", problem)
        text = b"\n".join(lines)  # type: ignore[arg-type]
        zoned = [pa.types.is_timestamp(field.type) and field.type.tz for field in fields]
        plain = [
            pa.field(field.name, pa.timestamp("us") if has_zone else field.type)
            for field, has_zone in zip(fields, zoned, strict=True)
        ]
        try:
            found = _read_csv(text, pa.schema(plain))
        except pa.ArrowInvalid as error:
            texts = _read_csv(text, pa.schema([(field.name, pa.string()) for field in fields]))
            raise self._unreadable(texts, plain) from error
        return found.cast(fields)

    def _unreadable(self, texts: pa.Table, fields: Sequence[pa.Field]) -> Exception:
        """The error for the first value that its column's type cannot hold, such as a date without
        a day, or a 7 in a boolean.
        """
        spec = self._spec
        for field in fields:
            for row, value in enumerate(texts.column(field.name)):
                try:
                    value.cast(field.type)
                except pa.ArrowInvalid:
                    key = ", ".join(str(texts.column(name)[row]) for name in spec.key)
                    name = self._column(field.name).name
                    problem = f"holds {value.as_py()!r}, which is not a valid {field.type}"
                    return ValueUnreadable(str(spec), name, f"({key})", problem)
        return StatementFailed(f"to read {spec}", "it sent malformed CSV")


class MySQLStatements(Statements):
    def _sent(
        self, column: "sa.ColumnElement[Any]", _wanted: pa.DataType | None
    ) -> "sa.ColumnElement[Any]":
        return column  # printed as text in any case


class MySQLSource(Source):
    snapshot_class, statements_class = PrintedSnapshot, MySQLStatements

    def check(self, signature: Signature) -> None:
        super().check(signature)
        if self.spec.table is None:
            return
        place = {"schema": self.spec.schema, "table": self.spec.table}
        with self.reading(), self.engine.connect() as connection:
            engine = connection.scalar(sa.text(_ENGINE_WITHOUT_SNAPSHOTS), place)
        if engine is not None:
            problem = f"{self.spec} has the engine {engine}, which has no snapshots"
            remedy = f"Convert it: ALTER TABLE `{self.spec.table}` ENGINE=InnoDB."
            raise ConfigurationError("the job", "source.table", problem, remedy)

    def _describe(self) -> list[SourceColumn]:
        statement = sa.select(sa.text("*")).select_from(self._from_clause()).limit(0)
        with self.engine.connect() as connection:
            found: Any = connection.execute(statement)
            # The cursor's public description lacks the sign of numbers.
            return [_column(field) for field in found.cursor._result.fields]  # noqa: SLF001

    def _declared_unique(self, table: str) -> tuple[list[str], list[list[str]]]:
        place = {"schema": self.spec.schema, "table": table}
        found: dict[str, list[str]] = {}
        with self.engine.connect() as connection:
            for index, column in connection.execute(sa.text(_UNIQUE), place):
                found.setdefault(index, []).append(column)
        return found.pop("PRIMARY", []), list(found.values())

    def _begin_snapshot(self, connection: sa.Connection, statements: Statements) -> None:
        """The locks are on the tables' metadata: a table that was emptied, or took another's name,
        after the snapshot would have no rows in it.
        """
        connection.execution_options(isolation_level="REPEATABLE READ")

        def lock(other: sa.Connection) -> None:
            for statement in (statements.all_relations(), statements.rows_without_time()):
                if statement is not None:
                    other.execute(statement.limit(0)).all()

        def begin_and_lock() -> None:
            connection.begin()
            connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            connection.exec_driver_sql("SET SESSION lock_wait_timeout = 5")
            try:
                lock(connection)
            finally:
                connection.exec_driver_sql("SET SESSION lock_wait_timeout = 60")

        begin_locked(connection, lock, begin_and_lock)


class MySQLPredictionTable(PredictionTable):
    _server_takes_files: bool | None = None

    def _insert(self, connection: sa.Connection, rows: pa.Table) -> None:
        """LOAD DATA LOCAL, where the server allows it.

        With LOCAL, a duplicate key or a value that does not fit is only a warning, in any SQL mode.
        Here each warning is an error, and the transaction is rolled back.
        """
        if self._server_takes_files is None:
            takes = connection.exec_driver_sql("SELECT @@local_infile").scalar()
            self._server_takes_files = bool(takes)
        if not self._server_takes_files:
            super()._insert(connection, rows)
            return
        driver: Any = connection.connection.driver_connection
        with tempfile.NamedTemporaryFile(prefix="nightshift-", suffix=".csv") as file:
            _write_csv(rows, file)
            file.flush()
            driver._local_infile = True  # noqa: SLF001 - engine.py says why it is off
            try:
                with driver.cursor() as cursor:
                    cursor.execute(
                        self._load_statement(connection, file.name, rows.column_names), ()
                    )
                    arrived, warned = cursor.rowcount, cursor.warning_count
            finally:
                driver._local_infile = False  # noqa: SLF001
        if warned:
            raise _error_of(driver.show_warnings())
        if arrived != rows.num_rows:  # not seen yet, but the ledger depends on it
            problem = f"{arrived:,} of {rows.num_rows:,} rows arrived"
            raise StatementFailed(f"to write to {self.rows.name!r}", problem)

    def _view_columns(self, inspector: sa.Inspector) -> set[str]:
        return {
            name.replace("%%", "%") for name in super()._view_columns(inspector)
        }  # in views only

    def _load_statement(self, connection: sa.Connection, path: str, names: Sequence[str]) -> str:
        quote = connection.dialect.identifier_preparer
        place = "'" + path.replace("\\", "\\\\").replace("'", "''") + "'"
        return (
            f"LOAD DATA LOCAL INFILE {place} INTO TABLE {quote.format_table(self.rows)}"
            " CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'"
            f" ESCAPED BY '' LINES TERMINATED BY '\n' ({', '.join(map(quote.quote, names))})"
        )


def _column(field: Any) -> SourceColumn:
    """One column of the server's description (PyMySQL's FieldDescriptorPacket)."""
    kind, flags = field.type_code, field.flags
    unsigned = bool(flags & FLAG.UNSIGNED)
    arrow, display, as_text, tinyint_as_bool = pa.string(), "text", False, False
    sql: sa.types.TypeEngine[Any] = sa.Text()
    if kind == FIELD_TYPE.TINY and field.length == 1 and not unsigned:
        arrow, sql, display, tinyint_as_bool = pa.bool_(), sa.BigInteger(), "tinyint(1)", True
    elif kind in _WHOLE:
        arrow, sql = _WHOLE[kind][unsigned], sa.BigInteger()
        display = f"{_type_name(kind)} unsigned" if unsigned else _type_name(kind)
    elif kind in _OTHERS:
        arrow, sql = _OTHERS[kind]
        display = _type_name(kind)
    elif kind in _DECIMALS:
        # The length counts the point and, unless it is unsigned, the sign.
        digits = field.length - (field.scale > 0) - (not unsigned)
        arrow, sql = decimal_type(digits, field.scale), sa.Numeric(digits, field.scale)
        display = f"decimal({digits},{field.scale})"
    elif kind == FIELD_TYPE.BIT:
        arrow = pa.bool_() if field.length == 1 else pa.uint64()
        sql, display = sa.BigInteger(), f"bit({field.length})"
    elif flags & (FLAG.ENUM | FLAG.SET):  # they sort by the order of their declaration
        display, as_text = "enum" if flags & FLAG.ENUM else "set", True
    elif kind in (FIELD_TYPE.TIME, FIELD_TYPE.JSON):
        display, as_text = _type_name(kind), True
    elif kind in _TEXTS and field.charsetnr != _BINARY:
        if kind in _CHARACTERS:
            length = field.length // 4  # a character of utf8mb4 may have four bytes
            sql, display = sa.String(length), f"varchar({length})"
    else:
        arrow, display = pa.binary(), _type_name(kind)
    nullable = not flags & FLAG.NOT_NULL
    return SourceColumn(field.name, arrow, sql, display, as_text, nullable, tinyint_as_bool)


def _type_name(kind: int) -> str:
    names: dict[int, str] = {
        number: name for name, number in vars(FIELD_TYPE).items() if name.isupper()
    }
    return {FIELD_TYPE.LONG: "int", FIELD_TYPE.LONGLONG: "bigint"}.get(kind) or names[kind].lower()


def _read_csv(text: bytes, fields: pa.Schema) -> pa.Table:
    """Lines of CSV -> columns of these types. Raises ArrowInvalid."""
    return pyarrow.csv.read_csv(
        pa.BufferReader(text),
        pyarrow.csv.ReadOptions(
            use_threads=False, block_size=len(text) + 1, column_names=fields.names
        ),
        pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        pyarrow.csv.ConvertOptions(
            column_types=fields,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["1"],
            false_values=["0"],
        ),
    )


def _write_csv(rows: pa.Table, file: Any) -> None:
    """Write lines of CSV for LOAD DATA, with NULL as the bare word."""
    plain = pa.table([_plain(column) for column in rows.columns], names=rows.column_names)
    options = pyarrow.csv.WriteOptions(include_header=False, null_string="NULL")
    pyarrow.csv.write_csv(plain, file, options)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in a type whose CSV text MariaDB reads."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8())
    if pa.types.is_float32(kind):
        return column.cast(pa.float64())
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return column.cast(pa.timestamp("us"))
    if pa.types.is_list(kind):
        wide = column.cast(pa.list_(pa.float64())).cast(pa.list_(pa.string()))
        return pc.binary_join_element_wise("[", pc.binary_join(wide, ", "), "]", "")
    return column


def _error_of(warnings: Sequence[tuple[str, int, str]]) -> pymysql.Error:
    """The error for LOAD DATA's warnings (level, number, text): a duplicate key if any."""
    duplicates = [line for line in warnings if line[1] == ER.DUP_ENTRY]
    _, number, text = (
        duplicates or list(warnings) or [("", 0, "it gave a warning without a text")]
    )[0]
    kind = pymysql.IntegrityError if number == ER.DUP_ENTRY else pymysql.DataError
    return kind(number, text)
