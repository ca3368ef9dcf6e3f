# ruff: noqa: DTZ001  columns without a time zone hold such times
"""MariaDB: what it keeps in its own way arrives as declared, and what it cannot keep is refused."""

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from backends import Backend, request_of, sign
from nightshift.adapters.backends.registry import predictions_class, source_class
from nightshift.adapters.database.engine import open_engine, read_only
from nightshift.adapters.database.error_translation import translate, translate_errors
from nightshift.adapters.errors import (
    ColumnTypeUnsupported,
    ConfigurationError,
    DatabaseUnavailable,
    KeyNotUnique,
    SignatureMismatch,
    StatementFailed,
    ValueUnreadable,
    ValueUnstorable,
)
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.source.columns import ALL_KEYS

pymysql = pytest.importorskip("pymysql")

pytestmark = pytest.mark.heavy  # the contract's core runs in the quick suite; this is the rest

UTC_US = pa.timestamp("us", "UTC")
TINY = 5e-324

# SQL type -> the input's type, the Arrow type of the chunk, SQL literals, what arrives.
TYPES: dict[str, tuple[str, pa.DataType, dict[str, Any]]] = {
    "boolean": ("bool", pa.bool_(), {"true": True, "0": False}),
    "tinyint(1)": ("int16", pa.int8(), {"7": 7, "-1": -1}),
    "bit(1)": ("bool", pa.bool_(), {"b'1'": True, "b'0'": False}),
    "bit(9)": ("int64", pa.uint64(), {"b'101'": 5, "b'111111111'": 511}),
    "tinyint": ("int16", pa.int8(), {"-128": -128, "127": 127}),
    "tinyint unsigned": ("int16", pa.uint8(), {"255": 255}),
    "smallint unsigned": ("int32", pa.uint16(), {"65535": 65535}),
    "mediumint": ("int32", pa.int32(), {"-8388608": -8388608}),
    "int": ("int32", pa.int32(), {"-2147483648": -(2**31)}),
    "int unsigned": ("int64", pa.uint32(), {"4294967295": 2**32 - 1}),
    "int(8) zerofill": ("int64", pa.uint32(), {"7": 7}),
    "bigint": ("int64", pa.int64(), {"-9223372036854775808": -(2**63)}),
    "bigint unsigned": ("uint64", pa.uint64(), {"18446744073709551615": 2**64 - 1}),
    "float": ("float32", pa.float32(), {"16777217": 16777216.0, "0.1": 0.10000000149011612}),
    "double": ("float64", pa.float64(), {"0.1": 0.1, "5e-324": TINY, "1e308/3": 1e308 / 3}),
    "decimal(10,2)": ("decimal", pa.string(), {"1.5": "1.50", "-0.01": "-0.01"}),
    "decimal(65,0)": ("decimal", pa.string(), {"1" + "0" * 64: "1" + "0" * 64}),
    "decimal(9,3) unsigned": ("float64", pa.float64(), {"0.1": 0.1}),
    "decimal(12,0)": ("int64", pa.string(), {"123456789012": "123456789012"}),
    "year": ("int16", pa.int16(), {"2013": 2013}),
    "varchar(5)": ("string", pa.string(), {"'a '": "a ", "''": ""}),
    "char(5)": ("string", pa.string(), {"'ab'": "ab"}),
    "varchar(40) character set latin1": ("string", pa.string(), {"'ä'": "ä"}),
    "longtext character set utf8mb4": (
        "string", pa.string(),
        {"'ä😀'": "ä😀", "'a,\"b\"\\n\\\\'": 'a,"b"\n\\', "'NULL'": "NULL", "'\\N'": "N"},
    ),
    "enum('sad','not so')": ("string", pa.string(), {"'not so'": "not so"}),
    "set('a','b')": ("string", pa.string(), {"'a,b'": "a,b"}),
    "json": ("string", pa.string(), {"""'{"a":  1}'""": '{"a":  1}'}),
    "uuid": ("string", pa.string(), {f"'{'0' * 31}a'": f"{'0' * 8}-0000-0000-0000-{'0' * 11}a"}),
    "time(3)": ("string", pa.string(), {"'-99:00:01.5'": "-99:00:01.500"}),
    "date": (
        "date", pa.date32(),
        {"'0001-01-01'": date(1, 1, 1), "'9999-12-31'": date(9999, 12, 31)},
    ),
    "datetime": ("timestamp", pa.timestamp("us"), {"'0001-01-01'": datetime(1, 1, 1)}),
    "datetime(6)": (
        "timestamp", pa.timestamp("us"),
        {"'9999-12-31 23:59:59.999999'": datetime(9999, 12, 31, 23, 59, 59, 999999)},
    ),
    "timestamp(6) null": (
        "timestamptz", UTC_US,
        {"'2013-11-03 06:30:00.000001'": datetime(2013, 11, 3, 6, 30, 0, 1, tzinfo=UTC)},
    ),
}  # fmt: skip


