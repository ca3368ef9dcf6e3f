"""A challenger alongside its champion, through the real flow: whatever it does, the champion's rows
are the same, byte for byte.
"""

import json
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from nightshift.adapters.errors import PredictionFailed
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.flows.cli.main import app
from nightshift.flows.register import register
from nightshift.flows.score import score
from nightshift.flows.scoring.challenger.comparison import Comparison
from project import Project
from watched import Hanging

pytestmark = pytest.mark.usefixtures("prefect")

# `before` and `after` are what a test does to its batches, but for the rows replayed at its load.
MODEL_CODE = '''
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

before = after = None


class Candidate(RegressorMixin, BaseEstimator):
    """2 x, and 1 more for every tenth order."""

    def fit(self, X, y=None):
        self.feature_names_in_ = np.array(list(X.columns), dtype=object)
        return self

    def predict(self, X):
        if len(X) == 3:
            return np.zeros(3)
        if before is not None:
            before(X)
        found = 2.0 * X["x"].to_numpy(dtype=float, na_value=np.nan)
        if "id" in X:
            found += X["id"].to_numpy() % 10 == 0
        return found if after is None else after(found)
'''

SAMPLE = pd.DataFrame({"x": [1.0, np.nan, 3.0]})


@pytest.fixture
def candidates(project: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A champion, and the module of the challenger's code."""
    project.fill()
    project.register()
    (project.folder / "candidates.py").write_text(MODEL_CODE)
    monkeypatch.delitem(sys.modules, "candidates", raising=False)
    import candidates as module  # type: ignore[import-not-found]

    return module


def challenge(project: Project, module: Any, sample: pd.DataFrame = SAMPLE, **job: Any) -> None:
    """Publish a challenger that reads the sample's columns, and name it in the job file."""
    manifest = register("candidate", SklearnModel(module.Candidate().fit(sample)), sample)
    project.store.promote("candidate", manifest.version, "challenger")
    project.write_job(challenger="candidate@challenger", **job)


def written(project: Project, run_id: int) -> list[tuple[Any, ...]]:
    """A run's rows, down to the last bit."""
    found = project.sql(
        "SELECT id, partition_time, float8send(prediction) AS bits FROM order_scores_runs"
        f" WHERE run_id = {run_id} ORDER BY id"
    )
    return [(row.id, row.partition_time, bytes(row.bits)) for row in found]


def alone(project: Project) -> list[tuple[Any, ...]]:
    """What the champion writes without a challenger."""
    project.write_job()
    return written(project, score("orders", "all").run_id)


def score_alongside(project: Project, expected: list[tuple[Any, ...]]) -> Any:
    """Score with the challenger: the champion is the same; the challenger's run, if it has one."""
    before = project.scores()
    result = score("orders", "all")
    assert written(project, result.run_id) == expected
    assert project.scores() == before
    seen = project.sql("SELECT DISTINCT run_id, model_version FROM order_scores")
    assert [tuple(row) for row in seen] == [(result.run_id, 1)]
    champion, *others = project.sql(
        f"SELECT * FROM nightshift_runs WHERE run_id >= {result.run_id} ORDER BY role DESC"
    )
    assert (champion.role, champion.state) == ("champion", "published")
    return others[0] if others else None


def _raise(_: Any) -> None:
    raise ValueError("I have lost")


def _interrupted_midway(batch: Any) -> None:
    if batch["x"].max() > 80:
        raise KeyError("no such thing")


MISBEHAVING = {
    "raises": (_raise, None, "ValueError: I have lost"),
    "raises in the middle": (_interrupted_midway, None, "KeyError: 'no such thing'"),
    "has no memory": (lambda _: np.empty(2**50), None, "MemoryError: Unable to allocate"),
    "too few": (None, lambda found: found[:-1], "100 predictions, but returned an array of shape"),
    "too wide": (None, lambda found: np.column_stack([found, found]), "array of shape (100, 2)"),
    "texts": (None, lambda found: np.array(["much"] * len(found), dtype=object), "float64"),
    "nothing": (None, lambda found: None, ""),
}


@pytest.mark.heavy
def test_a_challenger_that_misbehaves(project: Project, candidates: Any) -> None:
    """Run after run in another way; in each it is given another chance."""
    expected = alone(project)
    challenge(project, candidates)
    for way, (before, after, problem) in MISBEHAVING.items():
        candidates.before, candidates.after = before, after
        run = score_alongside(project, expected)
        assert (run.role, run.state) == ("challenger", "failed"), way
        assert problem in run.error, way
        found = Comparison.from_json(run.comparison)
        assert found.failure == run.error, way
        assert found.rows + found.skipped == 1000, way
    candidates.before = candidates.after = None
    run = score_alongside(project, expected)
    assert run.state == "scored"
    assert Comparison.from_json(run.comparison).rows == 1000


@pytest.mark.heavy
def test_a_challenger_that_hangs(project: Project, candidates: Any, hanging: Hanging) -> None:
    expected = alone(project)
    candidates.before = hanging.here
    challenge(project, candidates, predict_timeout="60s")
    run = score_alongside(project, expected)
    assert (run.state, run.error) == ("failed", "no answer within 60 s")


def test_a_value_that_cannot_be_read_in_a_column_of_its_own(
    project: Project, candidates: Any
) -> None:
    """The champion reads its own columns alone from that chunk on."""
    project.sql("ALTER TABLE orders ADD seen timestamp DEFAULT '2024-03-01'")
    project.sql("UPDATE orders SET seen = 'infinity' WHERE id = 350")
    expected = alone(project)
    challenge(project, candidates, SAMPLE.assign(seen=pd.Timestamp("2024-03-01")))
    run = score_alongside(project, expected)
    assert run.state == "failed"
    assert "column 'seen' of the row (350) is infinite" in run.error
    found = Comparison.from_json(run.comparison)
    assert found.rows + found.skipped == 1000
    project.sql("UPDATE orders SET seen = '2024-03-01'")
    assert score_alongside(project, expected).state == "scored"


def test_a_challenger_that_would_cost_the_champion_its_timeout(
    project: Project, candidates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(project)
    clock = [0.0]
    monkeypatch.setattr("nightshift.flows.scoring.challenger.run.perf_counter", lambda: clock[0])
    monkeypatch.setattr("nightshift.flows.scoring.recipe.perf_counter", lambda: clock[0])

    def slow(_: Any) -> None:
        clock[0] += 1000.0

    candidates.before = slow
    challenge(project, candidates, timeout="1h")
    run = score_alongside(project, expected)
    assert run.state == "failed"
    assert "the champion might not be done within 3600 s, the job's timeout" in run.error
    assert "it has taken 4000 s so far" in run.error
    found = Comparison.from_json(run.comparison)
    assert (found.rows, found.skipped) == (400, 600)


def test_chunks_in_which_it_has_nothing_to_predict(project: Project, candidates: Any) -> None:
    """The champion rejects all of the third chunk."""
    project.sql("UPDATE orders SET x = id")
    project.register(behaviour="negative")
    project.sql("UPDATE orders SET x = -1 WHERE id BETWEEN 201 AND 300")
    project.write_job(max_rejects="10%", checks={"inputs": {"far_outside": "off"}})
    challenge(project, candidates, max_rejects="10%", checks={"inputs": {"far_outside": "off"}})
    result = score("orders", "all")
    assert result.rejected == 100
    (run,) = project.sql("SELECT * FROM nightshift_runs WHERE role = 'challenger'")
    assert (run.state, run.error) == ("scored", None)
    assert len(written(project, run.run_id)) == 900
    chunks = project.sql(f"SELECT rows FROM nightshift_chunks WHERE run_id = {run.run_id}")
    assert sorted(chunk.rows for chunk in chunks) == [0, *[100] * 9]


def test_a_challenger_that_does_well(project: Project, candidates: Any) -> None:
    """It has inputs of its own, too: the key."""
    expected = alone(project)
    challenge(project, candidates, SAMPLE.assign(id=[1, 2, 3]))
    run = score_alongside(project, expected)
    assert (run.role, run.state, run.error) == ("challenger", "scored", None)
    found = Comparison.from_json(run.comparison)
    # Of the tenth orders that have an x, one more is above 1 % where 2 x is below 100.
    assert (found.rows, found.agreed, found.failure) == (1000, 1000 - 23, None)
    theirs = dict(project.sql(f"SELECT id, prediction FROM order_scores_runs WHERE run_id ="
                              f" {run.run_id} AND prediction <> 'NaN'"))  # fmt: skip
    assert theirs == {
        key: value + (key % 10 == 0)
        for key, value in project.expected().items()
        if value is not None
    }


UNUSABLE = {
    "no such alias": "'candidate@stranger' is not in the model store",
    "no column": "no column 'nowhere'",
    "a type": "'x': the model's signature says int64",
    "other outputs": "has other columns or types",
    "damaged": "digest",
    "no code": "No module named 'candidates'",
}


@pytest.mark.heavy
def test_a_challenger_that_cannot_be_had(
    project: Project, candidates: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expected = alone(project)
    for way, problem in UNUSABLE.items():
        samples = {
            "no column": SAMPLE.assign(nowhere=1.0),
            "a type": SAMPLE.fillna(2).astype("int64"),
            "damaged": SAMPLE.assign(id=[1, 2, 3]),  # bytes of its own
        }
        challenge(project, candidates, samples.get(way, SAMPLE))
        if way == "damaged":
            store = project.store
            blob = store.resolve("candidate@challenger").blob
            store._storage.write(blob.key, b"rubbish")  # as a thief of the bucket's key would
        if way == "no such alias":
            project.write_job(challenger="candidate@stranger")
        if way == "other outputs":
            manifest = register("candidate", SklearnModel(_two_outputs()), SAMPLE.dropna())
            project.store.promote("candidate", manifest.version, "challenger")
        if way == "no code":
            (project.folder / "candidates.py").unlink()
            del sys.modules["candidates"]
        caplog.clear()
        assert score_alongside(project, expected) is None, way
        (warning,) = [text for text in caplog.messages if "Without the challenger" in text]
        assert problem in warning, way


def _two_outputs() -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit(SAMPLE.dropna(), [[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.heavy
def test_one_column_read_in_two_types(project: Project, candidates: Any) -> None:
    whole = pd.DataFrame({"x": pd.array([1, None, 3], "Int64")})
    project.sql("ALTER TABLE orders ALTER COLUMN x TYPE bigint USING floor(x)::bigint")
    expected = alone(project)
    challenge(project, candidates, whole)
    run = score_alongside(project, expected)
    assert run.state == "scored"  # whole numbers fit into both
    assert Comparison.from_json(run.comparison).agreement == 1


@pytest.mark.heavy
def test_two_types_that_no_reading_serves(project: Project, candidates: Any) -> None:
    from decimal import Decimal

    project.sql("ALTER TABLE orders ALTER COLUMN x TYPE numeric USING round(x::numeric, 2)")
    expected = alone(project)
    exact = pd.DataFrame({"x": [Decimal("1.25"), None, Decimal("3.5")]})
    challenge(project, candidates, exact)
    run = score_alongside(project, expected)
    assert run.state == "failed"
    assert "Column 'x': the model's signature says decimal" in run.error


@pytest.mark.heavy
def test_both_are_resumed(
    project: Project, candidates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(project)
    project.register(behaviour="raise", after=3)
    challenge(project, candidates)
    with pytest.raises(PredictionFailed):
        score("orders", "all")
    states = project.sql("SELECT role, state FROM nightshift_runs WHERE run_id > 1 ORDER BY run_id")
    assert [tuple(row) for row in states] == [("champion", "failed"), ("challenger", "failed")]
    monkeypatch.setenv("DOUBLER_BEHAVES", "1")
    result = score("orders", "all")
    assert (result.run_id, result.resumed_rows) == (2, 300)
    assert written(project, 2) == expected
    states = project.sql("SELECT role, state FROM nightshift_runs WHERE run_id > 1 ORDER BY run_id")
    assert [tuple(row) for row in states] == [("champion", "published"), ("challenger", "scored")]
    (run,) = project.sql("SELECT comparison FROM nightshift_runs WHERE run_id = 3")
    found = Comparison.from_json(run.comparison)
    assert (found.rows, found.skipped, found.agreement) == (1000, 0, 1)
    assert [row[0] for row in written(project, 3)] == [i for i in range(1, 1001) if i % 3]


def test_both_are_evaluated(project: Project, candidates: Any) -> None:
    challenge(
        project,
        candidates,
        SAMPLE.assign(id=[1, 2, 3]),
        actuals={"table": "outcomes", "column": "y"},
    )
    score("orders", "2024-03-01")
    project.sql("CREATE TABLE outcomes AS SELECT id, 2 * x AS y FROM orders WHERE id <= 20")
    done = CliRunner().invoke(app, ["evaluate", "orders", "--json"])
    assert done.exit_code == 0, done.output
    champion, challenger = sorted(json.loads(done.output), key=lambda line: line["run_id"])
    assert (champion["model"], champion["role"]) == ("doubler@1", "champion")
    assert (challenger["model"], challenger["role"]) == ("candidate@1", "challenger")
    assert champion["rows"] == challenger["rows"] == 14  # of 20 orders, 6 have no x
    assert (champion["mae"], challenger["mae"]) == (0, pytest.approx(2 / 14))
