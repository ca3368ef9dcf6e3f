"""A real MariaDB for the tests: a server of an unprivileged process, in a folder of its own."""

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

# Debian keeps the server in folders that only root's PATH has.
_PATH = os.environ.get("PATH", "").split(os.pathsep)
_PLACES = os.pathsep.join(
    [*_PATH, *(["/usr/sbin", "/usr/local/sbin"] if "/usr/bin" in _PATH else [])]
)
SERVER = shutil.which("mariadbd", path=_PLACES)
INSTALL = shutil.which("mariadb-install-db", path=_PLACES)
MISSING = "MariaDB's server is not installed (apt-get install mariadb-server)"

# No need to survive a power failure; dropping many small tables must be quick.
_SETTINGS = (
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-file-per-table=0",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--skip-name-resolve",
)


class MariaDB:
    """A server that runs until `stop`, with a socket alone unless `network` has its settings."""

    def __init__(self, folder: Path, network: Sequence[str] = ("--skip-networking",)) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        data = folder / "data"
        user = _unprivileged(folder)
        install = [str(INSTALL), "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        install += ["--auth-root-authentication-method=normal"]
        self._run(install, user)
        server = [str(SERVER), "--no-defaults", f"--datadir={data}", f"--socket={self.socket}"]
        server += [f"--pid-file={folder / 'pid'}", f"--log-error={folder / 'log'}", *_SETTINGS]
        server += network
        self.process = subprocess.Popen(
            server, user=user, group=user, cwd=folder, stderr=subprocess.DEVNULL
        )
        atexit.register(self.process.kill)  # if pytest itself breaks
        self._wait()

    @property
    def url(self) -> sa.URL:
        """As root, without a database."""
        return sa.URL.create("mariadb", "root", query={"unix_socket": str(self.socket)})

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        atexit.unregister(self.process.kill)

    def _run(self, command: list[str], user: int | None) -> None:
        done = subprocess.run(
            command, user=user, group=user, cwd=self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            if self.socket.exists():  # it comes when the server is ready
                import pymysql

                pymysql.connect(unix_socket=str(self.socket), user="root").close()
                return
            time.sleep(0.02)
        raise AssertionError("MariaDB did not start in a minute")


def _unprivileged(folder: Path) -> int | None:
    """The user to run as, who owns the folder: an unprivileged one, if this is root; else None."""
    if os.geteuid() != 0:
        return None
    unprivileged = 65534
    os.chown(folder, unprivileged, unprivileged)
    return unprivileged


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[sa.URL]:
    """A MariaDB server for this test run: its URL, without a database."""
    if SERVER is None:
        pytest.skip(MISSING)
    pytest.importorskip("pymysql")
    folder = Path(tempfile.mkdtemp(prefix="nightshift-mariadb-"))
    server = MariaDB(folder)
    yield server.url
    server.stop()
    shutil.rmtree(folder)
