"""A category that the sample lacks: what it means is up to the library."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from nightshift.adapters.errors import SignatureUndefined
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.trust_policy import TrustPolicy
from nightshift.adapters.store.verification import VerifiedModel, verify

RNG = np.random.default_rng(0)
TRAIN = pd.DataFrame(
    {"kind": pd.Categorical(RNG.choice(list("abcd"), 400)), "x": RNG.normal(size=400)}
)
TARGET = TRAIN.kind.cat.codes.to_numpy() * 10.0 + TRAIN.x.to_numpy()
SAMPLE = TRAIN[TRAIN.kind != "a"].assign(kind=lambda rows: rows.kind.cat.remove_unused_categories())
OTHERS = SAMPLE.assign(kind=pd.Categorical(["1", "2"] * 200)[: len(SAMPLE)])


def histogram() -> tuple[Any, Model]:
    trees = HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=10)
    trees.fit(TRAIN, TARGET)
    return trees, SklearnModel(trees)


def one_hot() -> tuple[Any, Model]:
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoded = make_column_transformer((encoder, ["kind"]), remainder="passthrough")
    line = make_pipeline(encoded, Ridge()).fit(TRAIN, TARGET)
    return line, SklearnModel(line)


def xgboost() -> tuple[Any, Model]:
    library = pytest.importorskip("xgboost")
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    trees = library.XGBRegressor(n_estimators=10, enable_categorical=True).fit(TRAIN, TARGET)
    return trees, XGBoostModel(trees)


def lightgbm() -> tuple[Any, Model]:
    library = pytest.importorskip("lightgbm")
    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    trees = library.LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=2).fit(TRAIN, TARGET)
    return trees, LightGBMModel(trees)


def catboost() -> tuple[Any, Model]:
    library = pytest.importorskip("catboost")
    from nightshift.adapters.libraries.catboost import CatBoostModel

    quiet = {"verbose": False, "allow_writing_files": False, "thread_count": 2}
    trees = library.CatBoostRegressor(iterations=10, cat_features=["kind"], **quiet)
    trees.fit(TRAIN, TARGET)
    return trees, CatBoostModel(trees)


ALL = [histogram, one_hot, xgboost, lightgbm, catboost]


def registered(model: Model, sample: pd.DataFrame) -> VerifiedModel:
    return verify(model, sample, TrustPolicy(pickle="always"))


def scored(model: Model, sample: pd.DataFrame, rows: pd.DataFrame) -> Any:
    """What the registered bytes predict for rows of a database."""
    found = registered(model, sample)
    table = found.signature.table(rows.astype({"kind": object}))
    copy = type(model).deserialize(found.data)
    return copy.predict_batch(found.signature.features(table))


@pytest.mark.parametrize("make", ALL)
def test_a_category_that_only_the_model_knows(make: Callable[[], tuple[Any, Model]]) -> None:
    original, model = make()
    np.testing.assert_allclose(scored(model, SAMPLE, TRAIN), original.predict(TRAIN), 1e-5)


@pytest.mark.parametrize("make", [histogram, one_hot, lightgbm, catboost])
def test_a_category_that_is_unknown(make: Callable[[], tuple[Any, Model]]) -> None:
    original, model = make()
    unseen = TRAIN.assign(kind=pd.Categorical(["zz"] * len(TRAIN)))
    np.testing.assert_allclose(scored(model, SAMPLE, unseen), original.predict(unseen), 1e-5)


def test_xgboost_refuses_a_category_that_it_does_not_know() -> None:
    unseen = TRAIN.assign(kind=pd.Categorical(["zz"] * len(TRAIN)))
    with pytest.raises(ValueError, match="Found a category not in the training set") as raised:
        scored(xgboost()[1], SAMPLE, unseen)
    assert "Stack trace" not in str(raised.value)


@pytest.mark.parametrize("make", [histogram, one_hot, lightgbm])
def test_a_sample_of_other_categories_is_refused(make: Callable[[], tuple[Any, Model]]) -> None:
    with pytest.raises(SignatureUndefined, match=r"'kind'.*none of the model's own categories"):
        registered(make()[1], OTHERS)


def codes() -> pd.DataFrame:
    return TRAIN.assign(kind=TRAIN.kind.cat.codes.astype("int64"))


def xgboost_codes() -> Model:
    library = pytest.importorskip("xgboost")
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    kinds = {"feature_names": ["kind", "x"], "feature_types": ["c", "q"]}
    data = library.DMatrix(codes().to_numpy(), TARGET, enable_categorical=True, **kinds)
    return XGBoostModel(library.train({}, data, 10))


def lightgbm_codes() -> Model:
    library = pytest.importorskip("lightgbm")
    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    kinds = {"feature_name": ["kind", "x"], "categorical_feature": [0]}
    data = library.Dataset(codes().to_numpy(), TARGET, params={"verbose": -1}, **kinds)
    return LightGBMModel(library.train({"verbose": -1, "num_threads": 2}, data, 10))


@pytest.mark.parametrize("make", [xgboost_codes, lightgbm_codes])
def test_a_model_that_knows_only_codes(make: Callable[[], Model]) -> None:
    model = make()
    for sample in (SAMPLE, TRAIN):  # the second has the right codes, which nothing can tell
        with pytest.raises(SignatureUndefined, match="only by their codes"):
            registered(model, sample)
    rows = codes()
    found = registered(model, rows[rows.kind > 0])
    features = found.signature.features(found.signature.table(rows))
    np.testing.assert_array_equal(model.predict_batch(features), model.predict_batch(rows))
