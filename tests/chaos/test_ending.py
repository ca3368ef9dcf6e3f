"""Whatever ends the suite, what it has started ends with it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

psutil = pytest.importorskip("psutil")

from tests.chaos.leftover_processes import end_all, find_processes  # noqa: E402

from served import eventually  # noqa: E402


@pytest.fixture
def folder() -> Iterator[Path]:
    """For all that the suite writes; short, as sockets' paths must be."""
    made = Path(tempfile.mkdtemp(prefix="ends-"))
    yield made
    end_all(made)
    shutil.rmtree(made, ignore_errors=True)


def began(folder: Path, *arguments: str, until: str) -> "subprocess.Popen[bytes]":
    """The suite, at the moment at which a process runs with this among its arguments."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", *arguments],
        env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    eventually(lambda: runs(folder, until), 240)
    return process


def runs(folder: Path, argument: str) -> bool:
    for process in find_processes(folder):
        with suppress(psutil.Error):
            if argument in process.cmdline():
                return True
    return False


@pytest.mark.heavy
def test_ctrl_c_leaves_nothing(folder: Path) -> None:
    """A terminal tells all processes of it; servers of Prefect and its flows are in sessions of
    their own.
    """
    serves = ("--only", "flow run of `serve` cancelled", "--trial", "0")
    process = began(folder, *serves, until="serve")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    assert not find_processes(folder)
    # The embedded PostgreSQL's package locks a file of its own.
    assert {path.name for path in folder.iterdir()} <= {".lockfile"}


@pytest.mark.heavy
def test_kill_9_of_the_suite_leaves_nothing(folder: Path) -> None:
    process = began(folder, "--only", "kill -9", until="-D")
    process.kill()
    process.wait()
    eventually(lambda: not find_processes(folder))
