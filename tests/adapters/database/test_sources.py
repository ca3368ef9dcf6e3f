"""A source's file is read: it is not made, not changed, and others read it at the same time."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from backends import sign
from nightshift.adapters.backends.registry import source_class
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import NightshiftError
from nightshift.adapters.source.columns import ALL_KEYS
from nightshift.adapters.source.relation import SourceSpec

CREATE = "CREATE TABLE t (id BIGINT PRIMARY KEY, x DOUBLE)"
INSERT = "INSERT INTO t VALUES (1, 1.0), (2, 2.0)"


def rows_of(url: str) -> int:
    engine = open_engine(url, source=True)
    try:
        source = source_class(engine)(engine, SourceSpec(key=("id",), table="t"))
        source.check(sign())
        with source.snapshot(sign(), None, None) as snapshot:
            return sum(chunk.num_rows for chunk in snapshot.chunks(ALL_KEYS, 10))
    finally:
        engine.dispose()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_keeps_its_mode(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "a b%20#.db"
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute(CREATE)
    connection.execute(INSERT)
    connection.commit()
    connection.close()
    before = file.read_bytes()
    file.chmod(0o444)
    assert rows_of(f"sqlite:///{file}") == 2
    assert file.read_bytes() == before
    if mode == "delete":  # in WAL mode, every reader has two files next to it
        assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_source_that_is_not_there_is_not_made(tmp_path: Path, kind: str) -> None:
    with pytest.raises(NightshiftError):
        rows_of(f"{kind}:///{tmp_path / 'none.db'}")
    assert not list(tmp_path.iterdir())


def test_duckdb_is_read_alongside_another_reader(tmp_path: Path) -> None:
    file = tmp_path / "a.duckdb"
    with duckdb.connect(file) as connection:
        connection.execute(CREATE)
        connection.execute(INSERT)
    file.chmod(0o444)
    other = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print(); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", other, file], **pipes) as reader:  # type: ignore[call-overload]
        assert reader.stdout.readline() == b"\n"
        assert rows_of(f"duckdb:///{file}") == 2
        reader.communicate(b"\n")