def same(found: Any, wanted: Any) -> bool:
    return type(found) is type(wanted) and bool(found == wanted)


def test_every_type_arrives_as_declared(maria: Backend) -> None:
    names = {kind: f"c{number}" for number, kind in enumerate(TYPES)}
    columns = ", ".join(f"{name} {kind}" for kind, name in names.items())
    maria.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    for row in range(5):  # the first row, and chunk, has only NULLs
        literals = [list(values) for _, _, values in TYPES.values()]
        taken = [texts[row - 1] if 0 < row <= len(texts) else "NULL" for texts in literals]
        maria.execute(f"INSERT INTO t VALUES ({row}, {', '.join(taken)})")
    signature = sign({names[kind]: wanted for kind, (wanted, _, _) in TYPES.items()})
    kinds = [kind for _, kind, _ in TYPES.values()]
    expected = pa.schema([("id", pa.int32()), *zip(names.values(), kinds, strict=True)])
    for spec in ({"table": "t"}, {"query": "SELECT * FROM t"}):
        source = maria.source(**spec)
        source.check(signature)
        chunks = maria.read(source, signature, rows=1)
        assert [chunk.schema for chunk in chunks] == [expected] * 5  # whatever the values
        assert set(chunks[0].select(list(names.values())).to_pylist()[0].values()) == {None}
        for kind, (_, _, values) in TYPES.items():
            for row, wanted in enumerate(values.values(), 1):
                found = chunks[row].column(names[kind])[0].as_py()
                assert same(found, wanted), f"{kind}: {found!r} is not {wanted!r}"


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("date", "'0000-00-00'", "date"),
        ("date", "'2013-00-10'", "date"),
        ("datetime", "'0000-00-00'", "timestamp"),
        ("tinyint(1)", "7", "bool"),
    ],
)
def test_values_that_are_none(maria: Backend, kind: str, value: str, wanted: str) -> None:
    maria.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, x {kind})", "INSERT INTO t VALUES (1, NULL)"
    )
    maria.execute("SET SESSION sql_mode = ''", f"INSERT INTO t VALUES (2, {value})")
    maria.engine.dispose()
    with pytest.raises(ValueUnreadable) as caught:
        maria.read(maria.source(table="t"), sign({"x": wanted}))
    assert (caught.value.column, caught.value.row) == ("x", "(2)")
    assert value.strip("'") in str(caught.value)


@pytest.mark.parametrize("kind", ["blob", "varbinary(5)", "binary(3)", "geometry"])
def test_bytes_are_no_input(maria: Backend, kind: str) -> None:
    maria.execute(f"CREATE TABLE t (id int PRIMARY KEY, x {kind})")
    for wanted in ("string", "float64", "int64", "decimal"):
        with pytest.raises(SignatureMismatch):
            maria.source(table="t").check(sign({"x": wanted}))


@pytest.mark.parametrize("kind", ["float", "enum('a','b')", "time", "varbinary(5)"])
def test_keys_of_no_order(maria: Backend, kind: str) -> None:
    maria.execute(f"CREATE TABLE t (id {kind} PRIMARY KEY, x double)")
    with pytest.raises(ColumnTypeUnsupported, match="cannot serve as a key column"):
        maria.source(table="t").check(sign())


# --- texts as keys ------------------------------------------------------------------------------

COLLATIONS = (
    "utf8mb4_general_ci",
    "utf8mb4_unicode_ci",
    "utf8mb4_uca1400_ai_ci",
    "latin1_swedish_ci",
)


