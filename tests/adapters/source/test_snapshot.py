"""One moment: what others do to the table after the snapshot has started is not in it."""

from contextlib import closing

import pyarrow as pa
import pytest
import sqlalchemy as sa

from backends import Backend, sign
from nightshift.adapters.source.columns import ALL_KEYS, KeyRange
from nightshift.adapters.source.snapshot import StreamedSnapshot
from nightshift.adapters.source.source import Source
from waiting import eventually


def disturb(backend: Backend) -> None:
    """Insert, change and delete rows before and behind the reader, from another connection."""
    backend.execute(
        "INSERT INTO t (id, x) VALUES (-1, 0), (1, 0), (101, 0), (1000, 0)",
        "UPDATE t SET x = -1 WHERE id IN (0, 2, 50, 98)",
        "DELETE FROM t WHERE id IN (4, 52, 96)",
        "UPDATE t SET id = 2001 WHERE id = 94",
    )


def rows_of(chunks: list[pa.Table]) -> dict[int, float]:
    return {row["id"]: row["x"] for chunk in chunks for row in chunk.to_pylist()}


def test_what_others_do_is_not_seen(backend: Backend) -> None:
    before = {2 * number: float(number) for number in range(50)}
    backend.numbers("t", 50, step=2)
    source = backend.source(table="t")
    with source.snapshot(sign(), None, None) as snapshot:
        assert snapshot.count() == 50
        disturb(backend)
        assert snapshot.count() == 50
        assert snapshot.count(KeyRange((49,))) == 25
        assert rows_of(list(snapshot.chunks(ALL_KEYS, 7))) == before
        assert rows_of(list(snapshot.chunks(KeyRange((49,)), 7))) == {
            k: v for k, v in before.items() if k > 49
        }
    after = rows_of(backend.read(source))
    assert after != before
    assert len(after) == 50 + 4 - 3


def test_nor_between_chunks(backend: Backend) -> None:
    backend.numbers("t", 50, step=2)
    source = backend.source(table="t")
    with source.snapshot(sign(), None, None) as snapshot:
        expected = snapshot.count()
        chunks = snapshot.chunks(ALL_KEYS, 10)
        read = [next(chunks)]
        disturb(backend)
        read.extend(chunks)
        assert sum(chunk.num_rows for chunk in read) == expected
        assert rows_of(read) == {2 * number: float(number) for number in range(50)}


def test_a_table_dropped_during_the_read_is_read_to_its_end_or_not_at_all(fast: Backend) -> None:
    """A writer that wants the whole table waits for the reader."""
    fast.numbers("t", 50)
    with fast.source(table="t").snapshot(sign(), None, None) as snapshot:
        chunks = snapshot.chunks(ALL_KEYS, 10)
        read = [next(chunks)]
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            fast.execute("SET LOCAL lock_timeout = '100ms'", "TRUNCATE t")
        read.extend(chunks)
    assert len(rows_of(read)) == 50


def test_a_query_sees_one_moment_too(fast: Backend) -> None:
    fast.numbers("t", 50, step=2)
    source = fast.source(query="SELECT id, (SELECT sum(x) FROM t) AS x FROM t WHERE id >= 0")
    with source.snapshot(sign(), None, None) as snapshot:
        assert snapshot.count() == 50
        disturb(fast)
        read = rows_of(list(snapshot.chunks(ALL_KEYS, 7)))
    assert read == {2 * number: 1225 / 2 * 2 for number in range(50)}


def break_off(source: Source, error: Exception | None = None) -> None:
    """Read one chunk, and fail."""
    with (
        source.snapshot(sign(), None, None) as snapshot,
        closing(snapshot.chunks(ALL_KEYS, 1)) as all_,
    ):
        next(all_)
        raise error or ZeroDivisionError


def test_a_half_read_snapshot_leaves_nothing_open(backend: Backend) -> None:
    backend.numbers("t", 50)
    source = backend.source(table="t")
    for _ in range(3):
        with source.snapshot(sign(), None, None) as snapshot:
            next(snapshot.chunks(ALL_KEYS, 10))
        with pytest.raises(ZeroDivisionError):
            break_off(source)
    assert backend.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    if backend.is_postgres:
        open_now = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        idle = f"{open_now} AND state LIKE 'idle in%%'"
        eventually(lambda: backend.rows(idle) == [(0,)])  # a process of the server ends in a moment


def test_a_server_that_ends_idle_transactions_does_not_end_the_snapshot(fast: Backend) -> None:
    fast.numbers("t", 50)
    name = fast.engine.url.database
    fast.execute(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '50ms'")
    fast.engine.dispose()
    with fast.source(table="t").snapshot(sign(), None, None) as snapshot:
        with fast.engine.connect() as other:
            other.exec_driver_sql("SELECT pg_sleep(0.2)")
        assert snapshot.count() == 50
        assert len(rows_of(list(snapshot.chunks(ALL_KEYS, 7)))) == 50


def test_a_snapshot_cannot_write(backend: Backend) -> None:
    """Whatever is in a source query, or in a function that it calls."""
    backend.numbers("t", 3)
    with backend.source(table="t").snapshot(sign(), None, None) as snapshot:
        assert isinstance(snapshot, StreamedSnapshot)
        with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.?only"):
            snapshot._connection.exec_driver_sql("DELETE FROM t")
    backend.execute("UPDATE t SET x = 7")  # on the same connection, back from the pool
    assert backend.rows("SELECT DISTINCT x FROM t") == [(7.0,)]


def test_errors_of_its_user_pass_unchanged(backend: Backend) -> None:
    backend.numbers("t", 3)
    for error in (OSError("mine"), sa.exc.OperationalError("mine", {}, Exception()), KeyError("x")):
        with pytest.raises(type(error)) as caught:
            break_off(backend.source(table="t"), error)
        assert caught.value is error
