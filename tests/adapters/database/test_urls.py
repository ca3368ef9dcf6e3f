"""Every part of a database URL is used, or refused by name."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from nightshift.adapters.database.engine import open_engine
from nightshift.adapters.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "problem", "remedy"),
    [
        ("postgresql://h/d?conect_timeout=60", "no parameter 'conect_timeout'", "connect_timeout"),
        ("postgresql://h/d?sslrootcert=", "'sslrootcert' has no value", "leave it out"),
        ("postgresql://h/d?sslmode", "'sslmode' has no value", "leave it out"),
        ("postgresql://h/d?host=other", "a host twice", "Leave one"),
        ("postgresql://u@h/d?user=v", "a username twice", "Leave one"),
        ("postgresql://h/d?dbname=e", "a database twice", "Leave one"),
        ("postgresql://h/d?sslmode=require&sslmode=disable", "several values", "Leave one"),
        ("postgresql://[::1]h/d", "more than an address in brackets", "[::1]:5432"),
        ("postgresql://h/d\n", "control character, or a space", "Leave it out"),
        (" postgresql://h/d", "control character, or a space", "Leave it out"),
        ("sqlite:///x.db?mode=ro", "'mode' only of a file: URI", "sqlite:///file:x.db?"),
        ("sqlite:///file:x.db?mode=ro", "'mode' only of a file: URI", "uri=true"),
        ("sqlite:///x.db?immutable=1&uri=true", "'immutable' only of a file: URI", "file:x.db"),
        ("sqlite:///file:x.db?access=ro&uri=true", "no parameter 'access'", "leave it out"),
        ("sqlite:///file:x#1.db?uri=true", "the fragment in it", "%23"),
        ("sqlite:///x.db?timeout=soon", "value is not valid", "Correct it"),
        ("sqlite:///x.db?isolation_level=x", "sets the parameter 'isolation_level'", "Leave it"),
        ("sqlite://data/x.db", "host 'data' would be ignored", "sqlite:///folder/file"),
        ("duckdb://data/x.db", "host 'data' would be ignored", "duckdb:///folder/file"),
        ("duckdb:///x.db?acces_mode=read_only", "no parameter 'acces_mode'", "'access_mode'"),
        ("duckdb:///x.db?TimeZone=CET", "sets the parameter 'TimeZone'", "Leave it out"),
        ("mysql://h/d?charset=utf8mb4&tiemout=3", "no parameter 'tiemout'", "_timeout'?"),
        ("mysql://h/d?connect_timeout=soon", "value is not valid", "Correct it"),
        ("mysql://h/d?local_infile=0", "sets the parameter 'local_infile'", "Leave it out"),
        ("mariadb://h/d?unix_socket=/a&host=b", "a host twice", "Leave one"),
    ],
)
def test_what_would_be_ignored_is_refused(url: str, problem: str, remedy: str) -> None:
    if url.startswith(("duckdb", "mysql", "mariadb")):
        pytest.importorskip({"d": "duckdb", "m": "pymysql"}[url[0]])
    with pytest.raises(ConfigurationError) as caught:
        open_engine(url)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_the_urls_own_parameters_win(database: sa.URL, tmp_path: Path) -> None:
    parameters = {"connect_timeout": "60", "keepalives_idle": "7", "application_name": "nightly"}
    engine = open_engine(database.update_query_dict(parameters))
    with engine.connect() as connection:
        found = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
        assert parameters.items() <= found.items()
        assert "keepalives_count" in found  # ours stay for the rest
    engine.dispose()

    engine = open_engine(f"sqlite:///{tmp_path / 'x.db'}?timeout=2.5")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 2500
    engine.dispose()

    pytest.importorskip("pymysql")
    given: dict[str, int] = {}
    engine = open_engine("mysql://h/d?connect_timeout=60&read_timeout=50")

    @sa.event.listens_for(engine, "do_connect")
    def keep(_dialect: object, _record: object, _arguments: object, named: dict[str, int]) -> None:
        given.update(named)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        engine.connect()
    assert (given["connect_timeout"], given["read_timeout"]) == (60, 50)


def test_a_duckdb_file_is_opened_as_its_url_says(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "x.duckdb"
    duckdb.connect(str(path)).execute("CREATE TABLE t AS SELECT 1 AS a").close()
    engine = open_engine(f"duckdb:///{path}?access_mode=read_only&threads=3")
    try:
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT a FROM t").scalar() == 1
            setting = "SELECT current_setting('threads')"
            assert connection.exec_driver_sql(setting).scalar() == 3
            other = f"import duckdb; duckdb.connect({str(path)!r}, read_only=True)"
            subprocess.run([sys.executable, "-c", other], check=True)  # several may read
            with pytest.raises(sa.exc.DBAPIError, match="read-only"):
                connection.exec_driver_sql("CREATE TABLE u (a int)")
    finally:
        engine.dispose()
