"""Kill -9 in the middle of a run, run again: readers see what an uninterrupted run gives."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from nightshift.flows.score import score
from project import Project

NIGHTSHIFT = [sys.executable, "-c", "from nightshift.flows.cli.main import main; main()"]


def _start(project: Project, prefect: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*NIGHTSHIFT, "run", "orders", "--partition", "all", "--json"],
        env=os.environ | {"PREFECT_API_URL": prefect},
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _await_chunks(project: Project, chunks: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if project.sql("SELECT to_regclass('nightshift_chunks')") != [(None,)]:
            (count,) = project.sql("SELECT count(*) FROM nightshift_chunks")[0]
            if count >= chunks:
                return
        time.sleep(0.01)
    pytest.fail(f"{process.poll()=}: {process.communicate()}")


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.heavy), pytest.param(2, marks=pytest.mark.heavy)]
)
def test_kill_and_resume(project: Project, prefect: str, seed: int) -> None:
    chance = random.Random(seed)
    project.fill()
    manifest = project.register(seconds=0.05)
    process = _start(project, prefect)
    _await_chunks(project, chance.randint(1, 8), process)
    time.sleep(chance.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (committed,) = project.sql("SELECT count(*) FROM nightshift_chunks")[0]
    assert 1 <= committed <= 10
    assert project.scores() == {}

    result = score("orders", "all", f"doubler@{manifest.version}")

    assert (result.rows, result.resumed_rows) == (1000, 100 * committed)
    assert project.scores() == project.expected()
    chunks = project.sql("SELECT chunk, rows FROM nightshift_chunks ORDER BY chunk")
    assert chunks == [(chunk, 100) for chunk in range(10)]
    assert project.sql("SELECT count(*) FROM order_scores_runs") == [(1000,)]
    assert project.states() == [("all", "published")]


@pytest.mark.heavy
def test_ctrl_c_stops_within_a_chunk_and_resumes(project: Project, prefect: str) -> None:
    project.fill()
    project.register(seconds=0.3)
    process = _start(project, prefect)
    _await_chunks(project, 2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert b"Traceback" not in errors
    (committed,) = project.sql("SELECT count(*) FROM nightshift_chunks")[0]
    assert 2 <= committed <= 6
    assert project.states() == [("all", "failed")]
    assert score("orders", "all").resumed_rows == 100 * committed
    assert project.scores() == project.expected()
