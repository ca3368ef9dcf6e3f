"""What one run of one job works with: settings and job file turned into store, source, target."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from nightshift.adapters.backends.registry import predictions_lane, source_lane
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.database.watchdog import watch
from nightshift.adapters.errors import ConfigurationError, NightshiftError
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.models.model import Model
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.source import Source
from nightshift.adapters.store.model_store import (
    CHAMPION,
    Manifest,
    ModelStore,
    StoreOptions,
    somebody,
)
from nightshift.adapters.store.trust_policy import SigningKey
from nightshift.adapters.target.predictions import Predictions
from nightshift.flows.config.job import Job, job_names, load_job
from nightshift.flows.config.settings import Settings, load_settings

NOTHING_YET = "the ledger"
"""The place of the error that says that there is no ledger."""


class JobResources:
    """The source, the ledger and the target of a job, on open engines."""

    def __init__(self, job: Job, source: Source, ledger: Ledger) -> None:
        self.job = job
        self.source = source
        self.ledger = ledger

    def predictions(self, signature: Signature) -> Predictions:
        lane = predictions_lane(self.ledger.engine)
        target = self.job.target
        return lane(self.ledger, self.source, target.table, signature.outputs, target.index_key)

    def reading_sql(self) -> str:
        """The SQL that a reader of the predictions would start from."""
        table = sa.table(self.job.target.table, schema=self.ledger.tables.runs.schema)
        key: list[sa.ColumnClause[object]] = [sa.column(name) for name in self.job.source.key]
        select = sa.select(sa.text("*")).select_from(table).order_by(*key).limit(10)
        options = {"literal_binds": True}
        text = select.compile(dialect=self.ledger.engine.dialect, compile_kwargs=options)
        return " ".join(str(text).split()) + ";"


@contextmanager
def open_resources(settings: Settings, job: Job) -> Iterator[JobResources]:
    """Engines are made here and disposed of at the end; nothing connects before it must."""
    target_url, source_url = settings.target_url(), settings.source_url()
    target = open_engine(target_url)
    source = target if source_url == target_url else open_engine(source_url)
    try:
        ledger = Ledger(target, settings.database.schema_, settings.database.lease)
        with ExitStack() as watching:
            for engine in {source, target}:
                watching.enter_context(watch(engine))
            yield JobResources(job, source_lane(source)(source, job.source_spec()), ledger)
    finally:
        source.dispose()
        target.dispose()


@contextmanager
def open_ledger(settings: Settings) -> Iterator[Ledger]:
    """The ledger by itself. Raises ConfigurationError if nothing was ever scored."""
    engine = open_engine(settings.target_url())
    try:
        ledger = Ledger(engine, settings.database.schema_, settings.database.lease)
        if not ledger.exists():
            problem, remedy = "nothing was scored yet", "`nightshift run JOB` begins."
            raise ConfigurationError(NOTHING_YET, "", problem, remedy)
        with watch(engine):
            yield ledger
    finally:
        engine.dispose()


def person() -> str:
    """Who is at work here, for the ledger: user@host."""
    return f"{somebody()}@{socket.gethostname()}"


def open_store(settings: Settings) -> ModelStore:
    """The model store of the settings. Raises ConfigurationError for what cannot be one."""
    store = settings.store
    if (store.key is None) != (store.secret is None):
        missing = "key" if store.key is None else "secret"
        problem = "an access key and its secret go together"
        remedy = f"Set NIGHTSHIFT_STORE__{missing.upper()}, too."
        raise ConfigurationError("the environment", f"store.{missing}", problem, remedy)
    options = StoreOptions(
        cache_dir=settings.state_dir / "models",
        endpoint_url=store.endpoint_url,
        region=store.region,
        ca_bundle=store.ca_bundle,
        key=store.key.get_secret_value() if store.key else None,
        secret=store.secret.get_secret_value() if store.secret else None,
        connect_timeout=store.connect_timeout,
        read_timeout=store.read_timeout,
        retries=store.retries,
        slowest_transfer=store.slowest_transfer,
    )
    return ModelStore(settings.store_url(), options, settings.trust_policy())


def publish(
    name: str, model: Model, sample: pd.DataFrame, sign_key: Path | None = None, **details: Any
) -> Manifest:
    """Put a model into this project's store as its next version, signed with its key.

    `sign_key` is a private key file in place of trust.sign_key; `details` are those of
    `ModelStore.publish`: metrics, description, trained_through.
    """
    settings = load_settings()
    key = sign_key or settings.sign_key()
    signing = None if key is None else SigningKey.load(key)
    return open_store(settings).publish(name, model, sample, sign_with=signing, **details)


def create_key(settings: Settings) -> Path:
    """Make this machine's key pair, where the settings say; the path of the public half."""
    path = settings.sign_key()
    if path is None:
        problem, remedy = "it is not set", "Name a file for the private key there."
        raise ConfigurationError("nightshift.yaml", "trust.sign_key", problem, remedy)
    path.parent.mkdir(parents=True, exist_ok=True)
    key = SigningKey.create()
    key.save(path)
    public = path.with_suffix(".pub")
    public.write_text(key.public + "\n", encoding="utf-8")
    return public


def broken_jobs(settings: Settings, manifest: Manifest, alias: str) -> dict[str, str]:
    """The jobs that use the alias and could not run with this version: name -> why not."""
    broken = {}
    for name in job_names():
        try:
            job = load_job(name)
        except ConfigurationError:
            continue  # it could not run with any version, and says so itself
        if not uses_alias(job, manifest.name, alias):
            continue
        try:
            with open_resources(settings, job) as desk:
                desk.source.check(manifest.signature)
                desk.predictions(manifest.signature).check()
        except NightshiftError as error:
            broken[name] = str(error)
    return broken


def any_job_waits() -> bool:
    """Whether a job asks to be told of events."""
    for name in job_names():
        with suppress(ConfigurationError):
            if load_job(name).on is not None:
                return True
    return False


def uses_alias(job: Job, name: str, alias: str) -> bool:
    """Whether the job scores with the version that this alias of the model names."""
    by_default = job.model == name and alias == CHAMPION
    return by_default or job.model == f"{name}@{alias}"
