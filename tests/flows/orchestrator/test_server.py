"""The Prefect server of this project: whose it is, and `nightshift up`, which runs it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.ledger.leases import new_owner
from nightshift.flows.orchestrator.server import announce, prefect_api, running_api
from project import Project
from served import NIGHTSHIFT, deployment, ended, post
from waiting import eventually


class Healthy(BaseHTTPRequestHandler):
    """Answers like a Prefect server's /health."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a Prefect server that is not this project's."""
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_port_that_another_prefect_server_has_is_refused(tmp_path: Path, stranger: int) -> None:
    with pytest.raises(ConfigurationError) as refused, prefect_api(tmp_path, stranger):
        pass
    text = str(refused.value)
    assert text.startswith(
        f"--port: {stranger}: another Prefect server uses the port. Choose another port."
    )
    assert f"PREFECT_API_URL=http://127.0.0.1:{stranger}/api nightshift serve" in text


def test_a_port_that_another_program_has_is_refused(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError) as refused, prefect_api(tmp_path, port):
            pass
    assert "the port cannot be used (Address already in use)" in str(refused.value)
    assert "PREFECT_API_URL" not in str(refused.value)


def test_a_server_is_found_while_it_is_announced(tmp_path: Path, stranger: int) -> None:
    (tmp_path / "prefect").mkdir()
    url = f"http://127.0.0.1:{stranger}/api"
    with announce(tmp_path, url):
        assert running_api(tmp_path) == url
    assert running_api(tmp_path) is None


def test_a_killed_server_is_not_found_though_its_port_answers(
    tmp_path: Path, stranger: int
) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    host, _, token = new_owner().split(":")
    (tmp_path / "prefect").mkdir()
    note = f"http://127.0.0.1:{stranger}/api {host}:{gone}:{token}"
    (tmp_path / "prefect" / "api_url").write_text(note)
    assert running_api(tmp_path) is None


# --- nightshift up ------------------------------------------------------------------------------


class Up:
    """`nightshift up` in a process of its own, without any other Prefect server."""

    def __init__(self, project: Project, port: int) -> None:
        self.api = f"http://127.0.0.1:{port}/api"
        hidden = {"PREFECT_API_URL", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"}
        self._process = subprocess.Popen(
            [*NIGHTSHIFT, "up", "--port", str(port)],
            env={name: value for name, value in os.environ.items() if name not in hidden},
            cwd=project.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ready(self) -> None:
        """Wait until it serves the job."""
        eventually(lambda: self._process.poll() is not None or self._serves())
        assert self._process.poll() is None, self._process.communicate()

    def _serves(self) -> bool:
        try:
            return "id" in deployment(self.api, "score/orders")
        except httpx.HTTPError:
            return False

    def ended(self) -> str:
        """What it printed, once it has ended well by itself."""
        printed, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, printed
        return printed

    def stopped(self) -> str:
        """What it printed, ended as by Ctrl-C."""
        self._process.send_signal(signal.SIGINT)
        return self.ended()


@pytest.mark.heavy
def test_up_starts_all_stops_cleanly_and_keeps_its_data(project: Project) -> None:
    project.fill()
    project.register()
    project.write_job(schedule={"cron": "0 3 * * *"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    up = Up(project, port)
    up.ready()
    assert f"Already running: http://127.0.0.1:{port}" in Up(project, port).ended()
    found = deployment(up.api, "score/orders")["id"]
    run = post(
        up.api, f"/deployments/{found}/create_flow_run", {"parameters": {"partition": "2024-03-01"}}
    )
    assert ended(up.api, run["id"])["state_name"] == "Completed"
    printed = up.stopped()
    assert "Traceback" not in printed
    ui, backfill, database, *_, last = filter(None, map(str.strip, printed.splitlines()))
    assert re.fullmatch(rf"Prefect UI +http://127.0.0.1:{port}", ui)
    assert backfill.startswith("Backfill")
    socket_note = r"  \(a socket: for psql and drivers, not for GUI clients\)"
    assert re.fullmatch(rf"Database +postgresql://\S+{socket_note}", database)
    assert last == "Stopped."
    assert project.states() == [("2024-03-01", "published")]
    with pytest.raises(httpx.ConnectError):  # nothing is left of it
        httpx.get(f"{up.api}/health", timeout=5)

    again = Up(project, port)
    again.ready()
    before = httpx.get(f"{again.api}/flow_runs/{run['id']}", timeout=30).json()
    assert before["state_name"] == "Completed"
    again.stopped()
