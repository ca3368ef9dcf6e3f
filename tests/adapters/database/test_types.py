# ruff: noqa: DTZ001  columns without a time zone hold such times
"""Values: each type arrives as declared, to the last bit, and what cannot be held is refused."""

import math
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from backends import Backend, request_of, sign
from nightshift.adapters.backends.registry import predictions_class, source_class
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import (
    ColumnTypeUnsupported,
    DatabaseError,
    SignatureMismatch,
    StatementFailed,
    ValueUnreadable,
)

LARGEST, LEAST, TINY = 1.7976931348623157e308, 2.2250738585072014e-308, 5e-324
FLOATS = [0.1, -0.0, 1 / 3, LARGEST, -LARGEST, LEAST, TINY, math.inf, -math.inf, math.nan, None]
UTC_US = pa.timestamp("us", "UTC")

# SQL type -> the input's type, the Arrow type of the chunk, SQL literals, what arrives.
TYPES: dict[str, tuple[str, pa.DataType, dict[str, Any]]] = {
    "boolean": ("bool", pa.bool_(), {"true": True, "false": False}),
    "smallint": ("int16", pa.int16(), {"'-32768'": -32768, "32767": 32767}),
    "integer": ("int32", pa.int32(), {"'-2147483648'": -(2**31), "2147483647": 2**31 - 1}),
    "bigint": ("int64", pa.int64(), {"'-9223372036854775808'": -(2**63), "0": 0}),
    "real": ("float32", pa.float32(), {"0.5": 0.5, "'-0'": -0.0, "'Infinity'": math.inf}),
    "double precision": ("float64", pa.float64(), {"'5e-324'": TINY, "'-Infinity'": -math.inf}),
    "numeric": ("decimal", pa.string(), {"1.50": "1.50", "'NaN'": "NaN", "1e-9": "0.000000001"}),
    "numeric(10,2)": ("decimal", pa.string(), {"1.5": "1.50", "-0.01": "-0.01"}),
    "numeric(40,0)": ("decimal", pa.string(), {"1e39": "1" + "0" * 39}),
    "numeric(5,-2)": ("int64", pa.string(), {"12345": "12300"}),
    "numeric(2,4)": ("float64", pa.float64(), {"0.0012": 0.0012}),
    "numeric(9,3)": ("float64", pa.float64(), {"0.1": 0.1, "'NaN'": math.nan}),
    "text": ("string", pa.string(), {"''": "", "'ä😀'": "ä😀", "E'\\n\\\\.\\n'": "\n\\.\n"}),
    "varchar(5)": ("string", pa.string(), {"'a '": "a "}),
    "char(5)": ("string", pa.string(), {"'ab'": "ab   "}),
    '"char"': ("string", pa.string(), {"'x'": "x"}),
    "name": ("string", pa.string(), {"'x'": "x"}),
    "mood": ("string", pa.string(), {"'sad'": "sad", "'not so'": "not so"}),
    "small": ("int32", pa.int32(), {"7": 7}),
    "uuid": ("string", pa.string(), {f"'{'0' * 31}a'": f"{'0' * 8}-0000-0000-0000-{'0' * 11}a"}),
    "json": ("string", pa.string(), {"""'{"a":  1}'""": '{"a":  1}'}),
    "jsonb": ("string", pa.string(), {"""'{"a":  1}'""": '{"a": 1}'}),
    "time": ("string", pa.string(), {"'05:00'": "05:00:00"}),
    "interval": ("string", pa.string(), {"'1 day'": "1 day"}),
    "inet": ("string", pa.string(), {"'10.0.0.1'": "10.0.0.1/32"}),
    "date": (
        "date",
        pa.date32(),
        {"'0001-01-01'": date(1, 1, 1), "'1969-12-31'": date(1969, 12, 31),
         "'9999-12-31'": date(9999, 12, 31)},
    ),
    "timestamp": (
        "timestamp",
        pa.timestamp("us"),
        {"'1969-12-31 23:59:59.999999'": datetime(1969, 12, 31, 23, 59, 59, 999999),
         "'0001-01-01'": datetime(1, 1, 1),
         "'9999-12-31 23:59:59.999999'": datetime(9999, 12, 31, 23, 59, 59, 999999)},
    ),
    "timestamptz": (
        "timestamptz",
        UTC_US,
        {"'1969-12-31 23:59:59.999999+00'": datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
         "'2013-11-03 01:30:00-05'": datetime(2013, 11, 3, 6, 30, tzinfo=UTC),
         "'9999-12-31 23:59:59+00'": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},
    ),
}  # fmt: skip


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float):
        both_nan = math.isnan(found) and math.isnan(wanted)
        return both_nan or (found == wanted and math.copysign(1, found) == math.copysign(1, wanted))
    return type(found) is type(wanted) and bool(found == wanted)


