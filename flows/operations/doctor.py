"""Is everything there that a run needs? Each check asks about one thing, and says how to fix it.

The checks run in threads and are abandoned after `DEADLINE`, so that an operator gets an answer
soon even when everything is down. They change nothing that they share, and import nothing: threads
that import a module at the same time may see it half initialized.
"""

import importlib.metadata
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import sqlalchemy as sa
from packaging.requirements import Requirement

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.engine import open_engine, open_source_engine
from nightshift.adapters.errors import (
    ConfigurationError,
    ModelNotFound,
    NightshiftError,
    StatementFailed,
    StoreAccessDenied,
    TransientError,
)
from nightshift.adapters.history import health
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.store.keys import SigningKey
from nightshift.flows.config.job import job_names, load_job
from nightshift.flows.config.resources import open_resources, open_store
from nightshift.flows.config.settings import Settings, load_settings, settings_file
from nightshift.flows.orchestrator.access import prefect_server
from nightshift.flows.orchestrator.server import known_api
from nightshift.flows.text import format_duration

DEADLINE = 10.0  # seconds for all checks together
CONNECT_SECONDS = 4  # for one attempt to reach a database
MAX_CLOCK_SKEW = 5.0  # seconds; far less than a lease, far more than NTP leaves
LITTLE_SPACE = 1024**3  # bytes
_LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$", re.MULTILINE)

State = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    state: State
    """`warn`: works, but needs attention; `skip`: another problem prevents the check."""
    text: str
    remedy: str = ""
    """How to fix it."""


Findings = Iterator[Finding]
Check = Callable[[Settings], Findings]


