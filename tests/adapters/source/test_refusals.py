"""What cannot be scored is refused before a row is read, by an error of its own that says why."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from lanes import Lane, request_of, sign
from nightshift.adapters.errors import (
    ColumnNameReserved,
    ColumnNotFound,
    ColumnTypeUnsupported,
    ConfigurationError,
    KeyNotUnique,
    RowWithoutTime,
    SignatureMismatch,
    TableNotFound,
    TargetMismatch,
)


def test_a_missing_table(lane: Lane) -> None:
    lane.numbers("orders", 1)
    with pytest.raises(TableNotFound) as caught:
        lane.source(table="order").check(sign())
    assert (caught.value.table, caught.value.known) == ("order", ("orders",))
    assert "'order'" in str(caught.value)
    assert "source.table" in str(caught.value)


def test_a_missing_schema(fast: Lane) -> None:
    with pytest.raises(TableNotFound, match="it has no tables"):
        fast.source(table="orders", schema="sales").check(sign())


def test_missing_columns(lane: Lane) -> None:
    lane.numbers("t", 1)
    for key, time, inputs, missing, needed in (
        ("ident", None, {"x": "float64"}, "ident", "the key"),
        ("id", "at", {"x": "float64"}, "at", "the time column"),
        ("id", None, {"x": "float64", "y": "int8"}, "y", "an input of the model (int8)"),
    ):
        with pytest.raises(ColumnNotFound) as caught:
            lane.source(key, table="t", time_column=time).check(sign(inputs))
        error = caught.value
        assert (error.source, error.column, error.needed_for) == ("table 't'", missing, needed)
        assert error.known == ("id", "x")


def unique(lane: Lane, *constraints: str, key: tuple[str, ...] = ("a", "b")) -> None:
    """Check a table of a, b (not null), c and these constraints for the key."""
    lane.execute("DROP TABLE IF EXISTS t")
    declared = ", ".join([c for c in constraints if not c.startswith("CREATE")])
    made = [c for c in constraints if c.startswith("CREATE")]
    lane.execute(
        f"CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int, x float{', ' * bool(declared)}"
        f"{declared})",
        *made,
    )
    lane.source(key, table="t").check(sign())


def test_what_makes_a_key_unique(lane: Lane) -> None:
    for enough in (
        "PRIMARY KEY (a, b)",
        "PRIMARY KEY (b, a)",
        "PRIMARY KEY (b)",
        "UNIQUE (a, b)",
        "UNIQUE (a)",
        "CREATE UNIQUE INDEX i ON t (b, a)",
    ):
        unique(lane, enough)
    if lane.is_postgres:
        unique(lane, "CREATE UNIQUE INDEX i ON t (a, b) INCLUDE (c)")
    if not lane.is_sqlite:
        unique(lane, "PRIMARY KEY (c)", key=("c",))


@pytest.mark.parametrize(
    ("constraint", "problem"),
    [
        ("CHECK (a > 0)", "no primary key"),
        ("PRIMARY KEY (a, b, c)", r"the primary key is a, b, c"),
        ("UNIQUE (a, c)", "no primary key"),
        ("CREATE INDEX i ON t (a, b)", "no primary key"),
        ("CREATE UNIQUE INDEX i ON t (a) WHERE b > 0", "no primary key"),
        ("CREATE UNIQUE INDEX i ON t (abs(a))", "no primary key"),
        ("CREATE UNIQUE INDEX i ON t (a, abs(b))", "no primary key"),
    ],
)
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_what_does_not(lane: Lane, constraint: str, problem: str) -> None:
    if (lane.is_mysql and "INDEX i ON t (a" in constraint and constraint[-2:] in {"))", " 0"}) or (
        lane.is_duckdb and "WHERE" in constraint
    ):
        pytest.skip(f"{lane.can.title} has no such index")
    with pytest.raises(KeyNotUnique, match=problem) as caught:
        unique(lane, constraint)
    assert (caught.value.source, caught.value.key) == ("table 't'", ("a", "b"))
    assert "`query:`" in str(caught.value)


def test_a_key_that_may_be_null(lane: Lane) -> None:
    with pytest.raises(KeyNotUnique, match=r"c may be NULL.*NOT NULL"):
        unique(lane, "UNIQUE (a, c)", key=("a", "c"))
    with pytest.raises(KeyNotUnique, match="c may be NULL"):
        unique(lane, "UNIQUE (a)", key=("a", "c"))


def test_a_unique_index_that_failed_to_be_built(fast: Lane) -> None:
    fast.execute(
        "CREATE TABLE t (id int NOT NULL, x float8)", "INSERT INTO t VALUES (1, 1), (1, 2)"
    )
    with fast.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(sa.exc.IntegrityError):
            connection.exec_driver_sql("CREATE UNIQUE INDEX CONCURRENTLY i ON t (id)")
    with pytest.raises(KeyNotUnique, match="no primary key"):
        fast.source(table="t").check(sign())


def test_tables_that_inherit_have_keys_of_their_own(fast: Lane) -> None:
    fast.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x float8)",
        "CREATE TABLE child () INHERITS (t)",
        "INSERT INTO t VALUES (1, 1)",
        "INSERT INTO child VALUES (1, 2)",
    )
    with pytest.raises(KeyNotUnique, match="no primary key"):
        fast.source(table="t").check(sign())


def test_partitions_of_a_table_share_its_key(fast: Lane) -> None:
    fast.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x float8) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE high PARTITION OF t FOR VALUES FROM (10) TO (20)",
        "INSERT INTO t SELECT g, g FROM generate_series(0, 19) g",
    )
    source = fast.source(table="t")
    source.check(sign())
    (chunk,) = fast.read(source)
    assert chunk.column("id").to_pylist() == list(range(20))


def test_a_view_has_no_key_but_a_query_of_it_does(fast: Lane) -> None:
    fast.numbers("t", 10)
    fast.execute("CREATE VIEW v AS SELECT id, x FROM t WHERE id > 4")
    with pytest.raises(KeyNotUnique, match=r"table 'v'.*`query:`"):
        fast.source(table="v").check(sign())
    source = fast.source(query="SELECT * FROM v")
    source.check(sign())
    (chunk,) = fast.read(source)
    assert chunk.column("id").to_pylist() == [5, 6, 7, 8, 9]


def test_a_key_of_floats_or_of_no_order(postgres_lane: Lane) -> None:
    lane = postgres_lane
    lane.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    for kind in ("float8", "real", "json", "mood", "interval", "bytea", "int[]"):
        constraint = "" if kind == "json" else "UNIQUE"
        lane.execute(
            "DROP TABLE IF EXISTS t", f"CREATE TABLE t (id {kind} NOT NULL {constraint}, x real)"
        )
        with pytest.raises(ColumnTypeUnsupported, match="cannot serve as a key column") as caught:
            lane.source(table="t").check(sign())
        assert caught.value.column == "id"


def test_a_decimal_key_that_the_model_takes_for_a_float(postgres_lane: Lane) -> None:
    """Rounded, it would name another row, or none."""
    lane = postgres_lane
    lane.execute("CREATE TABLE t (id numeric(30) PRIMARY KEY, x real)")
    lane.execute("INSERT INTO t VALUES (123456789012345678901234567890, 1)")
    source = lane.source(table="t")
    with pytest.raises(ColumnTypeUnsupported, match=r"a key column and an input .* at once"):
        source.check(sign({"id": "float64"}))
    for kind in ("decimal", "int64"):
        source.check(sign({"id": kind}))
        (chunk,) = lane.read(source, sign({"id": kind}))
        assert chunk.column("id").to_pylist() == ["123456789012345678901234567890"]


def test_names_that_are_taken(lane: Lane) -> None:
    for name in ("run_id", "partition_time", "model_version", "scored_at"):
        lane.execute(
            "DROP TABLE IF EXISTS t",
            f"CREATE TABLE t ({name} int NOT NULL PRIMARY KEY, id int NOT NULL UNIQUE,"
            " placed timestamp, x float)",
        )
        with pytest.raises(ColumnNameReserved, match=f"{name!r} cannot be a key column"):
            lane.source(name, table="t").check(sign())
        with pytest.raises(TargetMismatch, match=f"output {name!r}"):
            lane.predictions(lane.source(table="t"), outputs={name: "float64"})
        as_input = lane.source(table="t", time_column="placed")
        if name == "partition_time":
            with pytest.raises(ColumnNameReserved, match="cannot be an input of the model"):
                as_input.check(sign({name: "int64"}))
        else:
            as_input.check(sign({name: "int64"}))
            lane.read(as_input, sign({name: "int64"}))
    with pytest.raises(TargetMismatch, match="output 'id'"):
        lane.predictions(lane.source(table="t"), outputs={"id": "float64"})


def test_a_time_column_that_is_no_time(lane: Lane) -> None:
    lane.execute("CREATE TABLE t (id int NOT NULL PRIMARY KEY, x float, label text, clock time)")
    for name in ("label", "x", "id", "clock"):
        with pytest.raises(ColumnTypeUnsupported, match="cannot serve as the time column"):
            lane.source(table="t", time_column=name).check(sign())


def test_a_row_without_a_time(lane: Lane) -> None:
    lane.execute(
        "CREATE TABLE t (id int NOT NULL PRIMARY KEY, x float, placed timestamp NULL)",
        "INSERT INTO t VALUES (1, 1, '2013-10-01 00:00:00'), (2, 2, NULL)",
    )
    source = lane.source(table="t", time_column="placed")
    source.check(sign())
    day = datetime(2013, 10, 1, tzinfo=UTC), datetime(2013, 10, 2, tzinfo=UTC)
    for start, end in ((None, None), day):
        with pytest.raises(RowWithoutTime, match=r"table 't'.*'placed'.*source query"):
            lane.read(source, start=start, end=end)
    lane.execute("DELETE FROM t WHERE placed IS NULL")
    assert len(lane.read(source)) == 1


def test_a_null_in_a_key_of_sqlite(lite: Lane) -> None:
    """Its primary keys may be NULL, unless they are INTEGER PRIMARY KEY."""
    lite.execute(
        "CREATE TABLE t (a TEXT, b TEXT, x REAL, PRIMARY KEY (a, b))",
        "INSERT INTO t VALUES ('1', '1', 1), ('1', NULL, 2), ('1', NULL, 3)",
    )
    source = lite.source(("a", "b"), table="t")
    source.check(sign())
    with pytest.raises(KeyNotUnique, match=r"\('1', None\) is NULL"):
        lite.read(source)


def test_a_query_is_for_lanes_that_know_its_types(lite: Lane) -> None:
    with pytest.raises(ConfigurationError, match=r"source\.query.*sqlite.*source\.table"):
        lite.source(query="SELECT 1 AS id").check(sign())


def test_shards_where_they_cannot_be(lane: Lane, duck: Lane) -> None:
    """Only PostgreSQL shows one moment to several readers; DuckDB has one process at a time."""
    lane.numbers("t", 3)
    source = lane.source(table="t", shards=2)
    if lane.can.shared_snapshot and lane.name != "generic":
        source.check(sign())
        with pytest.raises(ConfigurationError, match=r"shards: DuckDB can be written by one"):
            duck.predictions(source).create()
    elif not lane.can.shared_snapshot:
        with pytest.raises(ConfigurationError, match=r"shards: .* cannot share one snapshot"):
            source.check(sign())
        with (
            pytest.raises(ConfigurationError, match="one shard"),
            source.snapshot(sign(), None, None) as snapshot,
        ):
            snapshot.snapshot_id()


def test_an_integer_is_not_read_from_floats_nor_a_text_from_numbers(lane: Lane) -> None:
    lane.numbers("t", 1)
    for wanted in ("int64", "string", "bool", "decimal"):
        with pytest.raises(SignatureMismatch) as caught:
            lane.source(table="t").check(sign({"x": wanted}))
        assert caught.value.expected == wanted


ODD = [
    '"; drop table x; --',
    "two words",
    "Capitals",
    "50%",
    "%s",
    "a(b)",
    "a:b",
    "ä日",
    "'",
    "a.b",
    "select",
    "at",  # which DuckDB took for itself between two versions
]


@pytest.mark.parametrize("name", ODD)
def test_any_name_will_do(lane: Lane, name: str) -> None:
    """For a table, its columns, the schema, the target and its columns."""
    time, value, output = f"{name} at", f"{name} x", f"{name} y"
    columns = [
        sa.Column(name, sa.Text, primary_key=True),
        sa.Column(time, sa.DateTime, nullable=False),
        sa.Column(value, sa.Double),
    ]
    moments = [datetime(2013, 10, day, tzinfo=UTC).replace(tzinfo=None) for day in (1, 2, 3)]
    rows = [{name: str(n), time: at, value: n / 2} for n, at in enumerate(moments)]
    schema = None
    if not lane.is_sqlite:
        schema = name
        with lane.engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(name))
    table = sa.Table(name, sa.MetaData(schema=schema), *map(lane.declare, columns))
    table.create(lane.engine)
    lane.insert(table, rows)
    source = lane.source(name, table=name, schema=schema, time_column=time)
    signature = sign({value: "float64"})
    source.check(signature)
    ledger = lane.ledger(schema=schema)
    target = f"{name} scores"
    predictions = lane.predictions(source, target, {output: "float64"}, ledger, index_key=True)
    predictions.create()
    predictions.create()
    run = ledger.begin(request_of(target=target), "host:1:one")
    start = datetime(2013, 10, 1, tzinfo=UTC)
    chunks = lane.read(source, signature, start=start, after=("0",), rows=1)
    assert [chunk.column(name).to_pylist() for chunk in chunks] == [["1"], ["2"]]
    for number, chunk in enumerate(chunks):
        lane.write(predictions, run, number, chunk, lambda row: row[value])
    ledger.score(run)
    ledger.publish(run)
    place = sa.table(target, sa.column(name), sa.column(output), schema=schema)
    with lane.engine.connect() as connection:
        found = connection.execute(sa.select(place.c[name], place.c[output])).all()
    assert sorted(map(tuple, found)) == [("1", 0.5), ("2", 1.0)]
    if lane.is_fast:
        quoted = '"' + name.replace('"', '""') + '"'
        query = f"SELECT * FROM {quoted}.{quoted}"
        source = lane.source(name, query=query, time_column=time)
        assert [c.num_rows for c in lane.read(source, signature, after=("1",))] == [1]
