"""The target: made where nothing is, used where it is Nightshift's, refused where it is not."""

import math
import re
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import Backend, request_of, sign
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import StatementFailed, TargetMismatch

OUTPUTS = {
    "flag": "bool", "tiny": "int8", "whole": "int64", "huge": "uint64", "half": "float32",
    "real": "float64", "label": "string", "day": "date", "few": "float32[]", "many": "float64[]",
}  # fmt: skip


def write(backend: Backend, outputs: dict[str, str], columns: dict[str, list[Any]]) -> list[Any]:
    """Publish predictions for ids 0, 1, 2, ...; what readers then see, in their order."""
    names = {name: f"{name}_out" for name in outputs}
    kinds = {names[name]: kind for name, kind in outputs.items()}
    predictions = backend.predictions(backend.source(table="t"), outputs=kinds)
    predictions.create()
    run = predictions.ledger.begin(request_of(), "host:1:one")
    count = len(next(iter(columns.values())))
    rows = {"id": pa.array(range(count), pa.int64())}
    for column in sign(outputs=kinds).outputs:
        name = column.name.removesuffix("_out")
        rows[column.name] = pa.array(columns[name], column.arrow_type)
    predictions.write(run, 0, pa.table(rows))
    predictions.ledger.score(run)
    predictions.ledger.publish(run)
    shown = [sa.column(name, predictions.rows.c[name].type) for name in kinds]
    select = sa.select(*shown).select_from(sa.table("scores")).order_by(sa.column("id"))
    with backend.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select)]


def test_every_output_type(backend: Backend) -> None:
    backend.numbers("t", 1)
    largest = 2**63 - 1 if backend.is_sqlite else 2**64 - 1
    far = 1e300 if backend.is_mysql else math.inf
    values: dict[str, list[Any]] = {
        "flag": [True, False, None],
        "tiny": [-128, 127, None],
        "whole": [-(2**63), 2**63 - 1, None],
        "huge": [0, largest, None],
        "half": [0.5, 2.0**-126, None],
        "real": [0.1, 1.7976931348623157e308, None],
        "label": ["", "NULL", None],
        "day": [date(1, 1, 1), date(9999, 12, 31), None],
        "few": [[0.5, -1.0], [far / 1e299, 0.0], None],
        "many": [[0.1, 1e300], [-far, 5e-324], None],
    }
    found = write(backend, OUTPUTS, values)
    half = list(OUTPUTS).index("half")
    shown = [(*row[:half], single(row[half]), *row[half + 1 :]) for row in found]
    assert shown == list(zip(*values.values(), strict=True))


def single(value: float | None) -> float | None:
    """The 32-bit float nearest to what a driver read from the shortest text for it."""
    return None if value is None else float(np.float32(value))


def test_the_last_bit_of_floats(backend: Backend) -> None:
    backend.numbers("t", 1)
    real = [0.1, -0.0, 5e-324, 2.2250738585072014e-308, None, 1 / 3, math.inf, -math.inf, math.nan]
    if backend.can.not_finite == "refused":
        real = [0.0 if value == 0 else value for value in real[:-3]]  # nor has it a negative zero
    half = [single(value) for value in real]
    found = write(backend, {"real": "float64", "half": "float32"}, {"real": real, "half": half})
    for (in_double, in_single), double, wanted in zip(found, real, half, strict=True):
        if backend.is_sqlite and double is not None and (math.isnan(double) or double == 0):
            continue  # it has neither NaN, which becomes NULL, nor a negative zero
        assert repr(in_double) == repr(double)
        assert repr(single(in_single)) == repr(wanted)
    if backend.is_sqlite:
        assert found[-1] == (None, None)


TEXTS = [
    "", " ", "NULL", "null", "\\N", "\\.", "a\n\\.\nb", '"', '""', "'", ",", "a,b", "\n", "\r",
    "\r\n", "\t", "\\", "\\\\", "%", "%s", ":x", "$1", "ä", "日本", "😀", "\u2028", "\ufeff",
    "\x01", "\x7f", "x" * 1_000_000, '"' * 1000, None,
]  # fmt: skip


def test_texts_of_all_kinds(backend: Backend) -> None:
    """Nothing in them is taken for the end, a delimiter, a quote or a NULL of the COPY format."""
    backend.numbers("t", 1)
    found = write(backend, {"label": "string"}, {"label": TEXTS})
    assert [row[0] for row in found] == TEXTS


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(
        st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        min_size=1,
    )
)
def test_any_texts(backend: Backend, texts: list[str | None]) -> None:
    inspector = sa.inspect(backend.engine)
    if not inspector.has_table("t"):
        backend.numbers("t", 1)
    found = write(backend, {"label": "string"}, {"label": texts})
    assert [row[0] for row in found] == texts