def examine(deadline: float = DEADLINE) -> list[Finding]:
    """All findings, in the order of `CHECKS`, at most `deadline` seconds from now."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        problem = f"{error.field}: {error.problem}" if error.field else error.problem
        found = Finding("settings", "fail", f"{error.place}: {problem}", error.remedy)
        skipped = "the settings cannot be read"
        return [found, *_versions(), *(Finding(name, "skip", skipped) for name in CHECKS)]
    import prefect.client.orchestration  # noqa: F401 - takes seconds, and not in a thread

    found = Finding("settings", "ok", str(settings_file().absolute()))
    return [found, *_versions(), *_run_checks(settings, deadline)]


def _run_checks(settings: Settings, deadline: float) -> list[Finding]:
    """All checks in threads, which are abandoned after the deadline."""
    found: dict[str, list[Finding]] = {name: [] for name in CHECKS}
    over: set[str] = set()
    done = threading.Semaphore(0)

    def run(name: str, check: Check) -> None:
        findings = found[name]
        try:
            for finding in check(settings):
                findings.append(finding)  # one by one, to keep those before an error
        except ConfigurationError as error:
            text = (
                f"{error.place}: {error.field}: {error.problem}" if error.field else error.problem
            )
            findings.append(Finding(name, "fail", text, error.remedy))
        except NightshiftError as error:
            findings.append(Finding(name, "fail", str(error)))
        except Exception as error:  # a check that breaks must not hide the others
            text = f"the check itself failed ({type(error).__name__}: {error})"
            findings.append(Finding(name, "fail", text, "Please report this."))
        over.add(name)
        done.release()

    for name, check in CHECKS.items():
        threading.Thread(target=run, args=(name, check), name=f"doctor-{name}", daemon=True).start()
    timer = threading.Timer(deadline, lambda: done.release(len(CHECKS)))
    timer.daemon = True
    timer.start()
    for _ in CHECKS:
        done.acquire()
    timer.cancel()
    late = f"no answer within {deadline:.0f} s"
    for name in CHECKS.keys() - over:
        found[name].append(Finding(name, "fail", late, "Check that it is up and not overloaded."))
    return [finding for name in CHECKS for finding in tuple(found[name])]


# --- this machine -------------------------------------------------------------------------------


def _versions() -> Findings:
    python = ".".join(map(str, sys.version_info[:3]))
    text = f"Nightshift {importlib.metadata.version('nightshift-batch')}, Python {python}"
    wrong = list(_find_unmet())
    if wrong:
        remedy = "Install it again: pip install --upgrade nightshift-batch"
        yield Finding("versions", "fail", f"{text}; {', '.join(wrong)}", remedy)
        return
    other = list(_find_untested())
    if other:
        names = ", ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
        remedy = "Install the tested set: pip install -c constraints.txt nightshift-batch"
        yield Finding("versions", "warn", f"{text}; not as tested: {names}", remedy)
    else:
        yield Finding("versions", "ok", text)


def _find_unmet() -> Iterator[str]:
    """Packages whose version Nightshift cannot work with."""
    for line in importlib.metadata.requires("nightshift-batch") or ():
        required = Requirement(line)
        if required.marker is not None and not required.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(required.name)
        except PackageNotFoundError:
            yield f"{required.name} is missing"
            continue
        if not required.specifier.contains(found, prereleases=True):
            yield f"{required.name} {found} is not {required.specifier}"


def _find_untested() -> Iterator[str]:
    """Packages in other versions than in constraints.txt, where there is such a file."""
    places = (Path(__file__).resolve().parents[2], Path(sys.prefix))  # a clone; our image
    file = next((p / "constraints.txt" for p in places if (p / "constraints.txt").is_file()), None)
    for name, pinned in _PINNED.findall(file.read_text(encoding="utf-8")) if file else ():
        try:
            found = importlib.metadata.version(name)
        except PackageNotFoundError:
            continue
        if found.partition("+")[0] != pinned:
            yield f"{name} {found}, not {pinned}"


def _space(settings: Settings) -> Findings:
    place = settings.state_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / 1024**3:,.1f} GiB free for {settings.state_dir}"
    if not os.access(place, os.W_OK):
        remedy = "Give this user write access, or set another folder in state_dir."
        yield Finding("disk", "fail", f"{place} is not writable", remedy)
    elif free < LITTLE_SPACE:
        yield Finding(
            "disk", "warn", text, "Free some space: models are cached there while in use."
        )
    else:
        yield Finding("disk", "ok", text)


def _keys(settings: Settings) -> Findings:
    trusted = settings.trust_policy().keys
    if trusted:
        yield Finding(
            "keys", "ok", f"models signed with {len(trusted)} trusted key(s) may be opened"
        )
    elif settings.trust.pickle == "signed":
        text = "no key is trusted: models in formats that can run code are refused"
        yield Finding("keys", "warn", text, "Name the signer's public key in trust.keys.")
    path = settings.trust.sign_key
    if path is None or not path.is_file():
        yield Finding("keys", "ok", "no private key: models registered here are not signed")
        return
    if path.stat().st_mode & 0o077:
        yield Finding("keys", "warn", f"other users may read {path}", f"chmod 600 {path}")
    if SigningKey.load(path).public not in trusted:
        text = f"models signed here with {path} are not trusted here"
        yield Finding("keys", "warn", text, f"Add {path.with_suffix('.pub')} to trust.keys.")


# --- what it works with -------------------------------------------------------------------------


def _store(settings: Settings) -> Findings:
    impatient = {"connect_timeout": 2.0, "read_timeout": 3.0, "retries": 0}
    patience = settings.store.model_copy(update=impatient)
    store = open_store(settings.model_copy(update={"store": patience}))
    names = store.models()
    yield Finding("store", "ok", f"{store.url}: {len(names)} model(s)")
    endpoint = urlsplit(settings.store.endpoint_url or "")
    if endpoint.scheme == "http" and endpoint.hostname not in _LOCAL_HOSTS:
        text = f"{settings.store.endpoint_url} is not encrypted"
        yield Finding("store", "warn", text, "Use https, and store.ca_bundle for its authority.")
    try:
        store.require_conditions()
    except StoreAccessDenied:
        yield Finding("store", "ok", "read only: this machine can score and cannot register models")
    else:
        yield Finding("store", "ok", "conditional writes work: two registrations get two versions")


def _target(settings: Settings) -> Findings:
    with _engine(settings.target_url()) as engine:
        contact = _contact(engine, "NIGHTSHIFT_DATABASE__PASSWORD")
        yield from _describe_contact("database", engine, contact)
        if contact.superuser and engine.url.host not in {None, ""}:
            text = f"the role {contact.user!r} is a superuser: no privilege protects other tables"
            yield Finding(
                "database", "warn", text, "docs/security.md has a role with fewer privileges."
            )
        ledger = Ledger(engine, settings.database.schema_, settings.database.lease)
        for problem in health.find_write_problems(ledger):
            text, _, remedy = problem.partition("; ")
            yield Finding("database", "fail", text, f"{remedy}.")
        if missing := health.find_missing_columns(ledger):
            text = f"the ledger's tables were changed: they lack {', '.join(missing)}"
            yield Finding("database", "fail", text, "Restore them from a backup.")
        for run in health.find_abandoned_runs(ledger):
            text = f"run {run.run_id} ({run.job} {run.partition}) was abandoned by {run.owner}: "
            text += f"no heartbeat for {format_duration(run.silent)}"
            remedy = f"To resume it: nightshift run {run.job} --partition {run.partition}"
            yield Finding("runs", "fail", text, remedy)


def _source(settings: Settings) -> Findings:
    if settings.database.source_url is None:
        return
    with _engine(settings.source_url(), settings.target_url()) as engine:
        contact = _contact(engine, "NIGHTSHIFT_DATABASE__SOURCE_PASSWORD")
        yield from _describe_contact("source", engine, contact)
        if contact.superuser:
            text = f"the role {contact.user!r} is a superuser, and only needs to read"
            yield Finding("source", "warn", text, "docs/security.md has a role that only reads.")


def _contact(engine: sa.Engine, password: str) -> health.Contact:
    try:
        return health.contact(engine)
    except StatementFailed as error:
        remedy = f"Check the URL's user, host and database, and {password}."
        raise ConfigurationError("the database", "", error.problem, remedy) from error


def _describe_contact(check: str, engine: sa.Engine, contact: health.Contact) -> Findings:
    url = engine.url
    plain = sa.URL.create(
        url.get_backend_name(), url.username, None, url.host, url.port, url.database
    )
    where = f"{contact.product} at {plain.render_as_string()}"
    encryption = {True: ", encrypted", False: "", None: ""}[contact.encrypted]
    yield Finding(check, "ok", f"{where}: {contact.milliseconds:.1f} ms{encryption}")
    if contact.encrypted is False and engine.url.host not in _LOCAL_HOSTS:
        verified = capabilities(engine.dialect).verified_tls
        text, remedy = "the connection is not encrypted", f"Add ?{verified} to the URL."
        yield Finding(check, "warn", text, remedy)
    if abs(contact.clock_skew) > MAX_CLOCK_SKEW:
        direction = "ahead" if contact.clock_skew > 0 else "behind"
        text = f"its clock is {format_duration(abs(contact.clock_skew))} {direction}"
        yield Finding(check, "warn", text, "Synchronize the clocks of both machines with NTP.")


def _jobs(settings: Settings) -> Findings:
    """Each job file, its model in the store, its source and its target."""
    names = job_names()
    if not names:
        yield Finding("jobs", "warn", "no job file yet", "Write one: config/jobs/NAME.yaml")
    store, good = open_store(settings), 0
    for name in names:
        try:
            job = load_job(name)
            manifest = store.resolve(job.model)
            with open_resources(settings, job) as resources:
                signature = manifest.signature
                job.checks.require_known_columns((*signature.input_names, *signature.output_names))
                resources.source.check(signature)
                resources.predictions(manifest.signature).check()
        except ConfigurationError as error:
            text = f"{error.field}: {error.problem}" if error.field else error.problem
            yield Finding("jobs", "fail", f"{name}: {text}", error.remedy)
        except ModelNotFound as error:
            if error.known:
                yield Finding("jobs", "fail", f"{name}: {error}")
            else:  # a new project
                model, _, alias = error.reference.partition("@")
                remedy = f"nightshift register FILE --name {model} --sample FILE"
                remedy += f" --promote {alias}" if alias and not alias.isdigit() else ""
                text = f"{name}: no model is registered yet"
                yield Finding("jobs", "warn", text, f"Next: {remedy}")
        except TransientError:
            yield Finding(
                "jobs", "skip", f"{name} and others need a database or store that cannot be reached"
            )
            return
        except NightshiftError as error:
            yield Finding("jobs", "fail", f"{name}: {error}")
        else:
            good += 1
    if good:
        yield Finding("jobs", "ok", f"{good} of {len(names)} can run now")


def _prefect(settings: Settings) -> Findings:
    url = known_api(settings.state_dir)
    if url is None:
        text = "no server is set or running: `nightshift run` starts one each time"
        yield Finding("prefect", "warn", text, "Run `nightshift up`, or set PREFECT_API_URL.")
        return
    server, mine = prefect_server(url), importlib.metadata.version("prefect")
    if server.version is not None and server.version != mine:
        text = f"{url} runs Prefect {server.version}, this machine {mine}"
        yield Finding("prefect", "warn", text, "Install the same version at both ends.")
    else:
        yield Finding("prefect", "ok", f"{url}: Prefect {server.version or 'Cloud'}")
    if url.startswith("http://") and urlsplit(url).hostname not in _LOCAL_HOSTS:
        text = f"{url} is not encrypted"
        yield Finding("prefect", "warn", text, "Put it behind a proxy with TLS.")


CHECKS: dict[str, Check] = {
    "disk": _space,
    "keys": _keys,
    "store": _store,
    "database": _target,
    "source": _source,
    "jobs": _jobs,
    "prefect": _prefect,
}


@contextmanager
def _engine(url: sa.URL, target: sa.URL | None = None) -> Iterator[sa.Engine]:
    """With a `target`, the URL is the source's."""
    if target is None:
        engine = open_engine(url, CONNECT_SECONDS)
    else:
        engine = open_source_engine(url, target, CONNECT_SECONDS)
    try:
        yield engine
    finally:
        engine.dispose()
