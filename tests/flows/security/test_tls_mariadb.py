"""TLS to MariaDB by the URL's parameters, and what `nightshift doctor` says of it."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from certificates import Certificates
from mariadb import MISSING, SERVER, MariaDB
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import StatementFailed
from nightshift.adapters.history.health import Contact, contact, find_write_problems
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.flows.operations.doctor import examine
from nightshift.flows.score import score
from project import Project

USERS = (
    "CREATE DATABASE warehouse",
    "CREATE USER writer IDENTIFIED BY 'secret' REQUIRE SSL",
    "GRANT ALL ON warehouse.* TO writer",
    "CREATE USER reader IDENTIFIED BY 'secret'",
    "GRANT SELECT, CREATE ON `ware%%`.* TO reader",
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not in pytest's: the server's user may not look into that one."""
    made = Path(tempfile.mkdtemp(prefix="nightshift-encrypted-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def certificates(folder: Path) -> Certificates:
    made = Certificates.create(folder / "trusted")
    made.key.chmod(0o644)
    return made


@pytest.fixture(scope="module")
def server(folder: Path, certificates: Certificates) -> Iterator[sa.URL]:
    """Its URL, for a user who is let in over TLS only."""
    given = [f"--ssl-cert={certificates.certificate}", f"--ssl-key={certificates.key}"]
    with listening(folder / "server", *given) as url:
        yield url


@contextmanager
def listening(folder: Path, *settings: str) -> Iterator[sa.URL]:
    if SERVER is None:
        pytest.skip(MISSING)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder.mkdir()
    server = MariaDB(folder, ["--bind-address=127.0.0.1", f"--port={port}", *settings])
    engine = open_engine(server.url)
    try:
        with engine.begin() as connection:
            for statement in USERS:
                connection.exec_driver_sql(statement)
        yield sa.URL.create("mariadb", "writer", "secret", "127.0.0.1", port, "warehouse")
    finally:
        engine.dispose()
        server.stop()


def trusting(url: sa.URL, whom: Certificates) -> sa.URL:
    return url.update_query_dict({"ssl_ca": str(whom.authority)})


def reached(url: sa.URL) -> Contact:
    engine = open_engine(url)
    try:
        return contact(engine)
    finally:
        engine.dispose()


def test_a_run_over_tls(
    project: Project,
    server: sa.URL,
    certificates: Certificates,
    prefect: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = trusting(server, certificates)
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", url.render_as_string(hide_password=False))
    project.engine = open_engine(url)
    project.sql("CREATE TABLE orders (id bigint PRIMARY KEY, placed_at datetime(6), x double)")
    project.sql("INSERT INTO orders VALUES (1, '2024-03-01', 0.5), (2, '2024-03-01', 1.5)")
    project.register()
    assert score("orders", "2024-03-01").rows == 2
    assert project.scores() == {1: 1.0, 2: 3.0}
    project.engine.dispose()


def test_a_server_that_is_not_trusted_is_refused_for_good(server: sa.URL, tmp_path: Path) -> None:
    """It is not transient: trying again would not help."""
    others = Certificates.create(tmp_path / "others")
    with pytest.raises(StatementFailed, match="certificate verify failed"):
        reached(trusting(server, others))


def test_a_server_of_another_name_is_refused_for_good(
    server: sa.URL, certificates: Certificates
) -> None:
    with pytest.raises(StatementFailed, match="certificate is not valid for 'localhost'"):
        reached(trusting(server.set(host="localhost"), certificates))


def test_who_wants_no_tls_is_not_let_in(server: sa.URL) -> None:
    with pytest.raises(StatementFailed, match="Access denied"):
        reached(server.update_query_dict({"ssl_disabled": "true"}))


@pytest.mark.heavy
def test_a_server_without_tls_is_refused_where_it_is_required(
    folder: Path, certificates: Certificates
) -> None:
    with (
        listening(folder / "plain", "--skip-ssl") as plain,
        pytest.raises(StatementFailed, match="server doesn't support it"),
    ):
        reached(trusting(plain, certificates))


# --- the doctor ---------------------------------------------------------------------------------


def test_the_doctor_tells_encryption(server: sa.URL, certificates: Certificates) -> None:
    reader = server.set(username="reader")
    assert reached(trusting(server, certificates)).encrypted
    assert reached(reader.update_query_dict({"ssl_disabled": "true"})).encrypted is False


def test_the_doctor_tells_who_may_do_everything(server: sa.URL, folder: Path) -> None:
    root = sa.URL.create("mariadb", "root", query={"unix_socket": str(folder / "server/socket")})
    found = reached(root)
    assert (found.superuser, found.encrypted) == (True, None)
    assert not reached(server).superuser


def test_the_doctor_tells_which_privileges_are_missing(
    project: Project, server: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_engine(server)
    assert find_write_problems(Ledger(writer)) == []
    writer.dispose()
    reader = server.set(username="reader").render_as_string(hide_password=False)
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", reader)
    (found,) = [f for f in examine() if f.check == "database" and f.state == "fail"]
    assert found.text == "the user 'reader'@'%' lacks privileges in the database 'warehouse'"
    missing = "INSERT, UPDATE, DELETE, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW"
    assert found.remedy == f"GRANT {missing} ON `warehouse`.* TO 'reader'@'%'."
