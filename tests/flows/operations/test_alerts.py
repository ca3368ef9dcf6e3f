"""Alerts: registered once, sent to a real webhook with the reason first, gone with the setting."""

import json
import queue
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.events.worker import EventsWorker
from prefect.flow_engine import run_flow
from prefect.states import Crashed, Failed, Running, Scheduled
from pydantic import SecretStr

from nightshift.adapters.errors import ConfigurationError, NightshiftError, Quarantined
from nightshift.flows.config.settings import AlertSettings, load_settings
from nightshift.flows.operations.alerts import automation_name, block_name, register_alerts
from nightshift.flows.orchestrator.events import emit_quarantined
from nightshift.flows.orchestrator.states import convert_errors
from nightshift.flows.score import score
from nightshift.flows.scoring.run import ScoreResult
from project import Project

PROJECT, TAG = "alerts", "watched-by-a-test"
SECRET = "T0123/B0456/a9X8b7C6d5E4f3G2h1"


class Webhook:
    """A server that takes what it is sent."""

    def __init__(self) -> None:
        self.bodies: queue.Queue[dict[str, Any]] = queue.Queue()
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kind = self.headers["Content-Type"]
                bodies.put({**json.loads(body), "path": self.path, "type": kind})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def receive(self, seconds: float = 60) -> dict[str, Any]:
        return self.bodies.get(timeout=seconds)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def client(prefect: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client
        register_alerts(client, AlertSettings(), PROJECT, TAG)


@pytest.fixture
def alerts(client: SyncPrefectClient, webhook: Webhook) -> AlertSettings:
    settings = AlertSettings(webhook=SecretStr(webhook.url), late_after=10)
    register_alerts(client, settings, PROJECT, TAG)
    return settings


def automations(client: SyncPrefectClient) -> dict[str, Any]:
    found = client.read_automations()
    return {one.name: one for one in found if one.name.startswith("nightshift alert")}


def deployed(client: SyncPrefectClient, *tags: str) -> Any:
    """A deployment with these tags, of a flow that never runs."""

    @flow(name="unused")
    def unused() -> None:
        pass

    name = f"orders-{uuid4().hex[:8]}"
    made = client.create_deployment(client.create_flow(unused), name, tags=list(tags))
    return client.read_deployment(made)


def changed(client: SyncPrefectClient, run: FlowRun, *states: State[Any]) -> None:
    for state in states:
        client.set_flow_run_state(run.id, state, force=True)


# --- the setting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"https://hooks.slack.com/services/{SECRET}",
        "https://someone:word@alerts.example.com/",
        "https://alerts.example.com/?key=abc",
        "https://chat.example.com/hooks/abcdefghijklmnopqrstuvwx",
    ],
)
def test_a_secret_in_the_file_is_refused(project: Project, url: str) -> None:
    write(project.folder, webhook=url)
    with pytest.raises(ConfigurationError, match="NIGHTSHIFT_ALERTS__WEBHOOK") as refused:
        load_settings()
    assert refused.value.field == "alerts.webhook"
    assert url not in str(refused.value)


def test_a_plain_url_may_stand_in_the_file(project: Project) -> None:
    write(project.folder, webhook="http://alerts.internal:8080/nightshift", late_after=60)
    found = load_settings().alerts
    assert found.webhook is not None
    assert found.webhook.get_secret_value().endswith("/nightshift")
    assert found.late_after == 60


