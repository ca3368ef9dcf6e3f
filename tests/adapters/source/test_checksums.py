"""A chunk's digest: the same rows, and only they, have it; and what it is for, in every backend."""

import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from backends import Backend, request_of, sign
from nightshift.adapters.source.checksums import digest
from nightshift.flows.scoring.resuming import is_unchanged

NOTHING = pa.table({})

VALUES: dict[pa.DataType, list[Any]] = {
    pa.int16(): [1, -2, 3],
    pa.uint64(): [1, 2**63, 3],
    pa.string(): ["a", "", "ü \0"],
    pa.bool_(): [True, False, True],
    pa.date32(): [date(2024, 2, 29), date(1, 1, 1), date(9999, 12, 31)],
    pa.timestamp("us", "UTC"): [datetime(2024, 2, 29, h, tzinfo=UTC) for h in range(3)],
    pa.decimal128(20, 3): [Decimal("1.000"), Decimal("-2.5"), Decimal("3.125")],
}


def named(values: Any) -> str:
    return digest(pa.table({"key": values}), NOTHING)


def given_to_the_model(values: Any) -> str:
    return digest(NOTHING, pa.table({"x": values}))


@pytest.mark.parametrize("kind", VALUES, ids=str)
@pytest.mark.parametrize("of", [named, given_to_the_model])
def test_the_same_values_however_they_lie(kind: pa.DataType, of: Callable[[Any], str]) -> None:
    for values in (pa.array(VALUES[kind], kind), pa.array([*VALUES[kind][:2], None], kind)):
        whole = of(values)
        parts = pa.chunked_array([values.slice(0, 1), values.slice(1)])
        longer = pa.concat_arrays([values.slice(2), values]).slice(1)
        assert whole == of(parts) == of(longer)
        assert len(whole) == 32
        assert whole != of(values.take(pa.array([1, 0, 2])))
        assert whole != of(values.slice(0, 2))
        assert whole != of(values.take(pa.array([0, None, 2])))


def test_what_lies_beneath_a_null_does_not_matter() -> None:
    valid = pa.array([True, False]).buffers()[1]
    ones, twos = (
        pa.Array.from_buffers(pa.float64(), 2, [valid, pa.array([1.0, beneath]).buffers()[1]])
        for beneath in (1.0, 2.0)
    )
    assert ones.to_pylist() == twos.to_pylist() == [1.0, None]
    assert given_to_the_model(ones) == given_to_the_model(twos)
    assert given_to_the_model(ones) != given_to_the_model(pa.array([1.0, 0.0]))


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_other_texts(one: list[str], other: list[str]) -> None:
    tables = [pa.array(texts, pa.string()) for texts in (one, other)]
    assert (named(tables[0]) == named(tables[1])) == (one == other)


def test_no_rows() -> None:
    assert named(pa.chunked_array([], pa.int64())) == digest(NOTHING, NOTHING)


KEYS: dict[str, tuple[Any, list[Any]]] = {
    "number": (sa.BigInteger(), list(range(10))),
    "text": (sa.String(20), [f"key {i}" for i in range(10)]),
    "uuid": (sa.Uuid(), [uuid.UUID(int=i) for i in range(10)]),
    "time": (sa.DateTime(), [datetime(2024, 3, 1, i) for i in range(10)]),  # noqa: DTZ001
}


@pytest.mark.parametrize("kind", KEYS)
def test_rows_that_a_run_is_done_with(backend: Backend, kind: str) -> None:
    """It may go on if they are the same; not if one came, went, changed or was exchanged."""
    sql, keys = KEYS[kind]
    columns = [sa.Column("id", sql, primary_key=True), sa.Column("x", sa.Double)]
    table = backend.table("t", columns, [{"id": key, "x": 0.5} for key in keys if key != keys[1]])
    predictions = backend.predictions(backend.source(table="t"))
    predictions.create()
    ledger, source = predictions.ledger, predictions.source
    run = ledger.begin(request_of(), "elsewhere:1:a")
    for number, chunk in enumerate(backend.read(source, rows=3)[:2]):
        rows = chunk.select(source.kept_columns)
        scored = rows.append_column("prediction", pa.array([0.5] * chunk.num_rows))
        seen = digest(rows, chunk.select(["x"]))
        predictions.write(run, number, scored, checksum=seen)

    def may_go_on() -> bool:
        with source.snapshot(sign(), None, None) as snapshot:
            return is_unchanged(ledger, source, snapshot, run.run_id, 3, ["x"])

    def execute(*statements: Any) -> None:
        with backend.engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    assert may_go_on()
    beyond = table.update().where(table.c.id == keys[8]).values(x=7.0)
    execute(beyond, table.delete().where(table.c.id == keys[9]))
    assert may_go_on()
    for x in (7.0, None):
        execute(table.update().where(table.c.id == keys[0]).values(x=x))
        assert not may_go_on()
    execute(table.update().where(table.c.id == keys[0]).values(x=0.5))
    assert may_go_on()
    execute(table.insert().values(id=keys[1], x=0.5))
    assert not may_go_on()
    execute(table.delete().where(table.c.id == keys[2]))
    assert not may_go_on()  # as many as before
    execute(table.delete().where(table.c.id == keys[1]), table.insert().values(id=keys[2], x=0.5))
    assert may_go_on()
    execute(table.delete().where(table.c.id == keys[5]))
    assert not may_go_on()
