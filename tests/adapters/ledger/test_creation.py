"""The ledger is created once, by many workers or after one was killed, or it is refused."""

import itertools
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backends import Backend
from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import (
    DatabaseError,
    DatabaseUnavailable,
    LedgerIncompatible,
    StatementFailed,
)
from nightshift.adapters.ledger import creation
from nightshift.adapters.ledger.creation import VERSION
from nightshift.adapters.ledger.ledger import Ledger
from wire import Wire

BACKENDS = ("fast", "lite")  # of PostgreSQL, the ledger is the same in both
WORKERS = 6
VERSION_TABLE = "nightshift_schema_version"
TABLES = 10


def described(backend: Backend, schema: str | None = None) -> dict[str, Any]:
    """The ledger's tables as the database has them."""
    inspector = sa.inspect(backend.engine)
    return {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"])
                for column in inspector.get_columns(table, schema)
            ],
            "key": inspector.get_pk_constraint(table, schema)["constrained_columns"],
            "unique": sorted(
                str(found["column_names"])
                for found in inspector.get_unique_constraints(table, schema)
            ),
            # Not by name: MariaDB names a foreign key's own index, if that was there first.
            "indexes": sorted(
                [name or "" for name in found["column_names"]]
                for found in inspector.get_indexes(table, schema)
            ),
            "foreign": sorted(
                (key["constrained_columns"], key["referred_table"])
                for key in inspector.get_foreign_keys(table, schema)
            ),
        }
        for table in inspector.get_table_names(schema)
        if table.startswith("nightshift_")
    }


def versions(backend: Backend) -> Sequence[tuple[Any, ...]]:
    return backend.rows(f"SELECT * FROM {VERSION_TABLE}")


def test_in_a_schema_of_its_own(fast: Backend) -> None:
    fast.execute('CREATE SCHEMA "my schema"')
    ledger = fast.ledger(schema="my schema")
    assert not ledger.exists()
    ledger.create()
    assert ledger.exists()
    assert not fast.ledger().exists()
    assert len(described(fast, "my schema")) == TABLES
    assert described(fast) == {}


def test_a_ledger_that_is_there_costs_one_select(backend: Backend) -> None:
    ledger = backend.ledger()
    assert not ledger.exists()
    ledger.create()
    assert len(described(backend)) == TABLES
    said: list[str] = []
    sa.event.listen(
        backend.engine, "before_cursor_execute", lambda *given: said.append(given[2]), named=False
    )
    ledger.create()
    assert ledger.exists()
    said = [statement for statement in said if not statement.startswith(("BEGIN", "PRAGMA", "SET"))]
    assert len(said) == 2
    assert all(VERSION_TABLE in statement for statement in said)


@pytest.mark.parametrize("backend", ["fast", "lite", "maria"], indirect=True)
def test_many_workers_at_once(backend: Backend) -> None:
    barrier = threading.Barrier(WORKERS)

    def work(_: int) -> None:
        barrier.wait(30)
        backend.ledger().create()

    with ThreadPoolExecutor(WORKERS) as threads:
        list(threads.map(work, range(WORKERS)))
    assert versions(backend) == [(VERSION,)]
    assert len(described(backend)) == TABLES


# --- killed while it creates --------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["fast", "lite", "duck"], indirect=True)
def test_a_creation_that_fails_changes_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(creation, "_add_indexes", fail)
        with pytest.raises(KeyboardInterrupt):
            creation._create_ledger(backend.engine, backend.ledger().tables)
    assert described(backend) == {}
    backend.ledger().create()
    assert len(described(backend)) == TABLES


@pytest.mark.parametrize("backend", ["maria"], indirect=True)
@pytest.mark.parametrize("left_out", ["nightshift_publication_changes", "nightshift_chunks"])
def test_the_next_worker_completes_it(backend: Backend, left_out: str) -> None:
    """On a database that keeps half of it."""
    backend.ledger().create()
    wanted = described(backend)
    backend.execute(f"DROP TABLE {left_out}", f"DELETE FROM {VERSION_TABLE}")
    assert not backend.ledger().exists()
    backend.ledger().create()
    assert described(backend) == wanted
    assert versions(backend) == [(VERSION,)]


@pytest.mark.heavy
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_cut_off_while_it_made_the_ledger(maria: Backend, when: str) -> None:
    """At each third message to the server: it never arrives, or its answer does not."""
    maria.ledger().create()
    wanted = described(maria)
    socket = Path(str(maria.engine.url.query["unix_socket"]))
    for turn in itertools.count(step=3):
        drop_all(maria)
        with tempfile.TemporaryDirectory(prefix="wire-") as folder:
            wire = Wire(Path(folder), socket)
            there = {"unix_socket": f"{folder}/{socket.name}"}
            engine = open_engine(maria.engine.url.update_query_dict(there))
            wire.cut = lambda number, _, turn=turn: when if number == turn else None  # type: ignore[misc]
            try:
                Ledger(engine).create()
            except DatabaseUnavailable:
                assert wire.cuts
            finally:
                engine.dispose()
                wire.stop()
        maria.ledger().create()
        assert described(maria) == wanted
        assert versions(maria) == [(VERSION,)]
        if not wire.cuts:
            break
    assert turn > 20


def drop_all(maria: Backend) -> None:
    metadata = sa.MetaData()
    metadata.reflect(maria.engine)
    metadata.drop_all(maria.engine)


@pytest.mark.parametrize("backend", ["maria"], indirect=True)
def test_another_worker_that_does_not_end(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "_PATIENCE", 0)
    refusal = pytest.raises(DatabaseUnavailable, match="another process has held the lock")
    alone = capabilities(backend.engine.dialect).exclusive
    with backend.engine.connect() as other, alone(other, f"{VERSION_TABLE} ", 0), refusal:
        backend.ledger().create()
    backend.ledger().create()


# --- refused ------------------------------------------------------------------------------------


def refused(ledger: Ledger, text: str) -> None:
    for step in (ledger.create, ledger.exists):
        with pytest.raises(LedgerIncompatible, match=text) as caught:
            step()
        assert "hunter2" not in str(caught.value)


def test_a_ledger_without_a_version(backend: Backend) -> None:
    backend.ledger().create()
    backend.execute(f"DROP TABLE {VERSION_TABLE}")
    refused(backend.ledger(), "its tables have no version. Drop its tables")
    assert not sa.inspect(backend.engine).has_table(VERSION_TABLE)


@pytest.mark.parametrize(
    ("found", "remedy"),
    [(VERSION + 98, "pip install --upgrade nightshift-batch"), (VERSION - 1, "Drop its tables")],
)
def test_a_ledger_of_another_version(backend: Backend, found: int, remedy: str) -> None:
    backend.ledger().create()
    before = described(backend)
    backend.execute(f"UPDATE {VERSION_TABLE} SET version = {found}")
    refused(
        backend.ledger(), f"version {found}, and this Nightshift works with {VERSION}.*{remedy}"
    )
    assert described(backend) == before


def test_no_ledger(backend: Backend) -> None:
    assert not backend.ledger().exists()
    assert issubclass(LedgerIncompatible, DatabaseError)


def test_a_version_that_cannot_be_read(fast: Backend) -> None:
    """Another error than a missing table is passed on."""
    fast.ledger().create()
    fast.execute(f"ALTER TABLE {VERSION_TABLE} RENAME version TO other")
    with pytest.raises(StatementFailed, match="version"):
        fast.ledger().exists()
