"""What one run of one job works with: settings and job file turned into store, source, target."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import sqlalchemy as sa

from nightshift.adapters.backends.registry import predictions_class, source_class
from nightshift.adapters.database.engine import open_engine, open_source_engine
from nightshift.adapters.database.watchdog import watch
from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.source import Source
from nightshift.adapters.store.model_store import (
    ModelStore,
    StoreOptions,
    user_name,
)
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.flows.config.job import Job, job_names, load_job
from nightshift.flows.config.settings import Settings

NOTHING_YET = "the ledger"
"""The place of the error that says that there is no ledger."""


class JobResources:
    """The source, the ledger and the target of a job, on open engines."""

    def __init__(self, job: Job, source: Source, ledger: Ledger) -> None:
        self.job = job
        self.source = source
        self.ledger = ledger

    def predictions(self, signature: Signature) -> PredictionTable:
        table = predictions_class(self.ledger.engine)
        target = self.job.target
        return table(self.ledger, self.source, target.table, signature.outputs, target.index_key)

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
    source = target if source_url == target_url else open_source_engine(source_url, target_url)
    try:
        ledger = Ledger(target, settings.database.schema_, settings.database.lease)
        with ExitStack() as watching:
            for engine in {source, target}:
                watching.enter_context(watch(engine))
            yield JobResources(job, source_class(source)(source, job.source_spec()), ledger)
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


def current_user() -> str:
    """user@host, as the ledger records it."""
    return f"{user_name()}@{socket.gethostname()}"


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


def any_job_waits() -> bool:
    """Whether a job starts on events (`on:`)."""
    for name in job_names():
        with suppress(ConfigurationError):
            if load_job(name).on is not None:
                return True
    return False
