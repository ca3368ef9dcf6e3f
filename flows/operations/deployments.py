"""Deployments from job files: for each job, one that scores by schedule and one that backfills.

Other tools find the same flows by the entrypoints `nightshift.flows.score.score` and
`nightshift.flows.backfill.backfill`, with `job` as a parameter.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.callables import ParameterSchema

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.store.model_store import CHAMPION
from nightshift.flows.backfill import backfill
from nightshift.flows.clean import clean
from nightshift.flows.config.job import Job, job_names, load_job
from nightshift.flows.config.settings import Settings, load_settings
from nightshift.flows.operations.alerts import register_alerts
from nightshift.flows.orchestrator.events import MODEL_PROMOTED
from nightshift.flows.score import score

UNFINISHED = "unfinished"
"""The version until `_finish` sets one; without any, Prefect takes the commit of a git checkout."""

_OF_PROJECT = "nightshift:"


@dataclass(frozen=True)
class Deployed:
    """What happened to one deployment."""

    name: str
    """`score/<job>`, `backfill/<job>` or `clean/<project>`"""
    outcome: Literal["created", "changed", "unchanged", "gone", "removed"]
    """`gone`: its job file does not exist any more."""


@dataclass(frozen=True)
class Wanted:
    """What the job files ask for."""

    deployments: list["JobDeployment"]
    wrong: dict[str, ConfigurationError]
    """Why a job is left out, by its name: its file is wrong, or another project on the server has a
    job of that name. Its deployments stay as they are.
    """


class ClosedSchema(ParameterSchema):
    """A flow's parameters; the server refuses all others."""

    additionalProperties: Literal[False] = False  # noqa: N815 - JSON schema's own word


class JobDeployment(RunnerDeployment):
    """Not updated while it is unchanged: an update deletes and plans all its future runs again."""

    async def aapply(self, *arguments: Any, **options: Any) -> UUID:
        with get_client(sync_client=True) as client:
            found = find(client, self.full_name)
        if found is not None and self.is_unchanged(found):
            return found.id
        return await super().aapply(*arguments, **options)

    def is_unchanged(self, found: DeploymentResponse) -> bool:
        """Whether the server's version is this one. A schedule may be paused there, or added."""
        there = [scheduled.schedule for scheduled in found.schedules]
        wanted = [scheduled.schedule for scheduled in self.schedules or []]
        return found.version == self.version and _ticks(wanted) <= _ticks(there)


def wanted_deployments(work_pool: str | None = None) -> Wanted:
    """What the job files ask for. A file that is wrong does not affect the others."""
    settings, wanted = load_settings(), Wanted([], {})
    tags = [tag_of(settings)]
    with get_client(sync_client=True) as client:
        for name in job_names():
            try:
                of_job = list(_of_job(load_job(name), tags, work_pool))
                for deployment in of_job:
                    _refuse_taken(client, name, deployment.full_name, settings.project)
            except ConfigurationError as error:
                wanted.wrong[name] = error
            else:
                wanted.deployments.extend(of_job)
    wanted.deployments.append(_cleaning(settings, tags, work_pool))
    return wanted


def tag_of(settings: Settings) -> str:
    """The tag of all deployments of this project, and of no others on the same server."""
    return f"{_OF_PROJECT}{settings.project}"


def deploy(deployments: Sequence[JobDeployment], remove: bool = False) -> Iterator[Deployed]:
    """Create or update each deployment on the server; delete those of missing jobs if `remove`."""
    settings = load_settings()
    with get_client(sync_client=True) as client:
        for wanted in deployments:
            before = find(client, wanted.full_name)
            run_coro_as_sync(wanted.aapply())
            if before is None:
                yield Deployed(wanted.full_name, "created")
            else:
                same = wanted.is_unchanged(before)
                yield Deployed(wanted.full_name, "unchanged" if same else "changed")
        for name, found in _list_gone(client, tag_of(settings), job_names()):
            if remove:
                client.delete_deployment(found.id)
                client.delete_resource_owned_automations(f"prefect.deployment.{found.id}")
            yield Deployed(name, "removed" if remove else "gone")
        register_alerts(client, settings.alerts, settings.project, tag_of(settings))


