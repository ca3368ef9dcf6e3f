# ruff: noqa: F811  a fixture that is imported, and asked for
"""One contract over all backends: PostgreSQL's, the generic one on PostgreSQL, SQLite's, MariaDB's
and DuckDB's.

The engines stay, with all that SQLAlchemy has compiled; each test finds their databases empty.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backends import ALL_BACKENDS, CORE, OTHER_DATABASES, Backend
from mariadb import mariadb_server  # noqa: F401 - a fixture
from nightshift.adapters.backends.registry import predictions_class, source_class
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.source.source import Source
from nightshift.adapters.target.predictions import PredictionTable

_SCHEMAS = """
    SELECT quote_ident(nspname) FROM pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\\_%%'"""


@pytest.fixture(scope="session")
def lasting_engine(postgres: sa.URL) -> Iterator[sa.Engine]:
    server = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE backends")
    server.dispose()
    engine = open_engine(postgres.set(database="backends"))
    yield engine
    engine.dispose()


@pytest.fixture
def engine(lasting_engine: sa.Engine) -> Iterator[sa.Engine]:
    yield lasting_engine
    lasting_engine.dispose()
    with lasting_engine.connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ WRITE")
        connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
        connection.exec_driver_sql("ALTER DATABASE backends RESET ALL")
        for schema in connection.exec_driver_sql(_SCHEMAS).scalars().all():
            connection.exec_driver_sql(f"DROP SCHEMA {schema.replace('%', '%%')} CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
        connection.exec_driver_sql("GRANT USAGE ON SCHEMA public TO public")
        connection.commit()
    lasting_engine.dispose()


@pytest.fixture
def database(engine: sa.Engine) -> sa.URL:
    return engine.url


@pytest.fixture(scope="session")
def lasting_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'backends.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite(lasting_sqlite: sa.Engine) -> Iterator[sa.Engine]:
    yield lasting_sqlite
    lasting_sqlite.dispose()
    for file in Path(str(lasting_sqlite.url.database)).parent.iterdir():
        file.unlink()


@pytest.fixture
def fast(engine: sa.Engine) -> Backend:
    """PostgreSQL's own backend."""
    return Backend("fast", engine, source_class(engine), predictions_class(engine))


@pytest.fixture
def generic(engine: sa.Engine) -> Backend:
    """The generic backend, on PostgreSQL."""
    return Backend("generic", engine, Source, PredictionTable)


@pytest.fixture
def lite(sqlite: sa.Engine) -> Backend:
    """SQLite's backend."""
    return Backend("lite", sqlite, source_class(sqlite), predictions_class(sqlite))


@pytest.fixture(scope="session")
def lasting_mariadb(mariadb_server: sa.URL) -> Iterator[sa.Engine]:
    engine = open_engine(mariadb_server.set(database="backends"))
    yield engine
    engine.dispose()


@pytest.fixture
def mariadb(mariadb_server: sa.URL, lasting_mariadb: sa.Engine) -> Iterator[sa.Engine]:
    """An empty database whose defaults are those of many an old one: Latin-1, case-insensitive."""
    server = open_engine(mariadb_server)
    with server.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE backends CHARACTER SET latin1")
    yield lasting_mariadb
    lasting_mariadb.dispose()
    with server.connect() as connection:
        found = connection.exec_driver_sql("SHOW DATABASES").scalars().all()
        for name in set(found) - {"information_schema", "performance_schema", "mysql", "sys"}:
            connection.exec_driver_sql(
                f"DROP DATABASE {server.dialect.identifier_preparer.quote(name)}"
            )
    server.dispose()


@pytest.fixture
def maria(mariadb: sa.Engine) -> Backend:
    """MariaDB's backend."""
    return Backend("maria", mariadb, source_class(mariadb), predictions_class(mariadb))


@pytest.fixture
def duckdb_file(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_engine(f"duckdb:///{tmp_path / 'backends.duckdb'}")
    yield engine
    engine.dispose()


@pytest.fixture
def duck(duckdb_file: sa.Engine) -> Backend:
    """DuckDB's backend."""
    return Backend("duck", duckdb_file, source_class(duckdb_file), predictions_class(duckdb_file))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each backend in turn, unless the module says `BACKENDS`, or the test itself.

    MariaDB's and DuckDB's come to all, mostly in the heavy run.
    """
    marked = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "backend" in metafunc.fixturenames and "backend" not in marked:
        backends = getattr(metafunc.module, "BACKENDS", ALL_BACKENDS)
        marks = () if metafunc.definition.originalname in CORE else (pytest.mark.heavy,)
        others = [pytest.param(name, marks=marks) for name in OTHER_DATABASES]
        metafunc.parametrize("backend", [*backends, *others], indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    """One of the backends, by its name."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Backend)
    return found


@pytest.fixture(params=["fast", "generic"])
def postgres_backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend that PostgreSQL can have."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Backend)
    return found