def test_a_text_that_postgres_cannot_hold(postgres_backend: Backend) -> None:
    postgres_backend.numbers("t", 1)
    with pytest.raises(StatementFailed, match=r"(?i)nul|0x00"):
        write(postgres_backend, {"label": "string"}, {"label": ["fine", "a\0b"]})
    assert postgres_backend.rows("SELECT count(*) FROM scores_runs") == [(0,)]
    assert postgres_backend.rows("SELECT rows_written FROM nightshift_shards") == [(0,)]


def test_a_number_that_sqlite_cannot_hold(lite: Backend) -> None:
    lite.numbers("t", 1)
    with pytest.raises(StatementFailed, match="too large"):
        write(lite, {"huge": "uint64"}, {"huge": [2**64 - 1]})
    assert lite.rows("SELECT count(*) FROM scores_runs") == [(0,)]


# --- what is there already ----------------------------------------------------------------------


def create(backend: Backend, key: str | tuple[str, ...] = "id", **options: Any) -> None:
    backend.predictions(backend.source(key, table="t"), **options).create()


def keep(backend: Backend) -> list[tuple[Any, ...]]:
    """What tables and views there are."""
    if backend.is_sqlite:
        return backend.rows("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
    if backend.is_postgres:
        return backend.rows(
            "SELECT relkind, relname, relnatts FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace ORDER BY 1, 2"
        )
    place = "database()" if backend.is_mysql else "'main'"
    return backend.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        f" WHERE table_schema = {place} ORDER BY 1, 2"
    )


@pytest.mark.parametrize(
    "taken",
    [
        "CREATE TABLE scores (id int)",
        "CREATE VIEW scores AS SELECT * FROM t",
        "CREATE VIEW scores AS SELECT id, x AS prediction, 1 AS model_version, 1 AS run_id,"
        " 1 AS scored_at FROM t",
        "CREATE TABLE scores_runs (id int)",
        "CREATE TABLE scores_runs (run_id bigint, id bigint, prediction double precision)",
        "CREATE TABLE scores_runs (run_id bigint NOT NULL, id bigint NOT NULL, prediction text,"
        " PRIMARY KEY (run_id, id))",
        "CREATE TABLE scores_runs (run_id bigint NOT NULL, id bigint NOT NULL,"
        " prediction double precision NOT NULL, PRIMARY KEY (run_id, id))",
        "CREATE TABLE scores_runs (run_id bigint NOT NULL, id bigint NOT NULL,"
        " prediction double precision, more int, PRIMARY KEY (run_id, id))",
        "CREATE TABLE scores_runs (run_id bigint NOT NULL, id bigint NOT NULL,"
        " prediction double precision, PRIMARY KEY (run_id))",
        "CREATE TABLE scores_runs (run_id bigint NOT NULL, id bigint NOT NULL,"
        " prediction double precision[], PRIMARY KEY (run_id, id))",
        "CREATE TABLE scores_runs (run_id bigint NOT NULL, id bigint NOT NULL,"
        " prediction real, PRIMARY KEY (run_id, id))",
    ],
)
def test_a_foreign_table_is_left_alone(backend: Backend, taken: str) -> None:
    if (backend.is_sqlite or backend.is_mysql) and "precision[]" in taken:
        taken = taken.replace("double precision[]", "json")
    if backend.is_mysql:  # where a REAL is a DOUBLE
        taken = taken.replace(" real", " float")
    backend.numbers("t", 1)
    backend.execute(taken)
    before = keep(backend)
    with pytest.raises(TargetMismatch) as caught:
        create(backend)
    assert caught.value.target == "scores"
    assert keep(backend) == before


def test_a_materialized_view_too(fast: Backend) -> None:
    fast.numbers("t", 1)
    fast.execute("CREATE MATERIALIZED VIEW scores AS SELECT * FROM t")
    with pytest.raises(TargetMismatch, match="not Nightshift's"):
        create(fast)


def test_the_source_as_target(backend: Backend) -> None:
    backend.numbers("t", 1)
    with pytest.raises(TargetMismatch, match="not Nightshift's"):
        create(backend, target="t")
    assert backend.rows("SELECT count(*) FROM t") == [(1,)]


def test_a_half_made_target_is_completed(backend: Backend) -> None:
    """Killed after the table and before the view."""
    backend.numbers("t", 3)
    create(backend)
    backend.execute("DROP VIEW scores")
    create(backend)
    predictions = backend.predictions(backend.source(table="t"))
    backend.score(predictions, request_of())
    assert len(backend.view()) == 3


def test_a_view_that_was_replaced(backend: Backend) -> None:
    backend.numbers("t", 1)
    create(backend)
    backend.execute("DROP VIEW scores", "CREATE VIEW scores AS SELECT id, x AS prediction FROM t")
    with pytest.raises(TargetMismatch, match="not Nightshift's"):
        create(backend)