def test_every_type_of_postgres_arrives_as_declared(fast: Backend) -> None:
    fast.execute("CREATE TYPE mood AS ENUM ('sad', 'not so')", "CREATE DOMAIN small AS int")
    names = {kind: f"c{number}" for number, kind in enumerate(TYPES)}
    columns = ", ".join(f"{name} {kind}" for kind, name in names.items())
    fast.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    for row in range(4):  # the first row, and chunk, has only NULLs
        literals = [list(values) for _, _, values in TYPES.values()]
        taken = [texts[row - 1] if 0 < row <= len(texts) else "NULL" for texts in literals]
        fast.execute(f"INSERT INTO t VALUES ({row}, {', '.join(taken)})".replace("%", "%%"))
    signature = sign({names[kind]: wanted for kind, (wanted, _, _) in TYPES.items()})
    for spec in ({"table": "t"}, {"query": "SELECT * FROM t"}):
        source = fast.source(**spec)
        source.check(signature)
        chunks = fast.read(source, signature, rows=1)
        assert len(chunks) == 4
        for chunk in chunks:  # one schema, whatever the values
            kinds = [kind for _, kind, _ in TYPES.values()]
            assert chunk.schema == pa.schema(
                [("id", pa.int32()), *zip(names.values(), kinds, strict=True)]
            )
        assert all(
            value is None
            for value in chunks[0].select(list(names.values())).to_pylist()[0].values()
        )
        for kind, (_, _, values) in TYPES.items():
            for row, wanted in enumerate(values.values(), 1):
                found = chunks[row].column(names[kind])[0].as_py()
                assert same(found, wanted), f"{kind}: {found!r} is not {wanted!r}"


def test_the_same_values_in_every_backend(backend: Backend) -> None:
    columns = [
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("flag", sa.Boolean),
        sa.Column("whole", sa.BigInteger),
        sa.Column("text", sa.Text),
        sa.Column("day", sa.Date),
        sa.Column("at", sa.DateTime),
    ]
    kinds = {
        "flag": "bool", "whole": "int64", "text": "string", "day": "date", "at": "timestamp",
    }  # fmt: skip
    values = [
        dict.fromkeys(kinds),
        {"flag": True, "whole": 2**63 - 1, "text": "", "day": date(1, 1, 1),
         "at": datetime(1, 1, 1)},
        {"flag": False, "whole": -(2**63), "text": "'\"\\\n\t%:?ä😀", "day": date(9999, 12, 31),
         "at": datetime(9999, 12, 31, 23, 59, 59, 999999)},
        {"flag": None, "whole": 0, "text": " ", "day": date(1969, 12, 31),
         "at": datetime(1969, 12, 31, 23, 59, 59, 1)},
    ]  # fmt: skip
    backend.table("t", columns, [{"id": id_, **row} for id_, row in enumerate(values)])
    source = backend.source(table="t")
    source.check(sign(kinds))
    chunks = backend.read(source, sign(kinds), rows=1)
    assert [chunk.select(list(kinds)).to_pylist()[0] for chunk in chunks] == values
    assert len({str(chunk.schema) for chunk in chunks}) == 1
    assert chunks[0].schema.types[1:] == [
        pa.bool_(), pa.int64(), pa.string(), pa.date32(), pa.timestamp("us"),
    ]  # fmt: skip


