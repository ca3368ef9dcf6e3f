"""`import nightshift`: the Python API, in a script, in a notebook's event loop, by itself."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import nightshift
from project import Project

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def sample() -> pd.DataFrame:
    x = np.arange(50.0)
    return pd.DataFrame({"x": x, "doubled": 2 * x})


@pytest.fixture
def filled(project: Project) -> Project:
    """Two days of orders, both with the same x, none of them missing."""
    project.fill()
    project.sql("UPDATE orders SET x = mod(id, 500)")
    return project


def test_from_an_estimator_to_predictions(filled: Project, sample: pd.DataFrame) -> None:
    estimator = LinearRegression().fit(sample[["x"]], sample["doubled"])
    manifest = nightshift.register(
        "doubler", estimator, sample, target="doubled", promote="champion", metrics={"mae": 0.0}
    )
    assert manifest.signature.input_names == ["x"]
    result = nightshift.run("orders", "2024-03-01")
    assert (result.written, result.model) == (500, "doubler@1")
    day = nightshift.read_predictions("orders", "2024-03-01")
    assert list(day.columns) == [
        *("id", "partition_time", "prediction", "model_version", "run_id", "scored_at")
    ]
    assert list(day["id"]) == list(range(1, 501))
    assert str(day["scored_at"].dt.tz) == "UTC"
    x = [row.x for row in filled.sql("SELECT x FROM orders WHERE id <= 500 ORDER BY id")]
    assert np.allclose(day["prediction"], 2 * np.array(x))

    done = nightshift.backfill("orders", "2024-03-01", "2024-03-02")
    assert [step.state for step in done.steps] == ["skipped", "published"]
    assert len(nightshift.read_predictions("orders")) == 1000

    model = nightshift.load_model("doubler")
    assert isinstance(model, nightshift.Model)
    assert model.predict(pd.DataFrame({"x": [4.0]})) == pytest.approx(8.0)


def test_in_a_notebook(filled: Project, sample: pd.DataFrame) -> None:
    """A notebook runs its code in a coroutine, in the thread whose event loop runs."""
    estimator = LinearRegression().fit(sample[["x"]], sample["doubled"])

    async def coroutine() -> Any:
        nightshift.register("doubler", estimator, sample, target="doubled")
        nightshift.promote("doubler", 1)
        return nightshift.run("orders", "2024-03-02")

    assert asyncio.run(coroutine()).written == 500
    assert len(nightshift.read_predictions("orders", "2024-03-02")) == 500


def test_before_anything_is_scored(project: Project) -> None:
    with pytest.raises(nightshift.NightshiftError, match="nothing was scored yet"):
        nightshift.read_predictions("orders")


def test_an_object_of_no_library(project: Project, sample: pd.DataFrame) -> None:
    with pytest.raises(nightshift.NightshiftError, match="builtins:dict"):
        nightshift.register("doubler", {}, sample)


def test_the_import_loads_no_library() -> None:
    code = (
        "import sys, nightshift; assert set(nightshift.__all__) <= set(dir(nightshift));"
        "print([name for name in ('prefect', 'pandas', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


SCRIPT = """
import prefect  # as a notebook may have done before

import nightshift

for day in ("2024-03-01", "2024-03-02"):  # each with a Prefect server of its own
    print(nightshift.run("orders", day).written)
print(len(nightshift.read_predictions("orders")))
"""


@pytest.mark.heavy
def test_a_script_without_a_server(
    filled: Project, sample: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = LinearRegression().fit(sample[["x"]], sample["doubled"])
    nightshift.register("doubler", estimator, sample, target="doubled", promote="champion")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(filled.folder)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=180
    )
    assert done.stdout.split() == ["500", "500", "1000"], done.stderr
