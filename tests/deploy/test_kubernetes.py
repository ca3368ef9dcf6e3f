"""The job template: what Prefect's Kubernetes worker makes of it is a job that Kubernetes takes."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
import yaml
from prefect.client.schemas.objects import Flow, FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
TEMPLATE: dict[str, Any] = json.loads((FOLDER / "base-job-template.json").read_text())
PROPERTIES: dict[str, Any] = TEMPLATE["variables"]["properties"]


def rendered(**values: Any) -> dict[str, Any]:
    """The manifest of a flow run's job, made by Prefect's own worker."""
    worker = pytest.importorskip("prefect_kubernetes.worker")

    async def make() -> dict[str, Any]:
        configuration = await worker.KubernetesWorkerJobConfiguration.from_template_and_values(
            base_job_template=TEMPLATE, values=values
        )
        flow = Flow(id=uuid4(), name="score")
        run = FlowRun(id=uuid4(), flow_id=flow.id, name="orders 2024-03-01 v7")
        configuration.prepare_for_flow_run(run, flow=flow)
        manifest: dict[str, Any] = configuration.job_manifest
        return manifest

    with temporary_settings({PREFECT_API_URL: "http://prefect:4200/api"}):  # it is not asked
        return asyncio.run(make())


def test_its_variables_are_those_of_prefects_own_template_and_ours() -> None:
    worker = pytest.importorskip("prefect_kubernetes")
    own = worker.KubernetesWorker.get_default_base_job_template()["variables"]["properties"]
    ours = {"secret", "settings_config_map", "jobs_config_map", "state_size", "deadline_seconds"}
    assert PROPERTIES.keys() == own.keys() | ours


def test_every_placeholder_is_a_variable() -> None:
    text = json.dumps(TEMPLATE["job_configuration"])
    assert set(re.findall(r"\{\{ (\w+) \}\}", text)) == PROPERTIES.keys()
    jsonschema.Draft202012Validator.check_schema(TEMPLATE["variables"])


def test_kubernetes_takes_the_job() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    manifest = rendered()
    manifest["metadata"]["name"] = manifest["metadata"].pop("generateName") + "x"
    for name in ("completions", "parallelism"):  # Prefect wants them there, Kubernetes drops them
        del manifest["spec"]["template"]["spec"][name]
    validator.validate(manifest, validator.latest_version(), strict=True)


def test_the_job_is_bounded_and_has_no_secret_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__PASSWORD", "hunter2")
    manifest = rendered(memory_limit="8Gi", secret="churn")
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "8Gi"}
    assert container["envFrom"] == [{"secretRef": {"name": "churn"}}]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert "hunter2" not in json.dumps(manifest)
    assert manifest["spec"]["activeDeadlineSeconds"] == 86400


@pytest.mark.parametrize("kind", ["job", "worker"])
def test_a_pod_is_not_roots_and_cannot_write_to_its_image(kind: str) -> None:
    job = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    documents = list(yaml.safe_load_all((FOLDER / "worker.yaml").read_text()))
    pod = job if kind == "job" else documents[-1]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"limits", "requests"} <= container["resources"].keys()
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/tmp", "/app/.nightshift"} <= mounted


def test_kubernetes_takes_the_worker() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all((FOLDER / "worker.yaml").read_text()):
        validator.validate(document, validator.latest_version(), strict=True)


def test_the_worker_keeps_prefects_password_out_of_the_jobs_manifests() -> None:
    documents = list(yaml.safe_load_all((FOLDER / "worker.yaml").read_text()))
    (container,) = documents[-1]["spec"]["template"]["spec"]["containers"]
    said = {line["name"]: line for line in container["env"]}
    secret = said["PREFECT_API_AUTH_STRING"]["valueFrom"]["secretKeyRef"]
    prefix = "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET"
    assert said[f"{prefix}_NAME"]["value"] == secret["name"]
    assert said[f"{prefix}_KEY"]["value"] == secret["key"]