@pytest.mark.parametrize("collation", COLLATIONS)
def test_resumes_in_the_columns_own_collation(maria: Backend, collation: str) -> None:
    """Where 'B' comes after 'a', and 'ä' is 'a' or is not: order and comparison agree."""
    charset = collation.partition("_")[0]
    maria.execute(
        f"CREATE TABLE t (k varchar(50) CHARACTER SET {charset} COLLATE {collation} PRIMARY KEY,"
        " x double)"
    )
    keys = ["", "a", "B", "c", "D ", "ä2", "A3", "é", "ß", "st", "_", "-", "1", "10", "2", "'", "%"]
    with maria.engine.begin() as connection:
        for key in keys:
            connection.execute(sa.text("INSERT INTO t VALUES (:k, 1)"), {"k": key})
    source = maria.source("k", table="t")
    source.check(sign())
    order = [row[0] for row in maria.rows("SELECT k FROM t ORDER BY k")]
    assert order != sorted(order)
    for position, key in enumerate(order):
        chunks = maria.read(source, after=(key,), rows=4)
        assert [k for chunk in chunks for k in chunk.column("k").to_pylist()] == order[
            position + 1 :
        ]


def test_keys_that_differ_in_case_accents_or_trailing_spaces(maria: Backend, lite: Backend) -> None:
    """MariaDB's usual collations take them for one; as keys of predictions they are not."""
    keys = ["a", "A", "a ", "ä", "a\u0308", "ss", "ß", "", " ", "😀", "x" * 255]
    columns = [sa.Column("k", sa.Text, primary_key=True), sa.Column("x", sa.Double)]
    lite.table("t", columns, [{"k": key, "x": float(n)} for n, key in enumerate(keys)])
    source = lite.source("k", table="t")
    predictions = maria.predictions(source, index_key=True)
    predictions.create()
    predictions.create()
    maria.score(predictions, request_of(), rows=3)
    assert maria.view(key="k") == {key: float(n) for n, key in enumerate(keys)}


def test_a_key_longer_than_a_key_can_be(maria: Backend, lite: Backend) -> None:
    columns = [sa.Column("k", sa.Text, primary_key=True), sa.Column("x", sa.Double)]
    lite.table("t", columns, [{"k": "x" * 256, "x": 1.0}])
    predictions = maria.predictions(lite.source("k", table="t"))
    predictions.create()
    with pytest.raises(StatementFailed, match="'k'"):
        maria.score(predictions, request_of())
    assert maria.rows("SELECT count(*) FROM scores_runs") == [(0,)]


def test_jobs_that_differ_in_case(maria: Backend) -> None:
    maria.numbers("t", 1)
    for name in ("job", "Job", "job "):
        source = maria.source(table="t")
        maria.predictions(source, f"scores of {name}|").create()
        request = request_of(job=name, target=f"scores of {name}|")
        assert not maria.ledger().begin(request, new_owner()).resumed
    assert len(maria.rows("SELECT * FROM nightshift_jobs")) == 3


# --- what is written ----------------------------------------------------------------------------


def test_nan_and_infinity_are_refused_not_turned_into_null(maria: Backend) -> None:
    maria.numbers("t", 4)
    predictions = maria.predictions(maria.source(table="t"))
    predictions.create()
    for value in (math.nan, math.inf, -math.inf):
        run = predictions.ledger.begin(request_of(), "host:1:one", resume=False)
        rows = pa.table({"id": [0, 1, 2], "prediction": [0.5, None, value]})
        with pytest.raises(ValueUnstorable) as caught:
            predictions.write(run, 0, rows)
        assert (caught.value.column, caught.value.row) == ("prediction", "(2)")
        assert f"would be {value}, which MariaDB" in str(caught.value)
        assert maria.rows("SELECT count(*) FROM scores_runs") == [(0,)]
    lists = maria.predictions(maria.source(table="t"), "lists", {"p": "float64[]"})
    rows = pa.table({"id": [0, 1], "p": [[0.5, 1.0], [0.5, math.nan]]})
    with pytest.raises(ValueUnstorable, match=r"row \(1\)"):
        lists.write(run, 0, rows)


