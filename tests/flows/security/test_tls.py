"""TLS: to PostgreSQL by the URL's parameters, to S3 by https and store.ca_bundle."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from certificates import Certificates
from encrypted import EncryptedPostgres
from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import ConfigurationError, StatementFailed
from nightshift.adapters.history.health import contact
from nightshift.flows.config.resources import open_store
from nightshift.flows.config.settings import load_settings
from nightshift.flows.score import score
from project import Project


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.create(tmp_path_factory.mktemp("trusted"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority that did not sign any server's certificate."""
    return Certificates.create(tmp_path_factory.mktemp("others"))


# --- PostgreSQL ---------------------------------------------------------------------------------


@pytest.fixture
def encrypted(postgres: sa.URL, certificates: Certificates) -> Iterator[EncryptedPostgres]:
    socket = Path(str(postgres.query["host"])) / ".s.PGSQL.5432"
    with EncryptedPostgres(socket, certificates.for_server()) as server:
        yield server


def database_url(database: sa.URL, server: EncryptedPostgres, parameters: str) -> str:
    return (
        f"postgresql://{database.username}@127.0.0.1:{server.port}/{database.database}{parameters}"
    )


def test_a_run_over_tls_uses_nothing_else(
    project: Project,
    database: sa.URL,
    encrypted: EncryptedPostgres,
    certificates: Certificates,
    prefect: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each connection, of every driver, is made as the URL says: the server takes no other."""
    project.fill()
    project.register()
    checked = f"?sslmode=verify-full&sslrootcert={certificates.authority}"
    url = database_url(database, encrypted, checked)
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", url)
    assert score("orders", "2024-03-01").rows == 500
    assert encrypted.encrypted >= 3


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ("?sslmode=verify-full&sslrootcert={others}", "certificate verify failed"),
        ("?sslmode=verify-full&sslrootcert={folder}/none.pem", "does not exist"),
        ("?sslmode=verify-full&sslrootcert=system", "certificate"),
    ],
)
def test_a_server_that_is_not_trusted_is_refused_for_good(
    database: sa.URL,
    encrypted: EncryptedPostgres,
    others: Certificates,
    tmp_path: Path,
    parameters: str,
    says: str,
) -> None:
    """It is not transient: trying again would not help."""
    url = database_url(database, encrypted, parameters)
    engine = open_engine(url.format(others=others.authority, folder=tmp_path))
    with pytest.raises(StatementFailed, match=says):
        contact(engine)
    engine.dispose()


def test_who_wants_no_tls_is_not_let_in(database: sa.URL, encrypted: EncryptedPostgres) -> None:
    engine = open_engine(database_url(database, encrypted, "?sslmode=disable"))
    with pytest.raises(sa.exc.OperationalError):
        engine.connect()
    engine.dispose()
    assert encrypted.encrypted == 0


def test_a_server_without_tls_is_refused_where_it_is_required(
    database: sa.URL, tmp_path: Path
) -> None:
    with EncryptedPostgres(tmp_path, context=None) as server:
        engine = open_engine(database_url(database, server, "?sslmode=require"))
        with pytest.raises(StatementFailed, match="does not support SSL"):
            contact(engine)
        engine.dispose()


# --- S3 -----------------------------------------------------------------------------------------


@pytest.fixture
def https(
    project: Project, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The project's bucket behind https; the project knows it, but not its authority."""
    app = DomainDispatcherApplication(create_backend_app)
    context = certificates.for_server()
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"https://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NIGHTSHIFT_STORE__ENDPOINT_URL", url)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_is_registered_and_loaded_over_https(
    project: Project, https: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE__CA_BUNDLE", str(certificates.authority))
    manifest = project.register()
    store = open_store(load_settings())
    assert store.load(store.resolve("doubler")).predict_batch is not None
    assert manifest.version == 1


def test_a_server_of_another_authority_is_refused_for_good(
    project: Project, https: str, others: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE__CA_BUNDLE", str(others.authority))
    with pytest.raises(ConfigurationError, match=r"CERTIFICATE_VERIFY_FAILED.*store\.ca_bundle"):
        open_store(load_settings()).models()


def test_a_server_is_not_trusted_unless_configured(project: Project, https: str) -> None:
    with pytest.raises(ConfigurationError, match=r"CERTIFICATE_VERIFY_FAILED.*store\.ca_bundle"):
        open_store(load_settings()).models()


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_bundle_that_is_none_is_said_to_be_none(
    project: Project, tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client would take the missing file for a missing object: no such model."""
    if content is not None:
        (tmp_path / "bundle.pem").write_bytes(content)
    monkeypatch.setenv("NIGHTSHIFT_STORE__CA_BUNDLE", "bundle.pem")  # from the project's folder
    with pytest.raises(ConfigurationError, match=r"ca_bundle: .*bundle\.pem holds no certificates"):
        open_store(load_settings())
    assert os.fspath(tmp_path) in str(load_settings().store.ca_bundle)
