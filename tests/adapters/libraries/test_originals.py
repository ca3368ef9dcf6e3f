"""What an estimator knows and its adapter does not keep: it predicts the sample first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nightshift.adapters.errors import ConfigurationError, SerializationFailed
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.trust_policy import TrustPolicy
from nightshift.adapters.store.verification import VerifiedModel, verify

RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.normal(size=(300, 4)), columns=list("abcd"))
SUM = (X.a + X.b / 2 + RNG.normal(size=300) / 5).to_numpy()
TARGETS: dict[str, Any] = {
    "real": SUM,
    "positive": np.exp(SUM / 2),
    "share": 1 / (1 + np.exp(-SUM)),
    "two": (SUM > 0).astype(int),
    "three": np.digitize(SUM, [-0.5, 0.5]),
    "words": np.array(["no", "yes"])[(SUM > 0).astype(int)],
    "species": np.array(["a", "b", "c"])[np.digitize(SUM, [-0.5, 0.5])],
    "labels": np.column_stack([SUM > 0, X.c > 0, X.d > 0.3]).astype(int),
    "pair": np.column_stack([SUM, -SUM]),
}
GROUPS = np.repeat(range(30), 10)


def gradient(truth: Any, values: Any) -> tuple[Any, Any]:
    """A custom objective: the estimator's predictions are margins."""
    return 1 / (1 + np.exp(-values)) - truth, np.ones(len(truth))


def registered(model: Model, rows: pd.DataFrame = X) -> VerifiedModel:
    return verify(model, rows, TrustPolicy(pickle="always"))


def assert_same(model: Model, expected: Any, rows: pd.DataFrame = X) -> None:
    """What its bytes predict is what the estimator does."""
    found = registered(model, rows)
    copy = type(model).deserialize(found.data)
    kept = found.signature.predictions(copy.predict_batch(rows), len(rows))
    expected = found.signature.predictions(expected, len(rows))
    assert kept.num_columns == expected.num_columns
    for name in kept.column_names:
        np.testing.assert_allclose(*(_numbers(table[name]) for table in (kept, expected)), 1e-5)


def _numbers(values: pa.ChunkedArray) -> Any:
    array = values.to_numpy()
    return pd.factorize(array, sort=True)[0] if array.dtype == object else array


# --- XGBoost ------------------------------------------------------------------------------------

REGRESSIONS = {
    "reg:squarederror": "real", "reg:squaredlogerror": "positive", "reg:logistic": "share",
    "reg:pseudohubererror": "real", "reg:absoluteerror": "real", "count:poisson": "positive",
    "reg:gamma": "positive", "reg:tweedie": "positive", "survival:cox": "positive",
    "binary:logistic": "two", "binary:logitraw": "two", "binary:hinge": "two",
}  # fmt: skip