@contextmanager
def without_files(backend: Backend) -> Iterator[None]:
    backend.execute("SET GLOBAL local_infile = 0")
    backend.engine.dispose()
    try:
        yield
    finally:
        backend.execute("SET GLOBAL local_infile = 1")
        backend.engine.dispose()


def test_a_server_that_takes_no_files(maria: Backend) -> None:
    """Rows are then sent as INSERTs."""
    maria.numbers("t", 10)
    with without_files(maria):
        predictions = maria.predictions(maria.source(table="t"))
        predictions.create()
        maria.score(predictions, request_of(), rows=4)
        assert maria.view() == {id_: id_ / 2 for id_ in range(10)}
        run = predictions.ledger.begin(request_of("again"), "host:1:one")
        twice = pa.table({"id": [1, 1], "prediction": [0.5, 0.5]})
        with pytest.raises(KeyNotUnique):
            predictions.write(run, 0, twice)


def test_no_file_leaves_this_machine(maria: Backend) -> None:
    """A server may answer any statement by asking for any file of the client's."""
    maria.numbers("t", 3)
    predictions = maria.predictions(maria.source(table="t"))
    predictions.create()
    maria.score(predictions, request_of())  # and not after rows were sent, either
    maria.execute("CREATE TABLE stolen (line text)")
    driver = maria.engine.raw_connection()
    with pytest.raises(RuntimeError, match="local_infile option is false"):
        driver.cursor().execute("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE stolen")
    driver.invalidate()
    maria.engine.dispose()
    assert maria.rows("SELECT count(*) FROM stolen") == [(0,)]


def test_a_row_longer_than_a_packet_may_be(maria: Backend) -> None:
    """The server then prints NULL, and a mere warning."""
    maria.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x longtext, y longtext)",
        "INSERT INTO t VALUES (1, 'a', 'a'), (2, repeat('x', 9000000), repeat('x', 9000000))",
    )
    with pytest.raises(StatementFailed, match="max_allowed_packet"):
        maria.read(maria.source(table="t"), sign({"x": "string", "y": "string"}))


# --- reading ------------------------------------------------------------------------------------


def test_a_table_without_snapshots_is_refused(maria: Backend) -> None:
    maria.execute("CREATE TABLE t (id int PRIMARY KEY, x double) ENGINE=MyISAM")
    with pytest.raises(ConfigurationError, match=r"MyISAM.*ENGINE=InnoDB"):
        maria.source(table="t").check(sign())
    maria.execute("ALTER TABLE t ENGINE=InnoDB")
    maria.source(table="t").check(sign())


def test_a_reader_that_stops_early_does_not_read_the_rest(maria: Backend) -> None:
    maria.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x longtext)",
        "INSERT INTO t SELECT seq, repeat('x', 10000) FROM seq_1_to_20000",
    )
    source = maria.source(table="t")
    received = "SHOW GLOBAL STATUS LIKE 'Bytes_sent'"
    before = int(maria.rows(received)[0][1])
    with (
        source.snapshot(sign({"x": "string"}), None, None) as snapshot,
        closing(snapshot.chunks(ALL_KEYS, 10)) as chunks,
    ):
        assert next(chunks).num_rows == 10
        chunks.close()
        assert snapshot.count() == 20000
    assert int(maria.rows(received)[0][1]) - before < 100_000_000  # of 200 MB
    assert maria.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_what_a_session_waits_for(maria: Backend) -> None:
    """A server drops a client that reads nothing for a minute, and no other."""
    waits = "net_write_timeout", "lock_wait_timeout", "idle_write_transaction_timeout"
    (found,) = maria.rows(f"SELECT {', '.join('@@' + name for name in waits)}")
    assert found == (86400, 60, 60)


def test_a_process_that_stands_still_loses_its_transaction(maria: Backend) -> None:
    maria.numbers("t", 3)
    with maria.engine.connect() as sleeper:
        sleeper.exec_driver_sql("SET SESSION idle_write_transaction_timeout = 1")
        sleeper.exec_driver_sql("UPDATE t SET x = -1")
        maria.execute("UPDATE t SET x = 7")  # waits for the end of the other's
        with (
            pytest.raises(DatabaseUnavailable),
            translate_errors(maria.engine, "to go on"),
        ):
            sleeper.exec_driver_sql("UPDATE t SET x = -2")
    assert maria.rows("SELECT DISTINCT x FROM t") == [(7.0,)]


