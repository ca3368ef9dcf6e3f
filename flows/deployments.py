"""Deployments from job files: for each job, one that scores by schedule and one that backfills.

Other tools find the same flows by the entrypoints `flows.score.score` and
`flows.backfill.backfill`, with `job` as a parameter.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from prefect import serve
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from adapters.store import CHAMPION
from flows.backfill import backfill
from flows.events import MODEL_PROMOTED
from flows.job import Job, job_names, load_job
from flows.score import score
from flows.settings import settings_file

TAG = "nightshift"


@dataclass(frozen=True)
class Deployed:
    """What became of one deployment."""

    name: str
    """`score/<job>` or `backfill/<job>`"""
    outcome: Literal["created", "changed", "unchanged", "gone", "removed"]
    """`gone`: its job file is no longer there."""


class JobDeployment(RunnerDeployment):
    """Left alone where it is unchanged: any update of a deployment deletes its late runs."""

    async def aapply(self, *arguments: Any, **options: Any) -> UUID:
        with get_client(sync_client=True) as client:
            found = find(client, self.full_name)
        if found is not None and found.version == self.version:
            return found.id
        return await super().aapply(*arguments, **options)


def job_deployments(work_pool: str | None = None) -> list[JobDeployment]:
    """What the job files ask for. Raises ConfigurationError for the first one that is wrong."""
    return [made for name in job_names() for made in _of_job(load_job(name), work_pool)]


def deploy(deployments: Sequence[JobDeployment], remove: bool = False) -> Iterator[Deployed]:
    """Bring the server to what is wanted, one deployment after the other."""
    from prefect.utilities.asyncutils import run_coro_as_sync

    with get_client(sync_client=True) as client:
        for wanted in deployments:
            before = find(client, wanted.full_name)
            run_coro_as_sync(wanted.aapply())
            if before is None:
                yield Deployed(wanted.full_name, "created")
            else:
                same = before.version == wanted.version
                yield Deployed(wanted.full_name, "unchanged" if same else "changed")
        for name, found in _gone(client, {wanted.full_name for wanted in deployments}):
            if remove:
                client.delete_deployment(found.id)
                client.delete_resource_owned_automations(f"prefect.deployment.{found.id}")
            yield Deployed(name, "removed" if remove else "gone")


def serve_jobs(deployments: Sequence[JobDeployment], limit: int) -> None:
    """Register them and run here what falls due, until SIGINT or SIGTERM."""
    # The flows' processes start wherever Prefect likes.
    os.environ["NIGHTSHIFT_CONFIG"] = str(settings_file().absolute())
    logging.getLogger("prefect.runner").setLevel(logging.WARNING)
    serve(
        *deployments,
        # Paused, the server would schedule nothing meanwhile, and nobody would know of the nights.
        pause_on_shutdown=False,
        print_starting_message=False,
        limit=limit,
    )


def find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _gone(client: SyncPrefectClient, wanted: set[str]) -> Iterator[tuple[str, DeploymentResponse]]:
    """Deployments of ours whose job file is no longer there."""
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    flows: dict[UUID, str] = {}
    for found in client.read_deployments(deployment_filter=ours):
        if found.flow_id not in flows:
            flows[found.flow_id] = client.read_flow(found.flow_id).name
        name = f"{flows[found.flow_id]}/{found.name}"
        if name not in wanted:
            yield name, found


def _of_job(job: Job, work_pool: str | None) -> Iterator[JobDeployment]:
    common: dict[str, Any] = {
        "name": job.name,
        "tags": [TAG, job.name],
        "entrypoint_type": EntrypointType.MODULE_PATH,
        "work_pool_name": work_pool,
    }
    yield _stamped(
        JobDeployment.from_flow(
            score,
            **common,
            description=f"Score one partition of {job.name}: by schedule, event or hand.",
            parameters={"job": job.name},
            schedules=_schedules(job),
            triggers=list(_triggers(job)),
            concurrency_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
            ),
        )
    )
    yield _stamped(
        JobDeployment.from_flow(
            backfill,
            **common,
            description=f"Score a range of partitions of {job.name}.",
            parameters={"job": job.name, "max_parallel": job.max_parallel},
        )
    )


def _schedules(job: Job) -> list[Any]:
    plan = job.schedule
    if plan is None:
        return []
    return [Cron(plan.cron, timezone=plan.timezone or job.timezone, active=plan.enabled)]


def _triggers(job: Job) -> Iterator[DeploymentEventTrigger]:
    on = job.on
    if on is None:
        return
    if on.model_promoted is not None:
        name, _, alias = job.model.partition("@")
        yield DeploymentEventTrigger(
            name=f"{job.name}: {job.model} was promoted",
            expect={MODEL_PROMOTED},
            match={"nightshift.model": name, "nightshift.alias": alias or CHAMPION},
            parameters={"job": job.name, "model": _template("{{ event.payload.reference }}")},
        )
    if on.event is not None:
        yield DeploymentEventTrigger(
            name=f"{job.name}: {on.event}",
            expect={on.event},
            match=dict(on.match),
            parameters={"job": job.name, "partition": _template(on.partition)},
        )


def _template(text: str) -> dict[str, str]:
    """A parameter that the server fills in from the event; a missing value becomes ''."""
    return {"__prefect_kind": "jinja", "template": text}


def _stamped(deployment: RunnerDeployment) -> JobDeployment:
    """Give it a version that changes exactly with what it says."""
    assert isinstance(deployment, JobDeployment)  # noqa: S101 - from_flow says less than it does
    said = deployment.model_dump(mode="json", exclude={"version", "triggers"})
    said["schema"] = deployment._parameter_openapi_schema.model_dump()  # noqa: SLF001
    said["triggers"] = [
        trigger.model_dump(mode="json", exclude={"id"}) for trigger in deployment.triggers
    ]
    for schedule in said["schedules"] or []:
        schedule["schedule"].pop("anchor_date", None)
    text = json.dumps(said, sort_keys=True, default=str)
    deployment.version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return deployment
