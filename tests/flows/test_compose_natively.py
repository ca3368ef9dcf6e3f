"""Each of our services in docker-compose.yml, its command and its health check run as they stand.

Only the places differ: the embedded PostgreSQL and the tests' S3 server, on this machine, and
Prefect's own database, which is SQLite here.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

import compose
from encrypted import EncryptedPostgres
from project import Project
from roles import shipped_roles
from waiting import eventually

pytestmark = pytest.mark.heavy

AUTH = "admin:Pre/fect:7a"


class Stack:
    """The services, by what the compose file says of them."""

    def __init__(
        self, project: Project, database: str, postgres: int, s3: str, trusted: str
    ) -> None:
        self.project = project
        variables = {name: f"{name}'s" for name in compose.required()}
        self.variables = variables | {"PREFECT_AUTH": AUTH, "TRUSTED_KEYS": trusted}
        self.ports = {port: _free_port() for port in (4200, 8080, 9109)}
        self.places = {
            "postgres:5432/warehouse": f"127.0.0.1:{postgres}/{database}",
            "http://s3:8333": s3,
            "s3://models/nightshift": os.environ["NIGHTSHIFT_STORE__URL"],
            "http://prefect:4200": self.url(4200),
            **{self._local(port): self.url(port) for port in self.ports},
        }
        self.environment = {
            "PREFECT_SERVER_API_PORT": str(self.ports[4200]),
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports[8080]),
            "NIGHTSHIFT_CONFIG": str(project.folder / "config" / "nightshift.yaml"),
            "PYTHONPATH": str(project.folder),  # where its model's code is
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(project.folder / "ui"),
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }

    def url(self, port: int) -> str:
        return self._local(self.ports[port])

    @staticmethod
    def _local(port: int) -> str:
        return f"http://127.0.0.1:{port}"

    def start(self, service: str, log: Path) -> "subprocess.Popen[bytes]":
        found = compose.process(service, self.variables)
        command = [str(self.ports.get(int(word), word)) if word.isdigit() else word
                   for word in found.command]  # fmt: skip
        command = ["127.0.0.1" if word == "0.0.0.0" else word for word in command]
        command[0] = str(Path(sys.executable).parent / command[0])
        with log.open("wb") as file:
            return subprocess.Popen(
                command,
                env=self._environment(service),
                cwd=self.project.folder,
                stdout=file,
                stderr=file,
            )

    @contextmanager
    def running(self, service: str) -> Iterator[Path]:
        """The service, once its own health check says that it is well; its log."""
        log = self.project.folder / f"{service}.log"
        process = self.start(service, log)
        try:
            eventually(lambda: self.well(service) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield log
        finally:
            process.terminate()
            process.wait(60)

    def well(self, service: str) -> bool:
        _, *check = compose.services(self.variables)[service]["healthcheck"]["test"]
        environment = self._environment(service)
        environment.setdefault("HEALTH", f"{self.url(4200)}/api/ready")
        check[0] = sys.executable if check[0] == "python" else check[0]
        return subprocess.run(check, env=environment, capture_output=True).returncode == 0

    def _environment(self, service: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NIGHTSHIFT_", "PREFECT_"))
        }
        home = {"PREFECT_HOME": str(self.project.folder / f".prefect-{service}")}
        said = compose.process(service, self.variables).environment
        # Prefect wants the extension pg_trgm, which the embedded server lacks: SQLite instead.
        said = {n: value for n, value in said.items() if "_SERVER_DATABASE_" not in n}
        for place, here in self.places.items():
            said = {name: value.replace(place, here) for name, value in said.items()}
        return kept | said | self.environment | home

    def ask(self, method: str, path: str, body: dict[str, object] | None = None) -> httpx.Response:
        user, _, password = AUTH.partition(":")
        url = f"{self.url(4200)}/api{path}"
        return httpx.request(method, url, json=body, auth=(user, password), timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def stack(project: Project, database: sa.URL, s3: str) -> Iterator[Stack]:
    project.fill()
    project.register()
    trusted = (project.folder / "keys" / "local.pub").read_text().strip()
    server = Path(str(database.query["host"])) / ".s.PGSQL.5432"
    with shipped_roles(project, database), EncryptedPostgres(server, None) as postgres:
        yield Stack(project, str(database.database), postgres.port, s3, trusted)


def test_every_command_does_what_it_is_there_for(stack: Stack) -> None:
    with ExitStack() as running:
        running.enter_context(stack.running("prefect"))
        worker_log = running.enter_context(stack.running("worker"))

        jobs_log = stack.project.folder / "jobs.log"
        assert stack.start("jobs", jobs_log).wait(120) == 0, jobs_log.read_text()
        assert "created    score/orders" in jobs_log.read_text()

        deployment = stack.ask("GET", "/deployments/name/score/orders").json()
        assert deployment["work_pool_name"] == "nightshift"
        body: dict[str, object] = {"parameters": {"partition": "2024-03-01"}}
        made = stack.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", body)
        path = f"/flow_runs/{made.json()['id']}"
        over = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        eventually(lambda: stack.ask("GET", path).json()["state_type"] in over)
        assert stack.ask("GET", path).json()["state_type"] == "COMPLETED", worker_log.read_text()
        (count,) = stack.project.sql("SELECT count(*) FROM predictions.order_scores")
        assert count[0] == 500
        assert '"message": "Published 500 rows in order_scores"' in worker_log.read_text()

        running.enter_context(stack.running("metrics"))
        metrics = httpx.get(f"{stack.url(9109)}/metrics").text
        assert 'nightshift_rows_written_total{nightshift_job="orders"} 500.0' in metrics

        assert httpx.get(f"{stack.url(4200)}/api/health").status_code == 200
        assert httpx.get(f"{stack.url(4200)}/api/admin/version").status_code == 401
        assert httpx.get(f"{stack.url(4200)}/ui-settings").json()["auth"] == "BASIC"

        stack.variables["PREFECT_AUTH"] = "admin:mistyped"
        assert stack.start("jobs", jobs_log).wait(120) == 2
        said = jobs_log.read_text()
        assert "refuses this process (401). Set PREFECT_API_AUTH_STRING" in " ".join(said.split())
        assert "Traceback" not in said
