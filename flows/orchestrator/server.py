"""A Prefect API for a command: the one that is set, or a local server while it runs."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.orchestrator.access import (
    answers,
    configured_api,
    reach_loopback_directly,
    read_variables,
    require_access,
)

STARTUP_SECONDS = 120.0
STOP_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1  # prctl(2)


@contextmanager
def prefect_api(state_dir: Path, port: int | None = None) -> Iterator[Callable[[], str]]:
    """A Prefect API for this process and its children. Yields a function that waits until the API
    answers and returns its URL.

    The one that Prefect's settings name; else one that `nightshift up` runs; else a server of our
    own that ends with this context, on `port` or a free one. It sets PREFECT_ variables.
    """
    reach_loopback_directly()
    if port is None:
        keep_console_quiet()
        configured = known_api(state_dir)
        if configured:
            yield lambda: require_access(configured)
            return
    else:
        _require_free(port)
    home = (state_dir / "prefect").absolute()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
    os.environ.pop("PREFECT_API_URL", None)
    if password := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):  # clients need it, too
        os.environ.setdefault("PREFECT_API_AUTH_STRING", password)
    port = port or _free_port()
    url = f"http://127.0.0.1:{port}/api"
    with (home / "server.log").open("ab") as log:
        server = _start(port, log.fileno())
        try:
            os.environ["PREFECT_API_URL"] = url
            read_variables()
            yield lambda: _wait_until_healthy(server, url, home / "server.log")
        finally:
            flush_logs_and_events()
            os.environ.pop("PREFECT_API_URL", None)
            _stop(server)


def keep_console_quiet() -> None:
    """Show only the command's own output in a terminal; Prefect's API keeps Prefect's log."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


@contextmanager
def announce(state_dir: Path, url: str) -> Iterator[None]:
    """Let other commands of this project find the server while in this context."""
    from nightshift.adapters.ledger.leases import new_owner

    note = state_dir / "prefect" / "api_url"
    note.write_text(f"{url} {new_owner()}", encoding="utf-8")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def known_api(state_dir: Path) -> str | None:
    """The API that Prefect's settings name, or of the server that `nightshift up` runs, if there
    is one. From then on it is the one of PREFECT_API_URL, also for children.
    """
    reach_loopback_directly()
    known = configured_api() or running_api(state_dir)
    if known:
        os.environ["PREFECT_API_URL"] = known
        read_variables()
    return known or None


def accepts_events(state_dir: Path) -> bool:
    """Whether there is a Prefect API that takes events now."""
    keep_console_quiet()
    api = known_api(state_dir)
    return api is not None and answers(api)


def running_api(state_dir: Path) -> str | None:
    """The API of the server that `nightshift up` runs in this project; None if it does not."""
    note = state_dir / "prefect" / "api_url"
    if not note.is_file():
        return None
    from nightshift.adapters.ledger.leases import is_dead

    url, _, owner = note.read_text(encoding="utf-8").partition(" ")
    if owner and is_dead(owner):  # killed; another process may have its port now
        return None
    return url if _healthy(url) else None


def _healthy(url: str) -> bool:
    """Of a server on this machine, which needs neither a proxy nor a certificate."""
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False, verify=False).is_success  # noqa: S501
    except httpx.HTTPError:
        return False


def _require_free(port: int) -> None:
    """Raises ConfigurationError if another program has the port: jobs of this project must not
    get to the server of another.
    """
    url = f"http://127.0.0.1:{port}/api"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Prefect's server does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            problem, remedy = f"the port cannot be used ({error.strerror})", "Choose another port."
            if _healthy(url):
                problem = "another Prefect server uses the port"
                remedy += f" Or use that server: `PREFECT_API_URL={url} nightshift serve`."
            raise ConfigurationError("--port", str(port), problem, remedy) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(port: int, log: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "DO_NOT_TRACK": "1",
        # How often a run that waits for the one before it looks again; the default is 30 seconds.
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        # Runs planned ahead: those that fall due while the server is down are started later.
        "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_RUNS": "14",
    }
    return subprocess.Popen(  # noqa: S603 - our own arguments
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,  # Ctrl-C goes to us; we stop the server at the end
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


def _die_with_parent() -> None:
    """Have the kernel stop the server when this process dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_healthy(server: "subprocess.Popen[bytes]", url: str, log: Path) -> str:
    deadline = time.monotonic() + STARTUP_SECONDS
    while (ended := server.poll() is not None) or not _healthy(url):
        if ended or time.monotonic() > deadline:
            problem = "the local Prefect server did not start"
            remedy = f"Its log says why: {log}. Or set PREFECT_API_URL to a running server."
            raise ConfigurationError("Prefect", "", problem, remedy)
        time.sleep(0.1)
    return url


def flush_logs_and_events() -> None:
    """Have Prefect's background threads send their logs and events before the server ends."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=STOP_SECONDS, at_exit=False)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
