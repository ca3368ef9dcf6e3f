"""A load that commits while a run begins: its rows are read, or the old ones, never none."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa

from backends import Backend, sign
from nightshift.adapters.errors import (
    DatabaseUnavailable,
    KeyNotUnique,
    RowWithoutTime,
    SnapshotEnded,
    SourceReplaced,
)
from nightshift.adapters.source import locking
from nightshift.adapters.source.columns import ALL_KEYS
from nightshift.adapters.source.source import Source
from waiting import eventually

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
NEW = {1: 10.0, 2: 20.0, 3: 30.0}


@pytest.fixture(autouse=True)
def few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_PATIENCE", 20.0)


def read(source: Source, kind: str = "float64") -> tuple[int, dict[int, Any]]:
    """What is counted, and what is read."""
    with source.snapshot(sign({"x": kind}), None, None) as snapshot:
        chunks = list(snapshot.chunks(ALL_KEYS, 2))
        rows = [row for chunk in chunks for row in chunk.to_pylist()]
        return snapshot.count(), {row["id"]: row["x"] for row in rows}


@contextmanager
def beginning(backend: Backend, run: Callable[[], Any], *load: str) -> Iterator[Future[Any]]:
    """`run` waits for the transaction of `load`, which then commits."""
    with ThreadPoolExecutor(1) as pool:
        with backend.engine.begin() as connection:
            for statement in load:
                connection.exec_driver_sql(statement)
            running = pool.submit(run)
            eventually(lambda: backend.rows(WAITING) != [(0,)] or running.done(), 20)
        yield running


VALUES = "VALUES (1, 10.0), (2, 20.0), (3, 30.0)"
LOADS = {
    "truncate and insert": ("TRUNCATE t", f"INSERT INTO t {VALUES}"),
    "a rewrite": ("UPDATE t SET x = id * 10", "ALTER TABLE t ALTER y TYPE bigint"),
    "another table of that name": (
        "CREATE TABLE other (id bigint PRIMARY KEY, x float8 NOT NULL)",
        f"INSERT INTO other {VALUES}",
        "ALTER TABLE t RENAME TO old",
        "ALTER TABLE other RENAME TO t",
    ),
    "drop and create": (
        "DROP TABLE t CASCADE",
        "CREATE TABLE t (id bigint PRIMARY KEY, x float8 NOT NULL)",
        f"INSERT INTO t {VALUES}",
        "CREATE VIEW behind AS SELECT id, x FROM t",
    ),
    "another view of that name": (
        "CREATE TABLE other (id bigint PRIMARY KEY, x float8 NOT NULL)",
        f"INSERT INTO other {VALUES}",
        "CREATE OR REPLACE VIEW behind AS SELECT * FROM other",
        "TRUNCATE t",
        f"INSERT INTO t {VALUES}",
    ),
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("spec", ["table", "query of a view"])
def test_a_load_that_commits_while_a_run_begins(fast: Backend, load: str, spec: str) -> None:
    fast.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, x float8 NOT NULL, y int)",
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
        "CREATE VIEW behind AS SELECT id, x FROM t",
    )
    source = fast.source(**({"table": "t"} if spec == "table" else {"query": "TABLE behind"}))
    source.check(sign())  # it knows its columns, as it does in a run
    with beginning(fast, lambda: read(source), *LOADS[load]) as running:
        old = load == "another table of that name" and spec != "table"  # the view has the old one
        assert running.result(60) == (3, {1: 1, 2: 2, 3: 3} if old else NEW)


def test_partitions_and_materialized_views_too(fast: Backend) -> None:
    fast.execute(
        "CREATE TABLE p (id bigint PRIMARY KEY, x float8 NOT NULL) PARTITION BY RANGE (id)",
        "CREATE TABLE now PARTITION OF p FOR VALUES FROM (0) TO (10)",
        "INSERT INTO p VALUES (1, 1), (2, 2), (3, 3)",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM p",
    )
    source = fast.source(query="SELECT p.id, m.x FROM p JOIN m USING (id)")
    source.check(sign())
    load = (
        "CREATE TABLE next (LIKE p)",
        f"INSERT INTO next {VALUES}",
        "ALTER TABLE p DETACH PARTITION now",
        "ALTER TABLE p ATTACH PARTITION next FOR VALUES FROM (0) TO (10)",
        "REFRESH MATERIALIZED VIEW m",
    )
    with beginning(fast, lambda: read(source), *load) as running:
        assert running.result(60) == (3, NEW)


def test_a_partition_that_is_emptied_by_itself(fast: Backend) -> None:
    fast.execute(
        "CREATE TABLE p (id bigint PRIMARY KEY, x float8 NOT NULL) PARTITION BY RANGE (id)",
        "CREATE TABLE first PARTITION OF p FOR VALUES FROM (0) TO (10)",
        "INSERT INTO p VALUES (1, 1), (2, 2), (3, 3)",
    )
    source = fast.source(table="p")
    with beginning(
        fast, lambda: read(source), "TRUNCATE first", f"INSERT INTO p {VALUES}"
    ) as running:
        assert running.result(60) == (3, NEW)


def test_nothing_can_be_emptied_between_the_snapshot_and_its_end(fast: Backend) -> None:
    fast.numbers("t", 5)
    fast.execute("CREATE VIEW behind AS SELECT * FROM t")
    for spec in ({"table": "t"}, {"query": "SELECT * FROM behind"}):
        with fast.source(**spec).snapshot(sign(), None, None):
            for statement in ("TRUNCATE t", "ALTER TABLE t RENAME TO u", "DROP VIEW behind"):
                with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                    fast.execute("SET LOCAL lock_timeout = '50ms'", statement)
                if spec == {"table": "t"}:
                    break


def test_a_worker_holds_the_locks_when_its_coordinator_is_gone(fast: Backend) -> None:
    fast.numbers("t", 5)
    source, worker = fast.source(table="t"), fast.source(table="t")
    with source.snapshot(sign(), None, None) as snapshot:
        joining = worker.snapshot(sign(), None, None, snapshot.snapshot_id())
        joined = joining.__enter__()
    with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
        fast.execute("SET LOCAL lock_timeout = '50ms'", "TRUNCATE t")
    assert joined.count() == 5
    joining.__exit__(None, None, None)


def test_a_snapshot_whose_coordinator_is_gone(fast: Backend) -> None:
    fast.numbers("t", 5)
    source = fast.source(table="t")
    with source.snapshot(sign(), None, None) as snapshot:
        gone = snapshot.snapshot_id()
    with (
        pytest.raises(SnapshotEnded, match="the run's coordinator has ended"),
        source.snapshot(sign(), None, None, gone),
    ):
        pass


def test_a_change_that_waits_for_the_run_goes_first(fast: Backend) -> None:
    """The second connection would wait behind it for as long as the first one holds its lock."""
    fast.numbers("t", 3)
    source = fast.source(table="t")
    with ThreadPoolExecutor(1) as pool, source.snapshot(sign(), None, None) as snapshot:
        change = pool.submit(fast.execute, "ALTER TABLE t ADD y int")
        eventually(lambda: fast.rows(WAITING) != [(0,)], 20)
        started = monotonic()
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            list(snapshot.chunks(ALL_KEYS, 2))
        assert monotonic() - started < 20
        assert not change.done()
        assert snapshot.count() == 3
    change.result(20)


def test_a_table_that_only_a_function_reads(fast: Backend) -> None:
    """Planning does not see it; but what it has become is seen before anything is published."""
    fast.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY)",
        "INSERT INTO t VALUES (1), (2), (3)",
        "CREATE TABLE u (id bigint PRIMARY KEY, x float8)",
        f"INSERT INTO u {VALUES}",
        "CREATE FUNCTION x_of(bigint) RETURNS float8 LANGUAGE plpgsql STABLE AS"
        " 'BEGIN RETURN (SELECT x FROM u WHERE id = $1); END'",
    )
    source = fast.source(query="SELECT id, x_of(id) AS x FROM t")
    assert read(source) == (3, NEW)
    with source.snapshot(sign(), None, None) as snapshot:
        fast.execute("TRUNCATE u", f"INSERT INTO u {VALUES}")
        with pytest.raises(SourceReplaced, match="u was emptied"):
            list(snapshot.chunks(ALL_KEYS, 2))


def test_maintenance_is_no_change(fast: Backend) -> None:
    fast.numbers("t", 5)
    source = fast.source(table="t")
    with source.snapshot(sign(), None, None) as snapshot:
        with fast.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            other.exec_driver_sql("VACUUM ANALYZE t")
        assert sum(chunk.num_rows for chunk in snapshot.chunks(ALL_KEYS, 2)) == 5


def test_not_null_that_is_not_validated(fast: Backend) -> None:
    fast.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, x float8, at timestamptz)",
        "INSERT INTO t VALUES (1, 1, NULL), (2, 2, now())",
        "ALTER TABLE t ADD CONSTRAINT timed NOT NULL at NOT VALID",
        "CREATE TABLE k (id bigint UNIQUE, x float8)",
        "INSERT INTO k VALUES (NULL, 1)",
        "ALTER TABLE k ADD CONSTRAINT keyed NOT NULL id NOT VALID",
    )
    with pytest.raises(RowWithoutTime):
        read(fast.source(table="t", time_column="at"))
    with pytest.raises(KeyNotUnique, match="may be NULL"):
        fast.source(table="k").check(sign())
    fast.execute("DELETE FROM t WHERE at IS NULL", "ALTER TABLE t VALIDATE CONSTRAINT timed")
    source = fast.source(table="t", time_column="at")
    assert not source.columns["at"].nullable
    assert read(source) == (1, {2: 2.0})


@pytest.mark.parametrize(
    "load",
    [
        (
            "CREATE TABLE other LIKE t",
            f"INSERT INTO other {VALUES}",
            "RENAME TABLE t TO old, other TO t",
        ),
        ("TRUNCATE t", f"INSERT INTO t {VALUES}"),
        ("ALTER TABLE t MODIFY x DOUBLE NOT NULL DEFAULT 7", "UPDATE t SET x = id * 10"),
    ],
    ids=["another table of that name", "truncate and insert", "a rewrite"],
)
def test_what_maria_changes_while_a_run_reads_waits_for_it(
    maria: Backend, load: tuple[str, ...]
) -> None:
    """Its changes of tables are not part of a transaction: each waits, or was there before."""
    maria.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, x double NOT NULL)",
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
    )
    source = maria.source(query="SELECT id, x FROM t")
    with ThreadPoolExecutor(1) as pool, source.snapshot(sign(), None, None) as snapshot:
        running = pool.submit(maria.execute, *load)
        eventually(lambda: "metadata lock" in str(maria.rows("SHOW PROCESSLIST")), 20)
        assert not running.done()
        assert snapshot.count() == 3
        rows = [row for chunk in snapshot.chunks(ALL_KEYS, 2) for row in chunk.to_pylist()]
        assert {row["id"]: row["x"] for row in rows} == {1: 1.0, 2: 2.0, 3: 3.0}
    running.result(20)
    assert read(source) == (3, NEW)
