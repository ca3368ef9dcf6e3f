"""A source query: the user's own SELECT, read-only, with the partition's bounds as parameters."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.dialects import postgresql

from backends import Backend, sign
from nightshift.adapters.errors import ColumnNotFound, DatabaseError, KeyNotUnique, StatementFailed
from nightshift.adapters.source.user_query import bound_query

DIALECT = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
DAY = datetime(2013, 10, 1, tzinfo=UTC), datetime(2013, 10, 2, tzinfo=UTC)


def text_of(query: str) -> str:
    """The query as the database would get it, parameters as `%(name)s`."""
    return bound_query(query, None, None, DIALECT).compile(dialect=DIALECT).string


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("SELECT 1 ; ;\n", "SELECT 1"),
        ("SELECT 1 -- one", "SELECT 1"),
        ("SELECT 1; -- one; :partition_start", "SELECT 1"),
        ("SELECT 1 /* ; */ ; /* :x */", "SELECT 1"),
        ("SELECT a -- :a\n, b", "SELECT a  \n, b"),
        ("SELECT '--', \"--\", '/*'", "SELECT '--', \"--\", '/*'"),
        ("SELECT ';:partition_start'", "SELECT ';:partition_start'"),
        ("SELECT 'it''s; :x' || E'\\';:y'", "SELECT 'it''s; :x' || E'\\';:y'"),
        ("SELECT $$;:x'$$, $a$;:x'$$$a$", "SELECT $$;:x'$$, $a$;:x'$$$a$"),
        ("SELECT x::int, a[1:2], a[:n], j @? '$.a ? (@ > :v)'",) * 2,
        ("SELECT '\\:x', '\\\\:y' , a:b",) * 2,
        ("SELECT ':partition_end', \":partition_end\"",) * 2,
        ("SELECT a % 2, '50%' LIKE '%'", "SELECT a %% 2, '50%%' LIKE '%%'"),
        ("SELECT :partition_started, x:partition_start",) * 2,
    ],
)
def test_what_is_and_is_not_syntax(query: str, expected: str) -> None:
    assert text_of(query) == expected


def test_its_parameters() -> None:
    for query, names in (
        ("SELECT 1", set()),
        ("SELECT :partition_start::date", {"partition_start"}),
        ("SELECT (:partition_start),:partition_end", {"partition_start", "partition_end"}),
        ("SELECT x BETWEEN :partition_start AND :partition_start", {"partition_start"}),
    ):
        assert set(bound_query(query, *DAY, DIALECT).compile().params) == names


@pytest.fixture
def events(fast: Backend) -> Backend:
    """Events e: ten rows an hour apart from midnight, 2013-10-01, UTC."""
    fast.execute(
        "CREATE TABLE e (id int, at timestamptz, x float8, label text)",
        "INSERT INTO e SELECT g, timestamptz '2013-10-01 00:00+00' + 3 * g * interval '1 hour', g,"
        " '50%%' FROM generate_series(0, 9) g",
    )
    return fast


def ids(backend: Backend, query: str, bounded: bool = True, **spec: str) -> list[int]:
    source = backend.source(query=query, **spec)
    source.check(sign())
    start, end = DAY if bounded else (None, None)
    chunks = backend.read(source, start=start, end=end, rows=3)
    return [number for chunk in chunks for number in chunk.column("id").to_pylist()]


def test_queries_of_all_kinds(events: Backend) -> None:
    for query in (
        "SELECT id, x FROM e",
        "select * from e;",
        "SELECT id, x FROM e -- all of them",
        "/* all */ SELECT id, x FROM e; -- done;",
        "WITH w AS (SELECT id, x FROM e) SELECT * FROM w",
        "SELECT id, x FROM e WHERE label = '50%' AND label LIKE '%\\%' AND id % 11 >= 0",
        "SELECT id::bigint, (x::text)::float8 AS x FROM e ORDER BY x DESC",
        "SELECT id, x FROM e UNION ALL SELECT id, x FROM e WHERE false",
        "SELECT id, x FROM e LIMIT 1000",
        "SELECT id, sum(x) AS x FROM e GROUP BY id",
        "SELECT id, x, ':nothing' AS y, (ARRAY[1, 2, 3])[1:2] AS z FROM e",
    ):
        assert ids(events, query) == list(range(10)), query


def test_the_partition_in_the_query(events: Backend) -> None:
    bounded = "SELECT id, x FROM e WHERE at >= :partition_start AND at < :partition_end"
    assert ids(events, bounded) == list(range(8))
    assert ids(events, bounded, bounded=False) == list(range(10))
    assert ids(events, "SELECT id, x FROM e WHERE at < :partition_start") == []
    assert ids(events, "SELECT id, x, at FROM e", time_column="at") == list(range(8))
    both = "SELECT id, x, at FROM e WHERE at > :partition_start -- not midnight, :partition_end"
    assert ids(events, both, time_column="at") == list(range(1, 8))
    dated = "SELECT id, x FROM e WHERE at::date = (:partition_start AT TIME ZONE 'UTC')::date"
    assert ids(events, dated) == list(range(8))


def test_a_query_resumes(events: Backend) -> None:
    source = events.source(query="SELECT id, x FROM e WHERE at < :partition_end;")
    for after in range(-1, 9):
        chunks = events.read(source, start=DAY[0], end=DAY[1], after=(after,), rows=3)
        found = [number for chunk in chunks for number in chunk.column("id").to_pylist()]
        assert found == list(range(after + 1, 8))


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM e",
        "DELETE FROM e RETURNING id, x",
        "WITH w AS (DELETE FROM e RETURNING id, x) SELECT * FROM w",
        "SELECT id, x FROM e; DELETE FROM e",
        "SELECT id, x FROM e; DELETE FROM e; --",
        "SELECT id, x FROM e) AS source; DELETE FROM e; SELECT id FROM (SELECT 1 AS id",
        "SELECT id, x FROM e) AS source; COMMIT; DELETE FROM e; --",
        "SELECT id, x FROM e; COMMIT; DELETE FROM e; SELECT 1 AS id, 1 AS x",
        "SELECT spoil() AS x, id FROM e",
        "SELECT id, x FROM e WHERE spoil() > 0",
        "SELECT id, x, nextval('counter') FROM e",
        "SELECT id, x FROM e FOR UPDATE",
        "SELECT id, x, set_config('transaction_read_only', 'off', false), spoil() FROM e",
        "SELECT 1 AS id, 1 AS x INTO stolen",
        "COPY e TO PROGRAM 'true'",
        "TRUNCATE e",
        "UPDATE e SET x = 0",
        "SELECT lo_create(4711)::int AS id, 1.0::float8 AS x",
    ],
)
def test_a_query_cannot_write(events: Backend, query: str) -> None:
    events.execute(
        "CREATE SEQUENCE counter",
        "CREATE FUNCTION spoil() RETURNS float8 LANGUAGE sql"
        " AS 'DELETE FROM e; SELECT 1.0::float8'",
    )
    with pytest.raises(StatementFailed, match=r"The database refused to (describe|read)") as caught:
        ids(events, query)
    assert "source query" in str(caught.value)
    assert events.rows("SELECT count(*), sum(x) FROM e") == [(10, 45.0)]
    assert events.rows("SELECT is_called FROM counter") == [(False,)]
    assert events.rows("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("", "syntax error"),
        ("-- nothing", "syntax error"),
        ("SELEC id, x FROM e", "syntax error"),
        ("SELECT id, x FROM nowhere", "does not exist"),
        ("SELECT id, y FROM e", "does not exist"),
        ("SELECT id, x FROM e WHERE id = :day", "syntax error"),
        ("SELECT id, x FROM e WHERE label = 'open", "unterminated"),
        ("SELECT id, 1/(id - 5) AS x FROM e", "division by zero"),
        ("SELECT id, x, id FROM e", "ambiguous"),
    ],
)
def test_a_query_that_is_wrong(events: Backend, query: str, problem: str) -> None:
    with pytest.raises(StatementFailed, match=problem):
        ids(events, query)


def test_a_query_without_the_columns(events: Backend) -> None:
    with pytest.raises(
        ColumnNotFound, match=r"The source query has no column 'id'|the source query"
    ):
        ids(events, "SELECT x FROM e")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT id / 2 AS id, x FROM e", r"\(\d\) appears twice"),
        ("SELECT nullif(id, 3) AS id, x FROM e", r"\(None\) is NULL"),
        ("SELECT id, x FROM e UNION ALL SELECT 9, 9", r"\(9\) appears twice"),
    ],
)
def test_a_query_whose_key_is_none(events: Backend, query: str, problem: str) -> None:
    with pytest.raises(KeyNotUnique, match=problem) as caught:
        ids(events, query, bounded=False)
    assert caught.value.source == "the source query"
    assert "name other key columns" in str(caught.value)


def test_its_key_is_looked_at_in_the_partition_only(events: Backend) -> None:
    query = "SELECT id % 8 AS id, x, at FROM e"
    assert ids(events, query, time_column="at") == list(range(8))
    with pytest.raises(KeyNotUnique, match="appears twice"):
        ids(events, query, bounded=False, time_column="at")


def test_every_error_is_ours(events: Backend) -> None:
    for query in ("SELECT", ")", "(", "'", '"', "$$", "/*", "\\", ";", "SELECT * FROM e)", "%s"):
        with pytest.raises(DatabaseError):
            ids(events, query)
