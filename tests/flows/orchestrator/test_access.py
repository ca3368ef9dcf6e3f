"""Prefect's own settings and client decide which server is used, and how."""

import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_CLIENT_CUSTOM_HEADERS,
    temporary_settings,
)

from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.orchestrator.access import prefect_server, reach_loopback_directly

API = "http://127.0.0.1:1/api"

WHICH = """
import sys
from pathlib import Path
from nightshift.flows.orchestrator.server import known_api
api = known_api(Path("state"))
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    assert str(client.api_url).rstrip("/") == api, client.api_url
print(api)
"""


def _profile(folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    (home / "profiles.toml").write_text(
        f'active = "work"\n[profiles.work]\nPREFECT_API_URL = "{API}"\n'
    )


def _toml(folder: Path) -> None:
    (folder / "prefect.toml").write_text(f'[api]\nurl = "{API}"\n')


def _dotenv(folder: Path) -> None:
    (folder / ".env").write_text(f"PREFECT_API_URL={API}\n")


@pytest.mark.parametrize("configure", [_profile, _toml, _dotenv])
def test_the_server_of_prefects_own_settings_is_used(
    configure: Callable[[Path], None], tmp_path: Path
) -> None:
    configure(tmp_path)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    found = subprocess.run(
        [sys.executable, "-c", WHICH],
        env={**clean, "PREFECT_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == API, found.stderr


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """What is sent; each request is answered with a version."""
    sent: list[httpx.Request] = []

    def answer(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json="3.0.0")

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    return sent


def test_it_is_asked_as_prefect_asks(requests: list[httpx.Request]) -> None:
    with temporary_settings(
        {
            PREFECT_API_AUTH_STRING: "admin:a:b",
            PREFECT_CLIENT_CUSTOM_HEADERS: {"CF-Access-Client-Id": "robot"},
        }
    ):
        assert prefect_server("http://prefect/api").version == "3.0.0"
    with temporary_settings({PREFECT_API_KEY: "pnu_1"}):
        prefect_server("http://prefect/api")
    first, second = requests
    assert str(first.url) == "http://prefect/api/admin/version"
    assert first.headers["Authorization"] == "Basic YWRtaW46YTpi"
    assert first.headers["CF-Access-Client-Id"] == "robot"
    assert second.headers["Authorization"] == "Bearer pnu_1"


def test_its_certificate_is_checked_as_prefect_checks_it(
    requests: list[httpx.Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[ssl.SSLContext] = []
    original = httpx.HTTPTransport.__init__

    def keep(self: httpx.HTTPTransport, **given: object) -> None:
        if isinstance(given.get("verify"), ssl.SSLContext):
            contexts.append(given["verify"])  # type: ignore[arg-type]
        original(self, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(httpx.HTTPTransport, "__init__", keep)
    with temporary_settings({PREFECT_API_TLS_INSECURE_SKIP_VERIFY: True}):
        prefect_server("https://prefect/api")
    assert {context.verify_mode for context in contexts} == {ssl.CERT_NONE}
    with (
        temporary_settings({PREFECT_API_SSL_CERT_FILE: str(tmp_path / "none.pem")}),
        pytest.raises(ConfigurationError, match="holds no certificates"),
    ):
        prefect_server("https://prefect/api")


def test_a_proxy_that_is_in_the_way_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=r"through the proxy 127\.0\.0\.1:1") as caught:
        prefect_server("http://prefect.example/api")
    assert "NO_PROXY" in caught.value.remedy
    assert "secret" not in str(caught.value)
    reach_loopback_directly()
    with pytest.raises(ConfigurationError) as direct:
        prefect_server(API)
    assert "proxy" not in str(direct.value)
    monkeypatch.setenv("NO_PROXY", os.environ["NO_PROXY"])  # to be undone
    monkeypatch.setenv("no_proxy", os.environ["no_proxy"])