def test_floats_to_the_last_bit(backend: Backend) -> None:
    columns = [sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("x", sa.Double)]
    kept = backend.can.not_finite != "refused"
    expected = [x for x in FLOATS if kept or x is None or math.isfinite(x)]
    backend.table("t", columns, [{"id": id_, "x": x} for id_, x in enumerate(expected)])
    (chunk,) = backend.read(backend.source(table="t"))
    if backend.is_sqlite:  # which keeps NaN as NULL, and a float without a fraction as an integer
        expected = [None if x is None or math.isnan(x) else x + 0.0 for x in FLOATS]
    if backend.is_mysql:  # which has no negative zero
        expected = [None if x is None else x + 0.0 for x in expected]
    found = chunk.column("x").to_pylist()
    assert all(same(a, b) for a, b in zip(found, expected, strict=True)), found


OUT_OF_RANGE = {
    "date": ["infinity", "-infinity", "0001-01-01 BC", "10000-01-01", "5874897-12-31"],
    "timestamp": ["infinity", "-infinity", "4713-01-01 BC", "10000-01-01", "294276-12-31"],
    "timestamptz": ["infinity", "-infinity", "0001-12-31 BC", "10000-01-01", "294276-01-01"],
}


@pytest.mark.parametrize("kind", OUT_OF_RANGE)
def test_times_that_nothing_can_hold_are_refused(postgres_backend: Backend, kind: str) -> None:
    """The driver would turn infinity into the year -290,000, and 294276 into another."""
    backend = postgres_backend
    backend.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, x {kind}, y {kind} NOT NULL DEFAULT now())"
    )
    for number, value in enumerate(OUT_OF_RANGE[kind]):
        backend.execute("DELETE FROM t", "INSERT INTO t VALUES (6), (8)")
        backend.execute(f"INSERT INTO t VALUES (7, '{value}')")
        with pytest.raises(DatabaseError) as caught:
            backend.read(backend.source(table="t"), sign({"x": kind}))
        if backend.is_fast:
            assert isinstance(caught.value, ValueUnreadable)
            assert (caught.value.column, caught.value.row) == ("x", "(7)"), number
        assert "table 't'" in str(caught.value) or isinstance(caught.value, StatementFailed)


@pytest.mark.parametrize("kind", OUT_OF_RANGE)
def test_and_so_as_key_and_as_time(fast: Backend, kind: str) -> None:
    fast.execute(
        f"CREATE TABLE t (k {kind} PRIMARY KEY, id int UNIQUE NOT NULL, x float8)",
        "INSERT INTO t VALUES ('2013-01-01', 1), ('infinity', 2)",
    )
    with pytest.raises(ValueUnreadable, match=r"column 'k' of the row .* infinite"):
        fast.read(fast.source("k", table="t"))
    with pytest.raises(ValueUnreadable, match=r"column 'k' of the row \(2\) is infinite"):
        fast.read(fast.source(table="t", time_column="k"))
    fast.execute("UPDATE t SET k = '9999-12-31 12:00' WHERE id = 2")
    with pytest.raises(ValueUnreadable, match=r"column 'k' of the row \(2\) is too far away"):
        fast.read(fast.source(table="t", time_column="k"))


def test_numbers_beyond_a_float_are_refused(postgres_backend: Backend) -> None:
    postgres_backend.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x numeric)", "INSERT INTO t VALUES (1, 1e400)"
    )
    with pytest.raises(StatementFailed, match="out of range"):
        postgres_backend.read(postgres_backend.source(table="t"))


@pytest.mark.parametrize("kind", ["integer[]", "text[]", "bytea", "int4range", "pair", "mood[]"])
def test_types_that_are_no_single_value_are_refused(fast: Backend, kind: str) -> None:
    fast.execute("CREATE TYPE pair AS (a int, b int)", "CREATE TYPE mood AS ENUM ('sad')")
    fast.execute(f"CREATE TABLE t (id int PRIMARY KEY, x {kind}, k {kind} UNIQUE NOT NULL)")
    for wanted in ("string", "float64", "int64", "decimal", "category"):
        with pytest.raises(SignatureMismatch) as caught:
            fast.source(table="t").check(sign({"x": wanted}))
        assert (caught.value.column, caught.value.found) == ("x", kind)
    with pytest.raises(ColumnTypeUnsupported, match=r"'k' has type .* key column"):
        fast.source("k", table="t").check(sign({"id": "int64"}))


