# ruff: noqa: DTZ001  columns without a time zone hold such times
"""Binary COPY: what the server sends is what arrives, and what we send is what it keeps."""

import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import Backend, sign
from nightshift.adapters.backends.postgres_copy import (
    HEADER,
    PADDING,
    TRAILER,
    CopyMalformed,
    Decoder,
    Rows,
    encoded,
)
from nightshift.adapters.backends.postgres_stream import can_stream, copied_out
from nightshift.adapters.source.columns import KeyRange

TYPES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "boolean": (pa.bool_(), st.booleans()),
    "smallint": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "integer": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "bigint": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "real": (pa.float32(), st.floats(width=32, allow_nan=False)),
    "double precision": (pa.float64(), st.floats(allow_nan=False)),
    "date": (pa.date32(), st.dates()),
    "timestamp": (pa.timestamp("us"), st.datetimes()),
    "timestamptz": (
        pa.timestamp("us", "UTC"),
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    ),
}
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def url(postgres: sa.URL) -> str:
    return postgres.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as opened:
        yield opened


@st.composite
def tables(draw: st.DrawFn, nulls: bool) -> tuple[list[str], pa.Table]:
    """SQL types of columns, and rows for them."""
    kinds = draw(st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=6))
    count = draw(st.integers(0, 25))
    arrays = []
    for kind in kinds:
        arrow, values = TYPES[kind]
        values = st.none() | values if nulls else values
        arrays.append(pa.array(draw(st.lists(values, min_size=count, max_size=count)), arrow))
    return kinds, pa.table(arrays, names=[f"c{i}" for i in range(len(kinds))])


def create(connection: psycopg.Connection[Any], kinds: list[str]) -> None:
    columns = ", ".join(f"c{i} {kind}" for i, kind in enumerate(kinds))
    connection.execute("DROP TABLE IF EXISTS copied")
    connection.execute(f"CREATE TABLE copied (position integer, {columns})")


def read(
    url: str, query: str, fields: dict[str, pa.DataType], rows: int, block: int = 1 << 20
) -> list[pa.Table]:
    """A query's rows in chunks, by a connection of its own, as our decoder has them."""
    decoder = Decoder(list(fields.items()), rows)
    chunks: list[pa.Table] = []
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        assert can_stream(connection)
        copy = f"COPY ({query}) TO STDOUT (FORMAT binary)"
        with closing(copied_out(connection, copy, block)) as blocks:
            for block in blocks:
                chunks.extend(decoder.add(block))
        chunks.extend(decoder.rest())
    return chunks


def received(table: pa.Table) -> Rows:
    """A table as one received block."""
    data = encoded(table)
    assert data is not None
    body = bytes(data)[len(HEADER) : -len(TRAILER)]
    size = len(body) // max(table.num_rows, 1)
    padded = np.frombuffer(body + bytes(PADDING), np.uint8)
    starts = np.arange(table.num_rows, dtype=np.int64) * size
    return Rows(padded, starts, np.full(table.num_rows, size))


# --- with the server ----------------------------------------------------------------------------


@given(tables(nulls=True), st.integers(1, 30))
@QUICK
def test_what_is_in_the_table_arrives(
    url: str, connection: psycopg.Connection[Any], made: tuple[list[str], pa.Table], rows: int
) -> None:
    kinds, table = made
    create(connection, kinds)
    fields = dict(zip(table.column_names, table.schema.types, strict=True))
    casts = ", ".join(f"%s::{kind}" for kind in kinds)
    values = [(number, *row.values()) for number, row in enumerate(table.to_pylist())]
    connection.cursor().executemany(f"INSERT INTO copied VALUES (%s, {casts})", values)
    query = f"SELECT {', '.join(fields)} FROM copied ORDER BY position"
    chunks = read(url, query, fields, rows)
    assert all(chunk.num_rows == rows for chunk in chunks[:-1])
    if table.num_rows:
        found = pa.concat_tables(chunks)
        assert found.combine_chunks().equals(table.combine_chunks())
    else:
        assert chunks == []