@pytest.fixture
def events(maria: Backend) -> Backend:
    """Events e: ten rows three hours apart from midnight, 2013-10-01, UTC."""
    maria.execute(
        "CREATE TABLE e (id int, at timestamp(6) NULL, x double, label varchar(9))",
        "INSERT INTO e SELECT seq, timestamp'2013-10-01 00:00:00' + INTERVAL 3 * seq HOUR, seq,"
        " '50%%' FROM seq_0_to_9",
    )
    return maria


DAY = datetime(2013, 10, 1, tzinfo=UTC), datetime(2013, 10, 2, tzinfo=UTC)


def ids(backend: Backend, query: str, bounded: bool = True, **spec: str) -> list[int]:
    source = backend.source(query=query, **spec)
    source.check(sign())
    start, end = DAY if bounded else (None, None)
    chunks = backend.read(source, start=start, end=end, rows=3)
    return [number for chunk in chunks for number in chunk.column("id").to_pylist()]


def test_queries_of_all_kinds(events: Backend) -> None:
    for query in (
        "SELECT id, x FROM e;",
        "SELECT id, x FROM e # all of them; `",
        "SELECT id, x FROM e -- all of them; '",
        "/* all */ SELECT id, x FROM e",
        "WITH w AS (SELECT id, x FROM e) SELECT * FROM w",
        "SELECT id, x FROM `e` WHERE label = '50%' AND label LIKE '%\\%' AND id % 11 >= 0",
        "SELECT id - 1--1 AS id, x FROM e WHERE label <> 'it\\'s :partition_start'",
        "SELECT id, sum(x) AS x, ':nothing' AS `:y` FROM e GROUP BY id",
    ):
        assert ids(events, query) == list(range(10)), query


def test_the_partition_in_the_query(events: Backend) -> None:
    bounded = "SELECT id, x FROM e WHERE at >= :partition_start AND at < :partition_end"
    assert ids(events, bounded) == list(range(8))
    assert ids(events, bounded, bounded=False) == list(range(10))
    assert ids(events, "SELECT id, x, at FROM e", time_column="at") == list(range(8))


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM e",
        "SELECT id, x FROM e; DELETE FROM e",
        "SELECT id, x FROM e) AS source; DELETE FROM e; SELECT id FROM (SELECT 1 AS id",
        "SELECT id, x FROM e) AS source; COMMIT; DELETE FROM e; #",
        "SELECT id, x FROM e) AS source INTO OUTFILE '/tmp/nightshift-stolen' #",
        "SELECT id, x FROM e INTO OUTFILE '/tmp/nightshift-stolen'",
        "SELECT spoil() AS x, id FROM e",
        "SELECT id, x FROM e WHERE spoil() > 0",
        "TRUNCATE e",
        "UPDATE e SET x = 0",
    ],
)
def test_a_query_cannot_write(events: Backend, query: str) -> None:
    events.execute(
        "CREATE FUNCTION spoil() RETURNS double DETERMINISTIC MODIFIES SQL DATA"
        " BEGIN DELETE FROM e; RETURN 1.0; END"
    )
    with pytest.raises(StatementFailed, match=r"The database refused to (describe|read)"):
        ids(events, query)
    assert events.rows("SELECT count(*), sum(x) FROM e") == [(10, 45.0)]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("", "error in your SQL syntax"),
        ("SELECT id, x FROM nowhere", "doesn't exist"),
        ("SELECT id, y FROM e", "Unknown column"),
        ("SELECT id, x, id FROM e", "Duplicate column"),
    ],
)
def test_a_query_that_is_wrong(events: Backend, query: str, problem: str) -> None:
    with pytest.raises(StatementFailed, match=problem):
        ids(events, query)


# --- what breaks --------------------------------------------------------------------------------


def kill_others(backend: Backend, what: str) -> None:
    """End the other connections whose statement has this in it."""
    with backend.engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT id FROM information_schema.processlist WHERE id <> connection_id()"
            f" AND user = 'root' AND coalesce(info, '') LIKE '%%{what}%%'"
        )
        for number in found.scalars().all():
            connection.exec_driver_sql(f"KILL {number}")


