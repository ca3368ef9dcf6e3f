"""`nightshift init` and `validate`, in a folder where nothing is."""

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from command import Nightshift, Printed
from nightshift.flows.cli.main import main
from nightshift.flows.config.job import load_job
from nightshift.flows.config.settings import load_settings

CREATED = {
    ".gitignore",
    ".nightshift/keys/local.pem",
    "config/example_job.yaml",
    "config/nightshift.yaml",
    "config/schemas/job.json",
    "config/schemas/nightshift.json",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which this process is."""
    for name in [name for name in os.environ if name.startswith("NIGHTSHIFT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


@pytest.fixture
def nightshift(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Nightshift:
    """The command line, here."""

    def call(*arguments: str, code: int = 0) -> Printed:
        monkeypatch.setattr(sys, "argv", ["nightshift", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = Printed(*capfd.readouterr())
        assert (exit_.value.code or 0) == code, printed
        return printed

    return call


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_from_an_estimator_and_a_table_to_predictions(
    folder: Path, nightshift: Nightshift, prefect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect)
    frame = pd.DataFrame({"tenure": np.linspace(0, 60, 100), "spend": np.tile([10.0, 20.0], 50)})
    joblib.dump(LogisticRegression().fit(frame, frame["tenure"] < 25), "churn.joblib")
    frame.to_parquet("train.parquet")
    with closing(connect("shop.db")) as connection, connection:
        connection.execute("CREATE TABLE customers (customer_id integer PRIMARY KEY, tenure real,"
                           " spend real)")  # fmt: skip
        rows = [(i, i % 60, 10.0 + 10 * (i % 2)) for i in range(300)]
        connection.executemany("INSERT INTO customers VALUES (?, ?, ?)", rows)
    printed = nightshift("init", "--database", "sqlite:///shop.db").stdout
    assert "nightshift init --job churn --table customers --key customer_id" in printed
    model = ["churn.joblib", "--name", "churn", "--sample", "train.parquet"]
    nightshift("register", *model, "--promote", "champion")
    nightshift("init", "--job", "churn", "--table", "customers", "--key", "customer_id")
    nightshift("validate")
    assert "Published 300 rows in churn_predictions" in nightshift("run", "churn").stdout
    assert "0 failed" in nightshift("doctor").stdout
    with closing(connect("shop.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM churn_predictions").fetchone()
    assert count == 300


def test_what_init_leaves_is_a_project(folder: Path, nightshift: Nightshift) -> None:
    created = json.loads(nightshift("init", "--name", "shop-2", "--json").stdout)["created"]
    assert set(created) == set(files(folder)) == CREATED
    settings = load_settings()
    assert (settings.project, settings.database.url) == ("shop-2", "embedded")
    private = settings.trust.sign_key
    assert private == folder / ".nightshift/keys/local.pem"
    assert private.stat().st_mode & 0o077 == 0
    assert len(settings.trust_policy().keys) == 1
    assert "*.pem" in (folder / ".gitignore").read_text().splitlines()
    (folder / "config/example_job.yaml").rename(folder / "config/jobs/example.yaml")
    assert load_job("example").partition_by == "day"
    assert "Problems: none." in nightshift("validate").stdout


def test_nothing_is_overwritten(folder: Path, nightshift: Nightshift) -> None:
    (folder / ".gitignore").write_text("*.csv\n.env")
    nightshift("init")
    assert (folder / ".gitignore").read_text() == "*.csv\n.env\n.nightshift/\n*.pem\n"
    job = ["--job", "sales.eu", "--table", "shop.orders", "--key", "id", "--key", "line"]
    nightshift("init", *job, "--time-column", "at")
    assert load_job("sales.eu").source.key == ("id", "line")
    assert load_job("sales.eu").source.schema_ == "shop"
    assert load_job("sales.eu").partition_by == "day"
    before = files(folder)
    printed = json.loads(nightshift("init", *job, "--json").stdout)
    assert printed["created"] == []
    assert set(printed["kept"]) == {*CREATED, "config/jobs/sales.eu.yaml"} - {
        ".nightshift/keys/local.pem"
    }
    assert files(folder) == before


def test_another_folder(folder: Path, nightshift: Nightshift) -> None:
    assert "cd deep/er" in nightshift("init", "deep/er").stdout
    assert set(files(folder / "deep/er")) == CREATED


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--database", "postgresql://u:hunter2@h/d"], "--database: a password must not stand"),
        (["--database", "shop.db"], "--database: it is not a database URL"),
        (["--store", "s3:"], "--store: 's3:' is not a supported model store URL"),
        (["--name", "My Shop"], "--name: 'My Shop' is not a valid name"),
        (["--job", "../x", "--table", "t", "--key", "k"], "--job: a job's name has letters"),
        (["--job", "x", "--key", "k"], "--table: a job needs a table"),
        (["--job", "x", "--table", "t"], "--key: a job needs a table and the columns"),
        (["--job", "x", "--table", "t", "--key", "k", "--key", "k"], "--key: it names the column"),
    ],
)
def test_what_init_refuses(
    arguments: list[str], says: str, folder: Path, nightshift: Nightshift
) -> None:
    error = nightshift("init", *arguments, code=2).stderr
    assert says in error
    assert "hunter2" not in error
    assert files(folder) == {}


def test_settings_that_are_there_are_not_changed(folder: Path, nightshift: Nightshift) -> None:
    nightshift("init")
    error = nightshift("init", "--database", "sqlite:///shop.db", code=2).stderr
    assert "--database: config/nightshift.yaml is there already" in error


def test_validate_lists_every_problem(folder: Path, nightshift: Nightshift) -> None:
    assert "Run `nightshift init` here" in nightshift("validate", code=2).stderr
    nightshift("init")
    settings = folder / "config/nightshift.yaml"
    settings.write_text("retries: many\nstore:\n  url: x\n  ulr: y\ndatabase: {password: 12345}\n")
    (folder / "config/jobs/one.yaml").write_text(
        "model: m\n\nsource:\n  tabel: t\n  key: [a, a]\npartition_by: week\n"
    )
    (folder / "config/jobs/two.yaml").write_text("model: m\nmodel: n\n")
    (folder / "config/jobs/three.yaml").write_text(
        "model: m\nsource: {table: t, key: id}\ntarget: {table: p}\n"
    )
    printed = nightshift("validate", "--json", code=2)
    problems = [(each["place"], each["field"]) for each in json.loads(printed.stdout)]
    assert problems == [
        ("config/nightshift.yaml, line 5", "database.password"),
        ("config/nightshift.yaml, line 4", "store.ulr"),
        ("config/nightshift.yaml, line 1", "retries"),
        ("config/jobs/one.yaml, line 4", "source.tabel"),
        ("config/jobs/one.yaml, line 5", "source.key"),
        ("config/jobs/one.yaml", "target"),
        ("config/jobs/one.yaml, line 6", "partition_by"),
        ("config/jobs/two.yaml, line 2", ""),
    ]
    assert "12345" not in printed.stdout
    printed = nightshift("validate", code=2)
    assert "one.yaml, line 4: source.tabel: unknown key. Did you mean 'table'?" in printed.stderr
    assert "Problems: 8." in printed.stdout