def test_a_view_that_another_worker_makes_while_one_looks(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.numbers("t", 1)
    create(backend)
    predictions = backend.predictions(backend.source(table="t"))
    looks = iter([False])
    really = predictions._is_view
    monkeypatch.setattr(
        predictions, "_is_view", lambda: next(looks, None) is not False and really()
    )
    predictions.create()


def test_a_view_whose_table_is_gone(backend: Backend) -> None:
    backend.numbers("t", 1)
    if backend.is_sqlite:
        create(backend)
        backend.execute("DROP TABLE scores_runs")
    else:
        backend.execute("CREATE VIEW scores AS SELECT 1 AS id")
    with pytest.raises(TargetMismatch, match="not Nightshift's"):
        create(backend)


def test_a_model_with_other_outputs(backend: Backend) -> None:
    backend.numbers("t", 1)
    create(backend, outputs={"prediction": "float32"})
    create(backend, outputs={"prediction": "float32"})
    for other, text in (
        ({"prediction": "string"}, r"prediction is \w+ there, not string"),
        ({"prediction": "int64"}, r"prediction is \w+ there, not integer"),
        ({"score": "float32"}, "missing columns: score; unexpected columns: prediction"),
        ({"prediction": "float32", "score": "float32"}, "missing columns: score$"),
        ({"prediction": "float32[]"}, r"prediction is \w+ there, not "),
    ):
        with pytest.raises(TargetMismatch, match="target of its own") as caught:
            create(backend, outputs=other)
        assert "scores_runs" in caught.value.problem
        assert re.search(text, caught.value.problem)
    if (
        backend.is_postgres or backend.is_duckdb
    ):  # where a REAL has 32 bits, a wider one would lose the rest unnoticed
        with pytest.raises(TargetMismatch, match="prediction"):
            create(backend, outputs={"prediction": "float64"})


def test_a_job_with_another_key(backend: Backend) -> None:
    columns = [
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("code", sa.Text, unique=True, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("x", sa.Double),
    ]
    backend.table("t", columns)
    create(backend)
    for other, text in (
        (
            "code",
            r"code; unexpected columns: id; its key is \(run_id, id\), not \(run_id, code\)",
        ),
        (
            ("id", "code"),
            r"missing columns: code; its key is \(run_id, id\), not \(run_id, id, code\)",
        ),
    ):
        with pytest.raises(TargetMismatch, match=text):
            create(backend, other)
    with pytest.raises(TargetMismatch, match="partition_time"):
        backend.predictions(backend.source(table="t", time_column="at")).create()


def test_a_time_key_that_got_a_zone(postgres_backend: Backend) -> None:
    backend = postgres_backend
    backend.execute("CREATE TABLE t (id timestamp PRIMARY KEY, x float8)")
    create(backend)
    backend.execute("ALTER TABLE t ALTER id TYPE timestamptz")
    with pytest.raises(TargetMismatch, match="id is timestamp without time zone there, not"):
        create(backend)


def test_names_longer_than_the_database_keeps(postgres_backend: Backend) -> None:
    """It would cut them, and two that differ at their ends would be one."""
    backend = postgres_backend
    backend.numbers("t", 1)
    before = keep(backend)
    for target, output in (("x" * 59, "y"), ("ä" * 30, "y"), ("x", "y" * 64), ("x", "日" * 22)):
        with pytest.raises(TargetMismatch, match="longer than the 63 bytes"):
            create(backend, target=target, outputs={output: "float64"})
    assert keep(backend) == before
    for target, output in (("x" * 58, "y" * 63), ("ä" * 29, "日" * 21)):
        create(backend, target=target, outputs={output: "float64"}, index_key=True)
        create(backend, target=target, outputs={output: "float64"}, index_key=True)


def test_names_that_differ_in_case_only(lite: Backend) -> None:
    lite.numbers("t", 1)
    with pytest.raises(StatementFailed, match="duplicate column name"):
        create(lite, outputs={"ID": "float64"})
    assert "t" in {row[1] for row in keep(lite)}
    assert not lite.rows("SELECT * FROM sqlite_master WHERE name LIKE 'nightshift%'")


def test_the_index_on_the_key_alone(backend: Backend) -> None:
    backend.numbers("t", 1)
    create(backend, index_key=True)
    indexes = sa.inspect(backend.engine).get_indexes("scores_runs")
    assert [index["column_names"] for index in indexes] == [["id"]]


def test_a_schema_that_is_not_there(fast: Backend) -> None:
    fast.numbers("t", 1)
    predictions = fast.predictions(fast.source(table="t"), ledger=fast.ledger(schema="nowhere"))
    with pytest.raises(StatementFailed, match=r"to create the ledger's tables.*nowhere"):
        predictions.create()


def test_a_user_who_may_not_create(fast: Backend) -> None:
    fast.numbers("t", 1)
    role = f"reader_{fast.engine.url.database}"
    fast.execute(f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON t TO {role}")
    engine = open_engine(fast.engine.url.set(username=role))
    reader = Backend("fast", engine, fast.source_class, fast.predictions_class)
    try:
        with pytest.raises(StatementFailed, match="permission denied"):
            create(reader)
        assert len(reader.read(reader.source(table="t"))) == 1
    finally:
        engine.dispose()
        fast.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
