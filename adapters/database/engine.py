"""Engines: how Nightshift connects to each database."""

from pathlib import Path

import sqlalchemy as sa

from nightshift.adapters.database import watchdog
from nightshift.adapters.database.capabilities import capabilities_of, with_driver
from nightshift.adapters.database.urls import parse_database_url
from nightshift.adapters.errors import ConfigurationError

# Each partition holds a connection while it is scored and needs others to write. With a bounded
# pool, enough partitions at once would wait for each other without end.
_UNBOUNDED = -1


def open_engine(url: str | sa.URL, connect_timeout: int = 10, *, source: bool = False) -> sa.Engine:
    """An engine for one database. Nothing connects before the first use; dispose of it after.

    A `source` is only read: a file is neither made nor changed, and may be on a read-only disk.
    `connect_timeout` is in seconds and bounds each attempt to reach a server. Raises
    ConfigurationError if the database's driver is not installed, and for a part of the URL that
    would be ignored.
    """
    parsed = with_driver(parse_database_url(url) if isinstance(url, str) else url)
    here = capabilities_of(parsed.get_backend_name())
    here.check_url(parsed)
    here.check_parts(parsed)
    options = here.engine_options(parsed, connect_timeout)
    if source:
        options |= here.source_options(parsed)
    try:
        engine = sa.create_engine(parsed, max_overflow=_UNBOUNDED, **options)
    except ModuleNotFoundError as error:
        package, extra = here.package or (str(error.name), "")
        what = f"'nightshift-batch[{extra}]'" if extra else package
        problem = f"{parsed.drivername} needs the package {package}, which is not installed"
        remedy = f"Install it with: pip install {what}"
        raise ConfigurationError("nightshift.yaml", "database.url", problem, remedy) from error
    here.configure(engine)
    if here.is_server:
        sa.event.listen(  # before the first question on it
            engine, "connect", lambda made, _: watchdog.track_connection(made, engine), insert=True
        )
    return read_only(engine) if source else engine


def open_source_engine(source: sa.URL, target: sa.URL, connect_timeout: int = 10) -> sa.Engine:
    """An engine for the source; one that could write where it is the target's file as well."""
    files = [Path(url.database or "").resolve() for url in (source, target)]
    shared = files[0] == files[1] and source.get_backend_name() == target.get_backend_name()
    is_file = not capabilities_of(source.get_backend_name()).is_server
    return open_engine(source, connect_timeout, source=not (is_file and shared))


def read_only(engine: sa.Engine) -> sa.Engine:
    """The same engine, whose transactions only read: where writers take turns, they do not wait."""
    return engine.execution_options(nightshift_read_only=True)


def open_reader(engine: sa.Engine) -> sa.Connection:
    return read_only(engine).connect()


def database_name(engine: sa.Engine) -> str:
    """The database's URL for people, without its password."""
    return engine.url.render_as_string(hide_password=True)