@given(tables(nulls=False))
@QUICK
def test_what_is_sent_is_in_the_table(
    connection: psycopg.Connection[Any], made: tuple[list[str], pa.Table]
) -> None:
    kinds, table = made
    create(connection, kinds)
    data = encoded(table)
    assert data is not None
    names = ", ".join(table.column_names)
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY copied ({names}) FROM STDIN (FORMAT binary)") as copy:
            copy.write(data.data)
        assert cursor.rowcount == table.num_rows
        found = cursor.execute(f"SELECT {names} FROM copied").fetchall()
    for index, column in enumerate(table.columns):  # real: as text, its last digits are left out
        kept = pa.array([row[index] for row in found], column.type)
        assert kept.equals(column.combine_chunks())


def test_many_blocks(url: str) -> None:
    """Rows across blocks: most alike, some with NULLs."""
    query = """
        SELECT i::bigint AS id, i / 7.0::float8 AS x,
               CASE WHEN i % 1000 < 3 THEN NULL ELSE i % 100 END::integer AS y
        FROM generate_series(1, 120000) AS i"""
    fields = {"id": pa.int64(), "x": pa.float64(), "y": pa.int32()}
    table = pa.concat_tables(read(url, query, fields, 7777)).combine_chunks()
    ids = np.arange(1, 120_001)
    assert table.column("id").to_numpy().tolist() == ids.tolist()
    assert (table.column("x").to_numpy() == ids / 7.0).all()
    absent = table.column("y").is_null().to_numpy()
    assert (absent == (ids % 1000 < 3)).all()
    assert (table.column("y").drop_null().to_numpy() == (ids % 100)[~absent]).all()


def test_a_row_longer_than_a_block(url: str) -> None:
    columns = [f"i + {number} AS x{number}" for number in range(1_000)]
    query = f"SELECT {', '.join(columns)} FROM generate_series(1, 3) AS i"
    fields = {f"x{number}": pa.int32() for number in range(1_000)}
    chunks = read(url, query, fields, 2, block=4_096)
    assert [chunk.column("x999").to_pylist() for chunk in chunks] == [[1000, 1001], [1002]]


def test_no_rows(url: str) -> None:
    assert read(url, "SELECT 1 AS x WHERE false", {"x": pa.int32()}, 10) == []


def test_infinite_times_stay_at_the_end_of_time(url: str) -> None:
    query = """
        SELECT d, d::timestamptz AS t FROM (
            VALUES ('infinity'::date), ('-infinity'), ('2000-01-01'), ('5874897-12-31')) v (d)
        WHERE d < '290000-01-01' OR d = 'infinity'"""
    fields = {"d": pa.date32(), "t": pa.timestamp("us", "UTC")}
    (chunk,) = read(url, query, fields, 10)
    days = chunk.column("d").cast(pa.int32()).to_pylist()
    times = chunk.column("t").cast(pa.int64()).to_pylist()
    assert (days[0], times[0]) == (2**31 - 1, 2**63 - 1)
    assert days[1] < -(2**31) + 20_000
    assert times[1] < -(2**63) + 10**15
    assert chunk.column("d")[2].as_py() == date(2000, 1, 1)


# --- what may go wrong --------------------------------------------------------------------------


def test_an_error_between_rows(url: str) -> None:
    query = "SELECT 1 / (50000 - i) AS x FROM generate_series(1, 100000) AS i"
    with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
        read(url, query, {"x": pa.int32()}, 1000)


def test_an_error_before_the_first_row(url: str) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        read(url, "SELECT x FROM nowhere", {"x": pa.int32()}, 1000)


def test_a_connection_that_is_ended(url: str, connection: psycopg.Connection[Any]) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as reading:
        copy = "COPY (SELECT generate_series(1, 10000000)) TO STDOUT (FORMAT binary)"
        with closing(copied_out(reading, copy)) as blocks:
            next(blocks)
            connection.execute("SELECT pg_terminate_backend(%s)", [reading.info.backend_pid])
            with pytest.raises(psycopg.OperationalError):
                list(blocks)


