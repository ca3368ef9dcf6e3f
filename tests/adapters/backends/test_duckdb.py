# ruff: noqa: DTZ001  columns without a time zone hold such times
"""DuckDB: its types, its one process, and its writers who take turns."""

import math
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from backends import Backend, request_of, sign
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import (
    ColumnTypeUnsupported,
    ConfigurationError,
    DatabaseUnavailable,
    SignatureMismatch,
    StatementFailed,
    ValueUnreadable,
)
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.source.columns import ALL_KEYS

duckdb_dialect = pytest.importorskip(
    "nightshift.adapters.backends.duckdb_dialect", reason="duckdb", exc_type=ModuleNotFoundError
)

UTC_US = pa.timestamp("us", "UTC")

# SQL type -> the input's type, the Arrow type of the chunk, SQL literals, what arrives.
TYPES: dict[str, tuple[str, pa.DataType, dict[str, Any]]] = {
    "boolean": ("bool", pa.bool_(), {"true": True, "false": False}),
    "tinyint": ("int16", pa.int8(), {"-128": -128}),
    "utinyint": ("int16", pa.uint8(), {"255": 255}),
    "usmallint": ("int32", pa.uint16(), {"65535": 65535}),
    "integer": ("int32", pa.int32(), {"-2147483648": -(2**31)}),
    "uinteger": ("int64", pa.uint32(), {"4294967295": 2**32 - 1}),
    "bigint": ("int64", pa.int64(), {"-9223372036854775808": -(2**63)}),
    "ubigint": ("uint64", pa.uint64(), {"18446744073709551615": 2**64 - 1}),
    "hugeint": ("int64", pa.string(), {"-170141183460469231731687303715884105728": str(-(2**127))}),
    "float": ("float32", pa.float32(), {"0.5": 0.5, "'-inf'": -math.inf}),
    "double": ("float64", pa.float64(), {"5e-324": 5e-324, "'inf'": math.inf}),
    "decimal(10,2)": ("decimal", pa.string(), {"1.5": "1.50", "-0.01": "-0.01"}),
    "decimal(38,0)": ("decimal", pa.string(), {"9" * 38: "9" * 38}),
    "decimal(9,3)": ("float64", pa.float64(), {"0.1": 0.1}),
    "varchar": ("string", pa.string(), {"''": "", "'ä😀'": "ä😀", "'a '": "a "}),
    "enum('sad', 'not so')": ("string", pa.string(), {"'not so'": "not so"}),
    "uuid": ("string", pa.string(), {f"'{'0' * 31}a'": f"{'0' * 8}-0000-0000-0000-{'0' * 11}a"}),
    "json": ("string", pa.string(), {"""'{"a":  1}'""": '{"a":  1}'}),
    "time": ("string", pa.string(), {"'05:00'": "05:00:00"}),
    "interval": ("string", pa.string(), {"'1 day'": "1 day"}),
    "date": (
        "date", pa.date32(),
        {"'0001-01-01'": date(1, 1, 1), "'9999-12-31'": date(9999, 12, 31)},
    ),
    "timestamp": (
        "timestamp", pa.timestamp("us"),
        {"'0001-01-01'": datetime(1, 1, 1),
         "'9999-12-31 23:59:59.999999'": datetime(9999, 12, 31, 23, 59, 59, 999999)},
    ),
    "timestamp_s": (
        "timestamp", pa.timestamp("us"), {"'2013-10-01 05:00'": datetime(2013, 10, 1, 5)},
    ),
    "timestamptz": (
        "timestamptz", UTC_US,
        {"'2013-11-03 01:30:00-05'": datetime(2013, 11, 3, 6, 30, tzinfo=UTC)},
    ),
}  # fmt: skip


