"""`nightshift serve` in its own process, and its runs as the Prefect server sees them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from project import Project
from waiting import eventually

NIGHTSHIFT = [sys.executable, "-c", "from nightshift.flows.cli.main import main; main()"]


def start(project: Project, api: str, *arguments: str) -> "subprocess.Popen[str]":
    """A nightshift command in the project's folder."""
    return subprocess.Popen(
        [*NIGHTSHIFT, *arguments],
        env=os.environ | {"PREFECT_API_URL": api},
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def say(project: Project, api: str, *arguments: str, code: int = 0) -> str:
    """What a nightshift command printed; it must end with the expected exit code."""
    process = start(project, api, *arguments)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    return output


def prefect_command(folder: Path, api: str, *arguments: str) -> str:
    """What Prefect's command line printed; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=folder,
        env=os.environ | {"PREFECT_API_URL": api},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def serving(
    project: Project, api: str, ending: signal.Signals = signal.SIGINT
) -> Iterator[list[str]]:
    """Serve the project's deployments; ended as by Ctrl-C. Yields the lines it prints."""
    process = start(project, api, "serve")
    printed: list[str] = []
    reader = threading.Thread(target=_read, args=(process, printed))
    reader.start()
    try:
        eventually(lambda: process.poll() or any(line.startswith("Jobs") for line in printed))
        yield printed
    finally:
        process.send_signal(ending)
        reader.join(60)
        assert process.wait(10) == 0, printed
        problems = [line for line in printed if "Traceback" in line or "Warning:" in line]
        assert not problems, printed


def _read(process: "subprocess.Popen[str]", printed: list[str]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        printed.extend(line.rstrip() for line in lines)


def post(api: str, path: str, body: dict[str, Any], code: int | None = None) -> Any:
    """Retried, as Prefect's own clients do, while the server's SQLite is locked."""

    def answered() -> httpx.Response | None:
        answer = httpx.post(f"{api}{path}", json=body, timeout=30)
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

    answer = eventually(answered)
    assert answer is not None
    assert answer.is_success if code is None else answer.status_code == code, answer.text
    return answer.json()


def deployment(api: str, name: str) -> dict[str, Any]:
    """`score/<job>` or `backfill/<job>`"""
    found: dict[str, Any] = httpx.get(f"{api}/deployments/name/{name}", timeout=30).json()
    return found


def runs_of(api: str, deployment_id: str) -> list[dict[str, Any]]:
    body = {"flow_runs": {"deployment_id": {"any_": [deployment_id]}}, "sort": "START_TIME_ASC"}
    found: list[dict[str, Any]] = post(api, "/flow_runs/filter", body)
    return found


def ended(api: str, run_id: str) -> dict[str, Any]:
    """The run, once it has ended."""
    over = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}

    def found() -> dict[str, Any] | None:
        run: dict[str, Any] = httpx.get(f"{api}/flow_runs/{run_id}", timeout=30).json()
        return run if run["state_type"] in over else None

    return eventually(found)  # type: ignore[return-value]