def test_a_connection_that_ended_before_the_query(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as reading:
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [reading.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):  # sending itself may fail: a broken pipe
            list(copied_out(reading, "COPY (SELECT 1) TO STDOUT (FORMAT binary)"))


def test_a_notice_between_rows(url: str, connection: psycopg.Connection[Any]) -> None:
    connection.execute("""
        CREATE OR REPLACE FUNCTION public.noticed(i integer) RETURNS integer LANGUAGE plpgsql AS
        $$ BEGIN RAISE NOTICE 'row %', i; RETURN i; END $$""")
    query = "SELECT public.noticed(i) AS x FROM generate_series(1, 2000) AS i"
    chunks = read(url, query, {"x": pa.int32()}, 5000)
    assert chunks[0].column("x").to_pylist() == list(range(1, 2001))


def test_reading_that_ends_early_leaves_nothing_behind(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as reading:
        copy = "COPY (SELECT generate_series(1, 10000000)) TO STDOUT (FORMAT binary)"
        with closing(copied_out(reading, copy)) as blocks:
            next(blocks)
        pid = reading.info.backend_pid
    there = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
    for _ in range(1000):
        row = connection.execute(there, [pid]).fetchone()
        if row == (0,):
            break
    assert row == (0,)


def test_an_encrypted_connection_is_read_through_its_driver(
    fast: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the socket has no messages on it that could be read."""
    fast.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, n integer, x real, at date)",
        "INSERT INTO t SELECT i, nullif(i / 10, 3), i / 3.0, date '2020-01-01' + i"
        " FROM generate_series(1, 1000) AS i",
    )
    inputs = sign({"n": "int32", "x": "float32", "at": "date"})
    source = fast.source(table="t")
    with source.snapshot(inputs, None, None) as snapshot:
        streamed = list(snapshot.chunks(KeyRange((7,)), 300))
        monkeypatch.setattr("nightshift.adapters.backends.postgres.can_stream", lambda _: False)
        others = list(snapshot.chunks(KeyRange((7,)), 300))
    assert [chunk.num_rows for chunk in streamed] == [300, 300, 300, 93]
    assert streamed == others


# --- bytes alone --------------------------------------------------------------------------------


@given(tables(nulls=False), st.integers(1, 30), st.integers(1, 25))
@settings(max_examples=100, deadline=None)
def test_decoding_undoes_encoding(
    made: tuple[list[str], pa.Table], rows: int, at_once: int
) -> None:
    _, table = made
    block = received(table)
    decoder = Decoder(list(zip(table.column_names, table.schema.types, strict=True)), rows)
    chunks = []
    for first in range(0, table.num_rows, at_once):
        chunks.extend(decoder.add(block.cut(first, first + at_once)))
    chunks.extend(decoder.rest())
    if table.num_rows:
        assert pa.concat_tables(chunks).combine_chunks().equals(table)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None], pa.int64()),
        pa.array(["x"], pa.string()),
        pa.array([[1.0]], pa.list_(pa.float64())),
    ],
)
def test_what_is_not_encoded(column: pa.Array) -> None:
    assert encoded(pa.table({"x": column})) is None


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (struct.pack("!hiq", 1, 8, 7), [pa.int32()]),  # another width
        (struct.pack("!hiq", 1, 8, 7), [pa.int64(), pa.int64()]),  # fewer fields
        (struct.pack("!hiqi", 1, 8, 7, 0), [pa.int64()]),  # more bytes
        (struct.pack("!hi", 1, 900) + b"x", [pa.int64()]),  # beyond the end
    ],
)
def test_other_bytes_are_refused(body: bytes, kinds: list[pa.DataType]) -> None:
    data = np.frombuffer(body + bytes(PADDING), np.uint8)
    rows = Rows(data, np.zeros(1, np.int64), np.array([len(body)]))
    decoder = Decoder([(f"c{i}", kind) for i, kind in enumerate(kinds)], 10)
    with pytest.raises(CopyMalformed):
        list(decoder.add(rows))


def test_floats_lie_side_by_side() -> None:
    table = pa.table({f"x{i}": np.random.default_rng(i).random(50) for i in range(3)})
    decoder = Decoder(list(zip(table.column_names, table.schema.types, strict=True)), 50)
    (chunk,) = decoder.add(received(table))
    places = [column.chunk(0).buffers()[1].address for column in chunk.columns]
    assert np.diff(places).tolist() == [400, 400]
