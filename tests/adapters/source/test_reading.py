# ruff: noqa: DTZ001  columns without a time zone hold such times
"""Chunks: every row once, in key order, of the asked size; and the rest after any key."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import Backend, sign
from nightshift.adapters.backends.postgres import _with_literals
from nightshift.adapters.database.capabilities import CAPABILITIES
from nightshift.adapters.errors import ColumnTypeUnsupported, ConfigurationError
from nightshift.adapters.source.columns import KeyRange, SourceColumn, decode_key, encode_key
from nightshift.adapters.source.source import Source

NUMBERED = sign({"n": "int64"})


def numbers_of(chunks: Sequence[pa.Table]) -> list[int]:
    return [number for chunk in chunks for number in chunk.column("n").to_pylist()]


def check_every_resumption(backend: Backend, source: Source, table: str, key: str) -> None:
    """Rows come in the database's own order, and after each key come exactly the later ones.

    `n` numbers the rows; the key goes through the ledger's text, as when a run resumes.
    """
    expected = [row[0] for row in backend.rows(f"SELECT n FROM {table} ORDER BY {key}")]
    chunks = backend.read(source, NUMBERED, rows=3)
    assert numbers_of(chunks) == expected
    keys = [
        tuple(chunk.column(name)[row].as_py() for name in source.spec.key)
        for chunk in chunks
        for row in range(chunk.num_rows)
    ]
    resumed = [source.decode_key(encode_key(values)) for values in keys]
    with source.snapshot(NUMBERED, None, None) as snapshot:
        for position, after in enumerate(resumed):
            assert snapshot.count(KeyRange(after)) == len(keys) - position - 1, f"after {after!r}"
    if backend.is_fast:  # the statement as it goes to COPY, but without a connection for each
        with backend.engine.connect() as connection:
            for position, after in enumerate(resumed):
                statement = _with_literals(
                    connection, source.statements(None, None).rows(NUMBERED, KeyRange(after))
                )
                rest = [row.n for row in connection.execute(sa.text(statement.replace(":", "\\:")))]
                assert rest == expected[position + 1 :], f"after {after!r}"
    for position in range(0, len(keys), len(keys) // 2 + 1):
        rest = numbers_of(backend.read(source, NUMBERED, after=resumed[position], rows=4))
        assert rest == expected[position + 1 :], f"after {resumed[position]!r}"


def test_chunk_edges(backend: Backend) -> None:
    size = 4
    for count in (0, 1, size - 1, size, size + 1, 2 * size, 2 * size + 1):
        backend.numbers(f"edge_{count}", count)
        chunks = backend.read(backend.source(table=f"edge_{count}"), rows=size)
        full, rest = divmod(count, size)
        assert [chunk.num_rows for chunk in chunks] == [size] * full + [rest] * (rest > 0)
        ids = [number for chunk in chunks for number in chunk.column("id").to_pylist()]
        assert ids == list(range(count))
        assert all(chunk.column("x").to_pylist()[0] is not None for chunk in chunks)


def test_more_rows_than_a_batch_of_the_driver(fast: Backend) -> None:
    fast.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, pad text)",
        "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 40000) g",
    )
    chunks = fast.read(fast.source(table="t"), sign({"pad": "string"}), rows=7001)
    assert [chunk.num_rows for chunk in chunks] == [7001] * 5 + [40000 - 5 * 7001]
    ids = [number for chunk in chunks for number in chunk.column("id").to_pylist()]
    assert ids == list(range(1, 40001))


def test_the_rest_after_keys_that_are_not_there(backend: Backend) -> None:
    backend.numbers("t", 10, step=10)
    source = backend.source(table="t")
    for after, first in ((-1, 0), (0, 10), (5, 10), (85, 90), (90, None), (2**62, None)):
        chunks = backend.read(source, after=(after,), rows=3)
        ids = [number for chunk in chunks for number in chunk.column("id").to_pylist()]
        assert ids == ([] if first is None else list(range(first, 100, 10)))


NASTY = [
    "", " ", "  ", "a", "A", "aa", "b", "B", "ä", "Ä", "a\u0308", "ß", "ss", "ẞ", "z", "Ω", "日本",
    "😀", "\u200b", "e\u0301", "é", "1", "10", "2", "'", "''", "'; DROP TABLE t; --", '"', "\\",
    "\\'", "%", "%s", "%(n)s", "%%", ":n", ":partition_start", "$1", "$$", "\n", "\t", "\r\n",
    "a b", "a-b", "a_b", "NULL", "null", "\\N", "\\.", ",", "a,b", "?", "{", "{0}", "x" * 2000,
]  # fmt: skip

WHOLE = [0, 1, -1, 2, 9, 10, 100, -9, -10, 2**15 - 1, -(2**15)]
LONG = [*WHOLE, 2**31 - 1, -(2**31), 2**31, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
EXACT = [
    *map(Decimal, ("0", "9", "10", "100", "-1", "0.5", "-0.5", "1e20", "0.0000000000000000001")),
    *map(Decimal, ("123456789012345678901234567890.123456789", "NaN", "Infinity", "-Infinity")),
]
MOMENTS = [
    datetime(1969, 12, 31, 23, 59, 59, 999999),
    datetime(1970, 1, 1),
    datetime(1, 1, 3),
    datetime(9999, 12, 30),
    datetime(2013, 11, 3, 1, 30),
    datetime(2013, 11, 3, 1, 30, 0, 1),
    datetime(2013, 11, 3, 1, 30, 0, 100000),
    datetime(2013, 3, 10, 2, 30),
]
UUIDS = [UUID(int=n) for n in (0, 1, 2**64, 2**127, 2**128 - 1, 0x0A << 120, 0xA0 << 120)]

KEYS: dict[str, tuple[Any, list[Any]]] = {
    "text": (sa.Text(), NASTY),
    "varchar": (sa.String(2000), NASTY),
    "smallint": (sa.SmallInteger(), WHOLE),
    "bigint": (sa.BigInteger(), LONG),
    "boolean": (sa.Boolean(), [True, False]),
    "date": (sa.Date(), [date(1, 1, 3), date(1969, 12, 31), date(1970, 1, 1), date(9999, 12, 30)]),
    "timestamp": (sa.DateTime(), MOMENTS),
}
POSTGRES_KEYS: dict[str, tuple[Any, list[Any]]] = {
    "timestamptz": (
        sa.DateTime(timezone=True),
        [
            *(moment.replace(tzinfo=UTC) for moment in MOMENTS),
            datetime(2013, 11, 3, 1, 30, tzinfo=timezone(timedelta(hours=-5))),
        ],
    ),
    "numeric": (sa.Numeric(), EXACT),
    "uuid": (sa.Uuid(), UUIDS),
    "char": (sa.CHAR(3), ["", "a", "ab", "abc", "a\t", "ab\x01", "b", "'", "\\", "%"]),
}


def keyed(backend: Backend, kind: Any, values: list[Any]) -> Source:
    if backend.is_mysql:  # where no key is longer than 3072 bytes
        values = [value for value in values if not isinstance(value, str) or len(value) < 255]
        kind = sa.String(255) if isinstance(kind, sa.String) else kind
    exact = sa.Column("k", kind, primary_key=True, autoincrement=False)
    columns = [exact, sa.Column("n", sa.Integer, nullable=False)]
    backend.table("t", columns, [{"k": value, "n": n} for n, value in enumerate(values)])
    source = backend.source("k", table="t")
    source.check(NUMBERED)
    return source


@pytest.mark.parametrize("kind", KEYS)
def test_resumes_after_any_key(backend: Backend, kind: str) -> None:
    check_every_resumption(backend, keyed(backend, *KEYS[kind]), "t", "k")


@pytest.mark.parametrize("kind", POSTGRES_KEYS)
def test_resumes_after_any_key_of_postgres(postgres_backend: Backend, kind: str) -> None:
    check_every_resumption(
        postgres_backend, keyed(postgres_backend, *POSTGRES_KEYS[kind]), "t", "k"
    )


@pytest.mark.parametrize(
    "collation",
    [
        "provider = libc, locale = 'C'",
        "provider = builtin, locale = 'C.UTF-8'",
        "provider = builtin, locale = 'PG_UNICODE_FAST'",
    ],
)
def test_resumes_in_the_columns_own_collation(fast: Backend, collation: str) -> None:
    fast.execute(
        f"CREATE COLLATION own ({collation})",
        "CREATE TABLE t (k text COLLATE own PRIMARY KEY, n serial)",
    )
    with fast.engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO t (k) VALUES (:k)"), [{"k": k} for k in NASTY])
    check_every_resumption(fast, fast.source("k", table="t"), "t", "k")


def test_resumes_within_a_composite_key(backend: Backend) -> None:
    columns = [
        sa.Column("a", sa.Integer, primary_key=True),
        sa.Column("b", sa.Text, primary_key=True),
        sa.Column("c", sa.Boolean, primary_key=True),
        sa.Column("n", sa.Integer),
    ]
    keys = [(a, b, c) for a in (-1, 0, 7) for b in ("", "x", "x'") for c in (True, False)]
    rows = [{"a": a, "b": b, "c": c, "n": n} for n, (a, b, c) in enumerate(keys)]
    backend.table("t", columns, rows)
    check_every_resumption(backend, backend.source(("a", "b", "c"), table="t"), "t", "a, b, c")
    # In another order than the index's, too.
    check_every_resumption(backend, backend.source(("c", "a", "b"), table="t"), "t", "c, a, b")


def test_composite_keys_of_a_database_that_compares_one_value_at_a_time(
    lite: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dialect that we know nothing about, such as a warehouse's."""
    monkeypatch.delitem(CAPABILITIES, "sqlite")
    test_resumes_within_a_composite_key(lite)
    source = lite.source(("a", "b", "c"), table="t")
    with source.snapshot(NUMBERED, None, None) as snapshot:
        keys = KeyRange((0, "", False), (0, "x", True))
        through = numbers_of(list(snapshot.chunks(keys, 4)))
    between = "(a, b, c) > (0, '', 0) AND (a, b, c) <= (0, 'x', 1)"
    assert through == [
        row[0] for row in lite.rows(f"SELECT n FROM t WHERE {between} ORDER BY a, b, c")
    ]
    with pytest.raises(ConfigurationError, match=r"database\.url: sqlite is not tested to keep"):
        lite.predictions(source).create()


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_composite_key(backend: Backend, data: st.DataObject) -> None:
    if not sa.inspect(backend.engine).has_table("t"):
        columns = [
            sa.Column("a", sa.Text, primary_key=True),
            sa.Column("b", sa.BigInteger, primary_key=True),
            sa.Column("n", sa.Integer),
        ]
        backend.table("t", columns)
    # Few different first parts, so that many rows differ in the second only.
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
    firsts = data.draw(st.lists(text, min_size=1, max_size=2))
    seconds = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2)
    keys = data.draw(st.lists(st.tuples(st.sampled_from(firsts), seconds), max_size=8, unique=True))
    backend.execute("DELETE FROM t")
    with backend.engine.begin() as connection:
        rows = [{"a": a, "b": b, "n": n} for n, (a, b) in enumerate(keys)]
        if rows:
            connection.execute(sa.text("INSERT INTO t VALUES (:a, :b, :n)"), rows)
    check_every_resumption(backend, backend.source(("a", "b"), table="t"), "t", "a, b")