@pytest.mark.heavy
def test_every_type_arrives_as_declared(duck: Backend) -> None:
    names = {kind: f"c{number}" for number, kind in enumerate(TYPES)}
    columns = ", ".join(f"{name} {kind}" for kind, name in names.items())
    duck.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    for row in range(4):  # the first row, and chunk, has only NULLs
        literals = [list(values) for _, _, values in TYPES.values()]
        taken = [texts[row - 1] if 0 < row <= len(texts) else "NULL" for texts in literals]
        duck.execute(f"INSERT INTO t VALUES ({row}, {', '.join(taken)})")
    signature = sign({names[kind]: wanted for kind, (wanted, _, _) in TYPES.items()})
    kinds = [kind for _, kind, _ in TYPES.values()]
    expected = pa.schema([("id", pa.int32()), *zip(names.values(), kinds, strict=True)])
    for spec in ({"table": "t"}, {"query": "SELECT * FROM t"}):
        source = duck.source(**spec)
        source.check(signature)
        chunks = duck.read(source, signature, rows=1)
        assert [chunk.schema for chunk in chunks] == [expected] * 4
        assert set(chunks[0].select(list(names.values())).to_pylist()[0].values()) == {None}
        for kind, (_, _, values) in TYPES.items():
            for row, wanted in enumerate(values.values(), 1):
                found = chunks[row].column(names[kind])[0].as_py()
                assert type(found) is type(wanted), kind
                assert found == wanted, kind


@pytest.mark.heavy
@pytest.mark.parametrize(
    "kind", ["integer[]", "struct(a integer)", "map(integer, integer)", "blob", "timestamp_ns"]
)
def test_types_that_are_no_single_value_are_refused(duck: Backend, kind: str) -> None:
    duck.execute(f"CREATE TABLE t (id int PRIMARY KEY, x {kind})")
    for wanted in ("string", "float64", "int64", "decimal", "timestamp"):
        with pytest.raises(SignatureMismatch):
            duck.source(table="t").check(sign({"x": wanted}))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_times_that_nothing_can_hold_are_refused(duck: Backend, kind: str) -> None:
    duck.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, x {kind})",
        "INSERT INTO t VALUES (6, NULL), (7, 'infinity')",
    )
    with pytest.raises(ValueUnreadable) as caught:
        duck.read(duck.source(table="t"), sign({"x": kind}))
    assert (caught.value.column, caught.value.row) == ("x", "(7)")


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["double", "enum('a', 'b')", "blob"])
def test_keys_of_no_order(duck: Backend, kind: str) -> None:
    duck.execute(f"CREATE TABLE t (id {kind} PRIMARY KEY, x double)")
    with pytest.raises(ColumnTypeUnsupported, match="cannot serve as a key column"):
        duck.source(table="t").check(sign())


def test_a_query_and_what_it_cannot_do(duck: Backend) -> None:
    duck.execute(
        'CREATE TABLE e (id int, "at" timestamptz, x double)',
        "INSERT INTO e SELECT i, timestamptz '2013-10-01 00:00+00' + 3 * i * interval '1 hour', i"
        " FROM range(10) r(i)",
    )
    day = datetime(2013, 10, 1, tzinfo=UTC), datetime(2013, 10, 2, tzinfo=UTC)
    bounded = 'SELECT id, x FROM e WHERE "at" >= :partition_start AND "at" < :partition_end;'

    def read(query: str) -> None:
        source = duck.source(query=query)
        source.check(sign())
        duck.read(source)

    for query, bounds, count in (
        ("SELECT id, x FROM e -- all; of '", day, 10),
        (bounded, day, 8),
        (bounded, (None, None), 10),
        ("FROM e", day, 10),  # DuckDB's own way
    ):
        source = duck.source(query=query)
        source.check(sign())
        chunks = duck.read(source, start=bounds[0], end=bounds[1], rows=3)
        found = [number for chunk in chunks for number in chunk.column("id").to_pylist()]
        assert found == list(range(count)), query
    for query in (
        "DELETE FROM e",
        "SELECT id, x FROM e; DELETE FROM e",
        "SELECT id, x FROM e) AS source; COMMIT; DELETE FROM e; --",
        "SELECT id, x, nextval('counter') FROM e",
        "SELECT id, x FROM stolen_from_python",
    ):
        duck.execute("CREATE SEQUENCE IF NOT EXISTS counter")
        stolen_from_python = pa.table({"id": [1], "x": [1.0]})
        with pytest.raises(StatementFailed, match=r"The database refused to (describe|read)"):
            read(query)
        assert stolen_from_python.num_rows
    assert duck.rows("SELECT count(*), sum(x) FROM e") == [(10, 45.0)]


