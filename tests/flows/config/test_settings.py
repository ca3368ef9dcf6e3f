"""Settings: the file, the environment over it, and no secret where it could be seen."""

import logging
import os
import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pydantic
import pytest
import sqlalchemy as sa
import yaml
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from pydantic import BaseModel

from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.config import settings as module
from nightshift.flows.config.resources import open_store
from nightshift.flows.config.settings import Settings, jobs_folder, load_settings
from nightshift.flows.config.yaml_file import read_yaml

Write = Callable[[Any], Path]
SECRET = "hunter2"  # what must never be seen


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("NIGHTSHIFT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write config/nightshift.yaml of a project in which this process is then."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config" / "nightshift.yaml"
    path.parent.mkdir()

    def write(content: Any) -> Path:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else yaml.safe_dump(content)
            path.write_text(text, encoding="utf-8")
        return path

    return write


def refused() -> ConfigurationError:
    """The error of loading the settings, of which no trace shows the secret."""
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    error = raised.value
    assert error.remedy[-1] in ".?"
    for text in (str(error), repr(error), *traceback.format_exception(error)):
        assert SECRET not in text
    assert SECRET.encode() not in pickle.dumps(error)
    return error


# --- the file and the environment ---------------------------------------------------------------


def test_the_projects_own_settings_load(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.chdir(root)
    settings = load_settings()
    assert settings.database.url == "embedded"
    assert settings.state_dir == root / ".nightshift"


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_means_the_defaults(content: str, write: Write, tmp_path: Path) -> None:
    write(content)
    settings = load_settings()
    assert settings.retries == 3
    assert settings.database.lease == 60
    assert settings.state_dir == tmp_path / ".nightshift"
    assert settings.store_url() == (tmp_path / ".nightshift" / "store").as_uri()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_file_is_utf_8_with_or_without_a_mark(encoding: str, write: Write) -> None:
    write("database:\n  schema: vorhersagen_für_äpfel\n".encode(encoding))
    assert load_settings().database.schema_ == "vorhersagen_für_äpfel"


def test_the_environment_overrides_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write({"retries": 1, "database": {"lease": 5, "schema": "of_file"}, "store": {"region": "x"}})
    for name, value in {
        "RETRIES": "7",
        "DATABASE__SCHEMA": "of_environment",
        "DATABASE__PASSWORD": SECRET,
        "STORE__URL": "s3://bucket/prefix",
        "STORE__READ_TIMEOUT": "1.5",
    }.items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    settings = load_settings()
    assert settings.retries == 7
    assert settings.database.lease == 5
    assert settings.database.schema_ == "of_environment"
    assert settings.database.password is not None
    assert settings.database.password.get_secret_value() == SECRET
    assert settings.store.region == "x"
    assert settings.store.read_timeout == 1.5
    assert settings.store_url() == "s3://bucket/prefix"


def test_an_empty_variable_counts_as_absent(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write({"database": {"schema": "of_file"}})
    for name in ("CONFIG", "RETRIES", "DATABASE__SCHEMA", "STORE__KEY", "DATABASE__PASSWORD"):
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", "")
    settings = load_settings()
    assert settings.database.schema_ == "of_file"
    assert settings.store.key is None
    assert settings.database.password is None
    assert jobs_folder() == Path("config/jobs")


def test_settings_do_not_change(write: Write) -> None:
    write({})
    settings = load_settings()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.retries = 9  # type: ignore[misc]
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.database.url = "sqlite://"  # type: ignore[misc]


def test_settings_cross_a_task_runner(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write({})
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__PASSWORD", SECRET)
    settings = load_settings()
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize("part", [Settings, *map(type, dict(Settings()).values())])
def test_prefect_can_walk_through_them(part: Any) -> None:
    """It calls dict() on what a task is given, which a field named `keys` would break."""
    if issubclass(part, BaseModel):
        assert set(dict(part())) == set(part.model_fields)


# --- where it is --------------------------------------------------------------------------------


def test_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.yaml").write_text("retries: 9\n")
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", str(tmp_path / "other.yaml"))
    settings = load_settings()
    assert settings.retries == 9
    assert settings.state_dir == tmp_path / ".nightshift"
    assert jobs_folder() == tmp_path / "jobs"


@pytest.mark.parametrize("relative", [True, False])
def test_paths_count_from_the_project_wherever_a_process_is(
    relative: bool, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        {
            "state_dir": "state",
            "store": {"url": "models"},
            "database": {"url": "sqlite:///data/target.db", "source_url": "sqlite:////abs/s.db"},
        }
    )
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep")
    named = os.path.relpath(path) if relative else str(path)
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", named)
    settings = load_settings()
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert settings.state_dir == tmp_path / "state"
    assert settings.target_url().database == str(tmp_path / "data" / "target.db")
    assert settings.source_url().database == "/abs/s.db"
    assert settings.store_url() == (tmp_path / "models").as_uri()
    assert (tmp_path / "models").is_dir()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true"])
def test_a_database_that_is_no_file_stays_as_it_is(url: str, write: Write) -> None:
    write({"database": {"url": url}})
    assert load_settings().target_url() == sa.make_url(url)


def test_the_embedded_database(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def start(folder: Path) -> sa.URL:
        started.append(folder)
        return sa.make_url("postgresql://postgres@/postgres")

    monkeypatch.setattr(module, "start_embedded", start)
    write({})
    settings = load_settings()
    assert started == []
    assert settings.source_url() == settings.target_url()
    assert set(started) == {tmp_path / ".nightshift" / "postgres"}


def test_a_linked_file_belongs_to_the_project_that_links_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kubernetes mounts a ConfigMap."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "nightshift.yaml").write_text("retries: 9\n")
    (tmp_path / "project" / "config").mkdir(parents=True)
    link = tmp_path / "project" / "config" / "nightshift.yaml"
    link.symlink_to(tmp_path / "..data" / "nightshift.yaml")
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", str(link))
    settings = load_settings()
    assert (settings.retries, settings.state_dir) == (9, tmp_path / "project" / ".nightshift")


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = refused()
    assert error.place == "config/nightshift.yaml"
    assert error.problem == f"there is no such file in {tmp_path}"
    assert error.remedy == "Run `nightshift init` here, or go to the folder of your project."
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", str(tmp_path))
    assert refused().problem == "there is no such file"
    assert "NIGHTSHIFT_CONFIG" in refused().remedy


# --- what the file may not say ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "field", "problem", "remedy"),
    [
        ("retires: 3", "retires", "unknown key", "Did you mean 'retries'? Known keys are databa"),
        ("databse: {url: x}", "databse", "unknown key", "Did you mean 'database'?"),
        ("store: {ulr: x}", "store.ulr", "unknown key", "Did you mean 'url'? Known keys are url"),
        ("database: {schema_: x}", "database.schema_", "unknown key", "Did you mean 'schema'?"),
        ("xyz: 1", "xyz", "unknown key", "Known keys are database, store"),
        ("root: /elsewhere", "root", "unknown key", "Known keys are"),
        ("_env_file: /etc/passwd", "_env_file", "unknown key", "Known keys are"),
        ("retries: many", "retries", "unable to parse string as an integer (found 'many')", "."),
        ("retries: -1", "retries", "greater than or equal to 0 (found -1)", "."),
        ("retries: 1.5", "retries", "valid integer", "."),
        ("retries: [1]", "retries", "it should be a valid integer", "."),
        ("retry_delay: .nan", "retry_delay", "finite number", "."),
        ("retry_delay: .inf", "retry_delay", "finite number", "."),
        ("database: {lease: 0}", "database.lease", "greater than 0 (found 0)", "."),
        ("database: {url: 5}", "database.url", "it should be a valid string (found 5)", "."),
        ("database: {url: null}", "database.url", "valid string (found None)", "."),
        ("database: {url: flights}", "database.url", "not a database URL", "postgresql://"),
        ("database: {url: 'sqlite://u@h:1/d?a=x@y'}", "database.url", "not a database", "embedded"),
        ("database: {url: 'x://h/d'}", "database.url", "not a database URL", "embedded"),
        ("database: {url: 'sqlite+x://'}", "database.url", "not a database URL", "embedded"),
        (
            "database: {source_url: 'postgresql://h:port/d'}",
            "database.source_url",
            "it is not a database URL",
            "Write it as postgresql://",
        ),
        ("database: Embedded", "database", "keys and values", "`key: value`"),
        ("database:", "database", "keys and values", "`key: value`"),
        ("store: [a]", "store", "keys and values", "`key: value`"),
        (
            "database: {source_url: 'postgresql://h/d?conect_timeout=9'}",
            "database.source_url",
            "no parameter 'conect_timeout'",
            "Did you mean 'connect_timeout'?",
        ),
        ("database: {url: 'sqlite://data/x.db'}", "database.url", "the host 'data'", "sqlite:///"),
        ("database: {url: 'sqlite:///x.db?mode='}", "database.url", "no value", "leave it out"),
        ("store: {url: 's3://models/team#1'}", "store.url", "the fragment '#1'", "without it"),
        ("store: {url: 's3:models'}", "store.url", "not a supported model store", "s3://bucket"),
        ("store: {endpoint_url: 'minio:9000'}", "store.endpoint_url", "not the address", "https:"),
        ("store: {endpoint_url: 'http://m/?a'}", "store.endpoint_url", "the query '?a'", "Leave"),
        (
            "store: {endpoint_url: 'http://u@m'}",
            "store.endpoint_url",
            "the user in it",
            "STORE__KEY",
        ),
        ("store: {url: ''}", "store.url", "at least 1 character", "."),
        ("state_dir: 5", "state_dir", "path", "."),
        ("trust: {pickle: sometimes}", "trust.pickle", "'never', 'signed' or 'always'", "."),
        ("trust: {key: x}", "trust.key", "unknown key", "Did you mean 'keys'?"),
        ("[1, 2]", "", "it holds a list, not keys and values", "`key: value`"),
        ("just words", "", "it holds a str, not keys and values", "`key: value`"),
        ("a: b: c", "", "it cannot be read as YAML", "Correct that line."),
        ("a: [1", "", "line 1, column 6", "Correct that line."),
        ("\ta: 1", "", "line 1, column 1", "Correct that line."),
        ("a: 1\n---\nb: 2", "", "it cannot be read as YAML", "Correct that line."),
        ("a: !!python/object/apply:os.system [ls]", "", "cannot be read as YAML", "Correct"),
        ("retries: 2013-13-01", "", "it cannot be read as YAML", "Correct that line."),
        ("retries: 1\nretries: 2", "", "the key retries appears twice", "Correct that line."),
        ("store: {url: a, url: b}", "", "the key url appears twice", "Correct that line."),
        ("1: x", "", "the key 1 must be a string; quote it", "Correct that line."),
        ("store: {yes: x}", "", "the key yes must be a string; quote it", "Correct that line."),
        ("? [a]\n: x", "", "must be a string; quote it", "Correct that line."),
        (b"schema: \xff\xfe", "", "it cannot be read as YAML", "Correct that line."),
        ("retries: 1".encode("utf-16"), "", "it cannot be read as YAML", "Correct that line."),
        (b"retries: 1\0", "", "it cannot be read as YAML", "Correct that line."),
    ],
)
def test_what_the_file_may_not_say(
    content: Any, field: str, problem: str, remedy: str, write: Write
) -> None:
    write(content)
    error = refused()
    assert error.field == field
    assert error.place.startswith("config/nightshift.yaml")
    assert problem in error.problem
    assert remedy in error.remedy


def test_what_is_written_once_may_be_used_twice(write: Write) -> None:
    write("store: &s {connect_timeout: 1}\ndatabase: {lease: 7}\n")
    assert load_settings().store.connect_timeout == 1
    write("store:\n  <<: {retries: 1, region: a}\n  retries: 5\n")
    assert load_settings().store.retries == 5
    assert load_settings().store.region == "a"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Is a directory.*\. Make it a readable file\."):
        read_yaml(tmp_path)


keys = st.text(st.characters(codec="utf-8"), max_size=8)
content = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["database", "store", "trust", "retries", "state_dir", "url", "keys"])


@budget(deadline=None)
@given(st.one_of(st.dictionaries(names, st.dictionaries(names, content) | content), content))
def test_any_yaml_is_settings_or_a_configuration_error(value: Any) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        path = Path(folder) / "nightshift.yaml"
        path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
        monkeypatch.setenv("NIGHTSHIFT_CONFIG", str(path))
        with suppress(ConfigurationError):
            load_settings()


# --- what the environment may not say -----------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "field", "problem", "remedy"),
    [
        ("RETRIES", "many", "RETRIES", "unable to parse string as an integer", "."),
        ("RETRIES__X", "1", "RETRIES", "valid integer", "."),
        ("DATABASE__PASWORD", SECRET, "DATABASE__PASWORD", "unknown key", "Did you mean 'passw"),
        ("DATABASE__URL__X", SECRET, "DATABASE__URL__X", "unknown key", "Did you mean 'url'"),
        ("STORE__RETRIES", "-1", "STORE__RETRIES", "greater than or equal to 0", "."),
        ("DATABASE", SECRET, "DATABASE", "it should hold keys and values", "."),
        ("DATABASE", f'{{"password": ["{SECRET}"]}}', "DATABASE", "keys and values", "."),
        ("DATABASE__URL", f"u:{SECRET}@h/d", "DATABASE__URL", "not a database URL", "postgresql"),
        ("DATABASE__URL", f"x://u:{SECRET}@h/d", "DATABASE__URL", "not a database URL", "post"),
        ("DATABASE__URL", f"postgresql://h:{SECRET}/d", "DATABASE__URL", "not a database", "."),
        ("STORE_URL", "s3://x/y", "STORE_URL", "no such setting", "mean NIGHTSHIFT_STORE__URL?"),
        ("DATABSE__URL", "x", "DATABSE__URL", "no such setting", "NIGHTSHIFT_DATABASE__URL?"),
        ("DATABASE_PASSWORD", SECRET, "DATABASE_PASSWORD", "no such", "DATABASE__PASSWORD?"),
        ("CONFG", "x", "CONFG", "no such setting", "Did you mean NIGHTSHIFT_CONFIG?"),
        ("RETIRES", "1", "RETIRES", "no such setting", "Did you mean NIGHTSHIFT_RETRIES?"),
    ],
)
def test_what_the_environment_may_not_say(
    variable: str,
    value: str,
    field: str,
    problem: str,
    remedy: str,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write({})
    monkeypatch.setenv(f"NIGHTSHIFT_{variable}", value)
    error = refused()
    assert (error.place, error.field) == ("the environment", f"NIGHTSHIFT_{field}")
    assert problem in error.problem
    assert remedy in error.remedy


def test_the_variables_of_kubernetes_are_left_alone(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sets these in every pod alongside a service called nightshift, or nightshift-db."""
    write({})
    for name in ("", "DB_", "SERVER_", "STORE_", "POSTGRES_"):
        for variable, value in {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "5432",
            "SERVICE_PORT_HTTP": "80",
            "PORT": "tcp://10.0.0.1:5432",
            "PORT_5432_TCP": "tcp://10.0.0.1:5432",
            "PORT_5432_TCP_PROTO": "tcp",
            "PORT_5432_TCP_PORT": "5432",
            "PORT_5432_TCP_ADDR": "10.0.0.1",
        }.items():
            monkeypatch.setenv(f"NIGHTSHIFT_{name}{variable}", value)
    assert load_settings().retries == 3


# --- secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "field", "variable"),
    [
        ({"database": {"password": SECRET}}, "database.password", "DATABASE__PASSWORD"),
        (
            {"database": {"source_password": SECRET}},
            "database.source_password",
            "DATABASE__SOURCE_PASSWORD",
        ),
        ({"store": {"key": SECRET}}, "store.key", "STORE__KEY"),
        ({"store": {"secret": SECRET}}, "store.secret", "STORE__SECRET"),
        ({"store": {"secret": [SECRET]}}, "store.secret", "STORE__SECRET"),
        ({"store": {"secret": {"x": SECRET}}}, "store.secret", "STORE__SECRET"),
        ({"store": {"secret": SECRET, "x": 1}}, "store.secret", "STORE__SECRET"),
    ],
)
def test_a_secret_must_not_stand_in_the_file(
    content: Any, field: str, variable: str, write: Write
) -> None:
    write(content)
    error = refused()
    assert error.field == field
    assert error.problem == "a secret must not stand in a file"
    assert error.remedy == f"Set NIGHTSHIFT_{variable} in the environment."


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@h:5432/d",
        f"postgresql+psycopg://u:{SECRET}@h/d",
        f"postgresql://:{SECRET}@h/d",
        f"postgresql://u:a@{SECRET}@h/d",
        f"postgresql://u:{SECRET}/x@h/d",
        f"postgresql://u:{SECRET}?x@h/d",
        f"postgresql://u:{SECRET}#x@h/d",
        f"postgresql://u:{SECRET}@h:abc/d",
        f"postgresql://u:{SECRET}%40@h/d",
        f"postgresql://u@h/d?password={SECRET}",
        f"postgresql://u@h/d?host=x&PASSWORD={SECRET}",
        f"postgresql://u@h/d?sslpassword={SECRET}",
        f"postgresql:///d?user=u&password={SECRET}",
        f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3D{SECRET}",
        f"mysql://u@h/d?passwd={SECRET}",
        f"snowflake://u@a/d?token={SECRET}",
        f" postgresql://u:{SECRET}@h/d",
    ],
)
@pytest.mark.parametrize("name", ["url", "source_url"])
def test_a_password_must_not_stand_in_a_database_url_of_the_file(
    name: str, url: str, write: Write
) -> None:
    write({"database": {name: url}})
    error = refused()
    assert error.field == f"database.{name}"
    assert error.problem == "a password must not stand in it"
    variable = name.replace("url", "password").upper()
    assert error.remedy == f"Set NIGHTSHIFT_DATABASE__{variable} in the environment."


@pytest.mark.parametrize("name", ["url", "endpoint_url"])
@pytest.mark.parametrize(
    "url", [f"s3://key:{SECRET}@bucket/x", f"https://u:{SECRET}@minio", f"s3://b/x?token={SECRET}"]
)
@pytest.mark.parametrize("of_file", [True, False])
def test_a_secret_must_not_stand_in_a_store_url(
    of_file: bool, url: str, name: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({"store": {name: url}} if of_file else {})
    if not of_file:
        monkeypatch.setenv(f"NIGHTSHIFT_STORE__{name.upper()}", url)
    error = refused()
    assert error.field == (f"store.{name}" if of_file else f"NIGHTSHIFT_STORE__{name.upper()}")
    assert error.problem == "a secret must not stand in it"
    assert "NIGHTSHIFT_STORE__SECRET" in error.remedy


@pytest.mark.parametrize(
    "content",
    [
        f"database: 'postgresql://u:{SECRET}@h/d'",
        f"database: [password, {SECRET}]",
        f"database: {{url: [{SECRET}]}}",
        f"database: {{url: {{password: {SECRET}}}}}",
        f"databse: {{password: {SECRET}}}",
        f"database: {{pasword: {SECRET}}}",
        f'database: {{password: "{SECRET}',
        f"database:\n  password: {SECRET}\n wrong: indent",
        f"password: {SECRET}: x",
        f"- {SECRET}",
        SECRET,
        f"database:\n\tpassword: {SECRET}",
    ],
)
def test_no_error_shows_what_may_be_a_secret(content: str, write: Write) -> None:
    write(content)
    refused()


PASSWORDS = [SECRET, "p@ss", "a/b", "a:b", "ü%&=", "a@b@c", "100%", "x?y#z", " "]


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_url_of_the_environment_may_have_its_password(
    password: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({"database": {"url": "postgresql://of_file@h/d"}})
    url = sa.URL.create("postgresql", "u", password, "h", 5432, "d", {"options": "-c x=y"})
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", url.render_as_string(hide_password=False))
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__SOURCE_URL", f"postgresql://s:{SECRET}@h2/d2")
    settings = load_settings()
    assert settings.target_url() == url
    assert settings.source_url() == sa.URL.create("postgresql", "s", SECRET, "h2", None, "d2")
    for text in (repr(settings), str(settings), str(settings.model_dump())):
        assert SECRET not in text
        assert password == " " or password not in text


def test_an_at_sign_in_a_password_need_not_be_escaped(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({})
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", f"postgresql://u:p@{SECRET}@h:5432/d")
    settings = load_settings()
    url = settings.target_url()
    assert (url.password, url.host, url.port) == (f"p@{SECRET}", "h", 5432)
    assert SECRET not in repr(settings)


def test_the_password_variable_wins_over_the_url(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({})
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__URL", "postgresql://u:old@h/d")
    monkeypatch.setenv("NIGHTSHIFT_DATABASE__PASSWORD", SECRET)
    assert load_settings().target_url().password == SECRET


def test_secrets_are_in_no_text(
    write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write({"database": {"url": "postgresql://u@h/d", "source_url": "postgresql://s@h/d"}})
    for name in ("DATABASE__PASSWORD", "DATABASE__SOURCE_PASSWORD", "STORE__KEY", "STORE__SECRET"):
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", SECRET)
    settings = load_settings()
    assert settings.target_url().password == settings.source_url().password == SECRET
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").info("%s %r %s", settings, settings, settings.target_url())
    for text in (caplog.text, settings.model_dump_json(), repr(settings.source_url())):
        assert SECRET not in text


# --- trust --------------------------------------------------------------------------------------

PUBLIC = "ed25519:" + "A" * 43 + "="


def test_the_trust_policy(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local.pub").write_text(PUBLIC + "\n")
    write(
        {
            "trust": {
                "keys": ["local.pub", PUBLIC],
                "sign_key": "keys/local.pem",
                "pickle": "never",
                "adapters": ["sklearn"],
            }
        }
    )
    monkeypatch.setenv("NIGHTSHIFT_TRUST__CLASSES", "ours.models:A, ours.models:B")
    settings = load_settings()
    policy = settings.trust_policy()
    assert policy.keys == (PUBLIC, PUBLIC)
    assert (policy.pickle, policy.adapters) == ("never", frozenset({"sklearn"}))
    assert policy.classes == {"ours.models:A", "ours.models:B"}
    assert settings.trust.sign_key == tmp_path / "keys" / "local.pem"


def test_a_key_that_is_not_there(write: Write, tmp_path: Path) -> None:
    write({"trust": {"keys": ["none.pub"]}})
    with pytest.raises(ConfigurationError, match="`nightshift keys create` makes one") as raised:
        load_settings().trust_policy()
    assert raised.value.field == "trust.keys"
    assert str(tmp_path / "none.pub") in raised.value.problem


def test_the_stores_patience_is_what_the_settings_say(write: Write) -> None:
    write("store: {connect_timeout: 7, read_timeout: 60, retries: 3, slowest_transfer: 1000}")
    assert open_store(load_settings())._options.patience(2000) == 4 * 67 + (1 + 2 + 4) + 2
