"""What cannot be scored is refused before a row is read, by an error of its own that says why."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from backends import Backend, request_of, sign
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
from nightshift.adapters.source.source import Source


def test_a_missing_table(backend: Backend) -> None:
    backend.numbers("orders", 1)
    with pytest.raises(TableNotFound) as caught:
        backend.source(table="order").check(sign())
    assert (caught.value.table, caught.value.known) == ("order", ("orders",))
    assert "'order'" in str(caught.value)
    assert "Did you mean 'orders'?" in str(caught.value)
    assert "source.table" in str(caught.value)


def test_a_missing_schema(fast: Backend) -> None:
    with pytest.raises(TableNotFound, match="it has no tables"):
        fast.source(table="orders", schema="sales").check(sign())


def test_missing_columns(backend: Backend) -> None:
    backend.numbers("t", 1)
    for key, time, inputs, missing, needed in (
        ("ident", None, {"x": "float64"}, "ident", "the key"),
        ("id", "at", {"x": "float64"}, "at", "the time column"),
        ("id", None, {"x": "float64", "y": "int8"}, "y", "an input of the model (int8)"),
    ):
        with pytest.raises(ColumnNotFound) as caught:
            backend.source(key, table="t", time_column=time).check(sign(inputs))
        error = caught.value
        assert (error.source, error.column, error.needed_for) == ("table 't'", missing, needed)
        assert error.known == ("id", "x")


def unique(backend: Backend, *constraints: str, key: tuple[str, ...] = ("a", "b")) -> None:
    """Check a table of a, b (not null), c and these constraints for the key."""
    backend.execute("DROP TABLE IF EXISTS t")
    declared = ", ".join([c for c in constraints if not c.startswith("CREATE")])
    made = [c for c in constraints if c.startswith("CREATE")]
    backend.execute(
        f"CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int, x float{', ' * bool(declared)}"
        f"{declared})",
        *made,
    )
    backend.source(key, table="t").check(sign())


def test_what_makes_a_key_unique(backend: Backend) -> None:
    for enough in (
        "PRIMARY KEY (a, b)",
        "PRIMARY KEY (b, a)",
        "PRIMARY KEY (b)",
        "UNIQUE (a, b)",
        "UNIQUE (a)",
        "CREATE UNIQUE INDEX i ON t (b, a)",
    ):
        unique(backend, enough)
    if backend.is_postgres:
        unique(backend, "CREATE UNIQUE INDEX i ON t (a, b) INCLUDE (c)")
    if not backend.is_sqlite:
        unique(backend, "PRIMARY KEY (c)", key=("c",))


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
def test_what_does_not(backend: Backend, constraint: str, problem: str) -> None:
    if (
        backend.is_mysql and "INDEX i ON t (a" in constraint and constraint[-2:] in {"))", " 0"}
    ) or (backend.is_duckdb and "WHERE" in constraint):
        pytest.skip(f"{backend.can.title} has no such index")
    with pytest.raises(KeyNotUnique, match=problem) as caught:
        unique(backend, constraint)
    assert (caught.value.source, caught.value.key) == ("table 't'", ("a", "b"))
    no_queries = type(backend.source(table="t"))._describe is Source._describe
    assert ("PRIMARY KEY, fill it" if no_queries else "`query:`") in caught.value.remedy


def test_a_key_that_may_be_null(backend: Backend) -> None:
    with pytest.raises(KeyNotUnique, match=r"c may be NULL.*NOT NULL"):
        unique(backend, "UNIQUE (a, c)", key=("a", "c"))
    with pytest.raises(KeyNotUnique, match="c may be NULL"):
        unique(backend, "UNIQUE (a)", key=("a", "c"))


def test_a_unique_index_that_failed_to_be_built(fast: Backend) -> None:
    fast.execute(
        "CREATE TABLE t (id int NOT NULL, x float8)", "INSERT INTO t VALUES (1, 1), (1, 2)"
    )
    with fast.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(sa.exc.IntegrityError):
            connection.exec_driver_sql("CREATE UNIQUE INDEX CONCURRENTLY i ON t (id)")
    with pytest.raises(KeyNotUnique, match="no primary key"):
        fast.source(table="t").check(sign())


def test_tables_that_inherit_have_keys_of_their_own(fast: Backend) -> None:
    fast.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x float8)",
        "CREATE TABLE child () INHERITS (t)",
        "INSERT INTO t VALUES (1, 1)",
        "INSERT INTO child VALUES (1, 2)",
    )
    with pytest.raises(KeyNotUnique, match="no primary key"):
        fast.source(table="t").check(sign())


def test_partitions_of_a_table_share_its_key(fast: Backend) -> None:
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


def test_a_view_has_no_key_but_a_query_of_it_does(fast: Backend) -> None:
    fast.numbers("t", 10)
    fast.execute("CREATE VIEW v AS SELECT id, x FROM t WHERE id > 4")
    with pytest.raises(KeyNotUnique, match=r"table 'v'.*`query:`"):
        fast.source(table="v").check(sign())
    source = fast.source(query="SELECT * FROM v")
    source.check(sign())
    (chunk,) = fast.read(source)
    assert chunk.column("id").to_pylist() == [5, 6, 7, 8, 9]


def test_a_key_of_floats_or_of_no_order(postgres_backend: Backend) -> None:
    backend = postgres_backend
    backend.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    for kind in ("float8", "real", "json", "mood", "interval", "bytea", "int[]"):
        constraint = "" if kind == "json" else "UNIQUE"
        backend.execute(
            "DROP TABLE IF EXISTS t", f"CREATE TABLE t (id {kind} NOT NULL {constraint}, x real)"
        )
        with pytest.raises(ColumnTypeUnsupported, match="cannot serve as a key column") as caught:
            backend.source(table="t").check(sign())
        assert caught.value.column == "id"


def test_a_decimal_key_that_the_model_takes_for_a_float(postgres_backend: Backend) -> None:
    """Rounded, it would name another row, or none."""
    backend = postgres_backend
    backend.execute("CREATE TABLE t (id numeric(30) PRIMARY KEY, x real)")
    backend.execute("INSERT INTO t VALUES (123456789012345678901234567890, 1)")
    source = backend.source(table="t")
    with pytest.raises(ColumnTypeUnsupported, match=r"a key column and an input .* at once"):
        source.check(sign({"id": "float64"}))
    for kind in ("decimal", "int64"):
        source.check(sign({"id": kind}))
        (chunk,) = backend.read(source, sign({"id": kind}))
        assert chunk.column("id").to_pylist() == ["123456789012345678901234567890"]


def test_names_that_are_taken(backend: Backend) -> None:
    for name in ("run_id", "partition_time", "model_version", "scored_at"):
        backend.execute(
            "DROP TABLE IF EXISTS t",
            f"CREATE TABLE t ({name} int NOT NULL PRIMARY KEY, id int NOT NULL UNIQUE,"
            " placed timestamp, x float)",
        )
        with pytest.raises(ColumnNameReserved, match=f"{name!r} cannot be a key column"):
            backend.source(name, table="t").check(sign())
        with pytest.raises(TargetMismatch, match=f"output {name!r}"):
            backend.predictions(backend.source(table="t"), outputs={name: "float64"})
        as_input = backend.source(table="t", time_column="placed")
        if name == "partition_time":
            with pytest.raises(ColumnNameReserved, match="cannot be an input of the model"):
                as_input.check(sign({name: "int64"}))
        else:
            as_input.check(sign({name: "int64"}))
            backend.read(as_input, sign({name: "int64"}))
    with pytest.raises(TargetMismatch, match="output 'id'"):
        backend.predictions(backend.source(table="t"), outputs={"id": "float64"})


def test_a_time_column_that_is_no_time(backend: Backend) -> None:
    backend.execute("CREATE TABLE t (id int NOT NULL PRIMARY KEY, x float, label text, clock time)")
    for name in ("label", "x", "id", "clock"):
        with pytest.raises(ColumnTypeUnsupported, match="cannot serve as the time column"):
            backend.source(table="t", time_column=name).check(sign())


def test_a_row_without_a_time(backend: Backend) -> None:
    backend.execute(
        "CREATE TABLE t (id int NOT NULL PRIMARY KEY, x float, placed timestamp NULL)",
        "INSERT INTO t VALUES (1, 1, '2013-10-01 00:00:00'), (2, 2, NULL)",
    )
    source = backend.source(table="t", time_column="placed")
    source.check(sign())
    day = datetime(2013, 10, 1, tzinfo=UTC), datetime(2013, 10, 2, tzinfo=UTC)
    for start, end in ((None, None), day):
        with pytest.raises(RowWithoutTime, match=r"table 't'.*'placed'.*source query"):
            backend.read(source, start=start, end=end)
    backend.execute("DELETE FROM t WHERE placed IS NULL")
    assert len(backend.read(source)) == 1


def test_a_null_in_a_key_of_sqlite(lite: Backend) -> None:
    """Its primary keys may be NULL, unless they are INTEGER PRIMARY KEY."""
    lite.execute(
        "CREATE TABLE t (a TEXT, b TEXT, x REAL, PRIMARY KEY (a, b))",
        "INSERT INTO t VALUES ('1', '1', 1), ('1', NULL, 2), ('1', NULL, 3)",
    )
    source = lite.source(("a", "b"), table="t")
    source.check(sign())
    with pytest.raises(KeyNotUnique, match=r"\('1', None\) is NULL"):
        lite.read(source)


def test_a_query_is_for_backends_that_know_its_types(lite: Backend) -> None:
    with pytest.raises(ConfigurationError, match=r"source\.query.*sqlite.*source\.table"):
        lite.source(query="SELECT 1 AS id").check(sign())


def test_shards_where_they_cannot_be(backend: Backend, duck: Backend) -> None:
    """Only PostgreSQL shows one moment to several readers; DuckDB has one process at a time."""
    backend.numbers("t", 3)
    source = backend.source(table="t", shards=2)
    if backend.can.shared_snapshot and backend.name != "generic":
        source.check(sign())
        with pytest.raises(ConfigurationError, match=r"shards: DuckDB can be written by one"):
            duck.predictions(source).create()
    elif not backend.can.shared_snapshot:
        with pytest.raises(ConfigurationError, match=r"shards: .* cannot share one snapshot"):
            source.check(sign())
        with (
            pytest.raises(ConfigurationError, match="one shard"),
            source.snapshot(sign(), None, None) as snapshot,
        ):
            snapshot.snapshot_id()


def test_an_integer_is_not_read_from_floats_nor_a_text_from_numbers(backend: Backend) -> None:
    backend.numbers("t", 1)
    for wanted in ("int64", "string", "bool", "decimal"):
        with pytest.raises(SignatureMismatch) as caught:
            backend.source(table="t").check(sign({"x": wanted}))
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
def test_any_name_will_do(backend: Backend, name: str) -> None:
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
    if not backend.is_sqlite:
        schema = name
        with backend.engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(name))
    table = sa.Table(name, sa.MetaData(schema=schema), *map(backend.declare, columns))
    table.create(backend.engine)
    backend.insert(table, rows)
    source = backend.source(name, table=name, schema=schema, time_column=time)
    signature = sign({value: "float64"})
    source.check(signature)
    ledger = backend.ledger(schema=schema)
    target = f"{name} scores"
    predictions = backend.predictions(source, target, {output: "float64"}, ledger, index_key=True)
    predictions.create()
    predictions.create()
    run = ledger.begin(request_of(target=target), "host:1:one")
    start = datetime(2013, 10, 1, tzinfo=UTC)
    chunks = backend.read(source, signature, start=start, after=("0",), rows=1)
    assert [chunk.column(name).to_pylist() for chunk in chunks] == [["1"], ["2"]]
    for number, chunk in enumerate(chunks):
        backend.write(predictions, run, number, chunk, lambda row: row[value])
    ledger.score(run)
    ledger.publish(run)
    place = sa.table(target, sa.column(name), sa.column(output), schema=schema)
    with backend.engine.connect() as connection:
        found = connection.execute(sa.select(place.c[name], place.c[output])).all()
    assert sorted(map(tuple, found)) == [("1", 0.5), ("2", 1.0)]
    if backend.is_fast:
        quoted = '"' + name.replace('"', '""') + '"'
        query = f"SELECT * FROM {quoted}.{quoted}"
        source = backend.source(name, query=query, time_column=time)
        assert [c.num_rows for c in backend.read(source, signature, after=("1",))] == [1]