@pytest.mark.parametrize(("objective", "target"), REGRESSIONS.items())
def test_xgboost_regressor(objective: str, target: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    trees = xgboost.XGBRegressor(n_estimators=5, objective=objective).fit(X, TARGETS[target])
    assert_same(XGBoostModel(trees), trees.predict(X))


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("two", {}),
        ("two", {"objective": "binary:logitraw"}),
        ("two", {"objective": "binary:hinge"}),
        ("two", {"objective": "reg:logistic"}),
        ("two", {"objective": gradient}),
        ("two", {"booster": "dart"}),
        ("two", {"booster": "gblinear"}),
        ("three", {}),
        ("three", {"objective": "multi:softmax"}),
        ("labels", {}),
        ("labels", {"multi_strategy": "multi_output_tree"}),
    ],
)
def test_xgboost_classifier(target: str, settings: dict[str, Any], method: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    trees = xgboost.XGBClassifier(n_estimators=5, **settings).fit(X, TARGETS[target])
    values = isinstance(settings.get("objective"), str)  # those above have no probabilities
    if method == "predict_proba" and values:
        with pytest.raises(ConfigurationError, match="no probabilities"):
            XGBoostModel(trees, "predict_proba")
        return
    assert_same(XGBoostModel(trees, method), getattr(trees, method)(X))  # type: ignore[arg-type]


def test_a_number_for_missing_values_goes_with_the_model(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    rows = X.where(X > -0.5, -999.0)
    trees = xgboost.XGBClassifier(n_estimators=10, missing=-999).fit(rows, TARGETS["two"])
    plain = trees.get_booster().inplace_predict(rows) > 0.5
    assert (plain != trees.predict(rows)).any()  # it matters
    for method in ("predict", "predict_proba"):
        assert_same(XGBoostModel(trees, method), getattr(trees, method)(rows), rows)  # type: ignore[arg-type]
    trees.save_model(tmp_path / "model.ubj")
    read = XGBoostModel.from_file(tmp_path / "model.ubj", {"missing": -999})
    np.testing.assert_array_equal(read.predict_batch(rows), trees.predict(rows))


def test_a_file_says_that_it_is_a_classifier(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    for settings in ({"objective": "binary:logitraw"}, {}):
        target = TARGETS["two"] if settings else TARGETS["labels"]
        trees = xgboost.XGBClassifier(n_estimators=5, **settings).fit(X, target)
        trees.save_model(tmp_path / "model.ubj")
        read = XGBoostModel.from_file(tmp_path / "model.ubj", {})
        np.testing.assert_array_equal(read.predict_batch(X), trees.predict(X))


# --- LightGBM -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("words", {}),
        ("words", {"objective": "cross_entropy"}),
        ("words", {"boosting_type": "dart"}),
        ("species", {}),
        ("species", {"objective": "multiclassova"}),
        ("two", {"objective": gradient}),
        ("words", {"pred_early_stop": True, "pred_early_stop_freq": 1}),
        (
            "species",
            {"pred_early_stop": True, "pred_early_stop_freq": 1, "pred_early_stop_margin": 0.1},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Cannot compute class probabilities")
def test_lightgbm_classifier(target: str, settings: dict[str, Any], method: str) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    kind = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=2, **settings)
    trees = kind.fit(X, TARGETS[target])
    if method == "predict_proba" and settings.get("objective") is gradient:
        with pytest.raises(ConfigurationError, match="no probabilities"):
            LightGBMModel(trees, "predict_proba")
        return
    assert_same(LightGBMModel(trees, method), getattr(trees, method)(X))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objective", "target"),
    [
        ("huber", "real"), ("quantile", "real"), ("mape", "positive"), ("poisson", "positive"),
        ("gamma", "positive"), ("tweedie", "positive"), ("cross_entropy", "share"),
        ("cross_entropy_lambda", "share"), ("binary", "two"),
    ],
)  # fmt: skip
def test_lightgbm_regressor(objective: str, target: str) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    kind = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=2, objective=objective)
    trees = kind.fit(X, TARGETS[target])
    assert_same(LightGBMModel(trees), trees.predict(X))


# --- CatBoost -----------------------------------------------------------------------------------

CATBOOST = {"iterations": 5, "verbose": False, "allow_writing_files": False, "thread_count": 2}


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        ("MAE", "real"), ("LogLinQuantile:alpha=0.3", "positive"), ("Poisson", "positive"),
        ("Tweedie:variance_power=1.5", "positive"), ("RMSEWithUncertainty", "real"),
        ("MultiQuantile:alpha=0.2,0.8", "real"), ("MultiRMSE", "pair"), ("Cox", "positive"),
    ],
)  # fmt: skip
def test_catboost_regressor(loss: str, target: str) -> None:
    catboost = pytest.importorskip("catboost")
    from nightshift.adapters.libraries.catboost import CatBoostModel

    trees = catboost.CatBoostRegressor(**CATBOOST, loss_function=loss).fit(X, TARGETS[target])
    assert_same(CatBoostModel(trees), trees.predict(X))


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize(
    ("loss", "target"),
    [
        ("Logloss", "words"), ("CrossEntropy", "share"), ("MultiClass", "species"),
        ("MultiClassOneVsAll", "species"), ("MultiLogloss", "labels"),
    ],
)  # fmt: skip
def test_catboost_classifier(loss: str, target: str, method: str) -> None:
    catboost = pytest.importorskip("catboost")
    from nightshift.adapters.libraries.catboost import CatBoostModel

    trees = catboost.CatBoostClassifier(**CATBOOST, loss_function=loss).fit(X, TARGETS[target])
    assert_same(CatBoostModel(trees, method), getattr(trees, method)(X))  # type: ignore[arg-type]


def test_rankers() -> None:
    catboost, lightgbm, xgboost = map(pytest.importorskip, ("catboost", "lightgbm", "xgboost"))
    from nightshift.adapters.libraries.catboost import CatBoostModel
    from nightshift.adapters.libraries.lightgbm import LightGBMModel
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    target = TARGETS["three"]
    one = catboost.CatBoostRanker(**CATBOOST).fit(X, target, group_id=GROUPS)
    assert_same(CatBoostModel(one), one.predict(X))
    two = lightgbm.LGBMRanker(n_estimators=5, verbose=-1).fit(X, target, group=[10] * 30)
    assert_same(LightGBMModel(two), two.predict(X))
    three = xgboost.XGBRanker(n_estimators=5).fit(X, target, qid=GROUPS)
    assert_same(XGBoostModel(three), three.predict(X))


# --- what cannot be carried is refused ----------------------------------------------------------


def lightgbm_subclass() -> Model:
    lightgbm = pytest.importorskip("lightgbm")
    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    class Doubled(lightgbm.LGBMRegressor):  # type: ignore[misc, name-defined]
        def predict(self, *args: Any, **settings: Any) -> Any:
            return super().predict(*args, **settings) * 2

    return LightGBMModel(Doubled(n_estimators=5, verbose=-1).fit(X, SUM))


def catboost_subclass() -> Model:
    catboost = pytest.importorskip("catboost")
    from nightshift.adapters.libraries.catboost import CatBoostModel

    class Doubled(catboost.CatBoostRegressor):  # type: ignore[misc, name-defined]
        def predict(self, *args: Any, **settings: Any) -> Any:
            return super().predict(*args, **settings) * 2

    return CatBoostModel(Doubled(**CATBOOST).fit(X, SUM))


def module_with_a_temperature() -> Model:
    torch = pytest.importorskip("torch")
    from nightshift.adapters.libraries.pytorch import StateDictModel

    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.temperature = torch.nn.Linear(4, 1), 1.0

        def forward(self, rows: Any) -> Any:
            return self.linear(rows) / self.temperature

    class Scaled(StateDictModel):
        architecture = Network

    network = Network()
    network.temperature = 2.0
    return Scaled(network)


@pytest.mark.parametrize("make", [lightgbm_subclass, catboost_subclass, module_with_a_temperature])
def test_what_an_adapter_would_lose_is_refused(make: Callable[[], Model]) -> None:
    with pytest.raises(SerializationFailed, match=r"differs in 300 of 300 rows, first in row 0: "):
        registered(make())