def check_work_pool(name: str) -> None:
    """Raises ConfigurationError if the server has no such work pool."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound as error:
            remedy = f"Create it, for example: prefect work-pool create {name} --type process"
            problem = f"the Prefect server has no work pool {name!r}"
            raise ConfigurationError("--work-pool", "", problem, remedy) from error


def find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _refuse_taken(client: SyncPrefectClient, job: str, name: str, project: str) -> None:
    """Raises ConfigurationError if another project has registered a deployment of that name."""
    found = find(client, name)
    tags = found.tags if found is not None else []
    owners = [tag.removeprefix(_OF_PROJECT) for tag in tags if tag.startswith(_OF_PROJECT)]
    if owners and project not in owners:
        other = owners[0]
        problem = f"the Prefect server already has {name} of the project {other!r}"
        remedy = (
            "Give the job's file another name, or use another Prefect server; if that is the "
            f"former name of this project, say `project: {other}` in nightshift.yaml."
        )
        raise ConfigurationError(f"job {job!r}", "", problem, remedy)


def _list_gone(
    client: SyncPrefectClient, tag: str, jobs: Sequence[str]
) -> Iterator[tuple[str, DeploymentResponse]]:
    """Deployments of this project whose job file does not exist any more."""
    flows: dict[UUID, str] = {}
    for found in _list_tagged(client, tag):
        if found.name not in jobs:
            if found.flow_id not in flows:
                flows[found.flow_id] = client.read_flow(found.flow_id).name
            if flows[found.flow_id] == clean.name:
                continue
            yield f"{flows[found.flow_id]}/{found.name}", found


def _list_tagged(client: SyncPrefectClient, tag: str) -> list[DeploymentResponse]:
    """All deployments with the tag; the server returns them in pages."""
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[tag]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(
        deployment_filter=ours, sort=DeploymentSort.NAME_ASC, offset=len(found)
    ):
        found += page
    return found


def _of_job(job: Job, tags: list[str], work_pool: str | None) -> Iterator[JobDeployment]:
    common: dict[str, Any] = {
        "name": job.name,
        "entrypoint_type": EntrypointType.MODULE_PATH,
        "work_pool_name": work_pool,
        "version": UNFINISHED,
    }
    yield _finish(
        job,
        JobDeployment.from_flow(
            score,
            **common,
            tags=[*tags, job.name],
            description=f"Score one partition of {job.name}: by schedule, event or hand.",
            parameters={"job": job.name},
            schedules=_schedules(job),
            triggers=list(_triggers(job)),
            concurrency_limit=ConcurrencyLimitConfig(
                limit=job.max_parallel, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
            ),
        ),
    )
    yield _finish(
        job,
        JobDeployment.from_flow(
            backfill,
            **common,
            tags=[*tags, job.name, "backfill"],  # in a list, the two have the same name
            description=f"Score a range of partitions of {job.name}.",
            parameters={"job": job.name, "max_parallel": job.max_parallel},
        ),
    )


def _cleaning(settings: Settings, tags: list[str], work_pool: str | None) -> JobDeployment:
    when = settings.retention
    return _finish(
        None,
        JobDeployment.from_flow(
            clean,
            name=settings.project,
            entrypoint_type=EntrypointType.MODULE_PATH,
            work_pool_name=work_pool,
            version=UNFINISHED,
            tags=[*tags, "clean"],
            description="Delete the predictions of old runs that readers do not see, of all jobs.",
            schedules=[Cron(when.cron, timezone=when.timezone, active=when.enabled)],
            concurrency_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
        ),
    )


def _schedules(job: Job) -> list[Any]:
    plan = job.schedule
    if plan is None:
        return []
    return [Cron(plan.cron, timezone=plan.timezone or job.timezone, active=plan.enabled)]


def _ticks(schedules: Sequence[Any]) -> set[tuple[str | None, str | None]]:
    return {(getattr(each, "cron", None), getattr(each, "timezone", None)) for each in schedules}


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


def _finish(job: Job | None, deployment: RunnerDeployment) -> JobDeployment:
    """Close its parameters, and set a version that changes exactly when its content does."""
    assert isinstance(deployment, JobDeployment)  # noqa: S101 - from_flow says less than it does
    open_schema = deployment._parameter_openapi_schema  # noqa: SLF001 - there is no public way
    given = open_schema.model_dump(exclude_unset=True)
    if job is not None:
        given["properties"]["job"] |= {"enum": [job.name], "readOnly": True}
    deployment._parameter_openapi_schema = ClosedSchema(  # noqa: SLF001
        **given, additionalProperties=False
    )
    content = deployment.model_dump(mode="json", exclude={"version", "triggers"})
    content["schema"] = deployment._parameter_openapi_schema.model_dump()  # noqa: SLF001
    content["triggers"] = [
        trigger.model_dump(mode="json", exclude={"id"}) for trigger in deployment.triggers
    ]
    for schedule in content["schedules"] or []:
        schedule["schedule"].pop("anchor_date", None)
    text = json.dumps(content, sort_keys=True, default=str)
    deployment.version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return deployment
