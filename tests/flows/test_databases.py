"""The command line over each database: from nothing but a file to predictions, and back again."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from mariadb import mariadb_server  # noqa: F401 - a fixture
from nightshift.adapters.database.engine import open_engine
from project import Project

DAY = datetime(2024, 3, 1)  # noqa: DTZ001 - the column has no zone
ROWS = 300

Nightshift = Callable[..., object]
Place = Callable[[str], str]


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A new, empty database of the kind: its URL."""
    with ExitStack() as opened:

        def url_of(kind: str) -> str:
            if kind == "mariadb":
                server: sa.URL = request.getfixturevalue("mariadb_server")
                engine = open_engine(server)
                opened.callback(engine.dispose)
                with engine.connect() as connection:
                    connection.exec_driver_sql("DROP DATABASE IF EXISTS flows")
                    connection.exec_driver_sql("CREATE DATABASE flows")
                return server.set(database="flows").render_as_string()
            return f"{kind}:///{tmp_path / f'data.{kind}'}"

        yield url_of


@pytest.fixture
def use(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Read orders in the one database, keep their predictions in the other."""
    with ExitStack() as opened:

        def set_up(source: str, target: str) -> None:
            monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", target)
            if source != target:
                monkeypatch.setenv("NIGHTSHIFT_DATABASE__SOURCE_URL", source)
            _fill(source)
            project.engine = open_engine(target)
            opened.callback(project.engine.dispose)
            project.register()

        yield set_up


def _fill(url: str) -> None:
    """Orders of three days."""
    engine = open_engine(url)
    orders = sa.Table(
        "orders",
        sa.MetaData(),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("placed_at", sa.DateTime, nullable=False),
        sa.Column("x", sa.Double),
    )
    orders.create(engine)
    step = timedelta(days=3) / ROWS
    rows = [{"id": i, "placed_at": DAY + i * step, "x": i / 7} for i in range(ROWS)]
    with engine.begin() as connection:
        connection.execute(sa.insert(orders), rows)
    engine.dispose()


def read(project: Project) -> dict[int, float]:
    """What readers see; then no process holds the file any longer."""
    seen = project.scores()
    project.engine.dispose()
    return {id_: value for id_, value in seen.items() if value is not None}


def test_nothing_but_a_file(
    project: Project, nightshift: Nightshift, place: Place, use: Callable[[str, str], None]
) -> None:
    url = place("sqlite")
    use(url, url)
    nightshift("run", "orders", "--partition", "2024-03-01")
    assert read(project) == {i: 2 * (i / 7) for i in range(100)}
    nightshift("run", "orders", "--partition", "2024-03-01")
    assert len(read(project)) == 100
    nightshift("doctor")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sqlite", "sqlite"),
        ("duckdb", "duckdb"),
        ("mariadb", "mariadb"),
        ("mariadb", "duckdb"),
        ("duckdb", "mariadb"),
    ],
)
def test_every_command(
    project: Project,
    nightshift: Nightshift,
    place: Place,
    use: Callable[[str, str], None],
    source: str,
    target: str,
) -> None:
    from_url = place(source)
    use(from_url, from_url if source == target else place(target))
    project.write_job(actuals={"table": "truth", "column": "y"}, keep=1)
    with project.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE truth (id bigint PRIMARY KEY, y float)")
        connection.exec_driver_sql("INSERT INTO truth VALUES (1, 0.5), (2, 1.5)")
    project.engine.dispose()
    nightshift("run", "orders", "--partition", "2024-03-01")
    nightshift("backfill", "orders", "--from", "2024-03-01", "--to", "2024-03-03")
    assert read(project) == {i: 2 * (i / 7) for i in range(ROWS)}
    nightshift("run", "orders", "--partition", "2024-03-01")
    runs = json.loads(nightshift("runs", "--json").stdout)  # type: ignore[attr-defined]
    assert [(run["run_id"], run["state"]) for run in runs] == [
        (4, "published"), (3, "published"), (2, "published"), (1, "superseded"),
    ]  # fmt: skip
    reason = ["--reason", "to see whether it goes"]
    nightshift("runs", "rollback", "orders", "2024-03-01", *reason)
    assert "readers see it" in nightshift("explain", "orders", "--key", "5").stdout  # type: ignore[attr-defined]
    assert "rollback" in nightshift("history", "orders").stdout  # type: ignore[attr-defined]
    assert "2024-03-0" in nightshift("evaluate", "orders").stdout  # type: ignore[attr-defined]
    for command in (["metrics"], ["report", "1"], ["clean", "orders"], ["doctor"]):
        nightshift(*command)
    assert read(project) == {i: 2 * (i / 7) for i in range(ROWS)}
