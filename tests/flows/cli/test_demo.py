"""`nightshift demo`: what a newcomer sees first, and what it must not change."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from command import Nightshift
from nightshift.adapters.database.embedded import start_embedded
from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.cli import demo
from project import Project

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Nothing but the settings. Not in pytest's folder, which the server must not enter."""
    with tempfile.TemporaryDirectory(prefix="nightshift-demo-") as path:
        shutil.copytree(ROOT / "config", Path(path, "config"))
        yield Path(path)


@pytest.mark.heavy
def test_it_runs_twice_without_a_warning(folder: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NIGHTSHIFT_", "PREFECT_"))}
    command = [sys.executable, "-c", "from nightshift.flows.cli.main import main; main()", "demo"]
    printed = []
    for _ in range(2):
        done = subprocess.run(
            command, cwd=folder, env=kept | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        for word in ("Traceback", "Warning", "WARNING", "ERROR"):
            assert word not in done.stdout
        assert "336,776 rows in flight_delay_predictions" in done.stdout
        printed.append(done.stdout)
    assert "Loaded 336,776 real flights of 2013" in printed[0]
    assert "registered as arrival_delay@1, signed" in printed[0]
    assert "are already in the table flights" in printed[1]
    assert "arrival_delay@1 is already in the store" in printed[1]
    engine = sa.create_engine(start_embedded(folder / ".nightshift" / "postgres"))
    with engine.connect() as connection:
        counted = "SELECT count(*), count(DISTINCT flight_id) FROM flight_delay_predictions"
        assert connection.execute(sa.text(counted)).one() == (336_776, 336_776)
    engine.dispose()
    for step in _next_steps(printed[1]):
        done = subprocess.run(
            ["/bin/sh", "-c", step],
            cwd=folder,
            env=kept,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, (step, done.stdout + done.stderr)


def _next_steps(text: str) -> Iterator[str]:
    """The commands that the demo ends with, as they are printed, each in a shell of its own."""
    lines = text.partition("What next")[2].splitlines()
    commands = [line.split("  ")[1] for line in lines if line.startswith("  ") and "  " in line[2:]]
    assert commands[-1] == "nightshift up"  # which runs until Ctrl-C
    activate = f"{commands.pop(0)}; " if commands[0].startswith(". ") else ""
    assert len(commands) == 4
    yield from (activate + command for command in commands[:-1])


def test_a_table_of_ones_own_is_left_alone(project: Project, nightshift: Nightshift) -> None:
    project.write_job("flight_delays")
    project.sql("CREATE TABLE flights AS SELECT 1 AS mine")
    error = nightshift("demo", code=2).stderr
    assert "the demo did not create the table flights, which has 1 rows" in error
    assert project.sql("SELECT mine FROM flights") == [(1,)]
    assert project.store.models() == []


def test_what_it_made_it_may_make_again(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    few = demo._flights().head(2)
    monkeypatch.setattr(demo, "_flights", lambda: few)
    with engine.begin() as connection:
        for _ in range(2):
            assert "Loaded 2 real flights" in demo._load_flights(connection)
        connection.exec_driver_sql("COMMENT ON TABLE flights IS NULL")
        with pytest.raises(ConfigurationError, match="Rename or drop it"):
            demo._load_flights(connection)
        assert connection.exec_driver_sql("SELECT count(*) FROM flights").scalar() == 2
        monkeypatch.setattr(demo, "ROWS", 2)
        assert "already" in demo._load_flights(connection)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("URL", "sqlite:///demo.db", "needs PostgreSQL, not sqlite"),
        ("SCHEMA", "mine", "needs its tables in one place"),
    ],
)
def test_another_place_is_refused_at_once(
    project: Project,
    nightshift: Nightshift,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    says: str,
) -> None:
    project.write_job("flight_delays")
    monkeypatch.setenv(f"NIGHTSHIFT_DATABASE__{variable}", value)
    error = nightshift("demo", code=2).stderr
    assert says in error
    assert "NIGHTSHIFT_DATABASE__URL=embedded" in error
