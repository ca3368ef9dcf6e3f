"""What an estimator takes, settled when it is registered: a frame, an array, one column."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from nightshift.adapters.errors import ConfigurationError, NightshiftError
from nightshift.adapters.libraries.sklearn import SklearnModel

RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.normal(size=(300, 3)), columns=["a", "b", "c"])
LATE = (X.a * 3 + X.b > 0).astype(int)
LABELS = np.column_stack([LATE, X.c > 0]).astype(int)
TEXTS = pd.DataFrame({"text": ["late train", "sunny day", "late again"] * 40})
TOPIC = np.array(["delay", "weather", "delay"] * 40)
TURNED = X[["c", "b", "a"]]


class Ratio(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Works by name, as people write them."""

    def fit(self, rows: Any, target: Any = None) -> "Ratio":
        self.fitted_ = True
        return self

    def transform(self, rows: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"ratio": rows["a"] / (1 + rows["b"].abs()), "c": rows["c"]})


class Either(Ratio):
    """Works by name, and by position where there are no names."""

    def transform(self, rows: Any) -> Any:
        if isinstance(rows, pd.DataFrame):
            return rows[["a", "b"]].to_numpy()
        return np.asarray(rows)[:, 1:]


class Same(Ratio):
    """Passes on what it gets."""

    def transform(self, rows: Any) -> Any:
        return rows


def scored(folder: Any, model: SklearnModel, sample: pd.DataFrame) -> Any:
    """What the registered version predicts for the sample as a database has it."""
    store = folder.open()
    manifest = store.register("m", model, sample)
    loaded = store.load(manifest)
    features = manifest.signature.features(manifest.signature.table(sample))
    return manifest, loaded.predict_batch(features)


@pytest.mark.parametrize("search", [False, True])
def test_another_order_is_put_right(folder: Any, search: bool) -> None:
    line = make_pipeline("passthrough", LogisticRegression())
    line = GridSearchCV(line, {}, cv=2) if search else line
    line.fit(X, LATE)
    manifest, found = scored(folder, SklearnModel(line), TURNED)
    assert manifest.signature.input_names == ["a", "b", "c"]
    assert manifest.form == "frame"
    np.testing.assert_array_equal(found, line.predict(X))


def test_another_order_is_refused_where_only_a_later_step_knows_it(folder: Any) -> None:
    line = make_pipeline(Same(), LogisticRegression()).fit(X, LATE)
    with pytest.raises(NightshiftError, match="feature names should match"):
        folder.open().register("m", SklearnModel(line), TURNED)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda line: line,
        lambda line: GridSearchCV(line, {}, cv=2),
        lambda line: VotingClassifier([("one", line)], voting="soft"),
        lambda line: StackingClassifier([("one", line)], cv=2),
        lambda line: make_pipeline(FeatureUnion([("one", Ratio())]), LogisticRegression()),
    ],
)
def test_a_first_step_of_ones_own_gets_a_frame(folder: Any, wrapped: Any) -> None:
    estimator = wrapped(make_pipeline(Ratio(), StandardScaler(), LogisticRegression()))
    estimator.fit(X, LATE)
    manifest, found = scored(folder, SklearnModel(estimator), X)
    assert manifest.form == "frame"
    np.testing.assert_array_equal(found, estimator.predict(X))


def test_a_transformed_target(folder: Any) -> None:
    estimator = TransformedTargetRegressor(make_pipeline(Ratio(), LinearRegression()))
    estimator.fit(X, X.a * 2)
    _, found = scored(folder, SklearnModel(estimator), X)
    np.testing.assert_allclose(found, estimator.predict(X))


def test_two_forms_with_other_predictions_are_refused(folder: Any) -> None:
    line = make_pipeline(Either(), LogisticRegression()).fit(X, LATE)
    with pytest.raises(ConfigurationError, match="a frame and an array"):
        folder.open().register("m", SklearnModel(line), X)
    _, found = scored(folder, SklearnModel(line, takes="frame"), X)
    np.testing.assert_array_equal(found, line.predict(X))


@pytest.mark.parametrize("search", [False, True])
def test_texts_are_one_column(folder: Any, search: bool) -> None:
    line = make_pipeline(TfidfVectorizer(), LogisticRegression())
    line = GridSearchCV(line, {}, cv=2) if search else line
    line.fit(TEXTS.text, TOPIC)
    manifest, found = scored(folder, SklearnModel(line), TEXTS)
    assert manifest.form == "column"
    np.testing.assert_array_equal(found, line.predict(TEXTS.text))


def test_sparse_results_are_columns(folder: Any) -> None:
    kinds = pd.DataFrame({"kind": ["a", "b", "c"] * 20})
    encoder = OneHotEncoder(handle_unknown="ignore").fit(kinds)
    manifest, found = scored(folder, SklearnModel(encoder, "transform"), kinds)
    np.testing.assert_array_equal(found, encoder.transform(kinds).toarray())
    inputs, _ = folder.open()._golden(
        manifest, folder.open().fetch(manifest.model_copy(update={"blob": manifest.golden}))
    )
    assert "" in inputs["kind"].to_pylist()  # the model takes it


@pytest.mark.parametrize(
    "estimator",
    [
        MultiOutputClassifier(LogisticRegression()),
        ClassifierChain(LogisticRegression()),
        GaussianMixture(2, random_state=0),
    ],
)
def test_probabilities_of_several_labels_and_of_mixtures(folder: Any, estimator: Any) -> None:
    estimator.fit(X, LABELS)
    _, found = scored(folder, SklearnModel(estimator, "predict_proba"), X)
    expected = estimator.predict_proba(X)
    expected = np.hstack(expected) if isinstance(expected, list) else expected
    np.testing.assert_allclose(found, expected)
