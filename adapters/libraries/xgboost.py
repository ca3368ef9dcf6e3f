"""XGBoost: boosted trees, kept as UBJSON; native categories and missing values."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import xgboost
from pydantic.dataclasses import dataclass

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


@dataclass(eq=False, repr=False)
class XGBoostModel(ArchivedModel):
    """A Booster, or one of XGBoost's scikit-learn estimators, of which the Booster is kept.

    `output="predict"` gives values, (m,) float32, or (m, k) for several targets or quantiles, and
    the labels of a classifier; `output="predict_proba"` gives float32 probabilities in [0, 1],
    one column per class, (m, k), or only those of `classes`. `labels` are the classes' names in
    XGBoost's order, by default 0, 1, ...; `names` names the k columns of values. After early
    stopping the best iteration predicts.
    """

    thread_safe: ClassVar[bool] = True

    booster: Any
    output: Output = "predict"
    classes: tuple[Label, ...] | None = None
    labels: tuple[Label, ...] | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.booster, xgboost.XGBModel):
            self.booster = self.booster.get_booster()
        learner = json.loads(self.booster.save_config())["learner"]
        shape, objective = learner["learner_model_param"], learner["objective"]["name"]
        binary = objective == "binary:logistic" and shape["num_target"] == "1"
        count = 2 if binary else int(shape["num_class"])
        self.labels = class_labels(type(self).__name__, self.labels, count)
        self._graded = binary or objective == "multi:softprob"  # multi:softmax has only labels
        if self.output == "predict_proba":
            known = self.labels if self._graded else ()
            self.chosen = positions(type(self).__name__, known, self.classes)
        self._linear = learner["gradient_booster"]["name"] == "gblinear"
        best = self.booster.attr("best_iteration")
        self.iterations = self.booster.num_boosted_rounds() if best is None else int(best) + 1

    def predict_batch(self, features: Features) -> PredictionArray:
        values = self._values(features)
        if self.output == "predict_proba":
            return both(values)[:, self.chosen]
        if not self.labels:
            return values
        where = both(values).argmax(axis=1) if self._graded else values.astype(np.intp)
        labels: PredictionArray = np.asarray(self.labels)[where]
        return labels

    def _values(self, features: Features) -> PredictionArray:
        if self.booster.feature_names is None or not isinstance(features, pd.DataFrame):
            features = np.asarray(features)
        if self._linear:  # it cannot predict in place
            matrix = xgboost.DMatrix(features)
            return np.asarray(self.booster.predict(matrix, iteration_range=(0, self.iterations)))
        values = self.booster.inplace_predict(features, iteration_range=(0, self.iterations))
        return np.asarray(values)

    @property
    def input_names(self) -> list[str] | None:
        names: list[str] | None = self.booster.feature_names
        return names

    @property
    def output_names(self) -> Sequence[str] | None:
        if self.output == "predict":
            return self.names
        return probability_names(self.labels or (), self.chosen)

    def files(self) -> Mapping[str, bytes]:
        return {"model.ubj": bytes(self.booster.save_raw("ubj"))}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Any:
        return xgboost.Booster(model_file=bytearray(files["model.ubj"]))

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        with translated(path.name, "read", "Save it with `save_model('model.ubj')`."):
            return configured(cls, xgboost.Booster(model_file=path), settings)
