"""docker-compose.yml: valid by the compose specification, and fit for more than a laptop."""

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import compose

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = compose.document()["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("nightshift:")]
LASTING = [name for name in SERVICES if name != "jobs"]  # which ends when it has done its work

# A variable is a secret by its name.
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|AUTH_STRING|STORE__KEY")


def test_it_is_valid_by_the_compose_specification() -> None:
    vendored = importlib.resources.files("check_jsonschema.builtin_schemas.vendor")
    schema = json.loads(vendored.joinpath("compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.validate(compose.document(), schema)


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_is_pinned(service: str) -> None:
    name, _, tag = SERVICES[service]["image"].partition(":")
    assert name
    assert re.match(r"\d+\.\d+", tag), "a tag that moves"


@pytest.mark.parametrize("service", LASTING)
def test_a_service_says_whether_it_is_well(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"timeout", "start_period", "interval", "retries"} <= check.keys()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_bounded(service: str) -> None:
    limits = SERVICES[service]["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= limits.keys()
    assert "max-size" in SERVICES[service]["logging"]["options"]
    assert "no-new-privileges:true" in SERVICES[service]["security_opt"]


@pytest.mark.parametrize("service", OURS)
def test_our_image_runs_with_nothing_it_does_not_need(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]


def test_ports_are_open_on_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_who_needs_nothing_from_outside_cannot_reach_it() -> None:
    document = compose.document()
    closed = {name for name, network in document["networks"].items() if network}
    assert closed == {"inside", "models"}
    assert all(document["networks"][name] == {"internal": True} for name in closed)
    open_ = {name for name, found in SERVICES.items() if not closed.issuperset(found["networks"])}
    assert open_ == {"postgres", "s3", "prefect"}


def test_only_its_clients_reach_the_store() -> None:
    """Its gateway answers some calls without a key, at a port that cannot be closed."""
    mine = set(SERVICES["s3"]["networks"])
    assert {name for name in SERVICES if mine & set(SERVICES[name]["networks"])} == {"s3", "worker"}


def test_alerts_and_libraries_are_switched_on_from_the_environment() -> None:
    said = SERVICES["jobs"]["environment"]["NIGHTSHIFT_ALERTS__WEBHOOK"]
    assert said == "${ALERTS_WEBHOOK:-}"
    assert all(SERVICES[name]["build"]["args"]["EXTRAS"] == "${EXTRAS:-}" for name in OURS)


def test_a_service_that_ends_is_waited_for() -> None:
    """By another, or `up --wait` would take its end for a failure."""
    ends = [s.get("depends_on", {}).get("jobs", {}).get("condition") for s in SERVICES.values()]
    assert "service_completed_successfully" in ends


def test_what_is_kept_is_kept_in_named_volumes() -> None:
    volumes = set(compose.document()["volumes"])
    mounted = {line.partition(":")[0] for s in SERVICES.values() for line in s.get("volumes", ())}
    assert {name for name in mounted if not name.startswith(".")} == volumes
    for path in (name for name in mounted if name.startswith(".")):
        assert (ROOT / path).exists()


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_has_a_value_in_the_file(service: str) -> None:
    for name, value in SERVICES[service].get("environment", {}).items():
        if SECRET.search(name):
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", str(value)), name
    assert not SECRET.search(" ".join(map(str, SERVICES[service].get("command", ()))))


def test_a_missing_secret_is_named() -> None:
    for name in compose.required():
        others = {other: "x" for other in compose.required() if other != name}
        with pytest.raises(compose.VariableMissing, match=name):
            compose.services(others)


def test_the_example_has_every_variable_and_no_value() -> None:
    lines = (ROOT / "deploy" / "example.env").read_text(encoding="utf-8").splitlines()
    said = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert said.keys() == compose.required().keys()
    assert not any(said.values())


def test_prefect_asks_for_the_password_that_its_clients_give() -> None:
    said = compose.services(dict.fromkeys(compose.required(), "") | _values())
    server = said["prefect"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert server == "PREFECT_AUTH's"
    for client in ("worker", "jobs"):
        assert said[client]["environment"]["PREFECT_API_AUTH_STRING"] == server


def test_the_image_is_the_project_in_this_version() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {SERVICES[service]["image"] for service in OURS} == {f"nightshift:{version}"}


def test_the_image_is_small_and_not_roots() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert stages == ["python:${PYTHON}"] * 2
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", text.split("FROM")[-1], re.MULTILINE)
    installs = re.findall(r"pip install (.*)", text)
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


def _values() -> dict[str, str]:
    return {name: f"{name}'s" for name in compose.required()}
