"""Metrics from the ledger, log records as JSON, a Prefect that asks for a password."""

import http.server
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.config.settings import load_settings
from nightshift.flows.operations.metrics import metrics_text, serve_metrics
from nightshift.flows.orchestrator.access import prefect_server, require_access
from nightshift.flows.orchestrator.json_logs import JsonLine
from nightshift.flows.score import score
from project import Project

Samples = dict[tuple[str, str, str], float]


def parsed(text: str) -> Samples:
    """(metric, job, state) -> value"""
    return {
        (
            sample.name,
            sample.labels.get("nightshift_job", ""),
            sample.labels.get("state", ""),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# --- metrics ------------------------------------------------------------------------------------


def test_the_metrics_are_what_the_ledger_holds(project: Project, prefect: str) -> None:
    assert parsed(metrics_text(load_settings())) == {("nightshift_up", "", ""): 1}
    project.fill(rows=30)
    project.register()
    for day in ("2024-03-01", "2024-03-01", "2024-03-02"):
        score("orders", day)
    found = parsed(metrics_text(load_settings()))
    published_at = project.sql("SELECT extract(epoch FROM max(published_at)) FROM nightshift_runs")
    assert found.pop(("nightshift_last_run_seconds", "orders", "")) > 0
    none = (
        "running",
        "scored",
        "quarantined",
        "failed",
    )  # or the first of them would be no increase
    assert found == {
        ("nightshift_up", "", ""): 1,
        ("nightshift_runs", "orders", "published"): 2,
        ("nightshift_runs", "orders", "superseded"): 1,
        **{("nightshift_runs", "orders", state): 0 for state in none},
        ("nightshift_rows_written_total", "orders", ""): 45,
        ("nightshift_rows_rejected_total", "orders", ""): 0,
        ("nightshift_last_run_rows", "orders", ""): 15,
        ("nightshift_run_silent_seconds", "orders", ""): 0,
        ("nightshift_last_published_timestamp_seconds", "orders", ""): pytest.approx(
            float(published_at[0][0])
        ),
    }


def test_a_run_that_has_stopped_is_seen(project: Project, prefect: str) -> None:
    project.fill(rows=30)
    project.register()
    score("orders", "2024-03-01")
    project.sql(
        "UPDATE nightshift_runs SET state = 'running', heartbeat_at = now() - interval '1 hour'"
    )
    project.sql(
        "UPDATE nightshift_shards SET rows_rejected = 3, written_at = now() - interval '1 hour'"
    )
    found = parsed(metrics_text(load_settings()))
    assert 3600 <= found["nightshift_run_silent_seconds", "orders", ""] < 4000
    assert found["nightshift_runs", "orders", "running"] == 1
    assert found["nightshift_rows_rejected_total", "orders", ""] == 3


def test_prometheus_is_answered_also_while_the_database_is_away(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", "postgresql://someone@127.0.0.1:1/x")
    with serve_metrics(load_settings(), "127.0.0.1", 0) as url:
        answer = httpx.get(url)
        port = int(url.split(":")[2].partition("/")[0])
        with (
            pytest.raises(ConfigurationError, match="cannot be used"),
            serve_metrics(load_settings(), "127.0.0.1", port),
        ):
            pass
    assert answer.status_code == 200
    assert parsed(answer.text) == {("nightshift_up", "", ""): 0}


# --- logs ---------------------------------------------------------------------------------------


def test_a_record_is_one_line_of_json() -> None:
    record = logging.LogRecord(
        "prefect.task_runs", logging.WARNING, "x.py", 1, "%s rows\nof 'Ä'", ("1,000",), None
    )
    record.flow_run_name, record.flow_name = "orders 2024-03-01", "<unknown>"
    line = JsonLine().format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert said.pop("time").endswith("+00:00")
    assert said == {
        "level": "warning",
        "logger": "prefect.task_runs",
        "message": "1,000 rows\nof 'Ä'",
        "flow_run_name": "orders 2024-03-01",
    }


def test_an_exception_is_part_of_its_line() -> None:
    error = ConfigurationError("a", "b", "c", "d")
    info = (type(error), error, None)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed", (), info)
    said = json.loads(JsonLine().format(record))
    assert "ConfigurationError: a: b: c. d" in said["exception"]


def test_prefect_writes_such_lines_if_configured() -> None:
    """The two variables that docker-compose.yml sets, in a process of its own."""
    code = (
        "from prefect.logging import get_logger, configuration; configuration.setup_logging();"
        "get_logger('worker').info('%s rows', 5, extra={'flow_run_name': 'orders'})"
    )
    variables = {
        "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": "nightshift.flows.orchestrator.json_logs.JsonLine",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True
    )
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert (said["message"], said["flow_run_name"]) == ("5 rows", "orders")


# --- a Prefect server that asks for a password ---------------------------------------------------


@contextmanager
def answering(answer: Callable[[str | None], tuple[int, bytes]]) -> Iterator[str]:
    """A server that answers to the Authorization header."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, b"{}", "refuses this process.*PREFECT_API_AUTH_STRING"),
        (403, b"{}", "refuses this process"),
        (503, b"", r"fails \(503\)"),
        (200, b"<html>", "is not a Prefect server"),
    ],
)
def test_a_server_that_does_not_let_us_in_is_one_clear_error(
    status: int, body: bytes, says: str
) -> None:
    with (
        answering(lambda _: (status, body)) as url,
        pytest.raises(ConfigurationError, match=says),
    ):
        require_access(url)


def test_an_unreachable_database_is_one_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="no Prefect server answers at http://127"):
        require_access("http://127.0.0.1:1/api")


def test_prefect_cloud_does_not_tell_its_version() -> None:
    with answering(lambda _: (404, b"{}")) as url:
        assert prefect_server(url).version is None