def test_a_connection_ended_while_reading(maria: Backend) -> None:
    maria.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x longtext)",
        "INSERT INTO t SELECT seq, repeat('x', 10000) FROM seq_1_to_20000",
    )
    read = 0

    def score() -> None:
        nonlocal read
        with (
            maria.source(table="t").snapshot(sign({"x": "string"}), None, None) as snapshot,
            closing(snapshot.chunks(ALL_KEYS, 1000)) as chunks,
        ):
            read += next(chunks).num_rows
            kill_others(maria, "concat")
            for chunk in chunks:
                read += chunk.num_rows

    with pytest.raises(DatabaseUnavailable):
        score()
    assert read < 20000
    assert maria.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_connection_ended_while_writing(maria: Backend) -> None:
    maria.numbers("t", 10)
    predictions = maria.predictions(maria.source(table="t"))
    predictions.create()
    maria.execute(
        "CREATE TRIGGER die BEFORE INSERT ON scores_runs FOR EACH ROW"
        " IF new.id = 6 THEN KILL CONNECTION_ID(); END IF"
    )
    owner = new_owner()
    with pytest.raises(DatabaseUnavailable):
        maria.score(predictions, request_of(), rows=4, owner=owner)
    assert maria.rows("SELECT chunks_written, rows_written FROM nightshift_shards") == [(1, 4)]
    assert maria.rows("SELECT count(*) FROM scores_runs") == [(4,)]
    maria.execute("DROP TRIGGER die")
    maria.score(predictions, request_of(), rows=4, owner=owner)
    assert maria.view() == {id_: id_ / 2 for id_ in range(10)}


def test_a_lock_that_is_kept(maria: Backend) -> None:
    maria.numbers("t", 10)
    predictions = maria.predictions(maria.source(table="t"))
    predictions.create()
    owner = new_owner()
    predictions.ledger.begin(request_of(), owner)
    with maria.engine.connect() as keeper:
        keeper.exec_driver_sql("SELECT * FROM nightshift_jobs FOR UPDATE")
        maria.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
        maria.engine.dispose()
        with pytest.raises(DatabaseUnavailable, match="Lock wait timeout"):
            predictions.ledger.begin(request_of(), owner)
    maria.execute("SET GLOBAL innodb_lock_wait_timeout = 50")
    assert maria.score(predictions, request_of(), owner=owner).run_id == 1


READS = "SELECT"
WRITES = "SELECT, INSERT, UPDATE, DELETE, CREATE, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW"


def test_two_roles_with_what_they_need(maria: Backend) -> None:
    """One reads the source, one keeps the predictions; neither may do the other's work."""
    maria.execute("CREATE DATABASE kept", "DROP USER IF EXISTS reader, writer")
    maria.numbers("t", 10)
    maria.execute(
        "CREATE USER reader", f"GRANT {READS} ON backends.* TO reader",
        "CREATE USER writer", f"GRANT {WRITES} ON kept.* TO writer",
    )  # fmt: skip
    reading = open_engine(maria.engine.url.set(username="reader"))
    writing = open_engine(maria.engine.url.set(username="writer", database="kept"))
    reader = Backend("maria", reading, maria.source_class, maria.predictions_class)
    writer = Backend("maria", writing, maria.source_class, maria.predictions_class)
    try:
        source = reader.source(table="t")
        source.check(sign())
        predictions = writer.predictions(source, index_key=True)
        predictions.create()
        predictions.create()
        writer.score(predictions, request_of(), rows=4)
        assert writer.view() == {id_: id_ / 2 for id_ in range(10)}
        with source.snapshot(sign(), None, None) as snapshot:  # it may end its own query
            next(snapshot.chunks(ALL_KEYS, 1))
        with pytest.raises(StatementFailed, match=r"denied|doesn't exist"):
            writer.source(table="t", schema="backends").check(sign())
        with pytest.raises(StatementFailed, match="denied"):
            reader.predictions(source).create()
    finally:
        reading.dispose()
        writing.dispose()
        maria.execute("DROP USER reader, writer")


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"database": "nowhere"}, StatementFailed, "Unknown database 'nowhere'"),
        ({"username": "missing", "password": "hunter2"}, StatementFailed, "Access denied"),
    ],
)
def test_who_is_not_let_in(maria: Backend, change: dict[str, str], kind: type, text: str) -> None:
    engine = open_engine(maria.engine.url.set(**change))
    backend = Backend("maria", engine, source_class(engine), predictions_class(engine))
    with pytest.raises(kind, match=text) as caught:
        backend.source(table="t").check(sign())
    assert "hunter2" not in str(caught.value)
    engine.dispose()


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (pymysql.OperationalError(1040, "Too many connections"), True),
        (pymysql.OperationalError(1205, "Lock wait timeout exceeded"), True),
        (pymysql.OperationalError(1213, "Deadlock found"), True),
        (pymysql.OperationalError(2006, "gone away"), True),
        (pymysql.OperationalError(2013, "Lost connection"), True),
        (pymysql.InterfaceError(0, ""), True),
        (pymysql.OperationalError(1290, "running with the --secure-file-priv option"), False),
        (pymysql.OperationalError(1045, "Access denied ... connect"), False),
        (pymysql.OperationalError(2003, "Can't connect (CERTIFICATE_VERIFY_FAILED)"), False),
        (pymysql.DataError(1406, "Data too long"), False),
    ],
)
def test_which_errors_may_pass(maria: Backend, error: Exception, transient: bool) -> None:
    kind = DatabaseUnavailable if transient else StatementFailed
    for engine in (maria.engine, read_only(maria.engine)):
        assert type(translate(engine, "a statement", error)) is kind


