"""The ledger's versions: made once, migrated from each release, or refused."""

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lanes import Lane, request_of
from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.errors import (
    DatabaseError,
    DatabaseUnavailable,
    LedgerIncompatible,
    StatementFailed,
)
from nightshift.adapters.ledger import migrations
from nightshift.adapters.ledger.backfills import Backfills
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.migrations import HEAD, VERSIONS, bring_up_to_date, version

LANES = ("fast", "lite")  # of PostgreSQL, the ledger is the same in both
WORKERS = 6


def described(lane: Lane, schema: str | None = None) -> dict[str, Any]:
    """The ledger's tables as the database has them."""
    inspector = sa.inspect(lane.engine)
    tables = {}
    for table in inspector.get_table_names(schema):
        if not table.startswith(migrations.PREFIX) or table == VERSIONS:
            continue
        indexes = inspector.get_indexes(table, schema)
        tables[table] = {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"])
                for column in inspector.get_columns(table, schema)
            ],
            "key": inspector.get_pk_constraint(table, schema)["constrained_columns"],
            "unique": sorted(
                str(found["column_names"])
                for found in inspector.get_unique_constraints(table, schema)
            ),
            "indexes": sorted((index["name"] or "", index["column_names"]) for index in indexes),
            "foreign": sorted(
                (key["constrained_columns"], key["referred_table"])
                for key in inspector.get_foreign_keys(table, schema)
            ),
        }
    return tables


def declared(lane: Lane) -> dict[str, Any]:
    """The tables as schema.py and backfills.py declare them, made for a moment."""
    made = make(lane)
    found = described(lane)
    for table in reversed(made.sorted_tables):  # at once, DuckDB does not see that it may
        table.drop(lane.engine)
    return found


def make(lane: Lane) -> sa.MetaData:
    ledger = lane.ledger()
    Backfills(ledger)
    ledger.tables.metadata.create_all(lane.engine)
    return ledger.tables.metadata


def test_the_migrations_make_what_is_declared(lane: Lane) -> None:
    wanted = declared(lane)
    lane.ledger().create()
    assert described(lane) == wanted
    assert len(wanted) == 9


def test_in_a_schema_of_its_own(fast: Lane) -> None:
    fast.execute('CREATE SCHEMA "my schema"')
    ledger = fast.ledger(schema="my schema")
    assert not ledger.exists()
    ledger.create()
    assert ledger.exists()
    assert not fast.ledger().exists()
    assert len(described(fast, "my schema")) == 9
    assert described(fast) == {}
    assert version(fast.engine, "my schema") == HEAD


def test_a_ledger_that_is_current_costs_one_select(lane: Lane) -> None:
    ledger = lane.ledger()
    ledger.create()
    said: list[str] = []
    sa.event.listen(
        lane.engine, "before_cursor_execute", lambda *given: said.append(given[2]), named=False
    )
    ledger.create()
    assert ledger.exists()
    said = [statement for statement in said if not statement.startswith(("BEGIN", "PRAGMA"))]
    assert len(said) == 2
    assert all(VERSIONS in statement for statement in said)


_WITHOUT_ALEMBIC = """
import sys
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.ledger.ledger import Ledger

engine = open_engine(sys.argv[1])
Ledger(engine).create()
engine.dispose()
print([name for name in sys.modules if name.partition(".")[0] in ("alembic", "mako")])
"""


def test_a_ledger_that_is_current_does_not_import_alembic(lane: Lane) -> None:
    lane.ledger().create()
    lane.engine.dispose()
    url = lane.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", _WITHOUT_ALEMBIC, url]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_head_is_the_last_version() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [HEAD]
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == [f"{n:04}" for n in range(len(numbers), 0, -1)]


# --- versions to come ---------------------------------------------------------------------------

_NEXT = '''
"""As a version to come may be."""
import sqlalchemy as sa
from alembic import op

from nightshift.adapters.ledger.migrations.steps import add_column

revision, down_revision = "0002", "0001"


def upgrade():
    schema = op.get_context().version_table_schema
    add_column("nightshift_runs", sa.Column("mood", sa.String(20)))
    runs = sa.table("nightshift_runs", sa.column("mood"), schema=schema)
    op.execute(runs.update().values(mood="calm"))
    {more}
'''


@pytest.fixture
def to_come(tmp_path: Path) -> Path:
    return next_version(tmp_path / "migrations", "pass")


def next_version(folder: Path, more: str) -> Path:
    shutil.copytree(Path(migrations.__file__).parent, folder)
    (folder / "versions" / "v0002_mood.py").write_text(_NEXT.format(more=more))
    return folder


def test_a_ledger_is_migrated_with_what_it_holds(lane: Lane, to_come: Path) -> None:
    ledger = lane.ledger()
    ledger.create()
    ledger.begin(request_of(), "elsewhere:1:a")
    bring_up_to_date(lane.engine, None, to_come, "0002")
    assert lane.rows("SELECT mood, state FROM nightshift_runs") == [("calm", "running")]
    assert version(lane.engine, None) == "0002"
    bring_up_to_date(lane.engine, None, to_come, "0002")


def test_a_new_ledger_goes_through_all_versions(lane: Lane, to_come: Path) -> None:
    bring_up_to_date(lane.engine, None, to_come, "0002")
    assert lane.rows("SELECT mood FROM nightshift_runs") == []


