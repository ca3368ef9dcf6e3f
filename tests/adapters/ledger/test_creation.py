"""A worker that is cut off while it makes the ledger, on a database that keeps half of it."""

import itertools
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from lanes import Lane
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import DatabaseUnavailable
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.migrations import HEAD, version
from wire import Wire


@pytest.mark.heavy
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_cut_off_while_it_made_the_ledger(maria: Lane, when: str) -> None:
    """At each third message to the server: it never arrives, or nobody hears of it."""
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
        assert version(maria.engine, None) == HEAD
        if not wire.cuts:
            break
    assert turn > 20


def drop_all(maria: Lane) -> None:
    metadata = sa.MetaData()
    metadata.reflect(maria.engine)
    metadata.drop_all(maria.engine)


def described(lane: Lane) -> dict[str, object]:
    """The ledger's tables as the database has them."""
    metadata = sa.MetaData()
    metadata.reflect(lane.engine)
    return {
        name: (
            sorted(column.name for column in table.columns),
            # Not by their names: a foreign key brings one of its own, if it was there first.
            sorted([column.name for column in index.columns] for index in table.indexes),
        )
        for name, table in metadata.tables.items()
    }
