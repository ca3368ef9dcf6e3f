"""Alerts for runs that fail, are quarantined or start late: a webhook, called by Prefect.

Registered with the deployments, from the setting `alerts.webhook`, as automations of the Prefect
server, which calls the URL itself: a crashed worker is reported, too. The URL may hold a secret; it
is kept in a Prefect block, which encrypts it. The body is JSON: `text`, for a chat, begins with the
reason; the other fields are for programs.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_UI_URL
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import SecretStr

from nightshift.flows.config.settings import AlertSettings
from nightshift.flows.orchestrator.events import RUN_QUARANTINED

_KINDS = ("failed", "quarantined", "late")
_QUIET = timedelta(minutes=5)
"""At most one quarantined partition of a job is reported in this time, as in a backfill."""
_STARTED = ("Pending", "Running", "Cancelling", "Cancelled", "Completed", "Failed", "Crashed")

_FLOW_RUN: Any = {"prefect.resource.id": "prefect.flow-run.*"}


def register_alerts(
    client: SyncPrefectClient, settings: AlertSettings, project: str, tag: str
) -> None:
    """Create, update or delete the alerts on the server, as the settings say. They are for the flow
    runs of deployments with the tag. An unchanged alert stays as it is, even if it is paused.
    """
    there = {
        found.name: found
        for kind in _KINDS
        for found in client.read_automations_by_name(automation_name(project, kind))
    }
    wanted: dict[str, AutomationCore] = {}
    if settings.webhook is not None:
        block = _save_block(client, block_name(project), settings.webhook)
        late_after = timedelta(seconds=settings.late_after)
        wanted = {made.name: made for made in _automations(block, late_after, project, tag)}
    for name, found in there.items():
        if name not in wanted:
            client.delete_automation(found.id)
    for name, made in wanted.items():
        if name not in there:
            client.create_automation(made)
        elif there[name].description != made.description:
            client.update_automation(there[name].id, made)
    if settings.webhook is None and there:
        _delete_block(client, block_name(project))


def automation_name(project: str, kind: str) -> str:
    return f"nightshift alert of {project}: {kind}"


def block_name(project: str) -> str:
    """The name of the block that holds the URL."""
    return f"nightshift-alerts-{project}"


# --- the URL ------------------------------------------------------------------------------------


def _save_block(client: SyncPrefectClient, name: str, url: SecretStr) -> UUID:
    """The block that holds the URL, created or updated where needed."""
    with suppress(ObjectNotFound):
        found = client.read_block_document_by_name(name, "webhook", include_secrets=True)
        if found.data.get("url") == url.get_secret_value():
            return found.id
    block = Webhook(method="POST", url=url, headers={"Content-Type": "application/json"})
    return run_coro_as_sync(block.asave(name, overwrite=True))


def _delete_block(client: SyncPrefectClient, name: str) -> None:
    with suppress(ObjectNotFound):
        client.delete_block_document(client.read_block_document_by_name(name, "webhook").id)


# --- the alerts -------------------------------------------------------------------------------

_STATE = "event.resource['prefect.state-message']"
_NAME = "event.resource['prefect.resource.name']"
_ID = "event.resource['prefect.resource.id'].split('.')[-1]"
_NOT_STARTED = (
    "'It was due at ' ~ (flow_run.expected_start_time|string)[:19] ~"
    " ' UTC and has not started. Is `nightshift up`, `nightshift serve` or a worker running?'"
)


def _automations(
    block: UUID, late_after: timedelta, project: str, tag: str
) -> Iterator[AutomationCore]:
    # Flow runs of our deployments, not those that a backfill starts inside its own.
    watched: list[Any] = [
        {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"},
        {"prefect.resource.role": "deployment"},
    ]

    def automation(kind: str, trigger: EventTrigger, **values: str) -> AutomationCore:
        """`values` are Jinja expressions: what, reason, url and others."""
        payload = _payload(kind, values)
        actions: list[Any] = [CallWebhook(block_document_id=block, payload=payload)]
        content = [trigger.model_dump(), block, payload]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=_serialize).encode())
        return AutomationCore(
            name=automation_name(project, kind),
            description=f"From nightshift's settings ({digest.hexdigest()[:12]})",
            trigger=trigger,
            actions=actions,
        )

    of_run = {"what": _NAME, "url": _url(_ID)}
    yield automation(
        "failed",
        EventTrigger(
            expect={f"prefect.flow-run.{name}" for name in ("Failed", "Crashed", "TimedOut")},
            match=_FLOW_RUN,
            match_related=watched,
        ),
        reason=_STATE,
        **of_run,
    )
    yield automation(
        "quarantined",
        EventTrigger(
            expect={RUN_QUARANTINED},
            match={"nightshift.job": "*", "nightshift.project": project},
            for_each={"nightshift.job"},
            within=_QUIET,
        ),
        reason="event.payload.reason",
        what=f"{_NAME} ~ ', run ' ~ event.payload.run_id",
        url=f"{_url('flow_run.id')} if flow_run else ''",
        job="event.payload.job",
        partition="event.payload.partition",
        model="event.payload.model",
        run_id="event.payload.run_id",
    )
    yield automation(
        "late",
        EventTrigger(
            after={"prefect.flow-run.Late"},
            expect={f"prefect.flow-run.{name}" for name in _STARTED},
            match=_FLOW_RUN,
            match_related=watched,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            within=late_after,
        ),
        reason=_NOT_STARTED,
        **{**of_run, "what": "deployment.name"},
    )


def _serialize(value: Any) -> Any:
    """Sets in a fixed order, so that the text is the same in every process."""
    return sorted(value) if isinstance(value, set) else str(value)


def _payload(kind: str, values: dict[str, str]) -> str:
    """The template of the body, each value as JSON."""
    reason, what, url = values["reason"], values["what"], values["url"]
    text = f"({reason}) ~ ' | {kind}: ' ~ ({what}) ~ ' ' ~ ({url})"
    values = {"text": text, "kind": f"'{kind}'", **values}
    fields = [f'"{name}": {{{{ ({value})|tojson }}}}' for name, value in values.items()]
    return "{" + ", ".join(fields) + "}"


def _url(flow_run: str) -> str:
    """A Jinja expression for the flow run's page in the UI, at this process's address of it."""
    return f"'{PREFECT_UI_URL.value()}/runs/flow-run/' ~ {flow_run}"