@pytest.mark.parametrize("lane", ["fast", "lite", "maria"], indirect=True)
@pytest.mark.parametrize("made", [True, False])
def test_many_workers_at_once(lane: Lane, to_come: Path, made: bool) -> None:
    """Each migrates, or makes, the ledger; it happens once."""
    if made:
        lane.ledger().create()
    barrier = threading.Barrier(WORKERS)

    def work(_: int) -> None:
        barrier.wait(30)
        bring_up_to_date(lane.engine, None, to_come, "0002")

    with ThreadPoolExecutor(WORKERS) as threads:
        list(threads.map(work, range(WORKERS)))
    assert lane.rows(f"SELECT * FROM {VERSIONS}") == [("0002",)]
    assert lane.rows("SELECT mood FROM nightshift_runs") == []


@pytest.mark.parametrize("lane", ["fast", "lite", "duck"], indirect=True)
def test_a_migration_that_fails_changes_nothing(lane: Lane, tmp_path: Path) -> None:
    ledger = lane.ledger()
    ledger.create()
    ledger.begin(request_of(), "elsewhere:1:a")
    before = described(lane)
    broken = next_version(tmp_path / "broken", 'op.execute("SELECT * FROM nowhere")')
    with pytest.raises(sa.exc.DBAPIError, match="nowhere"):
        bring_up_to_date(lane.engine, None, broken, "0002")
    assert described(lane) == before
    assert version(lane.engine, None) == HEAD
    ledger.create()
    bring_up_to_date(lane.engine, None, next_version(tmp_path / "mended", "pass"), "0002")


@pytest.mark.parametrize("lane", ["maria"], indirect=True)
def test_a_migration_that_fails_is_run_again(lane: Lane, tmp_path: Path) -> None:
    """On a database that keeps half of it."""
    lane.ledger().create()
    broken = next_version(tmp_path / "broken", 'op.execute("SELECT * FROM nowhere")')
    for _ in range(2):
        with pytest.raises(sa.exc.DBAPIError, match="nowhere"):
            bring_up_to_date(lane.engine, None, broken, "0002")
        assert version(lane.engine, None) == HEAD
    bring_up_to_date(lane.engine, None, next_version(tmp_path / "mended", "pass"), "0002")
    assert version(lane.engine, None) == "0002"


@pytest.mark.parametrize("lane", ["maria"], indirect=True)
def test_another_worker_that_does_not_end(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_PATIENCE", 0)
    refusal = pytest.raises(DatabaseUnavailable, match="another process has held the lock")
    lock = capabilities(lane.engine.dialect).exclusive
    with lane.engine.connect() as other, lock(other, f"{VERSIONS} ", 0), refusal:
        lane.ledger().create()
    lane.ledger().create()


@pytest.mark.parametrize("lane", ["maria"], indirect=True)
@pytest.mark.parametrize("left_out", ["nightshift_publication_changes", "nightshift_chunks"])
def test_a_worker_killed_while_it_made_the_ledger(lane: Lane, left_out: str) -> None:
    """On a database that keeps half of it."""
    lane.ledger().create()
    wanted = described(lane)
    lane.execute(f"DROP TABLE {left_out}", f"DELETE FROM {VERSIONS}")
    assert not lane.ledger().exists()
    lane.ledger().create()
    assert described(lane) == wanted
    assert version(lane.engine, None) == HEAD


# --- refused ------------------------------------------------------------------------------------


def refused(ledger: Ledger, text: str) -> None:
    for step in (ledger.create, ledger.exists):
        with pytest.raises(LedgerIncompatible, match=text) as caught:
            step()
        assert "hunter2" not in str(caught.value)


def test_a_ledger_from_before_the_first_release(lane: Lane) -> None:
    make(lane)
    lane.execute("DROP TABLE nightshift_shards")
    refused(lane.ledger(), "before its first release. Drop its tables")
    assert sa.inspect(lane.engine).has_table("nightshift_runs")
    assert not sa.inspect(lane.engine).has_table(VERSIONS)


@pytest.mark.parametrize("found", ["0099", "f00"])
def test_a_ledger_of_a_newer_version(lane: Lane, found: str) -> None:
    lane.ledger().create()
    before = described(lane)
    lane.execute(f"UPDATE {VERSIONS} SET version_num = '{found}'")
    refused(lane.ledger(), f"version {found}, newer than {HEAD}.*pip install --upgrade nightshift")
    assert described(lane) == before


def test_a_ledger_of_an_older_version_is_not_read(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only reads does not change it."""
    lane.ledger().create()
    monkeypatch.setattr(migrations, "HEAD", "0002")
    says = r"version 0001, .* works with 0002\. The next run"
    with pytest.raises(LedgerIncompatible, match=says):
        lane.ledger().exists()


def test_no_ledger(lane: Lane) -> None:
    assert not lane.ledger().exists()
    assert version(lane.engine, None) is None
    assert issubclass(LedgerIncompatible, DatabaseError)


def test_a_version_that_may_not_be_read(fast: Lane) -> None:
    """Another answer than that there is none is passed on."""
    fast.ledger().create()
    fast.execute(f"ALTER TABLE {VERSIONS} RENAME version_num TO other")
    with pytest.raises(StatementFailed, match="version_num"):
        fast.ledger().exists()
