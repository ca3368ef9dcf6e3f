"""LightGBM: boosted trees, kept in its text format; native categories and missing values."""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Self

import lightgbm
import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from nightshift.adapters.errors import SignatureMismatch
from nightshift.adapters.models.archive import ArchivedModel, configured, translated
from nightshift.adapters.models.arrays import Features, PredictionArray
from nightshift.adapters.models.class_labels import (
    Label,
    Output,
    both,
    class_labels,
    positions,
    probability_names,
)

_CLASSIFIERS = {"binary", "multiclass", "multiclassova"}
_LABELLED = {"cross_entropy"}  # a classifier's if it has labels
_PREDICTING = ("pred_early_stop", "pred_early_stop_freq", "pred_early_stop_margin")


@dataclass(eq=False, repr=False)
class LightGBMModel(ArchivedModel):
    """A Booster, or one of LightGBM's scikit-learn estimators, of which the Booster is kept.

    `output="predict"` gives values, (m,) float64, and the labels of a classifier;
    `output="predict_proba"` gives float64 probabilities in [0, 1], one column per class, (m, k),
    or only those of `classes`. `labels` are the classes' names in LightGBM's order, by default
    the estimator's own, or 0, 1, ... `predicting` are LightGBM's parameters for predicting, by
    default the estimator's own: `pred_early_stop` and its `_freq` and `_margin`. After early
    stopping the best iteration predicts.
    """

    thread_safe: ClassVar[bool] = True

    booster: Any
    output: Output = "predict"
    classes: tuple[Label, ...] | None = None
    labels: tuple[Label, ...] | None = None
    predicting: dict[str, bool | int | float] | None = None

    def __post_init__(self) -> None:
        self._estimator = None
        if isinstance(self.booster, lightgbm.LGBMModel):
            self._estimator = self.booster
            self._adopt(self.booster)
        header = self.booster.model_to_string(num_iteration=1).partition("\nTree=0")[0]
        objective = re.search(r"^objective=(\w+)", header, re.MULTILINE)
        known = _CLASSIFIERS | (_LABELLED if self.labels else set())
        graded = objective is not None and objective[1] in known and self.labels != ()
        several = self.booster.num_model_per_iteration()
        count = max(several, 2) if graded else 0
        self.labels = class_labels(type(self).__name__, self.labels, count)
        if self.output == "predict_proba":
            self._chosen = positions(type(self).__name__, self.labels, self.classes)
        names = self.booster.feature_name()
        self._names = None if names == [f"Column_{i}" for i in range(len(names))] else names

    def _adopt(self, estimator: lightgbm.LGBMModel) -> None:
        """Take over what the estimator knows in addition to its Booster."""
        parameters = estimator.get_params()
        if self.predicting is None:
            self.predicting = {name: parameters[name] for name in _PREDICTING if name in parameters}
        classifier = isinstance(estimator, lightgbm.LGBMClassifier)
        if self.labels is None and not callable(estimator.objective_):
            self.labels = tuple(np.asarray(estimator.classes_).tolist()) if classifier else ()
        self.booster = estimator.booster_

    def predict_batch(self, features: Features) -> PredictionArray:
        if isinstance(features, pd.DataFrame) and self._names:
            self._check([str(name) for name in features.columns])
        values = np.asarray(self.booster.predict(features, **(self.predicting or {})))
        if self.output == "predict_proba":
            return both(values)[:, self._chosen]
        if not self.labels:
            return values
        labels: PredictionArray = np.asarray(self.labels)[both(values).argmax(axis=1)]
        return labels

    def predict_original(self, features: Features) -> PredictionArray:
        estimator = self._estimator
        if estimator is None or not hasattr(estimator, self.output):  # a Booster
            return self.predict_batch(features)
        found = np.asarray(getattr(estimator, self.output)(features))
        if self.output == "predict_proba":
            return found[:, self._chosen]
        if not self.labels:
            return found
        codes = np.searchsorted(estimator.classes_, found)
        labels: PredictionArray = np.asarray(self.labels)[codes]
        return labels

    def _check(self, columns: Sequence[str]) -> None:
        """LightGBM goes by position alone; its names have underscores for spaces."""
        for found, trained in zip_longest(columns, self._names or ()):
            if found is None or re.sub(r"\s", "_", found) != trained:
                remedy = "Give the columns in the order of the training."
                raise SignatureMismatch(str(trained), str(trained), str(found), remedy)

    def categories(self, features: pd.DataFrame) -> Mapping[str, Collection[Any] | None]:
        """LightGBM keeps those of the columns of category dtype, in their order."""
        names = features.select_dtypes("category").columns
        known = self.booster.pandas_categorical
        return dict.fromkeys(names) if not known else dict(zip(names, known, strict=False))

    @property
    def input_names(self) -> list[str] | None:
        return self._names

    @property
    def output_names(self) -> Sequence[str] | None:
        if self.output == "predict":
            return None
        return probability_names(self.labels or (), self._chosen)

    def files(self) -> Mapping[str, bytes]:
        return {"model.txt": self.booster.model_to_string().encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Any:
        return lightgbm.Booster(model_str=files["model.txt"].decode())

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        with translated(path.name, "read", "Save it with `booster.save_model('model.txt')`."):
            return configured(cls, lightgbm.Booster(model_file=path), settings)