@pytest.mark.parametrize(
    "error",
    [
        pymysql.OperationalError(1290, "running with the --read-only option"),
        pymysql.OperationalError(1792, "Cannot execute in a READ ONLY transaction"),
        pymysql.OperationalError(1836, "Running in read-only mode"),
    ],
)
def test_a_read_only_server_may_pass_where_we_write(maria: Backend, error: Exception) -> None:
    assert type(translate(maria.engine, "a statement", error)) is DatabaseUnavailable
    only_reads = read_only(maria.engine)
    assert type(translate(only_reads, "a statement", error)) is StatementFailed


def test_indexes_that_a_killed_process_left_out(maria: Backend) -> None:
    """Tables are not made in a transaction here."""
    maria.numbers("t", 1)
    predictions = maria.predictions(maria.source(table="t"), index_key=True)
    predictions.create()
    (index,) = (i["name"] for i in sa.inspect(maria.engine).get_indexes("scores_runs"))
    maria.execute(
        f"DROP INDEX `{index}` ON scores_runs",
        "CREATE INDEX i ON nightshift_runs (job)",  # MariaDB keeps one for the foreign key
        "DROP INDEX ix_nightshift_runs_job_partition ON nightshift_runs",
        "DELETE FROM nightshift_schema_version",  # its number is written last
    )
    again = maria.predictions(maria.source(table="t"), index_key=True)
    again.create()
    found = sa.inspect(maria.engine)
    assert [i["column_names"] for i in found.get_indexes("scores_runs")] == [["id"]]
    there = [i["column_names"] for i in found.get_indexes("nightshift_runs")]
    assert ["job", "partition"] in there


def test_times_are_kept_to_the_microsecond(maria: Backend) -> None:
    columns = [
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", mysql.TIMESTAMP(fsp=6), nullable=False),
        sa.Column("x", sa.Double),
    ]
    moment = datetime(2013, 10, 1, 5, 0, 0, 999999)
    table = sa.Table("t", sa.MetaData(), *columns)
    table.create(maria.engine)
    maria.insert(table, [{"id": 1, "at": moment, "x": 1.0}])
    predictions = maria.predictions(maria.source(table="t", time_column="at"))
    predictions.create()
    maria.execute("SET GLOBAL time_zone = '+09:00'")  # which is not that of this session
    maria.engine.dispose()
    try:
        maria.score(predictions, request_of())
        ((kept, written),) = maria.rows("SELECT partition_time, scored_at FROM scores")
    finally:
        maria.execute("SET GLOBAL time_zone = 'SYSTEM'")
    assert kept == moment
    now = datetime.now(UTC).replace(tzinfo=None)
    assert abs((now - written).total_seconds()) < 60
    assert written.microsecond