def test_a_secret_in_the_environment_is_not_shown(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_ALERTS__WEBHOOK", f"https://hooks.slack.com/services/{SECRET}")
    settings = load_settings()
    assert settings.alerts.webhook is not None
    assert SECRET not in repr(settings) + settings.model_dump_json()
    monkeypatch.setenv("NIGHTSHIFT_ALERTS__WEBHOOK", f"ftp://{SECRET}")
    with pytest.raises(ConfigurationError, match="not the URL of a webhook") as refused:
        load_settings()
    assert SECRET not in str(refused.value)


def write(folder: Path, **alerts: Any) -> None:
    path = folder / "config" / "nightshift.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "alerts": alerts}))


# --- the server ---------------------------------------------------------------------------------


def test_registered_once_and_gone_with_the_setting(
    client: SyncPrefectClient, alerts: AlertSettings
) -> None:
    before = automations(client)
    assert set(before) == {
        automation_name(PROJECT, kind) for kind in ("failed", "quarantined", "late")
    }
    client.pause_automation(before[automation_name(PROJECT, "late")].id)
    register_alerts(client, alerts, PROJECT, TAG)
    again = automations(client)
    assert {name: one.id for name, one in again.items()} == {
        name: one.id for name, one in before.items()
    }
    assert not again[automation_name(PROJECT, "late")].enabled
    register_alerts(client, alerts.model_copy(update={"late_after": 20.0}), PROJECT, TAG)
    changed = automations(client)[automation_name(PROJECT, "late")]
    assert changed.trigger.within.total_seconds() == 20
    assert SECRET not in str(changed)
    shown = client.read_block_document_by_name(
        block_name(PROJECT), "webhook", include_secrets=False
    )
    assert SECRET not in str(shown.data)
    register_alerts(client, AlertSettings(), PROJECT, TAG)
    assert automations(client) == {}
    blocks = client.read_block_documents()
    assert block_name(PROJECT) not in [block.name for block in blocks]


def test_a_failed_and_a_crashed_run_are_reported_with_the_reason_first(
    client: SyncPrefectClient,
    alerts: AlertSettings,
    webhook: Webhook,
    prefect_database: Path,
) -> None:
    ours, others = deployed(client, TAG), deployed(client, "another")
    for deployment in (others, ours):
        run = client.create_flow_run_from_deployment(deployment.id, name="orders 2024-03-01 v1")
        changed(client, run, Running(), Failed(message='Table "orders" is {{ gone }}'))
    body = webhook.receive()
    assert body["text"].startswith('Table "orders" is {{ gone }} | failed: orders 2024-03-01 v1 ')
    assert body["url"].endswith(f"/runs/flow-run/{run.id}")
    assert (body["kind"], body["type"]) == ("failed", "application/json")
    assert body["path"] == f"/services/{SECRET}"
    changed(client, run, Running(), Crashed(message="The process was killed"))
    assert webhook.receive()["reason"] == "The process was killed"
    assert webhook.bodies.empty()
    assert SECRET not in (prefect_database.parent / "server.log").read_text()


def test_a_quarantined_run_is_reported_once(
    client: SyncPrefectClient, alerts: AlertSettings, webhook: Webhook
) -> None:
    """By its event, and not as a failure; the job's next one, a moment later, is not reported."""
    job = f"orders-{uuid4().hex[:8]}"
    reason = "input x: 40% are NULL\nor NaN"
    emit_quarantined(result(job, "2024-03-01"), reason, PROJECT)
    EventsWorker.drain_all(timeout=10, at_exit=False)
    body = webhook.receive()
    assert body["text"].startswith(f"{reason} | quarantined: {job} 2024-03-01, run 7")
    assert (body["job"], body["partition"], body["run_id"]) == (job, "2024-03-01", 7)
    emit_quarantined(result(job, "2024-03-02"), reason, PROJECT)
    EventsWorker.drain_all(timeout=10, at_exit=False)
    run = client.create_flow_run_from_deployment(deployed(client, TAG).id)
    changed(client, run, Running(), Failed(name="Quarantined", message=reason))
    changed(client, run, Running(), Failed(message="the end"))  # comes after all others
    assert webhook.receive()["reason"] == "the end"


def test_runs_that_really_fail_are_reported(
    client: SyncPrefectClient,
    alerts: AlertSettings,
    webhook: Webhook,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that finds no table, and one with a row that the model cannot take."""
    monkeypatch.setenv("NIGHTSHIFT_PROJECT", PROJECT)
    made = client.create_deployment(client.create_flow(score), f"o-{uuid4().hex[:8]}", tags=[TAG])

    def run_orders() -> FlowRun:
        wanted = {"job": "orders", "partition": "all"}
        run = client.create_flow_run_from_deployment(made, parameters=wanted)
        with pytest.raises(NightshiftError):
            run_flow(score, flow_run=run, parameters=wanted)
        EventsWorker.drain_all(timeout=10, at_exit=False)
        return run

    project.register(behaviour="negative")
    run = run_orders()
    body = webhook.receive()
    assert (body["kind"], body["url"].rpartition("/")[2]) == ("failed", str(run.id))
    assert "'orders'" in body["reason"]
    project.fill()
    project.sql("UPDATE orders SET x = -id WHERE id = 150")
    run_orders()
    body = webhook.receive()
    assert (body["kind"], body["job"]) == ("quarantined", "orders")
    assert body["reason"].startswith("1 of 1,000 rows could not be scored, 0 may be")
    assert webhook.bodies.empty()


def test_the_state_of_a_quarantined_run_has_its_own_name(prefect: str) -> None:
    @flow(name="quarantined")
    @convert_errors
    def quarantined() -> None:
        raise Quarantined("orders", "2024-03-01", 7, "input x: 40% are NULL")

    state = quarantined(return_state=True)
    assert (state.name, state.is_failed()) == ("Quarantined", True)
    assert (state.message or "").startswith("input x: 40% are NULL")


@pytest.mark.heavy
def test_a_run_that_does_not_begin_is_reported(
    client: SyncPrefectClient, alerts: AlertSettings, webhook: Webhook
) -> None:
    ours = deployed(client, TAG)
    started, waiting = (client.create_flow_run_from_deployment(ours.id) for _ in range(2))
    for run in (started, waiting):
        changed(client, run, Scheduled(name="Late"))
    changed(client, started, Running())
    body = webhook.receive()
    assert body["text"].startswith("It was due at 20")
    assert (body["kind"], body["what"]) == ("late", ours.name)
    assert body["url"].endswith(f"/runs/flow-run/{waiting.id}")
    assert webhook.bodies.empty()


def result(job: str, partition: str) -> ScoreResult:
    return ScoreResult(
        job=job, partition=partition, run_id=7, model="doubler@1", target="order_scores",
        rows=10, resumed_rows=0, sql="", seconds=1.0,
    )  # fmt: skip
