"""Which of the sample's columns become inputs, and what is said of a small sample."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nightshift.adapters.errors import SignatureUndefined
from nightshift.adapters.libraries.sklearn import SklearnModel

FRAME = pd.DataFrame(
    {"id": range(600), "b": np.arange(600.0), "a": np.arange(600.0) % 7, "late": [0, 1] * 300}
)
NAMES = ["a", "b"]


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2),
    ],
)
def test_inputs_are_what_the_estimator_was_fitted_on(folder: Any, estimator: Any) -> None:
    fitted = estimator.fit(FRAME[NAMES], FRAME["late"])
    manifest = folder.open().register("delay", SklearnModel(fitted), FRAME, target="late")
    assert manifest.signature.input_names == NAMES
    assert manifest.left_out == ("id", "late")
    assert manifest.warnings == ()
    assert folder.open().resolve("delay@1") == manifest


def test_without_names_the_target_alone_is_left_out(folder: Any) -> None:
    fitted = LinearRegression().fit(FRAME[["id", "b", "a"]].to_numpy(), FRAME["late"])
    manifest = folder.open().register("delay", SklearnModel(fitted), FRAME, target="late")
    assert manifest.signature.input_names == ["id", "b", "a"]
    assert manifest.left_out == ("late",)


@pytest.mark.parametrize(
    ("columns", "target", "says"),
    [
        (["id", "b"], None, "it lacks a; the model reads a, b; the sample has id, b"),
        (["a", "b"], "late", "there is no such column; the sample has a, b"),
        (["a", "b"], "b", "the model was fitted on it as an input"),
    ],
)
def test_a_sample_of_other_columns_is_refused(
    folder: Any, columns: list[str], target: str | None, says: str
) -> None:
    model = SklearnModel(LinearRegression().fit(FRAME[NAMES], FRAME["late"]))
    store = folder.open()
    with pytest.raises(SignatureUndefined, match=says):
        store.register("delay", model, FRAME[columns], target=target)
    assert store.versions("delay") == []


@pytest.mark.parametrize(
    ("rows", "judged"), [(5, "ranges and unseen categories"), (300, "by drift and shares")]
)
def test_a_small_sample_is_warned_of(folder: Any, rows: int, judged: str) -> None:
    model = SklearnModel(LinearRegression().fit(FRAME[NAMES], FRAME["late"]))
    (warning,) = folder.open().register("delay", model, FRAME[NAMES].head(rows)).warnings
    assert f"The sample has {rows} rows" in warning
    assert judged in warning
