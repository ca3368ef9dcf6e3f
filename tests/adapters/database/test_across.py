"""A source in one database, its predictions in another: keys and times mean the same in both."""

from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
import sqlalchemy as sa

from backends import Backend, request_of, sign

QUICK = {("lite", "fast"), ("fast", "lite")}
PAIRS = [
    pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.heavy, id="-to-".join(pair))
    for pair in permutations(("fast", "lite", "maria", "duck"), 2)
]
MOMENT = datetime(2013, 10, 1, 5, 0, 0, 1)  # noqa: DTZ001
INSTANT = MOMENT.replace(tzinfo=UTC)
UUID_TEXT = "0a000000-0000-0000-0000-00000000000f"


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_keys_of_the_kinds_that_all_have(
    request: pytest.FixtureRequest, source: str, target: str
) -> None:
    here: Backend = request.getfixturevalue(source)
    there: Backend = request.getfixturevalue(target)
    kinds = [sa.BigInteger(), sa.Text(), sa.Boolean(), sa.Date(), sa.DateTime()]
    columns = [sa.Column(f"k{n}", kind, primary_key=True) for n, kind in enumerate(kinds)]
    keys = [(2**40 + n, "a'ä ", True, date(2013, 10, 1), MOMENT) for n in range(3)]
    rows = [{**{f"k{n}": value for n, value in enumerate(key)}, "x": 0.5} for key in keys]
    names = tuple(column.name for column in columns)
    here.table("mixed", [*columns, sa.Column("x", sa.Double)], rows)
    read = here.source(names, table="mixed")
    read.check(sign())
    predictions = there.predictions(read, "mixed_scores", index_key=True)
    predictions.create()
    predictions.create()
    there.score(predictions, request_of(job="mixed", target="mixed_scores"), rows=2)
    shown = [sa.column(column.name, column.type) for column in predictions.rows.c[1:]]
    select = sa.select(*shown).select_from(sa.table("mixed_scores")).order_by(shown[0])
    with there.engine.connect() as connection:
        found = connection.execute(select).all()
    assert [tuple(row) for row in found] == [(*key, 0.5) for key in keys]


# What one database has and others spell otherwise: SQL type -> SQL literal, what readers get.
OWN: dict[str, dict[str, tuple[str, Any]]] = {
    "fast": {
        "numeric": ("12345678901234567890.5", "12345678901234567890.5"),
        "numeric(10,2)": ("1.50", "1.50"),
        "uuid": (f"'{UUID_TEXT}'", UUID_TEXT),
        "timestamptz": ("'2013-10-01 05:00:00.000001+00'", INSTANT),
        "char(3)": ("'a'", "a  "),
        "smallint": ("-7", -7),
    },
    "maria": {
        "bigint unsigned": ("9223372036854775807", 2**63 - 1),
        "decimal(30,5)": ("1234567890123456789012345.50000", "1234567890123456789012345.50000"),
        "uuid": (f"'{UUID_TEXT}'", UUID_TEXT),
        "timestamp(6)": ("'2013-10-01 05:00:00.000001'", INSTANT),
        "boolean": ("true", 1),
        "year": ("2013", 2013),
    },
    "duck": {
        "ubigint": ("9223372036854775807", 2**63 - 1),
        "hugeint": ("1" + "0" * 30, "1" + "0" * 30),
        "decimal(20,5)": ("1.5", "1.50000"),
        "uuid": (f"'{UUID_TEXT}'", UUID_TEXT),
        "timestamptz": ("'2013-10-01 05:00:00.000001+00'", INSTANT),
        "utinyint": ("255", 255),
    },
}


@pytest.mark.heavy
@pytest.mark.parametrize("source", OWN)
@pytest.mark.parametrize("target", ["fast", "lite", "maria", "duck"])
def test_keys_of_its_own_kinds(request: pytest.FixtureRequest, source: str, target: str) -> None:
    here: Backend = request.getfixturevalue(source)
    there: Backend = request.getfixturevalue(target)
    for number, (kind, (literal, wanted)) in enumerate(OWN[source].items()):
        name = f"t{number}"
        here.execute(
            f"CREATE TABLE {name} (k {kind} PRIMARY KEY, x double precision)",
            f"INSERT INTO {name} VALUES ({literal}, 0.5)",
        )
        read = here.source("k", table=name)
        read.check(sign())
        for _ in range(2):  # what was made once is there the second time
            predictions = there.predictions(read, f"{name}_scores")
            predictions.create()
        request = request_of(job=name, target=f"{name}_scores")
        run = there.score(predictions, request, publish=False)
        assert there.ledger().begin(request, run.owner).rows == 1
        with there.engine.connect() as connection:
            (found,) = connection.execute(sa.select(predictions.rows.c.k)).scalars()
        if isinstance(wanted, str) and isinstance(found, Decimal):
            wanted = Decimal(wanted)
        assert found == wanted, f"{kind}: {found!r}"


@pytest.mark.heavy
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_partitions_by_a_time(request: pytest.FixtureRequest, source: str, target: str) -> None:
    here: Backend = request.getfixturevalue(source)
    there: Backend = request.getfixturevalue(target)
    columns = [
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("placed", sa.DateTime, nullable=False),
        sa.Column("x", sa.Double),
    ]
    times = [datetime(2013, 10, day, hour) for day in (1, 2, 3) for hour in (0, 23)]  # noqa: DTZ001
    rows = [{"id": id_, "placed": time, "x": id_ / 2} for id_, time in enumerate(times)]
    here.table("t", columns, rows)
    read = here.source(table="t", time_column="placed", timezone="America/New_York")
    predictions = there.predictions(read)
    predictions.create()
    for day in (1, 2, 3):
        start, end = (datetime(2013, 10, day + n, 4, tzinfo=UTC) for n in (0, 1))
        there.score(predictions, request_of(str(day), start, end), rows=1)
        assert len(there.view()) == 2 * day
    assert there.view() == {id_: id_ / 2 for id_ in range(6)}