def test_files_of_parquet_as_a_source(duck: Backend, tmp_path: Path) -> None:
    for part in range(2):
        ids = list(range(10 * part, 10 * part + 10))
        rows = pa.table({"id": ids, "x": [id_ / 2 for id_ in ids]})
        pyarrow.parquet.write_table(rows, tmp_path / f"part-{part}.parquet")
    source = duck.source(query=f"SELECT * FROM '{tmp_path}/*.parquet'")
    source.check(sign())
    predictions = duck.predictions(source)
    predictions.create()
    duck.score(predictions, request_of(), rows=7)
    assert duck.view() == {id_: id_ / 2 for id_ in range(20)}


def test_a_file_belongs_to_one_process(duck: Backend) -> None:
    """Another one gets an error that says so, and that it may try again."""
    duck.numbers("t", 3)
    path = duck.engine.url.database
    holding = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    )
    duck.engine.dispose()
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(DatabaseUnavailable, match="lock"):
            duck.source(table="t").check(sign())
        other.communicate("end\n")
    assert len(duck.read(duck.source(table="t"))) == 1


def test_a_writer_waits_for_its_turn(duck: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    duck.numbers("t", 3)
    predictions = duck.predictions(duck.source(table="t"))
    predictions.create()
    monkeypatch.setattr(duckdb_dialect, "_WAIT", 0.05)
    with duck.engine.begin() as writer:
        with pytest.raises(DatabaseUnavailable, match="locked"):
            predictions.ledger.begin(request_of(), new_owner())
        assert len(duck.read(predictions.source)) == 1  # a reader is not disturbed
        writer.exec_driver_sql("UPDATE t SET x = -1")
    duck.score(predictions, request_of())
    assert duck.view() == dict.fromkeys(range(3), -1.0)


def test_a_writer_whose_connection_is_dropped_lets_others_write(duck: Backend) -> None:
    duck.numbers("t", 3)
    connection = duck.engine.connect()
    connection.exec_driver_sql("UPDATE t SET x = -1")
    connection.invalidate()
    connection.close()
    done = threading.Thread(target=lambda: duck.execute("UPDATE t SET x = 7 WHERE id = 1"))
    done.start()
    done.join(10)
    assert duck.rows("SELECT x FROM t ORDER BY id") == [(0.0,), (7.0,), (1.0,)]


@pytest.mark.heavy
def test_an_error_in_the_middle_of_reading(duck: Backend) -> None:
    duck.execute("CREATE TABLE t AS SELECT i AS id, i::varchar AS x FROM range(100000) r(i)")
    duck.execute("UPDATE t SET x = 'none' WHERE id = 99000")
    source = duck.source(query="SELECT id, CAST(x AS double) AS x FROM t")
    with pytest.raises(StatementFailed, match=r"to read the source query.*'none'"):
        duck.read(source, rows=1000)
    assert duck.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    duck.execute("DELETE FROM t")


@pytest.mark.heavy
def test_a_reader_that_stops_early(duck: Backend) -> None:
    duck.execute("CREATE TABLE t AS SELECT i AS id, i / 2 AS x FROM range(1000000) r(i)")
    duck.execute("ALTER TABLE t ALTER id SET NOT NULL")
    source = duck.source(query="SELECT id, x FROM t")
    with (
        source.snapshot(sign(), None, None) as snapshot,
        closing(snapshot.chunks(ALL_KEYS, 10)) as chunks,
    ):
        assert next(chunks).num_rows == 10
        assert snapshot.count() == 1_000_000
        with pytest.raises(StatementFailed, match="ended the reading"):
            list(chunks)
    duck.execute("DELETE FROM t")


def test_a_database_in_memory_is_refused() -> None:
    for url in ("duckdb://", "duckdb:///:memory:"):
        with pytest.raises(ConfigurationError, match="needs a file"):
            open_engine(url)
