"""Whether this process may use a Prefect API, checked first, for an error that says what to do."""

import base64
from dataclasses import dataclass

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
    try:
        answer = httpx.get(f"{url}/admin/version", headers=credentials(), timeout=SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = f"no Prefect server answers at {url} ({str(error) or type(error).__name__})"
        remedy = "Start it, or correct PREFECT_API_URL; without it, `nightshift up` starts one."
        raise ConfigurationError("Prefect", "", problem, remedy) from error
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        problem = f"the server at {url} refuses this process ({answer.status_code})"
        remedy = "Set PREFECT_API_AUTH_STRING to the server's user:password."
        raise ConfigurationError("Prefect", "", problem, remedy)
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        problem = f"the server at {url} fails ({answer.status_code})"
        raise ConfigurationError("Prefect", "", problem, "Its log says why.")
    try:
        found = answer.json() if answer.status_code == httpx.codes.OK else None
    except ValueError as error:
        problem = f"what answers at {url} is not a Prefect server"
        raise ConfigurationError("Prefect", "", problem, "Correct PREFECT_API_URL.") from error
    return PrefectServer(url, found if isinstance(found, str) else None)


def require_access(url: str) -> str:
    """The URL, if its server accepts us. Raises ConfigurationError."""
    return prefect_server(url).url


def credentials() -> dict[str, str]:
    """The header with which Prefect's client would authenticate."""
    from prefect.settings import get_current_settings  # a second of imports

    api = get_current_settings().api
    if api.key is not None:
        return {"Authorization": f"Bearer {api.key.get_secret_value()}"}
    if api.auth_string is not None:
        word = base64.b64encode(api.auth_string.get_secret_value().encode()).decode()
        return {"Authorization": f"Basic {word}"}
    return {}
