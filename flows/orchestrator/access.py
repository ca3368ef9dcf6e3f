"""Whether this process may use a Prefect API, checked first, for an error that says what to do."""

import os
import ssl
import sys
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from nightshift.adapters.errors import ConfigurationError

SECONDS = 5.0
"""For each request; a healthy server answers in milliseconds."""


@dataclass(frozen=True)
class PrefectServer:
    """A Prefect API that accepts this process."""

    url: str
    version: str | None
    """Of the server's Prefect; None for Prefect Cloud, which does not say."""


def prefect_server(url: str) -> PrefectServer:
    """The server at the URL. Raises ConfigurationError if none answers, or if it refuses us."""
    proxy = _proxy(url)
    through = f" through the proxy {proxy}" if proxy else ""
    by_proxy = "If the proxy is not meant for it, add its host to NO_PROXY." if proxy else ""
    try:
        answer = _get(url, "/admin/version", SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = (
            f"no Prefect server answers at {url}{through} ({str(error) or type(error).__name__})"
        )
        remedy = "Start it, or correct PREFECT_API_URL; without it, `nightshift up` starts one."
        if "CERTIFICATE" in str(error):
            remedy = "Name the file with its authority's certificate in PREFECT_API_SSL_CERT_FILE."
        raise ConfigurationError("Prefect", "", problem, by_proxy or remedy) from error
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        problem = f"the server at {url} refuses this process ({answer.status_code})"
        remedy = "Set PREFECT_API_AUTH_STRING to the server's user:password, or PREFECT_API_KEY."
        raise ConfigurationError("Prefect", "", problem, by_proxy or remedy)
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        problem = f"the server at {url} fails{through} ({answer.status_code})"
        raise ConfigurationError("Prefect", "", problem, by_proxy or "Its log says why.")
    try:
        found = answer.json() if answer.status_code == httpx.codes.OK else None
    except ValueError as error:
        problem = f"what answers at {url} is not a Prefect server"
        raise ConfigurationError("Prefect", "", problem, "Correct PREFECT_API_URL.") from error
    return PrefectServer(url, found if isinstance(found, str) else None)


def require_access(url: str) -> str:
    """The URL, if its server accepts us. Raises ConfigurationError."""
    return prefect_server(url).url


def answers(url: str) -> bool:
    """Whether a healthy server is there, asked once and briefly."""
    try:
        return _get(url, "/health", 2).is_success
    except (httpx.HTTPError, httpx.InvalidURL, ConfigurationError):
        return False


def configured_api() -> str | None:
    """The API that Prefect's settings name: a variable, `.env`, prefect.toml, or the profile."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    from prefect.settings import get_current_settings  # a second of imports

    read_variables()
    return get_current_settings().api.url


def read_variables() -> None:
    """Have Prefect read its variables again, if it is imported: by itself it reads them once."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def reach_loopback_directly() -> None:
    """Have no proxy between this machine and itself; children inherit that."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        more = [host for host in ("127.0.0.1", "localhost") if host not in hosts]
        if "*" not in hosts and more:
            os.environ[name] = ",".join(hosts + more)


def _get(url: str, path: str, seconds: float) -> httpx.Response:
    """One request of Prefect's own client, so with its TLS, headers, credentials and proxies; but
    without its retries, which can take minutes. Raises ConfigurationError or httpx's errors.
    """
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import get_current_settings

    api = get_current_settings().api
    try:
        prefect = SyncPrefectClient(
            url,
            auth_string=api.auth_string.get_secret_value() if api.auth_string else None,
            api_key=api.key.get_secret_value() if api.key else None,
            httpx_settings={"timeout": seconds},
        )
    except (OSError, ssl.SSLError) as error:
        problem = f"{api.ssl_cert_file} holds no certificates ({error.strerror or error})"
        remedy = "Name a file of PEM certificates."
        raise ConfigurationError("Prefect", "PREFECT_API_SSL_CERT_FILE", problem, remedy) from error
    with prefect._client as client:  # noqa: SLF001 - its public methods retry
        return httpx.Client.send(client, client.build_request("GET", path))


def _proxy(url: str) -> str | None:
    """The proxy between here and the server, without its password."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return found and found.rpartition("@")[2]
