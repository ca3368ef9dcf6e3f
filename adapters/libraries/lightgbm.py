"""LightGBM: boosted trees, kept in its text format; native categories and missing values."""

import re
from collections.abc import Mapping, Sequence
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


@dataclass(eq=False, repr=False)
class LightGBMModel(ArchivedModel):
    """A Booster, or one of LightGBM's scikit-learn estimators, of which the Booster is kept.

    `output="predict"` gives values, (m,) float64, and the labels of a classifier;
    `output="predict_proba"` gives float64 probabilities in [0, 1], one column per class, (m, k),
    or only those of `classes`. `labels` are the classes' names in LightGBM's order, by default
    the estimator's own, or 0, 1, ... After early stopping the best iteration predicts.
    """

    thread_safe: ClassVar[bool] = True

    booster: Any
    output: Output = "predict"
    classes: tuple[Label, ...] | None = None
    labels: tuple[Label, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.booster, lightgbm.LGBMModel):
            if self.labels is None and isinstance(self.booster, lightgbm.LGBMClassifier):
                self.labels = tuple(np.asarray(self.booster.classes_).tolist())
            self.booster = self.booster.booster_
        header = self.booster.model_to_string(num_iteration=1).partition("\nTree=0")[0]
        objective = re.search(r"^objective=(\w+)", header, re.MULTILINE)
        self._graded = objective is not None and objective[1] in _CLASSIFIERS
        several = self.booster.num_model_per_iteration()
        count = max(several, 2) if self._graded else 0
        self.labels = class_labels(type(self).__name__, self.labels, count)
        if self.output == "predict_proba":
            self._chosen = positions(type(self).__name__, self.labels, self.classes)
        names = self.booster.feature_name()
        self._names = None if names == [f"Column_{i}" for i in range(len(names))] else names

    def predict_batch(self, features: Features) -> PredictionArray:
        if isinstance(features, pd.DataFrame) and self._names:
            self._check([str(name) for name in features.columns])
        values = np.asarray(self.booster.predict(features))
        if self.output == "predict_proba":
            return both(values)[:, self._chosen]
        if not self.labels:
            return values
        labels: PredictionArray = np.asarray(self.labels)[both(values).argmax(axis=1)]
        return labels

    def _check(self, columns: Sequence[str]) -> None:
        """LightGBM goes by position alone; its names have underscores for spaces."""
        for found, trained in zip_longest(columns, self._names or ()):
            if found is None or re.sub(r"\s", "_", found) != trained:
                remedy = "Give the columns in the order of the training."
                raise SignatureMismatch(str(trained), str(trained), str(found), remedy)

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