LEDGER_KEYS: list[tuple[pa.DataType, Any, st.SearchStrategy[Any]]] = [
    (pa.int64(), sa.BigInteger(), st.integers(-(2**63), 2**63 - 1)),
    (pa.bool_(), sa.Boolean(), st.booleans()),
    (pa.string(), sa.Text(), st.text(st.characters(exclude_categories=["Cs"]))),
    (pa.string(), sa.Uuid(as_uuid=False), st.uuids().map(str)),
    (pa.date32(), sa.Date(), st.dates()),
    (pa.timestamp("us"), sa.DateTime(), st.datetimes()),
    (pa.timestamp("us", "UTC"), sa.DateTime(), st.datetimes(timezones=st.just(UTC))),
    (pa.decimal128(38, 10), sa.Numeric(), st.decimals(allow_nan=False)),
]


@given(data=st.data())
def test_a_key_comes_back_from_the_ledger(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(LEDGER_KEYS), min_size=1, max_size=3))
    columns = [SourceColumn(f"k{n}", arrow, sql, "") for n, (arrow, sql, _) in enumerate(chosen)]
    key = tuple(data.draw(values) for _, _, values in chosen)
    # As a chunk has it: in Arrow, with decimals as text.
    held = [str(part) if isinstance(part, Decimal) else part for part in key]
    kinds = [column.chunk_type(None) for column in columns]
    carried = (pa.array([v], kind)[0].as_py() for v, kind in zip(held, kinds, strict=True))
    found = decode_key(encode_key(tuple(carried)), columns)
    assert found == key
    assert [type(part) for part in found] == [type(part) for part in key]


def test_sqlite_keeps_no_decimal_keys(lite: Backend) -> None:
    lite.table(
        "t", [sa.Column("k", sa.Numeric(20, 2), primary_key=True), sa.Column("x", sa.Double)]
    )
    with pytest.raises(ColumnTypeUnsupported, match=r"floating-point.*key column"):
        lite.source("k", table="t").check(sign())


def test_the_key_may_be_an_input_and_the_time_too(backend: Backend) -> None:
    columns = [
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.DateTime, primary_key=True),
    ]
    moment = datetime(2013, 10, 1, 5)
    backend.table("t", columns, [{"id": 1, "at": moment}, {"id": 2, "at": moment}])
    source = backend.source(("id", "at"), table="t", time_column="at")
    signature = sign({"at": "timestamp", "id": "int64"})
    source.check(signature)
    (chunk,) = backend.read(source, signature)
    assert chunk.column_names == ["id", "at", "partition_time"]
    assert chunk.column("at").to_pylist() == [moment] * 2
    assert chunk.column("partition_time").to_pylist() == [moment.replace(tzinfo=UTC)] * 2
