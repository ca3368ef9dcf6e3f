"""Models that record their calls or misbehave on purpose; and chunks for them."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.preprocessing import OrdinalEncoder
from sklearn.tree import DecisionTreeRegressor

from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.model import Model
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.models.tolerance import Tolerance
from nightshift.adapters.store.manifest import Blob, GoldenBlob, Manifest

WORDS = ("apfel", "birne", "クルミ")


class Watched(Model):
    """Wraps a model: calls `before` ahead of each batch; `calls` has the batch sizes."""

    def __init__(self, model: Model, before: Callable[[Any], None] = lambda _: None) -> None:
        self.model, self.before = model, before
        self.calls: list[int] = []

    def predict_batch(self, features: Any) -> Any:
        self.calls.append(len(features))
        self.before(features)
        return self.model.predict_batch(features)


class ThreadSafe(Watched):
    thread_safe = True


class Twice(Model):
    """2 x."""

    def predict_batch(self, features: Any) -> Any:
        return 2.0 * features["x"].to_numpy()


class MeanOfWord(RegressorMixin, BaseEstimator):
    """Predicts a word's mean, and nothing for a word that it has not seen."""

    def fit(self, X: pd.DataFrame, y: Any) -> "MeanOfWord":  # noqa: N803
        self.feature_names_in_ = np.array(list(X.columns), dtype=object)
        self.means_ = pd.Series(np.asarray(y)).groupby(X["word"].to_numpy()).mean()
        return self

    def predict(self, X: pd.DataFrame) -> Any:  # noqa: N803
        return X["word"].map(self.means_).to_numpy()


class TreeOfWords(RegressorMixin, BaseEstimator):
    """A tree behind an encoder, which cannot take a word that it has not seen."""

    def fit(self, X: pd.DataFrame, y: Any) -> "TreeOfWords":  # noqa: N803
        self.feature_names_in_ = np.array(list(X.columns), dtype=object)
        self.encoder_ = OrdinalEncoder().fit(X[["word"]])
        self.tree_ = DecisionTreeRegressor(random_state=0).fit(self._numbers(X), y)
        return self

    def predict(self, X: pd.DataFrame) -> Any:  # noqa: N803
        return self.tree_.predict(self._numbers(X))

    def _numbers(self, X: pd.DataFrame) -> Any:  # noqa: N803
        return np.column_stack([X["x"], self.encoder_.transform(X[["word"]])])


class Hanging:
    """Calls that hang, with a clock that only they move, so that no test has to wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self._release, self._before = threading.Event(), set(threading.enumerate())

    def here(self, _: Any = None) -> None:
        """Take a hundred seconds, then block until the test ends."""
        self.now += 100.0
        self._release.wait(60)

    def end(self) -> None:
        """Release the calls that hang. Fails if a thread that calls models is left."""
        self._release.set()
        for thread in set(threading.enumerate()) - self._before:
            if thread.name == "predict":  # Prefect's own threads stay
                thread.join(10)
                assert not thread.is_alive()


def chunk(rows: int, first: int = 0, **columns: Any) -> pa.Table:
    """Orders `first`, `first + 1`, ...: key `id`, the times, and the inputs x and word."""
    ids = np.arange(first, first + rows)
    given = {
        "id": pa.array(ids, pa.int64()),
        "partition_time": pa.array(
            [datetime(2024, 3, 1, tzinfo=UTC)] * rows, pa.timestamp("us", "UTC")
        ),
        "x": pa.array(ids / 7.0, pa.float64()),
        "word": pa.array([WORDS[i % 3] for i in ids], pa.string()),
    }
    return pa.table({**given, **columns})


def sample(rows: int = 60) -> pd.DataFrame:
    return pd.DataFrame(chunk(rows).select(["x", "word"]).to_pandas())


def trained(estimator: Any) -> SklearnModel:
    """The estimator, fitted to the sample."""
    return SklearnModel(estimator.fit(sample(), sample().x * 3))


def manifest(model: Model, version: int = 3, **signature: Any) -> Manifest:
    """As if the model had been registered with the sample; or with parts of the signature given."""
    bare = model.model if isinstance(model, Watched) else model
    taken = Signature.from_sample(sample(), bare.predict_batch(sample()), bare.output_names)
    return Manifest(
        name="orders", version=version, adapter="sklearn",
        blob=Blob(digest="0" * 64, size=1), profile=Blob(digest="0" * 64, size=1),
        signature=taken.model_copy(update=signature),
        golden=GoldenBlob(digest="0" * 64, size=1, rows=1), tolerance=Tolerance(relative=0),
        libraries={}, created_at=datetime.now(UTC), created_by="a test", metrics={},
        description="", trained_through=None, token="",
    )  # fmt: skip