@pytest.mark.parametrize("kind", ["bytea", "int[]"])
def test_and_so_in_the_generic_backend(generic: Backend, kind: str) -> None:
    generic.execute(f"CREATE TABLE t (id int PRIMARY KEY, x {kind})")
    with pytest.raises(SignatureMismatch):
        generic.source(table="t").check(sign({"x": "string"}))


def test_a_type_that_does_not_fit_the_signature(backend: Backend) -> None:
    columns = [sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("x", sa.Text)]
    backend.table("t", columns)
    source = backend.source(table="t")
    source.check(sign({"x": "string"}))
    for wanted in ("float64", "int32", "bool", "timestamp", "date"):
        with pytest.raises(SignatureMismatch) as caught:
            source.check(sign({"x": wanted}))
        assert (caught.value.column, caught.value.expected) == ("x", wanted)
        assert caught.value.found.upper() in {"TEXT", "VARCHAR"}


def test_a_database_in_another_encoding(database: sa.URL, postgres: sa.URL) -> None:
    """Latin-1 comes out as UTF-8, and goes in as Latin-1."""
    name = f"{database.database}_latin"
    server = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING latin1 LOCALE 'C' TEMPLATE template0"
        )
    engine = open_engine(postgres.set(database=name))
    latin = Backend("fast", engine, source_class(engine), predictions_class(engine))
    try:
        latin.execute(
            "CREATE TABLE t (id text PRIMARY KEY, x text)",
            "INSERT INTO t VALUES (chr(228), chr(228) || 'x'), ('b', chr(223))",
        )
        source = latin.source(table="t")
        (chunk,) = latin.read(source, sign({"x": "string"}))
        assert chunk.to_pylist() == [{"id": "b", "x": "ß"}, {"id": "ä", "x": "äx"}]
        (rest,) = latin.read(source, sign({"x": "string"}), after=("b",))
        assert rest.to_pylist() == [{"id": "ä", "x": "äx"}]
        predictions = latin.predictions(source, outputs={"prediction": "string"})
        predictions.create()
        run = predictions.ledger.begin(request_of(), "host:1:one")
        latin.write(predictions, run, 0, chunk)
        predictions.ledger.score(run)
        predictions.ledger.publish(run)
        assert latin.view() == {"ä": "äx", "b": "ß"}
    finally:
        engine.dispose()
        with server.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        server.dispose()


def test_sqlite_holds_anything_anywhere(lite: Backend) -> None:
    lite.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER, at DATETIME)")
    for value, shown in (("'seven'", "'seven'"), ("1.5", "1.5"), ("x'00ff'", "b'")):
        lite.execute("DELETE FROM t", "INSERT INTO t (id, x) VALUES (1, 1), (2, NULL)")
        lite.execute(f"INSERT INTO t (id, x) VALUES (3, {value})")
        with pytest.raises(ValueUnreadable) as caught:
            lite.read(lite.source(table="t"), sign({"x": "int64"}))
        assert (caught.value.column, caught.value.row) == ("x", "(3)")
        assert shown in str(caught.value)
    lite.execute("DELETE FROM t", "INSERT INTO t VALUES (3, 1, 'yesterday')")
    with pytest.raises(ValueUnreadable, match="yesterday"):
        lite.read(lite.source(table="t"), sign({"at": "timestamp"}))
    for odd in ("2013-10-01T05:00:00", "2013-10-01 05:00:00+00:00", "2013-10-01", "1380603600"):
        lite.execute(f"UPDATE t SET at = '{odd}'")
        with pytest.raises(ValueUnreadable, match="compares times as texts"):
            lite.read(lite.source(table="t", time_column="at"), sign({"x": "int64"}))
